"""The record of one mask: what was found, how sure, and everything needed to make it again."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.interface import Segmenter
from tissuetalk.prompts.target import Request, Target
from tissuetalk.tools import drawing, engine
from tissuetalk.tools.looking import Wanted
from tissuetalk.tools.result_folder import ResultFolder
from tissuetalk.tools.results import Mask, Provenance, RelationInfo
from tissuetalk.tools.scale import Scale
from tissuetalk.tools.workspace.ids import new_id


def write_mask_record(
    folder: ResultFolder,
    each: Wanted,
    maps: engine.Found,
    number: int,
    request: Request,
    model: Segmenter,
    source: ImageSource,
    region: Box,
    scale: Scale,
) -> Mask:
    """One mask's files and its record."""
    target, mask_id = each.target, new_id("msk")
    mask, instances = maps.mask, maps.instances
    found = bool(mask.any())
    area_px = int(mask.sum())
    relation = (
        None
        if target.relation is None
        else RelationInfo(op=target.relation.op, reference=target.relation.reference)
    )
    count = None if instances is None else len(np.unique(instances[instances > 0]))
    area_um2 = area_px * scale.mpp**2 if scale.known else None
    share = area_px / (region.width * region.height)
    return Mask(
        mask_id=mask_id,
        label=target.label,
        free_form=None if target.label else target.words,
        target=each.capability.target,
        prompt=each.prompt.text,
        evidence=target.evidence,
        assertion=target.assertion,
        found=found,
        presence=round(min(max(maps.presence, 0.0), 1.0), 4),
        reliability=None,
        area_px=area_px,
        area_um2=area_um2,
        area_fraction=share,
        count=count,
        bbox=_bounding_box(mask, region),
        relation=relation,
        verdict=_verdict(found, maps, count, share, area_um2, target),
        plain=target.plain,
        alternatives=list(target.alternatives),
        colour=drawing.colour_of(number),
        resources=folder.write_mask(mask_id, mask, instances),
        provenance=Provenance(
            words=target.evidence,
            label=target.label,
            prompt=each.prompt.text,
            model=model.card.name,
            weights_sha256=model.weights_sha256,
            mpp=scale.mpp,
            mpp_source=scale.source,
            model_mpp=maps.model_mpp,
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


def _bounding_box(mask: NDArray[np.bool_], region: Box) -> list[int] | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return [
        region.x0 + int(columns[0]),
        region.y0 + int(rows[0]),
        region.x0 + int(columns[-1]) + 1,
        region.y0 + int(rows[-1]) + 1,
    ]


def _verdict(
    found: bool,
    maps: engine.Found,
    count: int | None,
    share: float,
    area_um2: float | None,
    target: Target,
) -> str:
    if not found:
        weak = f" ({maps.weak_px} px of weak signal are not shown)" if maps.weak_px else ""
        return f"looked for, not found; {maps.note or f'presence {maps.presence:.2f}'}{weak}"
    parts = [] if count is None else [f"{count} object{'' if count == 1 else 's'}"]
    parts.append(f"{share:.1%} of the region")
    if area_um2 is not None:
        parts.append(f"{area_um2 / 1e6:.4g} mm²" if area_um2 >= 1e4 else f"{area_um2:.4g} µm²")
    parts.append(maps.note or f"presence {maps.presence:.2f}")
    if target.assertion == "uncertain":
        parts.append("the words are not sure of it")
    return "found: " + ", ".join(parts)
