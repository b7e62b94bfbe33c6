"""What a call of segment asks for: as it was passed, as it was understood, and as one Request of the words' readers.

Only what was understood is kept: a report may hold a patient's name, so its text is never written down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from tissuetalk.models.errors import InvalidArgumentError, PointOutsideImageError, UnknownLabelError
from tissuetalk.prompts.measures import place_measures_in
from tissuetalk.prompts.names import target_named
from tissuetalk.prompts.organs import region_of
from tissuetalk.prompts.target import Reader, Relation, Request, Target
from tissuetalk.prompts.taxonomy import Label
from tissuetalk.tools.answers.results import Mask, ReadAs, TargetArgument

if TYPE_CHECKING:
    from tissuetalk.tools.session import Session

MOST_TARGETS = 40
MOST_POINTS = 100


@dataclass(frozen=True)
class SegmentArguments:
    """The arguments of ``segment``, named as in the product's contract."""

    image: str
    words: str | None = None
    targets: Sequence[TargetArgument] = ()
    points: Sequence[Sequence[float]] = ()
    boxes: Sequence[Sequence[float]] = ()
    region: Sequence[float] | None = None
    organ: str | None = None
    mpp: float | None = None
    model: str | None = None

    @classmethod
    def of(cls, image: str | Path, words: str | None = None, **options: Any) -> SegmentArguments:
        """Of a call: what is None was left out, targets may be dicts."""
        given = {name: value for name, value in options.items() if value is not None}
        given["targets"] = [TargetArgument.model_validate(each) for each in given.get("targets", ())]
        return cls(str(image), words, **given)


@dataclass(frozen=True)
class SegmentRequest:
    """What to look for and where; enough to do it again, without the text it came from."""

    image: str
    request: Request
    region: Sequence[float] | None = None
    mpp: float | None = None
    model: str | None = None

    def as_json(self) -> dict[str, Any]:
        stored: dict[str, Any] = _STORED.dump_python(self, mode="json")
        return stored

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> SegmentRequest:
        return _STORED.validate_python(dict(stored))


_STORED = TypeAdapter(SegmentRequest)


def understand(bench: Session, asked: SegmentArguments) -> SegmentRequest:
    """Words to targets. Raises InvalidArgumentError, UnknownLabelError, NoTargetInWordsError and the reader's errors."""
    request = read_request(
        bench.reader,
        words=asked.words,
        targets=asked.targets,
        points=asked.points,
        boxes=asked.boxes,
        organ=asked.organ,
    )
    return SegmentRequest(asked.image, request, asked.region, asked.mpp, asked.model)


def read_request(
    reader: Reader,
    *,
    words: str | None,
    targets: Sequence[TargetArgument] | None,
    points: Sequence[Sequence[float]] | None,
    boxes: Sequence[Sequence[float]] | None,
    organ: str | None,
) -> Request:
    """One Request: structured targets decide when given, words otherwise; passed points and boxes add to spoken ones.

    Raises InvalidArgumentError, UnknownLabelError and, when the words name nothing, NoTargetInWordsError.
    """
    if targets:
        if len(targets) > MOST_TARGETS:
            raise InvalidArgumentError(f"{len(targets)} targets; pass at most {MOST_TARGETS} in one call.")
        request = Request(
            kind="request", organ=organ, targets=tuple(_target(argument, organ) for argument in targets)
        )
    elif words and words.strip():
        request = reader.translate(words, organ=organ)
        if request.kind != "report":
            request = replace(request, place_measures=place_measures_in(words))
    else:
        raise InvalidArgumentError("nothing to look for; pass words (or targets) that name what to segment.")
    if len(points or ()) + len(boxes or ()) > MOST_POINTS:
        raise InvalidArgumentError(f"too many points and boxes; pass at most {MOST_POINTS} in one call.")
    return replace(
        request,
        points=(*request.points, *((float(x), float(y)) for x, y in points or ())),
        boxes=(*request.boxes, *(_corners(box) for box in boxes or ())),
    )


def read_as(request: Request, masks: Sequence[Mask] = ()) -> list[ReadAs]:
    """Every sentence with a finding, its reading, and the mask that shows it."""
    shown = {name: mask.mask_id for mask in masks for name in (mask.free_form, mask.label) if name}
    return [
        ReadAs(
            sentence=line.sentence,
            span=line.span,
            finding=line.finding,
            assertion=line.assertion,
            mask_id=shown.get(line.target) if line.assertion in ("present", "uncertain") else None,
        )
        for line in request.read_as
    ]


def target_from_text(text: str) -> TargetArgument:
    """A target as typed: a canonical label where the text is one, plain words otherwise."""
    try:
        return TargetArgument(label=str(Label.parse(text)))
    except UnknownLabelError:
        return TargetArgument(words=text)


def _target(argument: TargetArgument, organ: str | None) -> Target:
    if argument.label is None and not (argument.words or "").strip():
        raise InvalidArgumentError("a target needs a label or words; labels are listed in taxonomy://labels.")
    label = None if argument.label is None else str(Label.parse(argument.label))
    words = (argument.words or (label or "").rsplit("-", 1)[-1]).strip()
    relation = argument.relation
    evidence = argument.words or argument.label or words
    region = argument.organ or organ
    if label is None and (meant := target_named(words, region_of(region))) is not None:
        label, words, region = meant.label, meant.words, meant.organ or region
    return Target(
        label=label,
        words=words,
        evidence=evidence,
        assertion=argument.assertion,
        organ=region,
        relation=None if relation is None else Relation(relation.op, relation.reference),
        reason="named by the caller",
    )


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(value) for value in box)
    if x1 <= x0 or y1 <= y0:
        raise InvalidArgumentError(
            f"box {list(box)} is empty; boxes are [x0, y0, x1, y1] with x0 < x1 and y0 < y1."
        )
    return x0, y0, x1, y1


def check_inside(request: Request, width: int, height: int) -> None:
    """Raises PointOutsideImageError for any point or box that is not in the image."""
    for x, y in request.points:
        if not (math.isfinite(x) and math.isfinite(y) and 0 <= x < width and 0 <= y < height):
            raise PointOutsideImageError(
                f"point ({x:g}, {y:g}) is not in the image of {width} x {height} px; use view(grid=true) to find it."
            )
    for box in request.boxes:
        if (
            not all(map(math.isfinite, box))
            or box[0] >= width
            or box[1] >= height
            or box[2] <= 0
            or box[3] <= 0
        ):
            raise PointOutsideImageError(
                f"box {[round(value) for value in box if math.isfinite(value)]} is not in the image of "
                f"{width} x {height} px; use view(grid=true) to find it."
            )


def name_of(target: Target) -> str:
    """What a reader calls the target."""
    return target.words or target.label or "object"
