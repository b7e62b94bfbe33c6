"""Nuclei from the light haematoxylin absorbs: threshold, then split touching ones by distance.

Red light is stopped by haematoxylin and passes eosin and saffron, so its optical density is the stain channel.

The pieces are scikit-image's and SciPy's; what is ours is that every threshold comes from the whole image
(``prepare``), so that a tile gives the same answer wherever it was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.segmentation.pretrained import Entry
from tissuetalk.models.segmenter import RGB, Capability, Context, Decoded, Finished, ModelCard, Prompt

CARD: Final = ModelCard(
    name="classical-nuclei",
    summary="All nuclei from the optical density in red light: threshold, then distance-based splitting. No learning.",
    licence="Apache-2.0",
    research_only=True,
    targets=("nuclei",),
    mpp=(0.5,),
    prompts="fixed",
    source="Otsu and Li thresholds (their mean), watershed on the distance map",
    metrics={},
    limits="Baseline only. Merges pale nuclei with eosin-rich cytoplasm, counts pigment and ink, knows no cell types.",
)
RULES_SHA256: Final = "2af12f111bb6e923ec8fe798014f7dc991a42554f5e7c85b23111434d64bfe68"
"""Stands where other models have the hash of their weights. This is the source's hash when these rules were first released
(0.1.0), so that results of then replay. It gets another value when a mask can change, and only then."""

MPP = 0.5
SMOOTHING_PX = 1.0
"""Gaussian sigma on the stain channel, 0.5 µm: below the size of chromatin texture."""
MIN_NUCLEUS_UM2 = 9.0
"""36 px at 0.5 µm/px, the smallest object the field's own statistics keep."""
MIN_SEED_DISTANCE_PX = 5
LEAST_HAEMATOXYLIN = 0.08
"""Below this (optical density in red) a pixel is glass, however the rest of the image looks."""


@dataclass(frozen=True)
class _Haematoxylin:
    density: NDArray[np.float32]
    threshold: float


class ClassicalNuclei:
    """Fills the ``Segmenter`` interface with no learned weight at all. SciPy and scikit-image wait for the first image."""

    card = CARD
    tile_px = 1024
    margin_px = 16
    weights_sha256 = RULES_SHA256

    def capability(self, prompt: Prompt) -> Capability | None:
        if prompt.label is not None:
            asked = prompt.label.rsplit("-", 1)[-1] == "nuclei"
        else:
            asked = prompt.concept in ("nuclei", "stained_nuclei")
        return Capability(target="nuclei", mpp=MPP, objects=True) if asked else None

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return ["nuclei"][:limit]

    def sent(self, prompt: Prompt) -> str:
        return ""

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        return MPP

    def prepare(self, overview: RGB) -> Context:
        """``threshold``: optical density in red from which a pixel is nucleus, from the stained pixels of [H, W, 3]."""
        from skimage.filters import threshold_li, threshold_otsu

        density = _haematoxylin(overview)
        stained = density[density > LEAST_HAEMATOXYLIN]
        # A histogram of less than this, or of one value, has no two sides to part.
        enough = stained.size >= 64 and float(stained.max() - stained.min()) > 1e-6
        # Without two sides nothing passes.
        threshold = float(threshold_otsu(stained) + threshold_li(stained)) / 2 if enough else np.inf
        return Context({"threshold": max(threshold, LEAST_HAEMATOXYLIN)})

    def encode(self, tile: RGB, context: Context) -> _Haematoxylin:
        """tile: [H, W, 3] at 0.5 µm/px."""
        return _Haematoxylin(_haematoxylin(tile), float(context.values["threshold"]))

    def decode(self, features: _Haematoxylin, prompts: Sequence[Prompt]) -> list[Decoded]:
        if np.isinf(features.threshold):
            logits = np.full_like(features.density, -10.0)
        else:
            # 0.05 of optical density on either side is one unit of logit.
            logits = np.clip((features.density - features.threshold) * 20.0, -10.0, 10.0).astype(np.float32)
        return [Decoded(logits=logits) for _ in prompts]

    def finish(self, stitched: Decoded, prompt: Prompt, context: Context) -> Finished:
        from scipy import ndimage
        from skimage.feature import peak_local_max
        from skimage.morphology import remove_small_holes, remove_small_objects
        from skimage.segmentation import watershed

        least_px = round(MIN_NUCLEUS_UM2 / MPP**2)
        mask = remove_small_objects(stitched.logits > 0, max_size=least_px - 1)
        mask = remove_small_holes(mask, max_size=least_px)
        distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.0)
        components, _ = ndimage.label(mask)
        apart = {"min_distance": MIN_SEED_DISTANCE_PX, "exclude_border": False}
        peaks = peak_local_max(distance, labels=components, **apart)
        seeds = np.zeros(mask.shape, np.int32)
        seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        instances = watershed(-distance, seeds, mask=mask).astype(np.int32)
        probability = 1 / (1 + np.exp(-stitched.logits[mask]))
        return Finished(mask, instances, float(probability.mean()) if mask.any() else 0.0)


def _haematoxylin(image: RGB) -> NDArray[np.float32]:
    """[H, W] smoothed optical density of the red channel."""
    from scipy import ndimage

    # Beer-Lambert; + 1 keeps black finite, 256 makes white zero.
    density = -np.log10((image[..., 0].astype(np.float32) + 1) / 256)
    return ndimage.gaussian_filter(density, SMOOTHING_PX)


ENTRY: Final = Entry(CARD, f"{__name__}:ClassicalNuclei", repertoire=ClassicalNuclei)
