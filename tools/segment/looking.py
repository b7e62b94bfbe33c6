"""Which targets a model can be asked for, and what it found, in memory: nothing is written here."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmentation.pointed import PromptableSegmenter, is_pointed
from tissuetalk.models.segmenter import Capability, Prompt, Segmenter
from tissuetalk.prompts.target import Request, Target
from tissuetalk.tools.answers.results import NotSegmented
from tissuetalk.tools.segment import engine, pointing, spatial, targets
from tissuetalk.tools.segment.scale import Scale
from tissuetalk.tools.storage.features import FeatureCache


@dataclass(frozen=True)
class Wanted:
    """A target a model can be asked for."""

    target: Target
    prompt: Prompt
    capability: Capability


@dataclass(frozen=True)
class Looked:
    """asked[i] was looked for and found[i] is what came of it; refused was not looked for, with the reason."""

    asked: list[Wanted]
    found: list[engine.Found]
    refused: list[NotSegmented]


def look(
    source: ImageSource,
    model: Segmenter,
    request: Request,
    region: Box,
    scale: Scale,
    *,
    features: FeatureCache | None = None,
    progress: engine.Progress = lambda done, what: None,
    stop: engine.Stop = lambda: False,
) -> Looked:
    """Masks of everything the request wants and the model knows, with points, relations and boxes applied.

    Raises PointOutsideImageError, ImageTooLargeError, CancelledError, and InvalidArgumentError where the model must be
    told where to look and was not.
    """
    targets.check_inside(request, source.width, source.height)
    asked, refused = sort_out(request, model, region)
    if is_pointed(model):
        return _at_places(source, model, request, region, scale, asked, refused, features, progress, stop)
    prompts = [(each.prompt, each.capability) for each in asked]
    found = engine.look_for(
        model, source, region, scale.mpp, prompts, features=features, progress=progress, stop=stop
    )
    return Looked(asked, spatial.apply(request, [each.target for each in asked], found, region), refused)


def _at_places(
    source: ImageSource,
    model: PromptableSegmenter,
    request: Request,
    region: Box,
    scale: Scale,
    asked: list[Wanted],
    refused: list[NotSegmented],
    features: FeatureCache | None,
    progress: engine.Progress,
    stop: engine.Stop,
) -> Looked:
    """The one target of the request in its boxes and points; of several, nobody could say which place is which."""
    if not (request.boxes or request.points):
        raise model.needs_places()
    if len(asked) != 1:
        reason = (
            f"{model.card.name} knows places, not names: ask for one target in one call, with the boxes that hold it, "
            "or leave model out"
        )
        return Looked([], [], [*refused, *(refusal(each.target, "ambiguous", reason, []) for each in asked)])
    found = pointing.objects_at(
        model, source, region, scale.mpp, request, features=features, progress=progress, stop=stop
    )
    (only,) = asked
    return Looked(
        [replace(only, prompt=replace(only.prompt, text=""))], [found], refused
    )  # no words were sent


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
    candidates = spatial.plan(wanted)
    able = {}
    for index, target in enumerate(candidates):
        prompt = targets.prompt_for(target)
        able[index] = (prompt, model.capability(prompt))
    for index, target in enumerate(candidates):
        prompt, capability = able[index]
        at = spatial.reference_of(target, candidates)
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
                    f"it needs {targets.name_of(needs)!r}, which {model.card.name} does not know",
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
