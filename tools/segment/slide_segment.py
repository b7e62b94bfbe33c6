"""segment for regions that do not fit in memory: the same question, the same answer, worked on block by block."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import Segmenter
from tissuetalk.tools.answers.results import Mask, NotSegmented, SegmentResult, Warned
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.drawing.overlay import overlay_of
from tissuetalk.tools.masks.tissue import RULE, Tissue, sample
from tissuetalk.tools.segment import choosing, first_look, quality, targets, unfinished
from tissuetalk.tools.segment.driving import check
from tissuetalk.tools.segment.engine import Progress, Stop
from tissuetalk.tools.segment.field import Scale, image_info
from tissuetalk.tools.segment.maps import write_file
from tissuetalk.tools.segment.plan import Plan, plan_layers
from tissuetalk.tools.segment.records import Outcome, record_of
from tissuetalk.tools.segment.request import SegmentRequest, check_inside
from tissuetalk.tools.segment.runners import LocalRunner
from tissuetalk.tools.segment.settings import SlideSettings
from tissuetalk.tools.segment.slide_engine import SlideFound, run_slide
from tissuetalk.tools.segment.targets import Wanted
from tissuetalk.tools.segment.windows import save_tissue
from tissuetalk.tools.storage.files import disk_errors, remove
from tissuetalk.tools.storage.result_folder import ResultFolder
from tissuetalk.tools.storage.workspace import new_id

if TYPE_CHECKING:
    from tissuetalk.tools.session import Session

FORMAT = 1
"""Of slide.json and of the unfinished work; work of another format is not taken up."""
CAVEAT_PRESENCE = (
    "presence is the highest any part of the slide reached; over many blocks it is high more often by chance"
)


def is_large(region: Box, mpp: float, asked: Sequence[Wanted], settings: SlideSettings) -> bool:
    """Whether the region's maps are too large to be held in memory at once."""
    if region.width * region.height > settings.mask_px:
        return True
    finest = min((each.capability.mpp for each in asked), default=mpp)
    return region.width * region.height * (mpp / finest) ** 2 > settings.whole_px


def assumed_scale(source: ImageSource, model: Segmenter) -> Scale:
    """What the model takes the pixels of the slide's tissue to be; a view of the whole slide is too small to tell."""
    return Scale(model.assume_mpp(sample(source, Tissue.of(source), 1.0)), "assumed")


def segment_slide(
    bench: Session,
    order: SegmentRequest,
    source: ImageSource,
    model: Segmenter,
    region: Box,
    scale: Scale,
    *,
    progress: Progress,
    stop: Stop,
) -> SegmentResult:
    """Begin or go on; the finished result is in the workspace.

    Raises BusyError while the same order is being worked on, and everything ``run_slide`` raises. Whatever ends it,
    finished blocks are kept for the next call with the same order.
    """
    with (
        disk_errors(bench.workspace.folder),
        unfinished.run_folder(bench.workspace.folder, order.as_json()) as folder,
    ):
        check_inside(order.request, source.width, source.height)
        asked, refused = _sort(order, model, region)
        identity = _identity(source, model, region, scale, asked, order, bench.slides)
        known = unfinished.begin(folder, identity)
        check(stop)
        progress(0.0, "going on with earlier work" if known else "finding the tissue")
        files = ResultFolder(folder)
        result_id = new_id("res")
        result = (
            files.result().model_copy(update={"result_id": result_id})
            if (folder / "result.json").exists()
            else _work(
                bench,
                order,
                source,
                model,
                region,
                scale,
                asked,
                refused,
                files,
                result_id,
                identity,
                progress,
                stop,
            )
        )
        files.write_result(result)
        for name in (first_look.JSON_NAME, first_look.PICTURE_NAME):
            remove(folder / name)
        remove(folder / "slide" / "work")
        bench.workspace.adopt_result(folder, result_id=result_id, image_id=source.image_id, kind="segment")
        return result


def _sort(order: SegmentRequest, model: Segmenter, region: Box) -> tuple[list[Wanted], list[NotSegmented]]:
    """What to look for, and what not, with the reason: also what cannot be done on a slide."""
    asked, refused = targets.sort_out(order.request, model, region)
    able = []
    for each in asked:
        reason = choosing.refused(each.target, each.capability.objects, order.request)
        if reason is None:
            able.append(each)
        else:
            refused.append(targets.refusal(each.target, "unsupported", reason, []))
    return able, refused


def _identity(
    source: ImageSource,
    model: Segmenter,
    region: Box,
    scale: Scale,
    asked: Sequence[Wanted],
    order: SegmentRequest,
    settings: SlideSettings,
) -> dict[str, Any]:
    """Everything that decides the result."""
    return {
        "format": FORMAT,
        "version": version("tissuetalk"),
        "image_sha256": source.sha256,
        "model": model.card.name,
        "weights_sha256": model.weights_sha256,
        "tile_px": settings.tile_px or model.tile_px,
        "margin_px": model.margin_px,
        "window_px": settings.window_px,
        "region": region.as_list(),
        "mpp": scale.mpp,
        "mpp_source": scale.source,
        "prompts": [asdict(each.prompt) | {"target": asdict(each.capability)} for each in asked],
        "request": order.as_json()["request"],
    }


def _work(
    bench: Session,
    order: SegmentRequest,
    source: ImageSource,
    model: Segmenter,
    region: Box,
    scale: Scale,
    asked: Sequence[Wanted],
    refused: list[NotSegmented],
    files: ResultFolder,
    result_id: str,
    identity: dict[str, Any],
    progress: Progress,
    stop: Stop,
) -> SegmentResult:
    slide = files.path / "slide"
    files.write_request(order.as_json())
    plan = make_plan(source, model, region, scale, asked, bench.slides, slide / "work")
    picture = plan.tissue.picture(region)
    done, png = cv2.imencode(".png", picture.astype("uint8") * 255)
    assert done, "OpenCV encodes any 8-bit picture"
    write_file(slide / "tissue.png", png.tobytes())
    mask_ids = [_mask_id(identity, number) for number in range(len(asked))]
    for name in ("labels", "objects"):
        remove(slide / name)
    make = bench.runner or LocalRunner
    runner = make(source, model, bench.features.for_slides(bench.workspace.cache.quota_bytes), bench.slides)
    try:
        found = run_slide(plan, runner, order.request, asked, mask_ids, slide, progress=progress, stop=stop)
    finally:
        runner.close()
    masks = [
        _record(files, each, got, mask_id, number, order, model, source, region, scale, plan)
        for number, (each, got, mask_id) in enumerate(zip(asked, found, mask_ids, strict=True))
    ]
    caveats = _caveats(plan, found)
    write_file(slide / "slide.json", json.dumps(_about(plan, found, masks, caveats), indent=1).encode())
    overlay = overlay_of(files, source, region, masks, scale.mpp if scale.known else None)
    (files.path / "overlay.png").write_bytes(drawing.as_png(overlay))
    source.verify_unchanged()
    return SegmentResult(
        result_id=result_id,
        image=image_info(source, region, scale),
        masks=masks,
        not_segmented=refused,
        warnings=_warnings(source, plan, picture.mean(), masks),
        overlay="overlay.png",
        measures=[*order.request.measures, *order.request.place_measures],
        notes=[*order.request.notes, *caveats],
        job_id=None,
    )


def make_plan(
    source: ImageSource,
    model: Segmenter,
    region: Box,
    scale: Scale,
    asked: Sequence[Wanted],
    settings: SlideSettings,
    work: Path,
) -> Plan:
    """Find the tissue and lay out blocks and windows; the same question always gives the same plan."""
    tissue = Tissue.of(source)
    work.mkdir(parents=True, exist_ok=True)
    save_tissue(work / "tissue.npz", tissue)
    layers = plan_layers(source, model, region, scale, asked, settings, tissue, work)
    return Plan(source, model, scale, region, tissue, work / "tissue.npz", layers)


def _mask_id(identity: dict[str, Any], number: int) -> str:
    """The same work has the same ids, also after an interruption."""
    text = json.dumps([identity, number], sort_keys=True, ensure_ascii=False)
    return f"msk_{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _record(
    files: ResultFolder,
    each: Wanted,
    got: SlideFound,
    mask_id: str,
    number: int,
    order: SegmentRequest,
    model: Segmenter,
    source: ImageSource,
    region: Box,
    scale: Scale,
    plan: Plan,
) -> Mask:
    labels = None if got.labels is None else got.labels.astype("int32")
    outcome = Outcome(
        mask_id=mask_id,
        resources=files.write_mask(mask_id, got.mask, labels),
        area_px=got.area_px,
        share=got.area_px / (region.width * region.height),
        count=got.count,
        bbox=got.box_xyxy,
        presence=got.presence,
        model_mpp=got.model_mpp,
        weak_px=got.weak_px,
    )
    record = record_of(outcome, each, number, order.request, model, source, region, scale)
    tile = next(layer.grid.tile_px for layer in plan.layers if layer.model_mpp == got.model_mpp)
    return record.model_copy(update={"provenance": record.provenance.model_copy(update={"tile_px": tile})})


def _about(
    plan: Plan, found: Sequence[SlideFound], masks: Sequence[Mask], caveats: Sequence[str]
) -> dict[str, Any]:
    """slide.json."""
    finest = min(plan.layers, key=lambda layer: layer.model_mpp, default=None)
    picture = plan.tissue.picture(plan.region)
    tissue_px = float(picture.mean()) * plan.region.width * plan.region.height
    known = plan.scale.known
    return {
        "version": FORMAT,
        "mpp": plan.scale.mpp,
        "mpp_source": plan.scale.source,
        "model_mpp": finest.model_mpp if finest else None,
        "region": plan.region.as_list(),
        "width": finest.grid.width if finest else 0,
        "height": finest.grid.height if finest else 0,
        "block_px": finest.grid.block_px if finest else 0,
        "window_px": finest.grid.window_px if finest else 0,
        "tissue_area_px": round(tissue_px),
        "tissue_area_mm2": tissue_px * plan.scale.mpp**2 / 1e6 if known else None,
        "tissue_rule": RULE,
        "blocks": [
            {
                "id": f"{layer.model_mpp:g}:{block.name}",
                "model_mpp": layer.model_mpp,
                "box_xyxy": layer.grid.full(block.core, plan.source.width, plan.source.height).as_list(),
                "done": True,
            }
            for layer in plan.layers
            for block in layer.blocks
        ],
        "masks": {
            mask.mask_id: {
                "model_mpp": got.model_mpp,
                "width": got.size[0],
                "height": got.size[1],
                "objects": got.count is not None,
                "label_px": got.model_mpp / plan.scale.mpp,
            }
            for mask, got in zip(masks, found, strict=True)
        },
        "caveats": list(caveats),
    }


def _caveats(plan: Plan, found: Sequence[SlideFound]) -> list[str]:
    if not plan.layers:
        return []
    blocks = sum(len(layer.blocks) for layer in plan.layers)
    caveats = [f"worked on in {blocks} blocks over tissue only ({RULE}); {CAVEAT_PRESENCE}"]
    if not blocks:
        caveats = ["no tissue was found, so there was nothing to look at"]
    if (shrunk := sum(each.shrunk for each in found)) > 0:
        caveats.append(
            f"shape and stain of {shrunk} very large part(s) were measured on a shrunk picture; areas are exact"
        )
    return caveats


def _warnings(source: ImageSource, plan: Plan, tissue_share: float, masks: Sequence[Mask]) -> list[Warned]:
    """Judged on the part of the slide that holds tissue."""
    box = _tissue_box(plan)
    warnings = []
    if box is None:
        warnings.append(
            Warned(
                code="not_histology", message="no tissue was found: the region is empty glass or one colour."
            )
        )
    else:
        warnings = quality.picture_warnings(
            source.read_scaled(box, min(1.0, 1024 / max(box.width, box.height)))
        )
    if not plan.scale.known:
        warnings.append(
            Warned(
                code="scale_unknown",
                message=f"the file does not say its scale; {plan.scale.mpp:g} µm/px was assumed. Areas are in pixels. "
                "Pass mpp if you know it.",
            )
        )
    for mask in masks:
        if mask.found and tissue_share > 0 and mask.area_fraction / tissue_share > quality.COVERS_EVERYTHING:
            warnings.append(
                Warned(
                    code="implausible_coverage",
                    message=f"{mask.target} covers all of the tissue; look before you quote it.",
                )
            )
    return warnings


def _tissue_box(plan: Plan) -> Box | None:
    """The smallest full-resolution box around the tissue of the region."""
    picture = plan.tissue.picture(plan.region)
    rows, columns = np.flatnonzero(picture.any(axis=1)), np.flatnonzero(picture.any(axis=0))
    if not len(rows):
        return None
    across, down = plan.region.width / picture.shape[1], plan.region.height / picture.shape[0]
    return Box(
        plan.region.x0 + int(columns[0] * across),
        plan.region.y0 + int(rows[0] * down),
        min(plan.region.x1, plan.region.x0 + int((columns[-1] + 1) * across) + 1),
        min(plan.region.y1, plan.region.y0 + int((rows[-1] + 1) * down) + 1),
    )
