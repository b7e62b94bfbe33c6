"""Whether an image looks like those a target was taught on."""

from __future__ import annotations

import numpy as np

from tissuetalk.models.by_example.learned import Learned
from tissuetalk.models.images import ImageSource

FAR_SPREADS = 1.0
"""Mean shift of optical density, in spreads of what was taught, from which a stain is another."""
LEAST_SPREAD = 0.08
FAR_SCALE = 2.0


def far_from(learned: Learned, source: ImageSource, mpp: float | None = None) -> str | None:
    """In plain words why what was learned may not hold on this image, or None. mpp: of its full-resolution pixels, if known."""
    view = source.overview(1024).reshape(-1, 3).astype(np.float32)
    density = -np.log10((view + 1) / 256)
    stained = density[density.mean(1) > 0.06]
    if len(stained) < 64:
        return "there is hardly any stained tissue on it"
    mean, spread = np.array(learned.card.stain_mean), np.maximum(learned.card.stain_spread, LEAST_SPREAD)
    if float(np.abs((stained.mean(0) - mean) / spread).max()) > FAR_SPREADS:
        return "its stain is far from that of the images it was taught on"
    known = source.mpp if mpp is None else mpp
    if (
        known is not None
        and not min(learned.card.taught_at_mpp) / FAR_SCALE
        <= known
        <= max(learned.card.taught_at_mpp) * FAR_SCALE
    ):
        return f"its pixels span {known:.3g} µm, far from those it was taught on"
    return None
