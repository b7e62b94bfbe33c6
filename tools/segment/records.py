"""The record of one mask: what was found, how sure, and everything needed to make it again."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import Segmenter
from tissuetalk.prompts.target import Request, Target
from tissuetalk.tools.answers.reliability import reliability_of
from tissuetalk.tools.answers.results import Mask, MaskResources, Provenance, RelationInfo
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.segment import engine
from tissuetalk.tools.segment.field import Scale
from tissuetalk.tools.segment.targets import Wanted
from tissuetalk.tools.storage.result_folder import ResultFolder
from tissuetalk.tools.storage.workspace import new_id


@dataclass(frozen=True)
class Outcome:
    """What became of one target, as its record states it, in full-resolution pixels.

    share: of the region. mask_id and resources: of the files already written.
    """

    mask_id: str
    resources: MaskResources
    area_px: int
    share: float
    count: int | None
    bbox: list[int] | None
    presence: float
    model_mpp: float
    weak_px: int = 0
    note: str = ""
    expected_dice: float | None = None


def write_mask_record(
    folder: ResultFolder,
    each: Wanted,
    maps: engine.FoundMask,
    number: int,
    request: Request,
    model: Segmenter,
    source: ImageSource,
    region: Box,
    scale: Scale,
) -> Mask:
    """One mask's files and its record."""
    mask_id, instances = new_id("msk"), maps.instances
    area_px = int(maps.mask.sum())
    outcome = Outcome(
        mask_id=mask_id,
        resources=folder.write_mask(mask_id, maps.mask, instances),
        area_px=area_px,
        share=area_px / (region.width * region.height),
        count=None if instances is None else len(np.unique(instances[instances > 0])),
        bbox=bounding_box(maps.mask, region),
        presence=maps.presence,
        model_mpp=maps.model_mpp,
        weak_px=maps.weak_px,
        note=maps.note,
        expected_dice=maps.expected_dice if area_px else None,
    )
    return record_of(outcome, each, number, request, model, source, region, scale)


def record_of(
    outcome: Outcome,
    each: Wanted,
    number: int,
    request: Request,
    model: Segmenter,
    source: ImageSource,
    region: Box,
    scale: Scale,
) -> Mask:
    """The record of one mask whose files are written."""
    target, found = each.target, outcome.area_px > 0
    area_um2 = outcome.area_px * scale.mpp**2 if scale.known else None
    relation = (
        None
        if target.relation is None
        else RelationInfo(op=target.relation.op, reference=target.relation.reference)
    )
    return Mask(
        mask_id=outcome.mask_id,
        label=target.label,
        free_form=None if target.label else target.words,
        target=each.capability.target,
        prompt=each.prompt.text,
        evidence=target.evidence,
        assertion=target.assertion,
        found=found,
        presence=round(min(max(outcome.presence, 0.0), 1.0), 4),
        reliability=_reliability(model, outcome.expected_dice),
        area_px=outcome.area_px,
        area_um2=area_um2,
        area_fraction=outcome.share,
        count=outcome.count,
        bbox=outcome.bbox,
        relation=relation,
        verdict=_verdict(outcome, area_um2, target),
        plain=target.plain,
        alternatives=list(target.alternatives),
        colour=drawing.colour_of(number),
        resources=outcome.resources,
        provenance=Provenance(
            words=target.evidence,
            label=target.label,
            prompt=each.prompt.text,
            model=model.card.name,
            weights_sha256=model.weights_sha256,
            mpp=scale.mpp,
            mpp_source=scale.source,
            model_mpp=outcome.model_mpp,
            tile_px=model.tile_px,
            margin_px=model.margin_px,
            region=region.as_list(),
            points=[list(point) for point in request.points],
            boxes=[list(box) for box in request.boxes],
            relation=relation,
            image_sha256=source.sha256,
            version=version("tissuetalk"),
        ),
    )


def _reliability(model: Segmenter, expected_dice: float | None) -> float | None:
    """The quick estimate; ``explain`` makes the thorough one."""
    if expected_dice is None:
        return None
    return reliability_of(model.weights_sha256, "segment", expected_dice)


def bounding_box(mask: NDArray[np.bool_], region: Box) -> list[int] | None:
    """[x0, y0, x1, y1] of a mask of the region, in pixels of the image; None for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return [
        region.x0 + int(columns[0]),
        region.y0 + int(rows[0]),
        region.x0 + int(columns[-1]) + 1,
        region.y0 + int(rows[-1]) + 1,
    ]


def _verdict(outcome: Outcome, area_um2: float | None, target: Target) -> str:
    sure = outcome.note or f"presence {outcome.presence:.2f}"
    if not outcome.area_px:
        weak = f" ({outcome.weak_px} px of weak signal are not shown)" if outcome.weak_px else ""
        return f"looked for, not found; {sure}{weak}"
    count = outcome.count
    parts = [] if count is None else [f"{count} object{'' if count == 1 else 's'}"]
    parts.append(f"{outcome.share:.1%} of the region")
    if area_um2 is not None:
        parts.append(f"{area_um2 / 1e6:.4g} mm²" if area_um2 >= 1e4 else f"{area_um2:.4g} µm²")
    parts.append(sure)
    if target.assertion == "uncertain":
        parts.append("the words are not sure of it")
    return "found: " + ", ".join(parts)
