"""What the model finds that the words do not mention: observations, listed apart, never conclusions.

The model is asked for the rest of what its card says it knows, on features that are shared or cached. Below its
presence gate nothing is listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.control import Control
from tissuetalk.models.images import Box
from tissuetalk.models.segmenter import Capability, Prompt, Segmenter
from tissuetalk.prompts.question import concepts_in
from tissuetalk.tools.answers.explained import Observation
from tissuetalk.tools.answers.results import Mask, NotSegmented, SegmentResult
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.segment import engine
from tissuetalk.tools.segment.field import FieldOfView
from tissuetalk.tools.segment.request import repertoire

MOST_WORKING_PX = 2048 * 2048
"""Largest region, in pixels at the scale of a target, that an overview is looked through for what nobody asked for."""
WHEN_ASKED = 4
"""How many times as large it may be when the question was what else there is."""
COARSEST = 2.5
"""How many times coarser than its own scale a picture may be for a target nobody asked for."""


@dataclass(frozen=True)
class Observed:
    """One observation, with its [H, W] labels over the region when there is something to draw."""

    answer: Observation
    labels: NDArray[np.int32] | None


def unmentioned(result: SegmentResult, model: Segmenter) -> list[tuple[Prompt, Capability]]:
    """What the model knows in this organ and the words did not name, in whatever sense they named it."""
    named = {mask.target for mask in result.masks}
    items: list[Mask | NotSegmented] = [*result.masks, *result.not_segmented]
    # missed, ruled out or refused: it was named
    texts = [(item.evidence, item.free_form, (item.label or "").rsplit("-", 1)[-1]) for item in items]
    said = {concept.id for each in texts for text in each if text for concept in concepts_in(text)}
    organs = (item.label.split("-", 1)[0] for item in items if item.label)
    organ = next((organ for organ in organs if organ != "unspecified"), None)
    return [
        (prompt, capability)
        for prompt, capability in repertoire(model, organ)
        if capability.target not in named
        and not any(concept.id in said for concept in concepts_in(prompt.words))
    ]


def observe(
    result: SegmentResult, field: FieldOfView, *, most_px: int = MOST_WORKING_PX, control: Control = Control()
) -> list[Observed]:
    """Numbered on from the masks that were found. most_px: at the scale of a target. Raises CancelledError."""
    region, mpp = field.region, field.scale.mpp
    asked, left = [], []
    for prompt, capability in unmentioned(result, field.model):
        zoom, name = mpp / capability.mpp, capability.target
        if zoom > COARSEST:
            left.append(_nothing(name, None, f"not looked for, {mpp:.2g} µm/px is too coarse for it"))
        elif region.width * region.height * zoom * zoom > most_px:
            why = "not looked for, the region is too large; ask about a smaller one"
            left.append(_nothing(name, None, why))
        else:
            asked.append((prompt, capability))
    found = engine.find_masks(field, asked, control)
    number, seen = sum(mask.found for mask in result.masks), []
    for (_, capability), maps in zip(asked, found, strict=True):
        # numbered on, so that text and picture never use a number twice
        number += bool(maps.mask.any())
        seen.append(_observed(capability.target, maps, region, number, result.image.known_mpp))
    return seen + left


def _observed(name: str, maps: engine.FoundMask, region: Box, number: int, mpp: float | None) -> Observed:
    if not maps.mask.any():
        why = f"not mentioned, looked for and not found; presence {maps.presence:.2f}"
        return _nothing(name, round(maps.presence, 4), why)
    area_px = int(maps.mask.sum())
    share = area_px / maps.mask.size
    count = None if maps.instances is None else len(np.unique(maps.instances[maps.instances > 0]))
    objects = "" if count is None else f"{count} objects, "
    labels = maps.mask.astype(np.int32) if maps.instances is None else maps.instances
    box = Box.around(labels, region.x0, region.y0)
    answer = Observation(
        number=number,
        name=name,
        found=True,
        presence=round(maps.presence, 4),
        area_px=area_px,
        area_um2=None if mpp is None else area_px * mpp**2,
        area_fraction=share,
        count=count,
        bbox=None if box is None else box.as_list(),
        colour=drawing.colour_of(number - 1),
        statement=f"{name}: not mentioned; the model outlines {objects}{share:.1%} of the region as this "
        f"(presence {maps.presence:.2f}). An observation to look at, not a diagnosis.",
    )
    return Observed(answer, labels)


def _nothing(name: str, presence: float | None, why: str) -> Observed:
    answer = Observation(
        number=None,
        name=name,
        found=False,
        presence=presence,
        area_px=0,
        area_um2=None,
        area_fraction=0.0,
        count=None,
        bbox=None,
        colour=None,
        statement=f"{name}: {why}",
    )
    return Observed(answer, None)


def summary(seen: Sequence[Observation]) -> str | None:
    """One line for what was looked for besides and is not there; None when there is nothing to say."""
    gone = [each.name for each in seen if not each.found and each.presence is not None]
    skipped = [each.statement for each in seen if each.presence is None]
    parts = [f"also looked for and not found: {', '.join(gone)}"] if gone else []
    return "; ".join(parts + skipped) or None
