"""Taking evidence away: an object's pixels are blurred, everything else stays as it is (explain.md, section 4)."""

from __future__ import annotations

import cv2
import numpy as np

from tissuetalk.models.diagnosis.patch_bag import WORK_PX, Mask
from tissuetalk.models.interface import RGB

SIGMA_PX = 20.0
"""Of the Gaussian, in pixels of a patch 1024 px wide; smaller patches get proportionally less."""
SIGMAS_PX = (5.0, 10.0, 20.0, 40.0)
"""For a sensitivity run."""


def blurred_where(patch: RGB, mask: Mask, sigma_px: float = SIGMA_PX) -> RGB:
    """[S, S, 3] with the masked pixels replaced by those of the blurred patch; the edge of the mask is hard."""
    soft = cv2.GaussianBlur(patch, (0, 0), sigma_px * patch.shape[0] / WORK_PX, borderType=cv2.BORDER_REFLECT)
    return np.where(mask[..., None], soft, patch).astype(np.uint8)
