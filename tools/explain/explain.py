"""explain: evidence for a stored result. The question, or its absence, chooses the kinds; each kind is a module of
``tools/explain``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import ImageSource
from tissuetalk.models.segmentation.pointed import is_pointed
from tissuetalk.models.segmenter import Segmenter
from tissuetalk.tools.answers.explained import NOTICE, ExplainResult, Meaning
from tissuetalk.tools.answers.results import Mask, SegmentResult
from tissuetalk.tools.drawing import sheet
from tissuetalk.tools.explain import grounding, observing
from tissuetalk.tools.explain.asking import Asking, Kind
from tissuetalk.tools.explain.counterfactual import Views, without
from tissuetalk.tools.explain.meaning import meanings
from tissuetalk.tools.explain.observing import Seen
from tissuetalk.tools.explain.pictures import WIDTH, Board
from tissuetalk.tools.explain.stability import Checked, Checker
from tissuetalk.tools.measure.measure import OpenImage
from tissuetalk.tools.segment import engine
from tissuetalk.tools.storage.features import FeatureCache
from tissuetalk.tools.storage.result_folder import ResultFolder

if TYPE_CHECKING:
    from tissuetalk.tools.explain.diagnosis import Looked

NO_DIAGNOSIS = "This cannot answer for a diagnosis; what follows is what was seen."
NOT_ASKED_AGAIN = "No reliability: nothing was found, or the model was told where to look and cannot be asked in other words."
NO_CLASSIFIER = "No classifier was named: pass classifier; model://classifiers lists what is here."
MOST_LINES = 10
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


@dataclass
class Found:
    """What the kinds came to, before it is written down."""

    seen: list[Seen] = field(default_factory=list)
    meanings: list[Meaning] = field(default_factory=list)
    checked: list[tuple[Mask, Checked]] = field(default_factory=list)
    views: list[Views] = field(default_factory=list)
    classifier: Looked | None = None


@dataclass(frozen=True)
class Case:
    """One call: the result, the question, and how to get at pixels and models."""

    folder: ResultFolder
    asking: Asking
    open_image: OpenImage
    load_model: Callable[[str], Segmenter]
    roots: Sequence[Path] | None = None
    features: FeatureCache | None = None
    progress: engine.Progress = lambda done, what: None
    stop: engine.Stop = lambda: False

    def model_of(self, mask: Mask) -> Segmenter:
        """Raises InvalidArgumentError when the weights are no longer those the mask was made with."""
        model = self.load_model(mask.provenance.model)
        if model.weights_sha256 != mask.provenance.weights_sha256:
            raise InvalidArgumentError(
                f"{model.card.name} has other weights now than when this result was made; segment again, then ask."
            )
        return model


def explain_folder(
    folder: ResultFolder,
    asking: Asking,
    *,
    open_image: OpenImage,
    load_model: Callable[[str], Segmenter],
    roots: Sequence[Path] | None = None,
    features: FeatureCache | None = None,
    progress: engine.Progress = lambda done, what: None,
    stop: engine.Stop = lambda: False,
) -> Explained:
    """Evidence for a stored result: what ``asking`` was read from the question.

    roots: folders a classifier's file may lie in, None for any. Raises the errors of opening the image and of the
    classifier, InvalidArgumentError when the model has changed since, and CancelledError.
    """
    case = Case(folder, asking, open_image, load_model, roots, features, progress, stop)
    result, kinds = folder.result(), asking.kinds
    about = asking.masks(result)
    found = Found()
    if "meaning" in kinds:
        found.meanings = meanings(folder, result, asking)
    picture = None
    if set(kinds) - {"meaning", "provenance"} or any(each.example_box for each in found.meanings):
        with open_image() as source:
            _look(case, result, source, found)
            picture = _picture(case, result, source, found)
    answer = ExplainResult(
        result_id=result.result_id,
        kinds=list(kinds),
        evidence=grounding.evidence(result, asking) if "grounding" in kinds else [],
        observations=[each.answer for each in found.seen],
        meanings=found.meanings,
        stability=[checked.answer for _, checked in found.checked],
        counterfactuals=[each for views in found.views for each in views.answers],
        classifier=None if found.classifier is None else found.classifier.answer,
        provenance=[mask.provenance for mask in about] if "provenance" in kinds else [],
        overlay=result.overlay,
        notice=f"{NO_DIAGNOSIS} {NOTICE}" if asking.diagnosis else NOTICE,
    )
    maps = {
        mask.mask_id: Image.fromarray((checked.uncertainty * 255).astype(np.uint8))
        for mask, checked in found.checked
    }
    return Explained(answer, picture, maps)


def _look(
    case: Case,
    result: SegmentResult,
    source: ImageSource,
    found: Found,
) -> None:
    """Everything that asks a model or reads pixels."""
    kinds, there = case.asking.kinds, [mask for mask in case.asking.masks(result) if mask.found]
    if "observations" in kinds and result.masks:
        found.seen = observing.observe(
            result,
            case.model_of(result.masks[0]),
            source,
            mpp=result.masks[0].provenance.mpp,
            most_px=observing.MOST_WORKING_PX * (1 if "meaning" in kinds else observing.WHEN_ASKED),
            features=case.features,
            progress=case.progress,
            stop=case.stop,
        )
    if "reliability" in kinds and there and not is_pointed(case.model_of(there[0])):
        checker = Checker(case.model_of(there[0]), source, features=case.features, stop=case.stop)
        for number, mask in enumerate(there[:MOST_MASKS]):
            case.progress(number / len(there[:MOST_MASKS]), f"asking for {mask.target} in other ways")
            found.checked.append((mask, checker.check(mask, case.folder.mask(mask.mask_id))))
    if case.asking.classifier is not None:
        from tissuetalk.tools.explain import diagnosis  # loads torch, which most questions do not need

        case.progress(0.3, "asking the classifier")
        classifier = diagnosis.find(case.asking.classifier, case.roots)
        found.classifier = diagnosis.look(classifier, case.folder, result, source, stop=case.stop)
    if "counterfactual" in kinds:
        case.progress(0.7, "changing the picture")
        score = None if found.classifier is None else found.classifier.without
        found.views = [without(case.folder, mask, source, score) for mask in there[:MOST_MASKS]]


def _picture(
    case: Case,
    result: SegmentResult,
    source: ImageSource,
    found: Found,
) -> Image.Image | None:
    """The kinds that can be seen, one row each."""
    board = Board(case.folder, result, source)
    kinds, about, rows = case.asking.kinds, case.asking.masks(result), []
    if "grounding" in kinds or "observations" in kinds:
        rows.append(board.findings(about, found.seen, small=len(kinds) > 1))
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
    besides = observing.summary(result.observations)
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
    return "\n".join([*_shortened(lines), result.notice])


def _shortened(lines: Sequence[str]) -> list[str]:
    room = MOST_LINES - 1
    if len(lines) <= room:
        return list(lines)
    return [*lines[: room - 1], f"… and {len(lines) - room + 1} more in the structured answer."]
