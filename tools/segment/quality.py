"""What a picture warns about by itself, before anything is looked for in it: no tissue, other stains, ink, lost focus."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.segmenter import RGB
from tissuetalk.tools.answers.results import Warned
from tissuetalk.tools.masks.rasters import tissue_mask

LEAST_TISSUE = 0.01
LEAST_STAIN_LIKE = 0.5
"""Share of coloured tissue pixels that lie between blue-violet and red-pink, as H&E and PAS do.

    Measured: at least 0.73 on 13 annotated histology sets (pale fat down to 0.39), at most 0.43 on 24 other pictures."""
LEAST_SHARPNESS = 8.0
"""Variance of the Laplacian over tissue, on a view of at most 1024 px; focus is lost below it. Of 464 pictures of 25 sets two have less."""
INK_SIDE_PX = 256
"""Side of the view on which ink is looked for: strokes stay, red cells and pigment grains blur away."""
LEAST_INK, MOST_INK = 0.015, 0.6
"""Share of a view that one stretch of ink covers. Beyond the second the whole picture is of another colour.

    Measured: 8 of the same 464 pictures (red cells, black padding), and all five with pen marks."""


def picture_warnings(view: RGB) -> list[Warned]:
    """not_histology, low_agreement for ink, and blurred, judged on a view of the whole image (longest side about 1024 px)."""
    warnings: list[Warned] = []
    tissue = tissue_mask(view)
    if tissue.mean() < LEAST_TISSUE:
        warnings.append(
            Warned(code="not_histology", message="almost all of the image is empty glass or one colour.")
        )
        return warnings
    share = stain_like_share(view, tissue)
    if share < LEAST_STAIN_LIKE or _dark_field(view):
        warnings.append(
            Warned(
                code="not_histology",
                message=f"only {share:.0%} of the coloured pixels look like H&E or PAS; masks are not to be trusted. "
                "Check that this is a bright-field histology image.",
            )
        )
    if LEAST_INK <= (ink := ink_share(view)) <= MOST_INK:
        message = f"{ink:.0%} of the picture has a colour that H&E does not give (pen, brown stain, pigment); masks under it are guesses."
        warnings.append(Warned(code="low_agreement", message=message))
    if (sharpness := _sharpness(view, tissue)) < LEAST_SHARPNESS:
        warnings.append(
            Warned(
                code="blurred",
                message=f"the tissue looks out of focus (sharpness {sharpness:.0f}); small objects get lost.",
            )
        )
    return warnings


def stain_like_share(view: RGB, tissue: NDArray[np.bool_]) -> float:
    """Share of tissue pixels with a hue that haematoxylin, eosin or PAS can give, weighted by saturation."""
    hsv = cv2.cvtColor(view, cv2.COLOR_RGB2HSV)
    hue, saturation = hsv[..., 0].astype(int) * 2, hsv[..., 1].astype(np.float32) / 255
    weight = saturation * tissue
    total = float(weight.sum())
    if total < LEAST_TISSUE * weight.size * 0.1:
        return 0.0
    stained = (hue >= 215) | (hue <= 8)
    return float(weight[stained].sum()) / total


def ink_share(view: RGB) -> float:
    """Share of the view under the largest stretch of a colour that neither stain gives: pen, brown chromogen, pigment.

    Haematoxylin and eosin let blue through more than green, and take no more red than green; inks do otherwise.
    """
    small = cv2.resize(view, (INK_SIDE_PX, INK_SIDE_PX), interpolation=cv2.INTER_AREA)
    seen = cv2.GaussianBlur(small, (0, 0), 1.0).reshape(-1, 3).astype(np.float32)
    white = np.maximum(np.percentile(seen, 99, axis=0), 40)
    red, green, blue = -np.log(np.clip((seen + 1) / (white + 1), 1 / 255, 1)).T
    unlike = ((blue > 0.7 * green) & (red + green > 1.0) & (green > 0.25)) | (
        (red > 1.12 * green) & (red > 1.1)
    )
    marked = unlike.reshape(small.shape[:2]).astype(np.uint8)
    marked = cv2.morphologyEx(marked, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    areas = cv2.connectedComponentsWithStats(marked)[2][1:, cv2.CC_STAT_AREA]
    return float(areas.max(initial=0) / marked.size)


def _dark_field(view: RGB) -> bool:
    """Fluorescence and dark-field pictures have black where bright field has white."""
    brightness = view.max(axis=2)
    return bool((brightness < 25).mean() > 0.3)


def _sharpness(view: RGB, tissue: NDArray[np.bool_]) -> float:
    grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_32F)[tissue].var())
