"""Text as normalised tokens that remember where they came from.

British and American spelling, plurals and case fall together, so that the lexicon holds each word once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]{1,2}(?![^\W\d_]))?|\d+(?:[.,]\d+)?")
"""Runs of letters (with a short apostrophe ending) or a number; every hyphen and slash separates."""

_IRREGULAR = {
    "nuclei": "nucleus",
    "nucleoli": "nucleolus",
    "mitoses": "mitosis",
    "glomeruli": "glomerulus",
    "metastases": "metastasis",
    "granulomata": "granuloma",
    "carcinomata": "carcinoma",
    "papillae": "papilla",
    "villi": "villus",
    "acini": "acinus",
    "alveoli": "alveolus",
    "bronchi": "bronchus",
    "bronchioli": "bronchiole",
    "foci": "focus",
    "septa": "septum",
    "lumina": "lumen",
    "nevi": "nevus",
    "thrombi": "thrombus",
    "emboli": "embolus",
    "calculi": "calculus",
    "diverticula": "diverticulum",
    "fungi": "fungus",
    "bacteria": "bacterium",
    "hyphae": "hypha",
    "calices": "calyx",
    "biopsies": "biopsy",
    "ovaries": "ovary",
    "arteries": "artery",
    "bodies": "body",
    "cavities": "cavity",
    "necroses": "necrosis",
    "diagnoses": "diagnosis",
    "fibroses": "fibrosis",
    "adnexae": "adnexa",
    "cells": "cell",
    "leiomyomata": "leiomyoma",
    "testes": "testis",
    "mice": "mouse",
    "teeth": "tooth",
    "has": "has",
    "was": "was",
    "this": "this",
    "is": "is",
    "does": "does",
    "yes": "yes",
    "us": "us",
    "pus": "pus",
    "lens": "lens",
    "gas": "gas",
}

_AMERICAN = (
    (re.compile(r"tumour"), "tumor"),
    (re.compile(r"colour"), "color"),
    (re.compile(r"favour"), "favor"),
    (re.compile(r"neighbour"), "neighbor"),
    (re.compile(r"behaviour"), "behavior"),
    (re.compile(r"oedema"), "edema"),
    (re.compile(r"oesoph"), "esoph"),
    (re.compile(r"haem"), "hem"),
    (re.compile(r"leuco"), "leuko"),
    (re.compile(r"paed"), "ped"),
    (re.compile(r"naev"), "nev"),
    (re.compile(r"(?<=an)aem"), "em"),
    (re.compile(r"aemia"), "emia"),
    (re.compile(r"caec"), "cec"),
    (re.compile(r"faec"), "fec"),
    (re.compile(r"oestr"), "estr"),
    (re.compile(r"gynaec"), "gynec"),
    (re.compile(r"foetal"), "fetal"),
    (re.compile(r"artefact"), "artifact"),
    (re.compile(r"fibre"), "fiber"),
    (re.compile(r"grey"), "gray"),
    (re.compile(r"centre"), "center"),
    (re.compile(r"^centr(?=(es|ed)$)"), "center"),
    (re.compile(r"apoptotic"), "apoptotic"),
    (re.compile(r"(?<=[a-z]{3})isation"), "ization"),
    (re.compile(r"(?<=[a-z]{3})ised$"), "ized"),
    (re.compile(r"(?<=[a-z]{4})yse(?=[ds]?$)"), "yze"),
    (re.compile(r"orrhoea"), "orrhea"),
    (re.compile(r"phaeo"), "pheo"),
    (re.compile(r"mould"), "mold"),
)
_LIGATURES = str.maketrans({"æ": "ae", "œ": "oe", "ﬁ": "fi", "ﬂ": "fl", "\u2019": "'", "ß": "ss"})


@dataclass(frozen=True, slots=True)
class Token:
    """One word: its normal form, its own lower-case form, and where it stands in the text."""

    norm: str
    lower: str
    start: int
    end: int


@lru_cache(maxsize=20_000)
def normal(word: str) -> str:
    """American, singular, lower-case form of one word."""
    low = word.lower().translate(_LIGATURES)
    low = low.removesuffix("'s")
    if not low.isalpha():
        return low
    for pattern, american in _AMERICAN:
        low = pattern.sub(american, low)
    return singular(low)


def singular(word: str) -> str:
    """The singular by the rules of English and of medical Latin; short and -us/-is/-ss words stay."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is", "ous")):
        return word[:-1]
    return word


_OCR = re.compile(r"(?<=[^\W\d_]{2})[015$](?=[^\W\d_]{2})|(?<=[^\W\d_]{3})[015$](?=[^\W\d_])")
_SIGN = re.compile(r"(: ?)(\(-\)|\(\+\))")
_OCR_LETTERS = {"0": "o", "1": "i", "5": "s", "$": "s"}


def unscan(text: str) -> str:
    """Digits that a scanner read for letters inside a word, and signs for words, put right; every offset stays."""
    text = _SIGN.sub(lambda match: match.group(1) + ("neg" if match.group(2) == "(-)" else "pos"), text)
    return _OCR.sub(lambda match: _OCR_LETTERS[match.group()], text)


def tokens(text: str) -> list[Token]:
    """All words and numbers of the text in order."""
    text = unscan(text)
    return [
        Token(normal(match.group()), match.group().lower(), match.start(), match.end())
        for match in WORD.finditer(text)
    ]


@lru_cache(maxsize=20_000)
def phrase(text: str) -> tuple[str, ...]:
    """The normal forms of a phrase of the lexicon."""
    return tuple(normal(match.group()) for match in WORD.finditer(text))


def clean(text: str) -> str:
    """A verbatim span as a short prompt: lower case, one line, without the scanner's stray stops."""
    flat = re.sub(r"[.,;:](?=\s|$)", " ", text)
    return " ".join(flat.lower().split()).strip(" -/()[]{}\"'*#")
