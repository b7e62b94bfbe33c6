"""segment: an image and words in, masks with evidence, confidence and provenance out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmentation.pointed import is_pointed
from tissuetalk.models.segmenter import Segmenter
from tissuetalk.prompts.target import Request
from tissuetalk.tools.answers.reliability import low_agreement
from tissuetalk.tools.answers.results import Mask, SegmentResult, Warned
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.drawing.overlay import overlay_of
from tissuetalk.tools.measure.measure import name_of
from tissuetalk.tools.segment import engine, looking, pointing, quality
from tissuetalk.tools.segment.looking import look
from tissuetalk.tools.segment.order import Order
from tissuetalk.tools.segment.records import write_mask_record
from tissuetalk.tools.segment.scale import Scale, image_info, region_of, scale_of
from tissuetalk.tools.segment.slide_segment import assumed_scale, is_large, segment_slide
from tissuetalk.tools.storage.features import FeatureCache
from tissuetalk.tools.storage.result_folder import ResultFolder
from tissuetalk.tools.workbench import Workbench


def segment(
    bench: Workbench,
    order: Order,
    *,
    progress: engine.Progress = lambda done, what: None,
    stop: engine.Stop = lambda: False,
) -> SegmentResult:
    """Look for what was understood and keep the result in the workspace.

    Raises any of the contract's errors; an interrupted call leaves nothing behind, except for the finished blocks of a
    region too large for memory: the same order goes on with them.
    """
    model = bench.model(order.model)
    with bench.open(order.image) as source:
        region = region_of(source, order.region)
        scale = scale_of(source, order.mpp, model)
        if is_pointed(model):
            region = pointing.narrowed(order.request, region)
        asked, _ = looking.sort_out(order.request, model, region)
        if scale.source == "assumed" and region.width * region.height > bench.slides.whole_px:
            scale = assumed_scale(source, model)
        if not is_pointed(model) and is_large(region, scale.mpp, asked, bench.slides):
            return segment_slide(bench, order, source, model, region, scale, progress=progress, stop=stop)
        with bench.workspace.new_result(image_id=source.image_id, kind="segment") as draft:
            folder = ResultFolder(draft.folder)
            folder.write_request(order.as_json())
            return segment_into(
                folder,
                source,
                model,
                order.request,
                result_id=draft.result_id,
                region=region,
                scale=scale,
                features=bench.features,
                progress=progress,
                stop=stop,
            )


def segment_into(
    folder: ResultFolder,
    source: ImageSource,
    model: Segmenter,
    request: Request,
    *,
    result_id: str,
    region: Box,
    scale: Scale,
    features: FeatureCache | None = None,
    progress: engine.Progress = lambda done, what: None,
    stop: engine.Stop = lambda: False,
) -> SegmentResult:
    """Look for every target of the request in the region and write the result into the folder.

    Raises PointOutsideImageError, ImageTooLargeError, ImageChangedError and CancelledError.
    """
    looked = look(source, model, request, region, scale, features=features, progress=progress, stop=stop)
    source.verify_unchanged()
    masks = [
        write_mask_record(folder, each, maps, number, request, model, source, region, scale)
        for number, (each, maps) in enumerate(zip(looked.asked, looked.found, strict=True))
    ]
    warnings = _warnings(source.overview(), scale, masks, looked.found)
    overlay = overlay_of(folder, source, region, masks, scale.mpp if scale.known else None)
    (folder.path / "overlay.png").write_bytes(drawing.as_png(overlay))
    result = SegmentResult(
        result_id=result_id,
        image=image_info(source, region, scale),
        masks=masks,
        not_segmented=looked.refused,
        warnings=warnings,
        overlay="overlay.png",
        measures=[*request.measures, *request.place_measures],
        notes=list(request.notes),
        job_id=None,
    )
    folder.write_result(result)
    return result


def _warnings(
    overview: NDArray[np.uint8], scale: Scale, masks: Sequence[Mask], placed: Sequence[engine.Found]
) -> list[Warned]:
    warnings = quality.picture_warnings(overview)
    if not scale.known:
        warnings.append(
            Warned(
                code="scale_unknown",
                message=f"the file does not say its scale; {scale.mpp:g} µm/px was assumed. Areas are in pixels. "
                "Pass mpp if you know it.",
            )
        )
    for mask, maps in zip(masks, placed, strict=True):
        if mask.found:
            warnings += quality.mask_warnings(name_of(mask), maps.mask, maps.instances)
            warnings += low_agreement(name_of(mask), mask.reliability)
    return warnings
