"""Which of the trained targets a prompt means, decided before any network is asked.

The network would paint something for any sentence, so a prompt is only let through when every meaningful word of it
belongs to one target. Free-form words decide first; the label decides when the words say nothing of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources

import yaml
from rapidfuzz import fuzz, process

from tissuetalk.models.segmentation.pathsegmentor.targets import OFFERED_TARGETS
from tissuetalk.models.segmenter import Prompt

LABELS: Mapping[str, str] = {
    "breast-nuclei-nuclei": "nuclei",
    "colon-tissue-gland": "gland",
    "colon-tissue-malignant lesion": "tumour",
    "breast-tissue-tumor": "tumour",
    "breast-nuclei-tumor": "tumour nuclei",
    "breast-cell-cancerous": "tumour nuclei",
    "breast-nuclei-mitotic figure": "mitosis",
    "breast-cell-mitosis": "mitosis",
}
"""Canonical labels that a target was trained for."""

_DATA = yaml.safe_load(
    resources.files("tissuetalk.models.segmentation.pathsegmentor")
    .joinpath("vocabulary.yaml")
    .read_text(encoding="utf-8")
)
_FILLER: frozenset[str] = frozenset(_DATA["filler"])
_ORGANS: Mapping[str, frozenset[str]] = {
    target: frozenset(words) for target, words in _DATA["organs"].items()
}
_PHRASES: Mapping[str, frozenset[str]] = {
    target: frozenset(words) for target, words in _DATA["phrases"].items()
}
_SINGULAR: Mapping[str, str] = _DATA["singular"]
_ENDS_IN_S = ("ss", "us", "is", "pas")


def _tokens(text: str) -> list[str]:
    words: list[str] = []
    for word in re.findall(r"[a-z]+", text.casefold().replace("µ", "u")):
        plain = _SINGULAR.get(word)
        if plain is None:
            plain = (
                word[:-1] if word.endswith("s") and len(word) > 3 and not word.endswith(_ENDS_IN_S) else word
            )
        words += _SINGULAR.get(plain, plain).split()
    return words


def target_of_words(text: str) -> str | None:
    """The target that a few words mean; None when any of them belongs to something else."""
    tokens = [token for token in _tokens(text) if token not in _FILLER]
    for target, phrases in _PHRASES.items():
        left = " ".join(token for token in tokens if token not in _ORGANS[target])
        if left in phrases:
            return target
    return None


def target_of(prompt: Prompt) -> str | None:
    """The offered target a prompt means, or None. Typed nuclei are understood, and refused: they scored too low."""
    meant = _meant(prompt)
    return meant if meant in OFFERED_TARGETS else None


def _meant(prompt: Prompt) -> str | None:
    if prompt.label is not None and _only_repeats(prompt.words, prompt.label):
        return LABELS.get(prompt.label)
    found = target_of_words(prompt.words)
    return None if found is None else _sharpen(found, prompt.label)


def _sharpen(found: str, label: str | None) -> str | None:
    """A label more specific than the words narrows them: 'cells' with a lymphocyte label is not 'all nuclei'."""
    if label is None:
        return found
    by_label = LABELS.get(label)
    structure = label.split("-", 2)[1]
    if found == "nuclei" and by_label != "nuclei" and structure in ("nuclei", "cell"):
        return by_label
    return found


def _only_repeats(words: str, label: str) -> bool:
    """Whether the words say nothing that the label does not."""
    return set(_tokens(words)) - _FILLER <= set(_tokens(label.replace("-", " ")))


def sentence(prompt: Prompt, target: str) -> str:
    """What the network reads: the prompt's own sentence, unless it says something else than was understood."""
    if prompt.verbatim:
        return prompt.text
    text = re.sub(r"-level\b", "", prompt.text)
    if prompt.text and (target_of_words(text) == target or LABELS.get(prompt.label or "") == target):
        return prompt.text
    return prompt.words


def nearest_targets(prompt: Prompt, limit: int = 3) -> list[str]:
    """The trained targets most like a prompt, best first."""
    asked = " ".join(_tokens(prompt.words + " " + (prompt.label or "").replace("-", " ")))
    best = {
        target: max(
            score
            for _, score, _ in process.extract(asked, sorted(phrases), scorer=fuzz.token_set_ratio, limit=3)
        )
        for target, phrases in _PHRASES.items()
        if target in OFFERED_TARGETS
    }
    return sorted(best, key=lambda target: -best[target])[:limit]
