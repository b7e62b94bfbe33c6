"""The record of one mask, what is said about it, and what to warn about before anyone trusts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box
from tissuetalk.models.segmenter import encoder_of
from tissuetalk.prompts.target import Request, Target
from tissuetalk.tools.answers.reliability import MEDIUM, low_agreement, reliability_of, warned_below
from tissuetalk.tools.answers.results import (
    Mask,
    MaskResources,
    Provenance,
    RelationInfo,
    Taught,
    Warned,
)
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.segment.algebra import LabelImage
from tissuetalk.tools.segment.field import FieldOfView, is_small, region_cut
from tissuetalk.tools.segment.quality import picture_warnings
from tissuetalk.tools.segment.request import Wanted

RULES_VERSION = 3
"""Of how maps become objects and outlines. 1: until 0.1, where a slide's masks had the model's pixels and pictures and
slides were worked on apart. 2: one engine, full-resolution pixels on the grid of the image. 3: nuclei are parted
where the way between two centres dips, whatever their distance."""
PERHAPS = 0.5
"""Presence from which something nobody named is mentioned; from CLEARLY_PRESENT on it is shown."""
COVERS_EVERYTHING = 0.97


@dataclass(frozen=True)
class MaskOutcome:
    """What became of one target, as its record states it, in full-resolution pixels.

    mask_id and resources: of the files already written. labels: the mask, for what is checked at its border.
    weak_px: what would have been painted of something that is not present. specks: objects too small to count.
    unsure: where one more example would help most.
    """

    mask_id: str
    resources: MaskResources
    labels: LabelImage
    area_px: int
    count: int | None
    box: Box | None
    presence: float
    model_mpp: float
    tile_px: int
    weak_px: int = 0
    note: str = ""
    expected_dice: float | None = None
    specks: int = 0
    unsure: Box | None = None


def record_of(
    outcome: MaskOutcome, wanted: Wanted, number: int, field: FieldOfView, request: Request
) -> Mask:
    """The record of one mask whose files are written. number: its place among the masks of the result."""
    target, region, scale = wanted.target, field.region, field.scale
    area_um2 = outcome.area_px * scale.mpp**2 if scale.known else None
    relation = (
        None
        if target.relation is None
        else RelationInfo(op=target.relation.op, reference=target.relation.reference)
    )
    share = outcome.area_px / (region.width * region.height)
    taught = None if field.lessons is None else field.lessons.taught(target)
    if taught is not None and outcome.unsure is not None:
        taught = taught.model_copy(update={"unsure": outcome.unsure.as_list()})
    made = _provenance(outcome, wanted, field, request, relation)
    return Mask(
        mask_id=outcome.mask_id,
        label=target.label,
        free_form=None if target.label else target.words,
        target=wanted.capability.target,
        prompt=made.prompt,
        evidence=target.evidence,
        assertion=target.assertion,
        found=outcome.area_px > 0,
        presence=round(min(max(outcome.presence, 0.0), 1.0), 4),
        reliability=_reliability(made.weights_sha256, outcome, wanted.capability.target, taught),
        area_px=outcome.area_px,
        area_um2=area_um2,
        area_fraction=share,
        count=outcome.count,
        bbox=None if outcome.box is None else outcome.box.as_list(),
        relation=relation,
        verdict=_verdict(outcome, share, area_um2, target, taught),
        plain=target.plain,
        alternatives=list(target.alternatives),
        colour=drawing.colour_of(number),
        resources=outcome.resources,
        provenance=made,
        taught=taught,
    )


def _provenance(
    outcome: MaskOutcome, wanted: Wanted, field: FieldOfView, request: Request, relation: RelationInfo | None
) -> Provenance:
    """What a mask was made with; beside masks that were taught, others are still the plain model's."""
    target, scale, lessons = wanted.target, field.scale, field.lessons
    model, weights_sha256 = (
        (field.model.card.name, field.model.weights_sha256) if lessons is None else lessons.made_by(target)
    )
    return Provenance(
        words=target.evidence,
        label=target.label,
        prompt=field.model.sent(wanted.prompt),
        model=model,
        weights_sha256=weights_sha256,
        mpp=scale.mpp,
        mpp_source=scale.source,
        model_mpp=outcome.model_mpp,
        tile_px=outcome.tile_px,
        margin_px=field.model.margin_px,
        region=field.region.as_list(),
        points=[list(point) for point in request.points],
        boxes=[list(box) for box in request.boxes],
        relation=relation,
        image_sha256=field.source.sha256,
        version=version("tissuetalk"),
        rules=RULES_VERSION,
        examples=[] if lessons is None else lessons.examples_of(target),
        told=wanted.told,
        encoder=encoder_of(field.model),
    )


def _reliability(
    weights_sha256: str, outcome: MaskOutcome, target: str, taught: Taught | None
) -> float | None:
    """The quick estimate; ``explain`` makes the thorough one. None for an empty mask.

    Of a taught one what its own pixels promise: that follows the true overlap, where examples left out mostly score
    near 1, for whoever draws a box draws it in a clear place.
    """
    if not outcome.area_px or outcome.expected_dice is None:
        return None
    if taught is not None and taught.learned_sha256 is not None:
        return round(outcome.expected_dice, 4)
    return reliability_of(
        weights_sha256, "segment", outcome.expected_dice, presence=outcome.presence, target=target
    )


def _verdict(
    outcome: MaskOutcome, share: float, area_um2: float | None, target: Target, taught: Taught | None
) -> str:
    sure = outcome.note or f"presence {outcome.presence:.2f}"
    specks = f"{outcome.specks} speck{'' if outcome.specks == 1 else 's'} too small for one not counted"
    if not outcome.area_px and target.surveyed and outcome.presence >= PERHAPS:
        return f"perhaps there ({sure}), too unsure to show unasked: ask for it by name"
    if not outcome.area_px:
        weak = f" ({outcome.weak_px} px of weak signal are not shown)" if outcome.weak_px else ""
        return f"looked for, not found; {sure}{weak}" + (f"; {specks}" if outcome.specks else "")
    count = outcome.count
    parts = [] if count is None else [f"{count} object{'' if count == 1 else 's'}"]
    parts.append(f"{share:.1%} of the region")
    if area_um2 is not None:
        parts.append(f"{area_um2 / 1e6:.4g} mm²" if area_um2 >= 1e4 else f"{area_um2:.4g} µm²")
    parts.append(sure)
    if taught is not None:
        parts.append(said_of(taught))
    if taught is not None and taught.unsure is not None:
        parts.append(f"an example at {taught.unsure} would help most")
    if outcome.specks:
        parts.append(specks)
    if target.assertion == "uncertain":
        parts.append("the words are not sure of it")
    return "found: " + ", ".join(parts)


def said_of(taught: Taught) -> str:
    """How good what was taught may be, in plain words."""
    count = taught.positive + taught.negative
    shown = f"{count} example{'' if count == 1 else 's'} ({taught.positive} of it, {taught.negative} of other things)"
    if taught.learned_sha256 is None:
        return f"corrected by {shown}"
    if taught.expected_dice is None or taught.interval is None:
        return f"taught by {shown}, too few to say how good it is"
    low, high = taught.interval
    return f"taught by {shown}; left out one by one they are told apart with a Dice of {taught.expected_dice:.2f} ({low:.2f} to {high:.2f})"


def warnings_of(field: FieldOfView, masks: Sequence[Mask], outcomes: Sequence[MaskOutcome]) -> list[Warned]:
    """All warnings of a result, by the same rules whatever its size."""
    tissue = field.tissue.picture(field.region)
    warnings = [*region_cut(field.source, field.asked), *_view_warnings(field, tissue)]
    warnings += [] if field.lessons is None else field.lessons.far
    if not field.scale.known:
        assumed = (
            f"{field.scale.mpp:g} µm/px was assumed. Areas are in pixels."
            if masks
            else "nothing was measured."
        )
        message = f"the file does not say its scale; {assumed} Pass mpp if you know it."
        warnings.append(Warned(code="scale_unknown", message=message))
    warnings += field.doubt_of_scale()
    for mask, outcome in zip(masks, outcomes, strict=True):
        if mask.found:
            warnings += mask_warnings(mask.name, outcome, mask.area_fraction, float(tissue.mean()))
            taught = mask.taught is not None
            below = MEDIUM if taught else warned_below(field.model.weights_sha256)
            warnings += low_agreement(mask.name, mask.reliability, below, taught=taught)
    return warnings


def _view_warnings(field: FieldOfView, tissue: NDArray[np.bool_]) -> list[Warned]:
    """Judged on all of a small image; of a large one on the part of the region that holds tissue."""
    source, region = field.source, field.region
    if is_small(source):
        return picture_warnings(source.overview())
    around = Box.around(tissue)
    if around is None:
        return [
            Warned(
                code="not_histology", message="no tissue was found: the region is empty glass or one colour."
            )
        ]
    across, down = region.width / tissue.shape[1], region.height / tissue.shape[0]
    box = Box(
        region.x0 + int(around.x0 * across),
        region.y0 + int(around.y0 * down),
        min(region.x1, region.x0 + int(around.x1 * across) + 1),
        min(region.y1, region.y0 + int(around.y1 * down) + 1),
    )
    return picture_warnings(source.read_scaled(box, min(1.0, 1024 / max(box.width, box.height))))


def mask_warnings(name: str, outcome: MaskOutcome, share: float, tissue_share: float) -> list[Warned]:
    """implausible_coverage and touches_border of one found mask. share, tissue_share: of the region."""
    warnings: list[Warned] = []
    if tissue_share > 0 and share / tissue_share > COVERS_EVERYTHING:
        warnings.append(
            Warned(
                code="implausible_coverage",
                message=f"{name} covers {min(share / tissue_share, 1):.0%} of the tissue; look before you quote it.",
            )
        )
    if outcome.count:
        cut = len(_at_border(outcome.labels))
        if cut > max(1, 0.2 * outcome.count):
            warnings.append(
                Warned(
                    code="touches_border",
                    message=f"{cut} of {outcome.count} {name} are cut by the region's border; sizes and counts are off "
                    "there.",
                )
            )
    return warnings


def _at_border(labels: LabelImage) -> set[int]:
    """The objects that reach the edge of the region."""
    at = labels.region
    edges = (
        Box(at.x0, at.y0, at.x1, at.y0 + 1),
        Box(at.x0, at.y1 - 1, at.x1, at.y1),
        Box(at.x0, at.y0, at.x0 + 1, at.y1),
        Box(at.x1 - 1, at.y0, at.x1, at.y1),
    )
    found = {int(number) for edge in edges for number in np.unique(labels.read(edge))}
    return found - {0}
