"""What to warn about before anyone trusts a mask: wrong kind of picture, blur, a mask that is everything."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.tools.answers.results import Warned
from tissuetalk.tools.masks.tissue import tissue_mask

LEAST_TISSUE = 0.01
LEAST_STAIN_LIKE = 0.5
"""Share of coloured tissue pixels that lie between blue-violet and red-pink, as H&E and PAS do.

    Measured: at least 0.73 on 13 annotated histology sets (pale fat down to 0.39), at most 0.43 on 24 other pictures."""
LEAST_SHARPNESS = 5.0
"""Variance of the Laplacian over tissue, on a view of at most 1024 px; focus is lost below it."""
COVERS_EVERYTHING = 0.97


def stain_like_share(view: NDArray[np.uint8]) -> float:
    """Share of tissue pixels with a hue that haematoxylin, eosin or PAS can give, weighted by saturation."""
    tissue = tissue_mask(view)
    hsv = cv2.cvtColor(view, cv2.COLOR_RGB2HSV)
    hue, saturation = hsv[..., 0].astype(int) * 2, hsv[..., 1].astype(np.float32) / 255
    weight = saturation * tissue
    total = float(weight.sum())
    if total < LEAST_TISSUE * weight.size * 0.1:
        return 0.0
    stained = (hue >= 215) | (hue <= 8)
    return float(weight[stained].sum()) / total


def picture_warnings(view: NDArray[np.uint8]) -> list[Warned]:
    """not_histology and blurred, judged on a view of the whole image (longest side about 1024 px)."""
    warnings: list[Warned] = []
    tissue = tissue_mask(view)
    if tissue.mean() < LEAST_TISSUE:
        warnings.append(
            Warned(code="not_histology", message="almost all of the image is empty glass or one colour.")
        )
        return warnings
    share = stain_like_share(view)
    if share < LEAST_STAIN_LIKE or _dark_field(view):
        warnings.append(
            Warned(
                code="not_histology",
                message=f"only {share:.0%} of the coloured pixels look like H&E or PAS; masks are not to be trusted. "
                "Check that this is a bright-field histology image.",
            )
        )
    if (sharpness := _sharpness(view, tissue)) < LEAST_SHARPNESS:
        warnings.append(
            Warned(
                code="blurred",
                message=f"the tissue looks out of focus (sharpness {sharpness:.0f}); small objects get lost.",
            )
        )
    return warnings


def _dark_field(view: NDArray[np.uint8]) -> bool:
    """Fluorescence and dark-field pictures have black where bright field has white."""
    brightness = view.max(axis=2)
    return bool((brightness < 25).mean() > 0.3)


def _sharpness(view: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> float:
    grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_32F)[tissue].var())


def mask_warnings(name: str, mask: NDArray[np.bool_], instances: NDArray[np.int32] | None) -> list[Warned]:
    """implausible_coverage and touches_border, judged on one found mask of the region."""
    warnings: list[Warned] = []
    if (share := float(mask.mean())) > COVERS_EVERYTHING:
        warnings.append(
            Warned(
                code="implausible_coverage",
                message=f"{name} covers {share:.0%} of the region; look before you quote it.",
            )
        )
    if instances is not None:
        border = np.concatenate([instances[0], instances[-1], instances[:, 0], instances[:, -1]])
        cut, all_of_them = len(np.unique(border[border > 0])), len(np.unique(instances)) - 1
        if cut > max(1, 0.2 * all_of_them):
            warnings.append(
                Warned(
                    code="touches_border",
                    message=f"{cut} of {all_of_them} {name} are cut by the region's border; sizes and counts are off there.",
                )
            )
    return warnings
