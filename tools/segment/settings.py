"""When a region is worked on block by block, and in how large pieces."""

from __future__ import annotations

from dataclasses import dataclass

from tissuetalk.tools.segment.engine import MAX_MASK_PX, MAX_WORKING_PX


@dataclass(frozen=True)
class SlideSettings:
    """Nothing here changes what is found, beyond the tolerance that ``docs/slides.md`` states.

    whole_px: largest region, in pixels at the model's scale, whose maps are held in memory at once; mask_px: the same
    in full-resolution pixels. Anything larger is worked on block by block.
    tile_px: side of what the model sees at once; the model's own by default.
    window_px: side of the pieces in which objects are decided, a power of two.
    batch: tiles given to the model at once, where it takes several. readers, finishers: threads that read ahead and
    that decide objects while the model works.
    """

    whole_px: int = MAX_WORKING_PX
    mask_px: int = MAX_MASK_PX
    tile_px: int | None = None
    window_px: int = 2048
    batch: int = 1
    readers: int = 2
    finishers: int = 1
