"""explain: evidence for a stored result. The question, or its absence, chooses the kinds.

Explanations are kept beside their result: long work is read later, and the full picture is a link.

explanations/<key>.json   the structured answer, links relative to the folder
explanations/<key>.png    its picture, where there is one
explanations/<key>-<mask_id>.png   where the answers about a mask differ, where reliability was asked
The key names what was asked, as it was understood.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tissuetalk.models.classifiers.card import classifier_in_roots
from tissuetalk.models.control import Control
from tissuetalk.models.errors import InvalidArgumentError, UnknownResultError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import Segmenter, is_pointed
from tissuetalk.models.writing import write_whole
from tissuetalk.prompts.question import Kind
from tissuetalk.tools.answers.explained import NOTICE, Evidence, ExplainResult, Meaning
from tissuetalk.tools.answers.results import Mask, NotSegmented, SegmentResult
from tissuetalk.tools.drawing import drawing, sheet
from tissuetalk.tools.explain import observations, windows
from tissuetalk.tools.explain.counterfactual import Views, without
from tissuetalk.tools.explain.meaning import meanings
from tissuetalk.tools.explain.observations import Observed
from tissuetalk.tools.explain.pictures import WIDTH, Board
from tissuetalk.tools.explain.request import ExplainRequest
from tissuetalk.tools.explain.shown import how_it_was_shown
from tissuetalk.tools.explain.stability import CheckedMask, StabilityCheck
from tissuetalk.tools.masks.layer import OpenImage
from tissuetalk.tools.segment.field import FieldOfView, Scale
from tissuetalk.tools.segment.teaching import model_of
from tissuetalk.tools.storage.features import FeatureCache
from tissuetalk.tools.storage.result_folder import ResultFolder

if TYPE_CHECKING:
    from tissuetalk.tools.explain.diagnosis import Consultation

NO_DIAGNOSIS = "This cannot answer for a diagnosis; what follows is what was seen."
NOT_ASKED_AGAIN = "No reliability: nothing was found, or the model was told where to look and cannot be asked in other words."
NO_CLASSIFIER = "No classifier was named: pass classifier; model://classifiers lists what is here."
MOST_LINES = 10
FOLDER = "explanations"
TITLES: dict[Kind, str] = {
    "grounding": "what the words led to",
    "observations": "what else is in the picture",
    "meaning": "what it means",
    "reliability": "how far each mask can be trusted",
    "counterfactual": "the picture without it",
    "classifier": "what the classifier relied on",
}
MOST_MASKS = 3
"""Masks whose reliability or counterfactual views are made in one call; a question can name others."""


@dataclass(frozen=True)
class Explained:
    """The answer and its picture, None when nothing of it can be seen. maps: 8-bit, by mask id, where answers differ."""

    result: ExplainResult
    picture: Image.Image | None
    maps: dict[str, Image.Image] = field(default_factory=dict)


@dataclass(frozen=True)
class Access:
    """How to get at pixels, models and classifiers. roots: folders a classifier's file may lie in, None for any."""

    open_image: OpenImage
    load_model: Callable[[str], Segmenter]
    roots: Sequence[Path] | None = None
    features: FeatureCache | None = None

    def field(self, folder: ResultFolder, mask: Mask, source: ImageSource) -> FieldOfView:
        """What the mask was made on. Raises InvalidArgumentError when the weights are no longer those it was made with."""
        record = mask.provenance
        model = model_of(folder, mask, self.load_model)
        if model.weights_sha256 != record.weights_sha256:
            raise InvalidArgumentError(
                f"{model.card.name} has other weights now than when this result was made; segment again, then ask."
            )
        region, scale = Box.from_sequence(record.region), Scale(record.mpp, record.mpp_source)
        return FieldOfView(source, model, region, scale, self.features)


@dataclass
class Findings:
    """What the kinds came to, before it is written down."""

    observed: list[Observed] = field(default_factory=list)
    meanings: list[Meaning] = field(default_factory=list)
    checked: list[tuple[Mask, CheckedMask]] = field(default_factory=list)
    views: list[Views] = field(default_factory=list)
    classifier: Consultation | None = None


def explain(
    folder: ResultFolder, request: ExplainRequest, access: Access, control: Control = Control()
) -> Explained:
    """Evidence for a stored result.

    Raises the errors of opening the image and of the classifier, InvalidArgumentError when the model has changed since,
    and CancelledError.
    """
    result, kinds, found, picture = folder.result(), request.kinds, Findings(), None
    if "meaning" in kinds:
        found.meanings = meanings(folder, result, request)
    if set(kinds) - {"meaning", "provenance"} or any(each.example_box for each in found.meanings):
        with access.open_image() as source:
            _ask_models(folder, request, access, source, found, control)
            picture = _picture(Board(folder, result, source), request, found)
    answer = ExplainResult(
        result_id=result.result_id,
        kinds=list(kinds),
        evidence=evidence(folder, result, request) if "grounding" in kinds else [],
        observations=[each.answer for each in found.observed],
        meanings=found.meanings,
        stability=[checked.answer for _, checked in found.checked],
        counterfactuals=[each for views in found.views for each in views.answers],
        classifier=None if found.classifier is None else found.classifier.answer,
        provenance=[mask.provenance for mask in request.masks(result)] if "provenance" in kinds else [],
        overlay=result.overlay,
        notice=f"{NO_DIAGNOSIS} {NOTICE}" if request.diagnosis else NOTICE,
    )
    levels = {mask.mask_id: (checked.uncertainty * 255).astype(np.uint8) for mask, checked in found.checked}
    return Explained(answer, picture, {mask_id: Image.fromarray(each) for mask_id, each in levels.items()})


def _ask_models(
    folder: ResultFolder,
    request: ExplainRequest,
    access: Access,
    source: ImageSource,
    found: Findings,
    control: Control,
) -> None:
    """Everything that asks a model or reads pixels."""
    kinds, result = request.kinds, folder.result()
    there = [mask for mask in request.masks(result) if mask.found]
    if "observations" in kinds and result.masks:
        most_px = observations.MOST_WORKING_PX * (1 if "meaning" in kinds else observations.WHEN_ASKED)
        # what was taught knows no more than its model
        field = access.field(
            folder, next((each for each in result.masks if each.taught is None), result.masks[0]), source
        )
        found.observed = observations.observe(result, field, most_px=most_px, control=control)
    if "reliability" in kinds and there:
        checks: dict[str, StabilityCheck] = {}
        for number, mask in enumerate(there[:MOST_MASKS]):
            field = access.field(folder, mask, source)
            if not (is_pointed(field.model) or _was_told_more(mask)):
                check = checks.setdefault(mask.provenance.weights_sha256, StabilityCheck(field, control))
                control.report(number / len(there[:MOST_MASKS]), f"asking for {mask.target} in other ways")
                painted = windows.looked_over(windows.layer_of(folder, mask))
                found.checked.append((mask, check.of(mask, painted)))
    if request.classifier is not None:
        from tissuetalk.tools.explain.diagnosis import consult  # loads torch, which few questions need

        control.report(0.3, "asking the classifier")
        classifier = classifier_in_roots(request.classifier, access.roots)
        found.classifier = consult(classifier, folder, source, control)
    if "counterfactual" in kinds:
        control.report(0.7, "changing the picture")
        score = None if found.classifier is None else found.classifier.without
        found.views = [without(folder, mask, source, score) for mask in there[:MOST_MASKS]]


def _was_told_more(mask: Mask) -> bool:
    """Whether the mask's network was told more than words: other words alone would ask for something else."""
    made = mask.provenance
    return made.told and bool(made.points or made.boxes or made.relation)


def _picture(board: Board, request: ExplainRequest, found: Findings) -> Image.Image | None:
    """The kinds that can be seen, one row each."""
    kinds, about, rows = request.kinds, request.masks(board.result), []
    if "grounding" in kinds or "observations" in kinds:
        rows.append(board.findings(about, found.observed, small=len(kinds) > 1))
    if found.meanings and (crops := board.examples(found.meanings)) is not None:
        fits = rows and rows[0].width + crops.width < WIDTH
        rows = [sheet.beside(rows[0], crops)] if fits else [*rows, crops]
    rows += [board.stability(checked, mask) for mask, checked in found.checked]
    rows += [board.counterfactual(views) for views in found.views]
    rows += [] if found.classifier is None else [found.classifier.picture]
    if not rows:
        return None
    title = "; ".join(TITLES[kind] for kind in kinds if kind in TITLES)
    return sheet.sheet(title[0].upper() + title[1:], rows, NOTICE)


def as_text(result: ExplainResult) -> str:
    """At most ten lines: evidence first, then observations, meaning, and how it was made."""
    lines = [f"{item.number or '-'}. {item.statement}" for item in result.evidence]
    lines += [f"{item.number}. {item.statement}" for item in result.observations if item.found]
    besides = observations.summary(result.observations)
    lines += [besides] if besides else []
    lines += [item.statement for item in result.stability]
    lines += [NOT_ASKED_AGAIN] if "reliability" in result.kinds and not result.stability else []
    lines += [item.statement for item in result.counterfactuals]
    lines += [] if result.classifier is None else [result.classifier.statement]
    lines += [NO_CLASSIFIER] if "classifier" in result.kinds and result.classifier is None else []
    lines += [f"{each.name}: {each.what} {each.looks_like}" for each in result.meanings]
    lines += [
        f"{record.words!r}: {record.model} ({record.weights_sha256[:12]}) at {record.model_mpp:g} µm/px, "
        f"image {record.mpp:g} µm/px ({record.mpp_source}), version {record.version}"
        for record in result.provenance
    ]
    room = MOST_LINES - 1  # the notice is the last line, whatever else there is
    if len(lines) > room:
        lines = [*lines[: room - 1], f"… and {len(lines) - room + 1} more in the structured answer."]
    return "\n".join([*lines, result.notice])


def evidence(folder: ResultFolder, result: SegmentResult, request: ExplainRequest) -> list[Evidence]:
    """Which words led to which mask, or why there is none. Numbered as in the picture's legend; what has no mask follows without a number, unless masks were named."""
    about = request.masks(result)
    shown = [mask for mask in result.masks if mask.found]
    there = [_found(folder, number, mask) for number, mask in enumerate(shown, start=1) if mask in about]
    missed = [_found(folder, None, mask) for mask in result.masks if not mask.found and mask in about]
    left_out = [_left_out(item) for item in result.not_segmented] if request.everything else []
    return there + missed + left_out


def _found(folder: ResultFolder, number: int | None, mask: Mask) -> Evidence:
    read_as = mask.label or "words without a label"
    how = how_it_was_shown(folder, mask)
    asked = f"was asked for “{mask.prompt}”" if mask.prompt else "reads no words"
    return Evidence(
        number=number,
        words=mask.evidence,
        assertion=mask.assertion,
        name=mask.name,
        mask_id=mask.mask_id,
        statement=f"“{mask.name}” was shown, not known: {how}. {mask.verdict}"
        if how
        else f"“{mask.evidence}” was read as {read_as}; {mask.provenance.model} {asked}: {mask.verdict}",
    )


def _left_out(item: NotSegmented) -> Evidence:
    known = f"; nearest that is known: {', '.join(item.nearest)}" if item.nearest else ""
    assertion = item.code if item.code in ("absent", "historical") else "present"
    return Evidence.model_validate(
        {
            "number": None,
            "words": item.evidence,
            "assertion": assertion,
            "name": item.free_form or item.label or item.evidence,
            "mask_id": None,
            "statement": f"“{item.evidence}” has no mask ({item.code}): {item.reason}{known}",
        }
    )


def key_of(request: ExplainRequest) -> str:
    return hashlib.sha256(json.dumps(request.model_dump(mode="json")).encode()).hexdigest()[:20]


def store(folder: ResultFolder, request: ExplainRequest, explained: Explained) -> None:
    """Write the answer, replacing an earlier one to the same question. The JSON comes last: it names the pictures."""
    key = key_of(request)
    picture = None if explained.picture is None else _write(folder, f"{key}.png", explained.picture)
    maps = {mask_id: _write(folder, f"{key}-{mask_id}.png", each) for mask_id, each in explained.maps.items()}
    stability = [
        each.model_copy(update={"map": maps.get(each.mask_id)}) for each in explained.result.stability
    ]
    result = explained.result.model_copy(update={"picture": picture, "stability": stability})
    write_whole(_json(folder, request), result.model_dump_json(indent=1))


def _write(folder: ResultFolder, name: str, picture: Image.Image) -> str:
    """The link of the file."""
    write_whole(folder.path / FOLDER / name, drawing.as_png(picture))
    return f"{FOLDER}/{name}"


def stored(folder: ResultFolder, request: ExplainRequest) -> Explained:
    """What was stored, without its maps. Raises UnknownResultError when the question was not answered yet."""
    path = _json(folder, request)
    if not path.is_file():
        raise UnknownResultError("this explanation is gone; call explain with the same question again.")
    result = ExplainResult.model_validate_json(path.read_text("utf-8"))
    if result.picture is None:
        return Explained(result, None)
    with Image.open(folder.path / result.picture) as picture:
        picture.load()
        return Explained(result, picture)


def picture_file(folder: ResultFolder, name: str) -> bytes:
    """The PNG of an explanation. Raises UnknownResultError for a name that is none."""
    # the name comes from outside: nothing is read unless it matches in full
    path = folder.path / FOLDER / name
    if re.fullmatch(r"[0-9a-f]{20}(-msk_[a-z0-9]+)?\.png", name) is None or not path.is_file():
        raise UnknownResultError(f"no explanation {name[:40]!r} here; call explain to make one.")
    return path.read_bytes()


def _json(folder: ResultFolder, request: ExplainRequest) -> Path:
    return folder.path / FOLDER / f"{key_of(request)}.json"
