"""A question to ``explain``: which kinds of evidence it asks for, and what it names. Its text is never written down:
it may hold a patient's name."""

from __future__ import annotations

import re
from typing import Literal

from tissuetalk.prompts.lexicon import Concept, lexicon, read_words

Kind = Literal[
    "grounding", "observations", "meaning", "reliability", "provenance", "counterfactual", "classifier"
]
BY_DEFAULT: tuple[Kind, ...] = ("grounding", "observations", "meaning")


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile(rf"\b({'|'.join(patterns)})\b", re.IGNORECASE)


_ASKS: dict[Kind, re.Pattern[str]] = {
    "counterfactual": _words(
        r"what if",
        r"without",
        r"if .{0,60}(were|was|is) (not there|gone|absent|removed|blurred|missing)",
        r"remov\w+",
        r"blur\w*",
        r"erase\w*",
        r"hid(e|den|ing)",
        r"counter-?factual\w*",
        r"take .{0,40} away",
    ),
    "classifier": _words(
        r"classif\w+",
        r"predict\w*",
        r"rel(y|ied|ies|ying) on",
        r"decid\w+",
        r"decision",
        r"importan(t|ce)",
        r"heat ?map",
        r"activation",
        r"attention",
        r"contribut\w+",
    ),
    "meaning": _words(
        r"what (is|are|does)",
        r"mean\w*",
        r"looks? like",
        r"defin\w+",
        r"confus\w+",
        r"why does it matter",
        r"lay(man|person|people)?",
        r"plain (words|language)",
    ),
    "reliability": _words(
        r"sure",
        r"certain\w*",
        r"uncertain\w*",
        r"unsure",
        r"confiden\w+",
        r"trust\w*",
        r"reliab\w+",
        r"stab\w+",
        r"robust\w*",
        r"re-?phras\w+",
        r"wording",
        r"agree\w*",
        r"quality",
    ),
    "provenance": _words(
        r"models?",
        r"weights?",
        r"version",
        r"scale",
        r"reproduc\w+",
        r"provenance",
        r"record",
        r"how was",
        r"prompt",
        r"settings?",
    ),
    "observations": _words(
        r"what else",
        r"anything (else|missing|more)",
        r"something (else|missing)",
        r"(not|n't|never) mention\w*",
        r"unmentioned",
        r"overlook\w*",
        r"besides",
        r"other (things|findings|structures|objects)",
        r"missing",
    ),
    "grounding": _words(
        r"why",
        r"which words?",
        r"evidence",
        r"where",
        r"report",
        r"found",
        r"missing",
        r"not segmented",
        r"left out",
        r"diagnos\w+",
    ),
}
_DIAGNOSIS = _words(
    r"diagnos\w+",
    r"is (it|this|that|there) (a )?(cancer\w*|malignan\w+|benign|tumou?r)",
    r"do(es)? (i|he|she|they|the patient) have",
    r"prognos\w+",
    r"treatment",
    r"therap\w+",
    r"what grade",
    r"surviv\w+",
    r"(how )?dangerous",
)
_NUMBER = re.compile(r"(?:\b(?:mask|number|no\.?|finding|outline)|#)\s*(\d{1,3})\b", re.IGNORECASE)
_FIRST: tuple[Kind, ...] = ("grounding", "observations", "reliability", "counterfactual", "classifier")


def kinds_of(question: str | None, classifier: str | None = None) -> list[Kind]:
    """Grounding, observations and meaning by default; a question narrows them to what it asks."""
    asked = [kind for kind, pattern in _ASKS.items() if question and pattern.search(question)]
    if asks_for_a_diagnosis(question):
        asked = [*asked, "grounding", "observations"]
    if "classifier" in asked:
        # "what did the model rely on" means the classifier, not the segmenter's record
        asked = [kind for kind in asked if kind != "provenance"]
        if classifier is None and len(asked) > 1:
            asked.remove("classifier")
    asked = asked or list(BY_DEFAULT)
    if classifier is not None and "classifier" not in asked:
        asked.append("classifier")
    first = [kind for kind in _FIRST if kind in asked]
    return first + [kind for kind in dict.fromkeys(asked) if kind not in first]


def asks_for_a_diagnosis(question: str | None) -> bool:
    """Only a pathologist may answer such a question."""
    return bool(question and _DIAGNOSIS.search(question))


def concepts_in(text: str) -> list[Concept]:
    """Everything a text names that the lexicon knows, in the order it is named."""
    words = read_words(text, loose=True)
    return list({hit.concept.id: hit.concept for hit in lexicon().find(words)}.values())


def mask_numbers(question: str) -> list[int]:
    """Numbers of masks a question names, as "mask 2" or "#2", once each."""
    return list(dict.fromkeys(int(number) for number in _NUMBER.findall(question)))
