"""Which examples speak for a mask that was taught: how much of each place it marks."""

from __future__ import annotations

from tissuetalk.models.by_example import Place
from tissuetalk.models.images import Box
from tissuetalk.tools.answers.results import ExamplePlace, Mask
from tissuetalk.tools.explain.windows import layer_of
from tissuetalk.tools.segment.records import said_of
from tissuetalk.tools.storage.result_folder import ResultFolder

LOOKED_AT_PX = 256
"""Longest side at which a place is compared with the mask."""
AGREES = 0.8
MOST_TOLD = 6
"""Examples that are named one by one, those that speak against the mask first."""


def how_it_was_shown(folder: ResultFolder, mask: Mask) -> str:
    """In plain words; empty for a mask that the model knew by itself."""
    if mask.taught is None:
        return ""
    here = [
        (number, each) for number, each in enumerate(mask.provenance.examples, start=1) if each.image is None
    ]
    marked = [(number, each, _marked(folder, mask, each)) for number, each in here]
    told = [(number, each, share) for number, each, share in marked if share is not None]
    agree = [number for number, each, share in told if (share if each.is_it else 1 - share) >= AGREES]
    against = [(number, each, share) for number, each, share in told if number not in agree]
    parts = [said_of(mask.taught)]
    if agree:
        parts.append(f"the mask follows {_list(agree)} of its examples")
    parts += [
        f"of example {number} ({'it' if each.is_it else 'something else'}) it marks {share:.0%}"
        for number, each, share in against[:MOST_TOLD]
    ]
    if not mask.provenance.examples:
        parts.append("taught on other images, under this name")
    return "; ".join(parts)


def _marked(folder: ResultFolder, mask: Mask, example: ExamplePlace) -> float | None:
    """Share of a place that the mask marks; None for what lies outside the region, and for places that are masks."""
    if example.mask_id is not None:
        return None
    place = Place(
        example.is_it,
        box=None if example.box is None else tuple(example.box),  # type: ignore[arg-type]  # four numbers, by its schema
        point=None if example.point is None else (example.point[0], example.point[1]),
        polygon=None if example.polygon is None else [(x, y) for x, y in example.polygon],
    )
    mpp = mask.provenance.mpp
    region = Box.from_sequence(mask.provenance.region)
    if (box := place.extent(mpp).intersection(region)) is None:
        return None
    step = max(1.0, max(box.width, box.height) / LOOKED_AT_PX)
    x0, y0 = int(box.x0 / step), int(box.y0 / step)
    view = Box(x0, y0, int(box.x1 / step) + 1, int(box.y1 / step) + 1)
    labels = layer_of(folder, mask).labels.resampled(
        (view.x0 * step, view.y0 * step), (step, step), (view.width, view.height)
    )
    at = place.drawn(view, step, mpp)
    return float((labels[at] > 0).mean()) if at.any() else None


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + (" and " if len(numbers) > 1 else "") + str(numbers[-1])
