"""Which of the trained targets a prompt means, decided before any network is asked.

The network would paint something for any sentence, so a prompt is only let through when every meaningful word of it
belongs to one target. Free-form words decide first; the label decides when the words say nothing of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rapidfuzz import fuzz, process

from tissuetalk.models.data.example import OFFERED_TARGETS
from tissuetalk.models.interface import Prompt

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

_FILLER = frozenset(
    [
        "a",
        "an",
        "the",
        "all",
        "any",
        "every",
        "each",
        "of",
        "in",
        "on",
        "at",
        "from",
        "to",
        "for",
        "with",
        "and",
        "or",
        "this",
        "that",
        "these",
        "those",
        "my",
        "our",
        "its",
        "is",
        "are",
        "there",
        "here",
        "where",
        "what",
        "which",
        "show",
        "me",
        "find",
        "segment",
        "segmentation",
        "mask",
        "outline",
        "mark",
        "highlight",
        "detect",
        "locate",
        "delineate",
        "identify",
        "draw",
        "trace",
        "get",
        "select",
        "please",
        "can",
        "you",
        "could",
        "i",
        "want",
        "would",
        "like",
        "see",
        "visible",
        "image",
        "picture",
        "slide",
        "tile",
        "section",
        "specimen",
        "sample",
        "biopsy",
        "tissue",
        "stained",
        "h",
        "e",
        "he",
        "hematoxylin",
        "haematoxylin",
        "eosin",
        "stain",
        "histology",
        "pathology",
        "region",
        "area",
        "zone",
        "part",
        "whole",
        "field",
        "view",
        "level",
        "structure",
        "individual",
        "single",
        "separate",
        "count",
        "visible",
        "present",
        "possible",
        "suspected",
        "some",
        "several",
        "many",
        "unspecified",
        "human",
    ]
)
_ORGANS: Mapping[str, frozenset[str]] = {
    "nuclei": frozenset(
        [
            "breast",
            "colon",
            "colonic",
            "rectum",
            "colorectal",
            "oesophagus",
            "esophagus",
            "lung",
            "kidney",
            "renal",
            "prostate",
            "liver",
            "stomach",
            "gastric",
            "bladder",
            "lymph",
            "node",
            "skin",
            "brain",
            "oral",
            "mouth",
            "ovary",
            "uterus",
            "cervix",
            "pancreas",
            "thyroid",
            "spleen",
            "testis",
            "bowel",
            "intestine",
            "large",
            "small",
            "melanoma",
        ]
    ),
    "gland": frozenset(
        [
            "colon",
            "colonic",
            "rectum",
            "rectal",
            "colorectal",
            "large",
            "bowel",
            "intestine",
            "intestinal",
            "mucosa",
            "mucosal",
            "sigmoid",
            "crc",
        ]
    ),
    "tumour": frozenset(
        [
            "breast",
            "mammary",
            "lymph",
            "node",
            "nodal",
            "sentinel",
            "axillary",
            "oral",
            "mouth",
            "cavity",
            "tongue",
            "gingiva",
            "buccal",
            "head",
            "neck",
            "colon",
            "colonic",
            "rectum",
            "rectal",
            "colorectal",
            "bowel",
            "intestine",
        ]
    ),
    "glomerulus": frozenset(["kidney", "renal", "cortex", "cortical", "pas"]),
    "tumour nuclei": frozenset(["breast", "mammary"]),
    "non-tumour nuclei": frozenset(["breast", "mammary"]),
    "mitosis": frozenset(["breast", "mammary", "tumor", "cell"]),
}
"""Organs a target may be asked for in. Elsewhere it was never trained and is refused."""

_PHRASES: Mapping[str, frozenset[str]] = {
    "nuclei": frozenset(
        {"nucleus", "cell nucleus", "nucleus cell", "nuclear", "cellular nucleus", "cell", "nucleus all cell"}
    ),
    "gland": frozenset(
        {
            "gland",
            "crypt",
            "epithelium",
            "epithelial",
            "glandular",
            "gland epithelium",
            "epithelial gland",
            "glandular epithelium",
            "crypt gland",
            "adenoma",
            "adenoma gland",
            "polyp",
            "polyp gland",
            "adenocarcinoma gland",
            "dysplastic gland",
            "neoplastic gland",
            "neoplastic epithelium",
            "dysplastic epithelium",
            "tubular gland",
            "epithelial cell layer",
            "high grade intraepithelial neoplasia",
            "low grade intraepithelial neoplasia",
            "intraepithelial neoplasia",
            "serrated adenoma",
            "adenomatous gland",
            "normal gland",
            "benign gland",
            "malignant gland",
            "normal crypt",
            "glandular structure",
            "crypt of lieberkuhn",
            "high grade in",
            "low grade in",
            "adenocarcinoma epithelium",
        }
    ),
    "tumour": frozenset(
        {
            "tumor",
            "cancer",
            "carcinoma",
            "malignancy",
            "neoplasm",
            "malignant lesion",
            "malignant",
            "cancerous",
            "metastasis",
            "metastatic",
            "invasive carcinoma",
            "infiltrating carcinoma",
            "squamous cell carcinoma",
            "squamous carcinoma",
            "scc",
            "oscc",
            "adenocarcinoma",
            "ductal carcinoma",
            "invasive ductal carcinoma",
            "infiltrating ductal carcinoma",
            "lobular carcinoma",
            "invasive lobular carcinoma",
            "malignant tumor",
            "invasive tumor",
            "tumor nest",
            "carcinoma nest",
            "tumor bed",
            "nest",
            "metastatic carcinoma",
            "metastatic tumor",
            "tumor metastasis",
            "metastatic cancer",
            "cancer metastasis",
            "carcinoma metastasis",
            "metastasis carcinoma",
            "metastatic adenocarcinoma",
            "invasive cancer",
            "metastatic deposit",
            "tumor deposit",
            "lesion malignant",
            "triple negative carcinoma",
            "triple negative cancer",
            "neoplastic",
            "invasive squamous cell carcinoma",
            "tumor epithelium",
            "carcinoma metastatic",
            "tumor metastatic",
            "invasive carcinoma no special type",
            "malignant neoplasm",
        }
    ),
    "glomerulus": frozenset(
        {
            "glomerulus",
            "glomerular",
            "glomerular tuft",
            "corpuscle",
            "glomerulus tuft",
            "bowman capsule",
            "bowman capsule tuft",
        }
    ),
    "tumour nuclei": frozenset(
        {
            "tumor nucleus",
            "cancer nucleus",
            "cancer cell nucleus",
            "tumor cell nucleus",
            "malignant nucleus",
            "neoplastic nucleus",
            "tumor cell",
            "cancer cell",
            "cancerous cell",
            "malignant cell",
            "neoplastic cell",
            "carcinoma cell",
            "nucleus tumor",
            "nucleus tumor cell",
            "nucleus cancer cell",
            "cell cancerous",
            "neoplastic cell nucleus",
            "malignant cell nucleus",
            "carcinoma nucleus",
            "carcinoma cell nucleus",
            "cancerous nucleus",
        }
    ),
    "non-tumour nuclei": frozenset(
        {
            "non tumor nucleus",
            "non tumor cell",
            "benign nucleus",
            "normal nucleus",
            "non neoplastic nucleus",
            "non cancer cell nucleus",
            "non neoplastic cell",
            "non tumor cell nucleus",
            "nucleus normal cell",
            "benign cell nucleus",
            "non cancer nucleus",
            "non cancerous cell",
            "non malignant nucleus",
            "nucleus not tumor",
        }
    ),
    "mitosis": frozenset(
        {
            "mitosis",
            "mitotic figure",
            "mitotic",
            "mitotic cell",
            "dividing cell",
            "mitotic nucleus",
            "cell mitosis",
            "figure mitotic",
            "mitotic activity",
            "nucleus mitotic figure",
            "mitotic count",
            "tumor cell mitosis",
        }
    ),
}
"""What is left of a prompt, once filler and organs are taken away, when it means the target."""

_SINGULAR = {
    "nuclei": "nucleus", "glomeruli": "glomerulus", "mitoses": "mitosis", "metastases": "metastasis", "tumour": "tumor", "tumours": "tumor",
    "tumoral": "tumor", "tumorous": "tumor", "carcinomata": "carcinoma", "epithelia": "epithelium", "biopsies": "biopsy", "polyps": "polyp",
    "malignancies": "malignancy", "lymphnode": "lymph node", "stroma": "stroma",
}  # fmt: skip
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
