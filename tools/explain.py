"""explain: which words led to which mask, what the words mean, and how each mask was made."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tissuetalk.models.errors import InvalidArgumentError, UnknownLabelError
from tissuetalk.models.interface import Segmenter
from tissuetalk.prompts.glossary import GlossaryCard, card_for, card_for_words
from tissuetalk.tools.engine import Stop
from tissuetalk.tools.features import FeatureCache
from tissuetalk.tools.measure import OpenImage, name_of
from tissuetalk.tools.result_folder import ResultFolder
from tissuetalk.tools.results import (
    Evidence,
    ExplainResult,
    Mask,
    Meaning,
    NotSegmented,
    SegmentResult,
)
from tissuetalk.tools.stability import Rephrased, rephrase

NOTICE = "Research use only: masks and numbers are a model's output, not a diagnosis. A pathologist has to confirm them."
MOST_LINES = 10
Kind = Literal["grounding", "meaning", "reliability", "provenance"]

_ASKS: dict[Kind, re.Pattern[str]] = {
    "meaning": re.compile(
        r"\b(what (is|are|does)|mean|meaning|look like|looks like|define|definition|confus\w+|why does it matter)\b",
        re.IGNORECASE,
    ),
    "reliability": re.compile(
        r"\b(sure|certain|uncertain\w*|confiden\w+|trust|reliab\w+|stab\w+|robust\w*|re-?phras\w+|wording|agree\w*)\b",
        re.IGNORECASE,
    ),
    "provenance": re.compile(
        r"\b(model|weights?|version|scale|reproduc\w+|provenance|record|how was|prompt|settings?)\b",
        re.IGNORECASE,
    ),
    "grounding": re.compile(
        r"\b(why|which words?|evidence|where|report|found|missing|not segmented|left out|diagnos\w+)\b",
        re.IGNORECASE,
    ),
}
_DIAGNOSIS = re.compile(
    r"\b(diagnos\w+|is (it|this) (cancer|malignant|benign)|do i have|prognosis|treatment|grade)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Explained:
    """The answer, and for a question about reliability what each mask looked like in other words."""

    result: ExplainResult
    rephrased: list[Rephrased]


def explain_folder(
    folder: ResultFolder,
    question: str | None,
    *,
    open_image: OpenImage,
    load_model: Callable[[str], Segmenter],
    features: FeatureCache | None = None,
    stop: Stop = lambda: False,
) -> Explained:
    """Evidence for a stored result; the question, or its absence, chooses the kinds.

    Only a question about reliability looks at the image again. Raises ImageChangedError, CancelledError and
    InvalidArgumentError when the model has changed since.
    """
    result = folder.result()
    kinds = kinds_of(question)
    rephrased: list[Rephrased] = []
    if "reliability" in kinds and any(mask.found for mask in result.masks):
        with open_image() as source:
            for mask in result.masks:
                if mask.found:
                    model = _same_model(mask, load_model)
                    rephrased.append(rephrase(mask, model, source, features=features, stop=stop))
    answer = ExplainResult(
        result_id=result.result_id,
        kinds=kinds,
        evidence=_evidence(result) if "grounding" in kinds else [],
        meanings=_meanings(result) if "meaning" in kinds else [],
        stability=[each.answer for each in rephrased],
        provenance=[mask.provenance for mask in result.masks] if "provenance" in kinds else [],
        overlay=result.overlay,
        notice=_notice(question),
    )
    return Explained(answer, rephrased)


def _same_model(mask: Mask, load_model: Callable[[str], Segmenter]) -> Segmenter:
    model = load_model(mask.provenance.model)
    if model.weights_sha256 != mask.provenance.weights_sha256:
        raise InvalidArgumentError(
            f"{model.card.name} has other weights now than when this result was made; segment again, then ask."
        )
    return model


def kinds_of(question: str | None) -> list[Kind]:
    """Grounding and meaning by default; a question narrows them to what it asks."""
    asked = [kind for kind, pattern in _ASKS.items() if question and pattern.search(question)]
    return asked or ["grounding", "meaning"]


def _notice(question: str | None) -> str:
    if question and _DIAGNOSIS.search(question):
        return f"This cannot answer for a diagnosis; what follows is what was seen. {NOTICE}"
    return NOTICE


def _evidence(result: SegmentResult) -> list[Evidence]:
    """Numbered as in the picture's legend; what has no mask follows without a number."""
    shown = [mask for mask in result.masks if mask.found]
    found = [_found(number, mask) for number, mask in enumerate(shown, start=1)]
    missed = [_found(None, mask) for mask in result.masks if not mask.found]
    return found + missed + [_left_out(item) for item in result.not_segmented]


def _found(number: int | None, mask: Mask) -> Evidence:
    read_as = mask.label or "words without a label"
    return Evidence(
        number=number,
        words=mask.evidence,
        assertion=mask.assertion,
        name=name_of(mask),
        mask_id=mask.mask_id,
        statement=f"“{mask.evidence}” was read as {read_as}; {mask.provenance.model} was asked for “{mask.prompt}”: "
        f"{mask.verdict}",
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


def _meanings(result: SegmentResult) -> list[Meaning]:
    """One card per kind of object, in the order it was named; an object nobody has a card for is left out."""
    named = [(mask.label, name_of(mask)) for mask in result.masks]
    named += [(item.label, item.free_form or item.evidence) for item in result.not_segmented]
    meanings: dict[str, Meaning] = {}
    for label, words in named:
        card = _card(label, words)
        if card is not None:
            meanings[card.name] = Meaning(
                name=card.name,
                what=card.what_it_is,
                looks_like=card.what_it_looks_like,
                why_it_matters=card.why_it_matters,
                confused_with=card.confused_with,
            )
    return list(meanings.values())


def _card(label: str | None, words: str) -> GlossaryCard | None:
    try:
        return card_for(label) if label is not None else card_for_words(words)
    except UnknownLabelError:
        return None


def as_text(result: ExplainResult) -> str:
    """At most ten lines: evidence first, then meaning, then how it was made."""
    lines = [f"{item.number or '-'}. {item.statement}" for item in result.evidence]
    lines += [item.statement for item in result.stability]
    lines += [f"{meaning.name}: {meaning.what} {meaning.looks_like}" for meaning in result.meanings]
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
