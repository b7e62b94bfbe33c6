"""segment: an image and words in, masks with evidence, confidence and provenance out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tissuetalk.models.control import Control
from tissuetalk.models.images import Box
from tissuetalk.models.segmenter import PromptableSegmenter, is_pointed
from tissuetalk.prompts.target import Request
from tissuetalk.tools.answers.results import Mask, NotSegmented, SegmentResult
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.segment import algebra, engine, pointing, situated
from tissuetalk.tools.segment.algebra import HeldLabels, LabelImage
from tissuetalk.tools.segment.engine import FoundMask
from tissuetalk.tools.segment.field import FieldOfView, image_info, region_of, scale_of
from tissuetalk.tools.segment.grid import DEFAULTS, SlideSettings
from tissuetalk.tools.segment.records import MaskOutcome, record_of, warnings_of
from tissuetalk.tools.segment.request import SegmentRequest, Wanted, check_inside, read_as, refusal, sort_out
from tissuetalk.tools.segment.slide import segment_slide
from tissuetalk.tools.segment.teaching import take_lessons
from tissuetalk.tools.storage.database import new_id
from tissuetalk.tools.storage.result_folder import ResultFolder

if TYPE_CHECKING:
    from tissuetalk.tools.session import Session


TAUGHT_SHARE = 0.2
"""Part of the work, for the progress, that learning from examples takes."""


@dataclass(frozen=True)
class FieldMasks:
    """asked[i] was looked for and found[i] is what came of it; refused was not looked for, with the reason."""

    asked: list[Wanted]
    found: list[FoundMask]
    refused: list[NotSegmented]


def segment(session: Session, order: SegmentRequest, control: Control = Control()) -> SegmentResult:
    """Look for what was understood and keep the result in the workspace.

    Raises any of the contract's errors; an interrupted call leaves nothing behind, except for the finished blocks of a
    region too large for memory: the same order goes on with them.
    """
    base = session.model(order.model)
    with session.open(order.image, control=control) as source:
        region = region_of(source, order.region)
        control.covers(region.width * region.height)
        check_inside(order.request, source.width, source.height)
        lessons = take_lessons(session, order, base, source, control.part(0, TAUGHT_SHARE))
        model, request = lessons.model, lessons.request
        control = control.part(TAUGHT_SHARE, 1) if lessons else control
        asked, refused = sort_out(request, model, region)
        # to refuse everything no model is loaded: nothing is assumed of a scale that nothing is done at
        by_hand = is_pointed(model) or any(each.prompt.at_place for each in asked)
        if by_hand:
            region = pointing.narrowed(order.request, region)
        looks = bool(asked) or is_pointed(model) or region.width * region.height > session.slides.mask_px
        scale = scale_of(source, order.mpp, model if looks else None)
        field = FieldOfView(
            source, model, region, scale, session.features, order.region, lessons if lessons else None
        )
        if not by_hand and _is_large(field, asked, session.slides):
            result = segment_slide(session, order, request, field, asked, refused, control)
        else:
            with session.workspace.new_result(image_id=source.image_id, kind="segment") as draft:
                folder = ResultFolder(draft.folder)
                folder.write_request(order.without_names().as_json())
                lessons.write(draft.folder)
                masks = segment_field(field, request, control, session.slides)
                source.verify_unchanged()
                result = _write(folder, draft.result_id, field, request, masks, session.slides)
        lessons.keep(session)
        return result


def segment_field(
    field: FieldOfView, request: Request, control: Control = Control(), settings: SlideSettings = DEFAULTS
) -> FieldMasks:
    """Masks of everything the request wants and the model knows, with points, relations and boxes applied, in memory.

    Raises PointOutsideImageError, ImageTooLargeError, CancelledError, and InvalidArgumentError where the model must be
    told where to look and was not.
    """
    check_inside(request, field.source.width, field.source.height)
    asked, refused = sort_out(request, field.model, field.region)
    if is_pointed(field.model):
        return _at_places(field, field.model, request, asked, refused, control)
    if any(each.told for each in asked):
        found = situated.find_masks(field, request, asked, control, settings)
    else:
        questions = [(each.prompt, each.capability) for each in asked]
        found = engine.find_masks(field, questions, control, settings)
    return FieldMasks(asked, placed(request, asked, found, field), refused)


def placed(
    request: Request, asked: Sequence[Wanted], found: Sequence[FoundMask], field: FieldOfView
) -> list[FoundMask]:
    """Points, relations and boxes of the request applied; objects that are left are numbered afresh, 1..N."""
    held = [HeldLabels(each.labels, field.region, each.objects) for each in found]
    targets = [each.target for each in asked]
    told = any(each.told for each in asked)
    masks: list[LabelImage] = [*held] if told else algebra.related(request, targets, held, field.scale.mpp)
    if (lessons := field.lessons) is not None:
        masks = [
            algebra.corrected(mask, lessons.held_of(target), field.scale.mpp)
            for mask, target in zip(masks, targets, strict=True)
        ]
    answers = []
    for each, before, mask in zip(found, held, masks, strict=True):
        if mask is before:
            answers.append(each)
            continue
        labels = mask.read(field.region)
        labels = algebra.numbering(algebra.areas_of(mask))[labels]
        note = each.note if labels.any() else algebra.why_empty(mask, each.presence) or each.note
        answers.append(replace(each, labels=labels, objects=mask.objects, note=note))
    return answers


def _at_places(
    field: FieldOfView,
    model: PromptableSegmenter,
    request: Request,
    asked: list[Wanted],
    refused: list[NotSegmented],
    control: Control,
) -> FieldMasks:
    """The one target of the request in its boxes and points; of several, nobody could say which place is which."""
    if not (request.boxes or request.points):
        raise model.needs_places()
    if len(asked) != 1:
        reason = (
            f"{model.card.name} knows places, not names: ask for one target in one call, with the boxes that hold it, "
            "or leave model out"
        )
        ambiguous = [refusal(each.target, "ambiguous", reason) for each in asked]
        return FieldMasks([], [], [*refused, *ambiguous])
    found = pointing.objects_at(field, request, control)
    (only,) = asked
    return FieldMasks([only], [found], refused)


def _is_large(field: FieldOfView, asked: Sequence[Wanted], settings: SlideSettings) -> bool:
    """Whether the region's maps are too large to be held in memory at once."""
    area_px = field.region.width * field.region.height
    if area_px > settings.mask_px:
        return True
    finest = min((each.capability.mpp for each in asked), default=field.scale.mpp)
    return area_px * (field.scale.mpp / finest) ** 2 > settings.whole_px


def _write(
    folder: ResultFolder,
    result_id: str,
    field: FieldOfView,
    request: Request,
    found: FieldMasks,
    settings: SlideSettings,
) -> SegmentResult:
    """Masks, overlay and record of a result that was held in memory."""
    source, region, scale = field.source, field.region, field.scale
    outcomes = [
        _outcome(folder, each, region, settings.tile_px or field.model.tile_px) for each in found.found
    ]
    masks: list[Mask] = [
        record_of(outcome, each, number, field, request)
        for number, (each, outcome) in enumerate(zip(found.asked, outcomes, strict=True))
    ]
    overlay = drawing.overlay_of(folder, source, region, masks, scale.known_mpp)
    (folder.path / "overlay.png").write_bytes(drawing.as_png(overlay))
    result = SegmentResult(
        result_id=result_id,
        image=image_info(source, region, scale),
        masks=masks,
        not_segmented=found.refused,
        warnings=warnings_of(field, masks, outcomes),
        overlay="overlay.png",
        measures=[*request.measures, *request.place_measures],
        notes=list(request.notes),
        job_id=None,
        read_as=read_as(request, masks),
        parent=None if field.lessons is None else field.lessons.parent,
    )
    folder.write_result(result)
    return result


def _outcome(folder: ResultFolder, found: FoundMask, region: Box, tile_px: int) -> MaskOutcome:
    mask_id, labels = new_id("msk"), HeldLabels(found.labels, region, found.objects)
    return MaskOutcome(
        mask_id=mask_id,
        resources=folder.write_mask(mask_id, found.mask, found.instances),
        labels=labels,
        area_px=int(found.mask.sum()),
        count=labels.count if found.objects else None,
        box=Box.around(found.labels, region.x0, region.y0),
        presence=found.presence,
        model_mpp=found.model_mpp,
        tile_px=tile_px,
        weak_px=found.weak_px,
        note=found.note,
        expected_dice=found.expected_dice,
        specks=found.specks,
        unsure=found.unsure,
    )
