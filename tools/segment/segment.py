"""segment: an image and words in, masks with evidence, confidence and provenance out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.control import Control
from tissuetalk.models.segmenter import PromptableSegmenter, is_pointed
from tissuetalk.prompts.target import Request
from tissuetalk.tools.answers.reliability import low_agreement
from tissuetalk.tools.answers.results import Mask, NotSegmented, SegmentResult, Warned
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.drawing.overlay import overlay_of
from tissuetalk.tools.segment import engine, pointing, quality, spatial
from tissuetalk.tools.segment.engine import FoundMask
from tissuetalk.tools.segment.field import FieldOfView, Scale, image_info, region_of, scale_of
from tissuetalk.tools.segment.records import write_mask_record
from tissuetalk.tools.segment.request import SegmentRequest, check_inside
from tissuetalk.tools.segment.slide_segment import assumed_scale, is_large, segment_slide
from tissuetalk.tools.segment.targets import Wanted, refusal, sort_out
from tissuetalk.tools.storage.result_folder import ResultFolder

if TYPE_CHECKING:
    from tissuetalk.tools.session import Session


@dataclass(frozen=True)
class FieldMasks:
    """asked[i] was looked for and found[i] is what came of it; refused was not looked for, with the reason."""

    asked: list[Wanted]
    found: list[FoundMask]
    refused: list[NotSegmented]


def segment(bench: Session, order: SegmentRequest, control: Control = Control()) -> SegmentResult:
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
        asked, _ = sort_out(order.request, model, region)
        if scale.source == "assumed" and region.width * region.height > bench.slides.whole_px:
            scale = assumed_scale(source, model)
        if not is_pointed(model) and is_large(region, scale.mpp, asked, bench.slides):
            return segment_slide(
                bench, order, source, model, region, scale, progress=control.progress, stop=control.stop
            )
        field = FieldOfView(source, model, region, scale, bench.features)
        with bench.workspace.new_result(image_id=source.image_id, kind="segment") as draft:
            folder = ResultFolder(draft.folder)
            folder.write_request(order.as_json())
            return _segment_into(folder, field, order.request, draft.result_id, control)


def segment_field(field: FieldOfView, request: Request, control: Control = Control()) -> FieldMasks:
    """Masks of everything the request wants and the model knows, with points, relations and boxes applied, in memory.

    Raises PointOutsideImageError, ImageTooLargeError, CancelledError, and InvalidArgumentError where the model must be
    told where to look and was not.
    """
    check_inside(request, field.source.width, field.source.height)
    asked, refused = sort_out(request, field.model, field.region)
    if is_pointed(field.model):
        return _at_places(field, request, asked, refused, control)
    found = engine.find_masks(field, [(each.prompt, each.capability) for each in asked], control)
    return FieldMasks(
        asked, spatial.apply(request, [each.target for each in asked], found, field.region), refused
    )


def _at_places(
    field: FieldOfView, request: Request, asked: list[Wanted], refused: list[NotSegmented], control: Control
) -> FieldMasks:
    """The one target of the request in its boxes and points; of several, nobody could say which place is which."""
    model = cast("PromptableSegmenter", field.model)  # the caller asked ``is_pointed``
    if not (request.boxes or request.points):
        raise model.needs_places()
    if len(asked) != 1:
        reason = (
            f"{model.card.name} knows places, not names: ask for one target in one call, with the boxes that hold it, "
            "or leave model out"
        )
        return FieldMasks(
            [], [], [*refused, *(refusal(each.target, "ambiguous", reason, []) for each in asked)]
        )
    found = pointing.objects_at(field, request, control)
    (only,) = asked
    # no words were sent
    return FieldMasks([replace(only, prompt=replace(only.prompt, text=""))], [found], refused)


def _segment_into(
    folder: ResultFolder, field: FieldOfView, request: Request, result_id: str, control: Control
) -> SegmentResult:
    """Look for every target of the request in the region and write the result into the folder."""
    source, region, scale = field.source, field.region, field.scale
    masks_of = segment_field(field, request, control)
    source.verify_unchanged()
    masks = [
        write_mask_record(folder, each, maps, number, request, field.model, source, region, scale)
        for number, (each, maps) in enumerate(zip(masks_of.asked, masks_of.found, strict=True))
    ]
    warnings = _warnings(source.overview(), scale, masks, masks_of.found)
    overlay = overlay_of(folder, source, region, masks, scale.mpp if scale.known else None)
    (folder.path / "overlay.png").write_bytes(drawing.as_png(overlay))
    result = SegmentResult(
        result_id=result_id,
        image=image_info(source, region, scale),
        masks=masks,
        not_segmented=masks_of.refused,
        warnings=warnings,
        overlay="overlay.png",
        measures=[*request.measures, *request.place_measures],
        notes=list(request.notes),
        job_id=None,
    )
    folder.write_result(result)
    return result


def _warnings(
    overview: NDArray[np.uint8], scale: Scale, masks: Sequence[Mask], placed: Sequence[FoundMask]
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
            warnings += quality.mask_warnings(mask.name, maps.mask, maps.instances)
            warnings += low_agreement(mask.name, mask.reliability)
    return warnings
