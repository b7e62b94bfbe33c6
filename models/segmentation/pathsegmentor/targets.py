"""What the mini model was trained for and offers, and which of that a prompt means, decided before any network is asked.

The network would paint something for any sentence, so a prompt is only let through when the readers of words found that
it names one concept and nothing else (``Prompt.concept``), and that concept is one of the trained targets.

Imports no deep-learning library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rapidfuzz import fuzz

from tissuetalk.models.segmenter import Prompt

TARGET_MPP: Final[Mapping[str, float]] = {
    "nuclei": 0.25,
    "gland": 1.2,
    "tumour": 1.0,
    "glomerulus": 2.0,
    "tumour nuclei": 0.25,
    "non-tumour nuclei": 0.25,
    "mitosis": 0.25,
}
"""µm per pixel at which each target is looked for."""

SPECK_PX: Final[Mapping[str, int]] = {"gland": 400, "glomerulus": 600}
"""Area at that scale below which an object is a speck: a disc of 27 and of 55 µm, a fraction of the smallest trained on."""

OFFERED_TARGETS: Final = ("nuclei", "gland", "tumour", "glomerulus")
"""Targets whose held-out scores allow them to be offered; the others are trained, measured and refused."""

OBJECT_TARGETS: Final = frozenset(TARGET_MPP) - {"tumour"}
"""Targets that come back as separate objects."""

CONCEPTS: Final[Mapping[str, str]] = {
    "nuclei": "nuclei",
    "gland": "gland",
    "tumor": "tumour",
    "glomerulus": "glomerulus",
    "tumor_nuclei": "tumour nuclei",
    "normal_nuclei": "non-tumour nuclei",
    "mitosis": "mitosis",
}
"""The trained target of each concept."""

LABELS: Final[Mapping[str, str]] = {
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
SENTENCES: Final[Mapping[str, str]] = {**LABELS, "unspecified-tissue-epithelial": "gland"}
"""Labels whose sentence reads like the target it stands for."""
ALSO_CALLED: Final[Mapping[str, str]] = {
    "nuclei": "nucleus nuclear cells",
    "gland": "glands crypts epithelium glandular",
    "tumour": "tumor cancer carcinoma malignant metastasis",
    "glomerulus": "glomeruli glomerular tuft",
}
"""What else the offered targets are called, only to say which of them comes nearest to something refused."""


def target_of(prompt: Prompt) -> str | None:
    """The offered target a prompt means, or None. Typed nuclei are understood, and refused: they scored too low."""
    meant = _meant(prompt)
    return meant if meant in OFFERED_TARGETS else None


def _meant(prompt: Prompt) -> str | None:
    label = prompt.label
    if label is not None and prompt.words == label.split("-", 2)[-1]:
        return LABELS.get(label)
    found = CONCEPTS.get(prompt.concept or "")
    # A label more specific than the words narrows them: 'cells' with a lymphocyte label is not 'all nuclei'.
    if found == "nuclei" and label is not None and label.split("-", 2)[1] in ("nuclei", "cell"):
        return LABELS.get(label)
    return found


def sentence(prompt: Prompt, target: str) -> str:
    """What the network reads: the prompt's own sentence, unless its label stands for something else than was understood."""
    told_by_label = prompt.label is None or SENTENCES.get(prompt.label) == target
    return prompt.text if prompt.text and (prompt.verbatim or told_by_label) else prompt.words


def nearest_targets(prompt: Prompt, limit: int = 3) -> list[str]:
    """The offered targets whose names look most like a prompt, best first."""
    asked = f"{prompt.words} {(prompt.label or '').replace('-', ' ')}".casefold()
    likeness = {
        target: max(fuzz.token_set_ratio(asked, name) for name in (target, *ALSO_CALLED[target].split()))
        for target in OFFERED_TARGETS
    }
    return sorted(likeness, key=lambda target: -likeness[target])[:limit]
