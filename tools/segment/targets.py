"""Which targets of a request a model can be asked for, and which not, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tissuetalk.models.images import Box
from tissuetalk.models.segmenter import Capability, Prompt, Segmenter
from tissuetalk.prompts.names import prompt_for
from tissuetalk.prompts.target import Relation, Request, Target
from tissuetalk.tools.answers.results import NotSegmented
from tissuetalk.tools.segment.request import name_of


@dataclass(frozen=True)
class Wanted:
    """A target a model can be asked for."""

    target: Target
    prompt: Prompt
    capability: Capability


def sort_out(request: Request, model: Segmenter, region: Box) -> tuple[list[Wanted], list[NotSegmented]]:
    """What to look for, and what not with the reason."""
    refused: list[NotSegmented] = []
    wanted: list[Target] = []
    for target in request.targets:
        if target.assertion in ("absent", "historical"):
            refused.append(_ruled_out(target))
        elif target.ambiguous:
            refused.append(refusal(target, "ambiguous", target.ambiguous, list(target.alternatives)))
        else:
            wanted.append(target)
    asked: list[Wanted] = []
    candidates = with_references(wanted)
    able = {}
    for index, target in enumerate(candidates):
        prompt = prompt_for(target)
        able[index] = (prompt, model.capability(prompt))
    for index, target in enumerate(candidates):
        prompt, capability = able[index]
        at = reference_of(target, candidates)
        needs = candidates[at] if at is not None and able[at][1] is None else None
        if capability is None:
            refused.append(
                _unsupported(target, prompt, model, f"{model.card.name} was never trained for this")
            )
        elif needs is not None:
            refused.append(
                _unsupported(
                    target,
                    prompt,
                    model,
                    f"it needs {name_of(needs)!r}, which {model.card.name} does not know",
                )
            )
        elif _all_outside(request, region):
            refused.append(
                refusal(target, "out_of_view", "every point and box lies outside the segmented region", [])
            )
        else:
            asked.append(Wanted(target, prompt, capability))
    return asked, refused


def _all_outside(request: Request, region: Box) -> bool:
    places = [(x, y, x + 1, y + 1) for x, y in request.points] + list(request.boxes)
    return bool(places) and all(
        x0 >= region.x1 or y0 >= region.y1 or x1 <= region.x0 or y1 <= region.y0 for x0, y0, x1, y1 in places
    )


def refusal(target: Target, code: str, reason: str, nearest: list[str]) -> NotSegmented:
    return NotSegmented.model_validate(
        {
            "label": target.label,
            "free_form": None if target.label else target.words,
            "evidence": target.evidence,
            "code": code,
            "reason": reason,
            "nearest": nearest,
        }
    )


def _ruled_out(target: Target) -> NotSegmented:
    reasons = {
        "absent": "the words rule it out, so it was not looked for",
        "historical": "the words speak of an earlier specimen or history, so it was not looked for",
    }
    return refusal(target, target.assertion, reasons[target.assertion], [])


def _unsupported(target: Target, prompt: Prompt, model: Segmenter, reason: str) -> NotSegmented:
    return refusal(target, "unsupported", reason, model.nearest(prompt))


def with_references(targets: Sequence[Target]) -> list[Target]:
    """The targets to look for, with every relation's reference among them exactly once."""
    wanted = list(targets)
    for target in targets:
        if target.relation is None or target.relation.op == "selected":
            continue
        if reference_of(target, wanted) is None:
            words = target.relation.reference
            label = words if words.count("-") >= 2 else None
            wanted.append(
                replace(
                    target,
                    label=label,
                    words=words.rsplit("-", 1)[-1],
                    relation=None,
                    reason="named as the reference",
                )
            )
    return wanted


def reference_of(target: Target, among: Sequence[Target]) -> int | None:
    """Index of the target that ``target.relation`` refers to, by label or by words."""
    if target.relation is None:
        return None
    named = target.relation.reference.casefold()
    for index, other in enumerate(among):
        if other is not target and named in (
            (other.label or "").casefold(),
            other.words.casefold(),
            other.evidence.casefold(),
        ):
            return index
    return None


def chosen_by_places(targets: Sequence[Target]) -> tuple[set[int], set[int]]:
    """Indices of the targets that points choose among, and of those that boxes do.

    Both belong to the targets whose words tie them to it. If there is none, a point on the reference of a relation picks
    the reference's object, and otherwise points and boxes hold for every target.
    """
    references = {at for target in targets if (at := reference_of(target, targets)) is not None}
    everything = set(range(len(targets)))
    return _selected(targets, "point") or references or everything, _selected(targets, "box") or everything


def _selected(targets: Sequence[Target], by: str) -> set[int]:
    """Indices of the targets whose words tie them to the points (or boxes)."""
    wanted = Relation("selected", by)
    return {index for index, target in enumerate(targets) if target.relation == wanted}
