"""What is asked of which image: the call as it was understood, the field of view, the targets a model can be asked for.

Only what was understood is kept: a report may hold a patient's name, so its text is never written down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tissuetalk.models.errors import InvalidArgumentError, PointOutsideImageError, UnknownLabelError
from tissuetalk.models.images import Box
from tissuetalk.models.segmenter import (
    Capability,
    Prompt,
    Segmenter,
    SituatedSegmenter,
    is_pointed,
    is_situated,
)
from tissuetalk.prompts import organs
from tissuetalk.prompts.measures import place_measures_in
from tissuetalk.prompts.names import prompt_for, prompt_of, target_named
from tissuetalk.prompts.target import Reader, Relation, Request, Target
from tissuetalk.prompts.taxonomy import Label
from tissuetalk.tools.answers.arguments import MOST_POINTS, MOST_TARGETS, ExampleArgument
from tissuetalk.tools.answers.results import (
    Mask,
    NotSegmented,
    ReadAs,
    TargetArgument,
)

RULED_OUT = {
    "absent": "the words rule it out, so it was not looked for",
    "historical": "the words speak of an earlier specimen or history, so it was not looked for",
}
SHOW_ME = '; show me some: examples=[{"box": [x0, y0, x1, y1], "is": true}, {"box": […], "is": false}]'
"""What to do where no model knows a target; ``view`` with grid names the pixels."""
CLEARLY_PRESENT = 0.9
"""Presence from which an open question shows what nobody named; a false tumour would frighten the one who asked."""


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
    examples: Sequence[ExampleArgument] = ()
    name: str | None = None
    base_result: str | None = None
    learned: Sequence[str] = ()
    """SHA-256 of kept targets that win over what the model knows; the command line's --learned."""

    @classmethod
    def of(cls, image: str | Path, words: str | None = None, **options: Any) -> SegmentArguments:
        """Of a call: what is None was left out, targets and examples may be dicts."""
        given = {name: value for name, value in options.items() if value is not None}
        given["targets"] = [TargetArgument.model_validate(each) for each in given.get("targets", ())]
        given["examples"] = [ExampleArgument.model_validate(each) for each in given.get("examples", ())]
        return cls(str(image), words, **given)


@dataclass(frozen=True)
class Lesson:
    """What was shown of one target. target: its place among those of the request.

    teaches: the mask is made from the examples, else they only add to it and take away. holds: the mask has every place
    that is shown as the target and none that is shown as something else. keep_as: name to keep it under.
    """

    examples: tuple[ExampleArgument, ...]
    target: int = 0
    teaches: bool = True
    holds: bool = False
    keep_as: str | None = None


@dataclass(frozen=True)
class SegmentRequest:
    """What to look for and where; enough to do it again, without the text it came from: its sentences are not kept.

    lessons: by examples, at most one of a target; of a correction also those of the results before. parent: what it corrects.
    """

    image: str
    request: Request
    region: Sequence[float] | None = None
    mpp: float | None = None
    model: str | None = None
    lessons: tuple[Lesson, ...] = ()
    parent: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What examples brought is left out where there are none: requests of before they were compare as they did."""
        kept = replace(self, request=self.request.without_sentences())
        stored: dict[str, Any] = _STORED.dump_python(kept, mode="json", by_alias=True)
        for field in ("lessons", "parent"):
            if not stored[field]:
                del stored[field]
        if not kept.request.sentence:
            del stored["request"]["sentence"]
        for target in stored["request"]["targets"]:
            if not target["learned"]:
                del target["learned"]
        return stored

    def without_names(self) -> SegmentRequest:
        """The same masks, nothing kept: what a result remembers must not name anything when it is made again."""
        return replace(self, lessons=tuple(replace(each, keep_as=None) for each in self.lessons))

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> SegmentRequest:
        return _STORED.validate_python(dict(stored))


_STORED = TypeAdapter(SegmentRequest)


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
        wanted = tuple(dict.fromkeys(_target(argument, organ) for argument in targets))
        request = Request(kind="request", organ=organ, targets=wanted)
    elif words and words.strip():
        request = reader.translate(words, organ=organ)
        if request.kind != "report":
            request = replace(request, place_measures=place_measures_in(words))
    else:
        raise InvalidArgumentError("nothing to look for; pass words (or targets) that name what to segment.")
    return with_places(request, points or (), boxes or ())


def with_places(
    request: Request, points: Sequence[Sequence[float]], boxes: Sequence[Sequence[float]]
) -> Request:
    """Points and boxes added to those that were said. Raises InvalidArgumentError."""
    if len(points) + len(boxes) > MOST_POINTS:
        raise InvalidArgumentError(f"too many points and boxes; pass at most {MOST_POINTS} in one call.")
    return replace(
        request,
        points=(*request.points, *((float(x), float(y)) for x, y in points)),
        boxes=(*request.boxes, *(_corners(box) for box in boxes)),
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
    if label is None and (meant := target_named(words, organs.region_of(region))) is not None:
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
        x0, y0, x1, y1 = box
        if not all(map(math.isfinite, box)) or x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
            raise PointOutsideImageError(
                f"box {[round(value) for value in box if math.isfinite(value)]} is not in the image of "
                f"{width} x {height} px; use view(grid=true) to find it."
            )


def name_of(target: Target) -> str:
    """What a reader calls the target."""
    return target.words or target.label or "object"


@dataclass(frozen=True)
class Wanted:
    """A target a model can be asked for.

    told: the relation and the places of the target go into the network; otherwise they are applied to its masks.
    """

    target: Target
    prompt: Prompt
    capability: Capability
    told: bool = False


def sort_out(request: Request, model: Segmenter, region: Box) -> tuple[list[Wanted], list[NotSegmented]]:
    """What to look for, and what not with the reason."""
    refused: list[NotSegmented] = []
    wanted: list[Target] = []
    for target in request.targets:
        if target.assertion in RULED_OUT:
            refused.append(refusal(target, target.assertion, RULED_OUT[target.assertion]))
        elif target.ambiguous:
            refused.append(refusal(target, "ambiguous", target.ambiguous, target.alternatives))
        else:
            wanted.append(target)
    asked: list[Wanted] = []
    name, told = model.card.name, told_to(model, request, wanted) if is_situated(model) else []
    candidates = [target for target, _ in told] or with_references(wanted)
    prompts = [prompt for _, prompt in told] or [prompt_for(target) for target in candidates]
    able = [model.capability(prompt) for prompt in prompts]
    places = [(x, y, x + 1, y + 1) for x, y in request.points] + list(request.boxes)
    outside = bool(places) and all(
        x0 >= region.x1 or y0 >= region.y1 or x1 <= region.x0 or y1 <= region.y0 for x0, y0, x1, y1 in places
    )
    for target, prompt, capability in zip(candidates, prompts, able, strict=True):
        at = None if told else reference_of(target, candidates)
        if capability is None:
            reason = f"{name} was never trained for this{'' if is_pointed(model) else SHOW_ME}"
            refused.append(refusal(target, "unsupported", reason, model.nearest(prompt)))
        elif at is not None and able[at] is None:
            reason = f"it needs {name_of(candidates[at])!r}, which {name} does not know"
            refused.append(refusal(target, "unsupported", reason, model.nearest(prompt)))
        elif outside:
            reason = "every point and box lies outside the segmented region"
            refused.append(refusal(target, "out_of_view", reason))
        else:
            asked.append(Wanted(target, prompt, capability, told=bool(told)))
    return [*asked, *_beyond_the_survey(request, model, asked)], refused


def told_to(
    model: SituatedSegmenter, request: Request, wanted: Sequence[Target]
) -> list[tuple[Target, Prompt]]:
    """What a network is asked that takes relations and places itself; nothing where it was not made for one of them.

    The caller's own sentence is one request, with one mask.
    """
    known = [target for target in wanted if model.capability(prompt_for(target)) is not None]
    if not known or any(target.surveyed for target in wanted) or (request.boxes and not model.takes_boxes):
        return []
    if said := request.sentence if model.reads_sentences else "":
        subject = next((target for target in known if target.relation is not None), None)
        subject = subject or replace(known[0], words=" and ".join(dict.fromkeys(map(name_of, known))))
        wanted = known = [replace(subject, evidence=said)]
    among, asked = with_references(wanted), []
    pointed, boxed = chosen_by_places(among)
    for index, target in enumerate(wanted):
        at = {index, reference_of(target, among)}
        by_hand = bool((request.points and at & pointed) or (request.boxes and at & boxed))
        relation = target.relation
        if relation is not None and relation.op == "selected":
            relation = None
        told = replace(
            prompt_for(target),
            relation=None if relation is None else (relation.op, relation.reference),
            at_place=by_hand,
        )
        asked.append((target, replace(told, text=said, verbatim=True) if said else told))
    return asked if all(model.answers(told) for target, told in asked if target in known) else []


def _beyond_the_survey(request: Request, model: Segmenter, asked: Sequence[Wanted]) -> list[Wanted]:
    """What the model knows besides, where the question was open: "what can you see?" means whatever can be seen."""
    if (surveyed := next((target for target in request.targets if target.surveyed), None)) is None:
        return []
    left = {name_of(target).casefold() for target in request.targets if target.assertion in RULED_OUT}
    have = {wanted.capability.target for wanted in asked}
    target = replace(surveyed, label=None, alternatives=(), plain="", reason="the model knows it")
    return [
        Wanted(replace(target, words=prompt.words), prompt, replace(capability, present_from=CLEARLY_PRESENT))
        for prompt, capability in repertoire(model, request.organ)
        if capability.target not in have and prompt.words not in left
    ]


def repertoire(model: Segmenter, organ: str | None) -> list[tuple[Prompt, Capability]]:
    """Everything a model says it knows in an organ, each once; nothing of a model that takes any words, or only places."""
    if is_pointed(model) or model.capability(Prompt(None, "any thing", "any thing")) is not None:
        return []
    known: dict[str, tuple[Prompt, Capability]] = {}
    for name in model.card.targets:
        # the organ decides which of its targets a model takes a name for
        words = f"{organ or ''} {name}".strip()
        if (capability := model.capability(prompt_of(None, words, words))) is not None:
            known.setdefault(capability.target, (prompt_of(None, name, name), capability))
    return list(known.values())


def refusal(target: Target, code: str, reason: str, nearest: Sequence[str] = ()) -> NotSegmented:
    free_form = None if target.label else target.words
    said = {"label": target.label, "free_form": free_form, "evidence": target.evidence}
    return NotSegmented.model_validate(said | {"code": code, "reason": reason, "nearest": list(nearest)})


def with_references(targets: Sequence[Target]) -> list[Target]:
    """The targets to look for, with every relation's reference among them exactly once."""
    wanted = list(targets)
    for target in targets:
        if target.relation is None or target.relation.op == "selected":
            continue
        if reference_of(target, wanted) is None:
            words = target.relation.reference
            label = words if words.count("-") >= 2 else None
            words = words.rsplit("-", 1)[-1]
            reference = replace(target, label=label, words=words, relation=None, learned="")
            wanted.append(replace(reference, reason="named as the reference"))
    return wanted


def reference_of(target: Target, among: Sequence[Target]) -> int | None:
    """Index of the target that ``target.relation`` refers to, by label or by words."""
    if target.relation is None:
        return None
    named = target.relation.reference.casefold()
    for index, other in enumerate(among):
        names = ((other.label or "").casefold(), other.words.casefold(), other.evidence.casefold())
        if other is not target and named in names:
            return index
    return None


def chosen_by_places(targets: Sequence[Target]) -> tuple[set[int], set[int]]:
    """Indices of the targets that points choose among, and of those that boxes do.

    Both belong to the targets whose words tie them to it. If there is none, a point on the reference of a relation picks
    the reference's object, and otherwise points and boxes hold for every target.
    """
    references = {at for target in targets if (at := reference_of(target, targets)) is not None}
    everything = set(range(len(targets)))
    pointed, boxed = (
        {index for index, target in enumerate(targets) if target.relation == Relation("selected", by)}
        for by in ("point", "box")
    )
    return pointed or references or everything, boxed or everything
