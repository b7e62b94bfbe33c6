"""Taking evidence away: an object's pixels are blurred, everything else stays as it is (explain.md, section 4)."""

from __future__ import annotations

import cv2
import numpy as np

from tissuetalk.models.classifiers.patch_bag import Mask
from tissuetalk.models.classifiers.patches import PATCH_PX, PATCH_UM
from tissuetalk.models.segmenter import RGB

_UM = PATCH_UM / PATCH_PX

SIGMA_PX = 20.0
"""Of the Gaussian, in pixels of 0.25 µm: 5 µm of tissue, whatever the size of a patch."""
SIGMAS_PX = (5.0, 10.0, 20.0, 40.0)
"""For a sensitivity run."""


def blurred_where(patch: RGB, mask: Mask, sigma_px: float = SIGMA_PX, *, width_um: float = PATCH_UM) -> RGB:
    """[S, S, 3] with the masked pixels replaced by those of the blurred patch; the edge of the mask is hard.

    sigma_px: in pixels of 0.25 µm. width_um: what the patch spans; by default 256 µm, where it is 1024 such pixels.
    """
    sigma = sigma_px * _UM * patch.shape[0] / width_um
    soft = cv2.GaussianBlur(patch, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return np.where(mask[..., None], soft, patch).astype(np.uint8)
