"""Other languages than English: their word lists (`terms/languages.yaml`), and which of them a text is in."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from tissuetalk.models.errors import NoTargetInWordsError
from tissuetalk.prompts.lexicon import is_english
from tissuetalk.prompts.target import Measure
from tissuetalk.prompts.words import load_terms

NAMES = {
    "es": "Spanish",
    "fr": "French",
    "de": "German",
    "pt": "Portuguese",
    "it": "Italian",
    "zh": "Chinese",
    "ja": "Japanese",
    "hi": "Hindi",
}
ENGLISH = re.compile(
    r"\b(?:the|of|is|are|and|with|please|show|segment|mark|no|not|in|what|where|how|all|find|outline|this|that|for)\b"
)
LONGEST = 600
"""Characters: longer texts are reports, which are read in English only."""
HEAD = 3000
"""Characters by which a language is told."""
LONGEST_ENDING = 9
"""Letters that may follow the beginning of a word: a plural, a case, the second half of a short compound."""
NO_LISTS = ("names", "organs", "joins", "measures")
MARKS = {
    "es": ("ñ", "¿", "¡", "ión"),
    "fr": ("œ", "ù", "î", "è", "l'", "d'"),
    "de": ("ä", "ö", "ü", "ß"),
    "pt": ("ã", "õ", "ção", "ência"),
    "it": ("ì", "ò", "zione"),
}
"""Letters that speak for a language when its words are shared by others."""
LONG = 40
"""Words of a text whose grammar alone tells its language."""
SPACELESS = ("zh", "ja")
_WEIGHT_OF_A_NAME = 2


@dataclass(frozen=True)
class Language:
    """One language: a pattern for each list, and one for each concept and organ."""

    code: str
    lists: Mapping[str, re.Pattern[str]]
    joins: re.Pattern[str]
    names: Mapping[str, re.Pattern[str]]
    organs: Mapping[str, re.Pattern[str]]
    measures: Mapping[Measure, re.Pattern[str]]


def _pattern(forms: list[str], code: str) -> re.Pattern[str]:
    """Any of the forms, longest first; never matching where there are none."""
    if not forms:
        return re.compile(r"(?!)")
    texts = sorted((folded(str(form)) for form in forms), key=len, reverse=True)
    if code in SPACELESS:
        return re.compile("|".join(map(re.escape, texts)))
    # Combining marks are letters to Hindi and no part of \w, so its words have no end that a pattern could tell.
    ending = "" if code == "hi" else rf"[^\W\d_]{{0,{LONGEST_ENDING}}}(?![^\W\d_])"
    words = (
        re.escape(text[:-1]) + r"(?![^\W_])" if text.endswith("$") else re.escape(text) + ending
        for text in texts
    )
    return re.compile(rf"(?<![^\W\d_])(?:{'|'.join(words)})")


@lru_cache(maxsize=1)
def languages() -> tuple[Language, ...]:
    found = []
    for code in NAMES:
        rows = load_terms("languages.yaml")[code]
        lists = {
            name: _pattern(rows.get(name, []), code)
            for name in (
                *(key for key in rows if key not in NO_LISTS),
                "case_before",
                "case_behind",
                "worried",
            )
        }
        joins = re.compile(rf"\s*(?:(?:{'|'.join(map(folded, rows['joins']))})\s*)+")
        names = {concept: _pattern(forms, code) for concept, forms in rows["names"].items()}
        organs = {region: _pattern(forms, code) for region, forms in rows["organs"].items()}
        measures = {measure: _pattern(forms, code) for measure, forms in rows["measures"].items()}
        found.append(Language(code, lists, joins, names, organs, measures))
    return tuple(found)


def folded(text: str) -> str:
    """Lower case without accents and hyphens, of the same length, so that every offset stays."""
    return "".join(_plain(mark) for mark in text)


@lru_cache(maxsize=4096)
def _plain(mark: str) -> str:
    if "\u0900" <= mark <= "\u097f":
        return mark
    low = {"\u00df": "s", "\u2019": "'", "-": " "}.get(mark, mark.lower())
    base = unicodedata.normalize("NFD", low)[:1] if low else low
    return base if len(base) == 1 else mark


def language_of(text: str) -> str | None:
    """The code of the language of a text when it is one of those listed and not English.

    Raises:
        NoTargetInWordsError: it is in another language, or too long to be read by word lists; English is asked for.
    """
    head = text[:HEAD]
    code = _listed(head)
    if (code and len(text) > LONGEST) or (code is None and _is_other(head)):
        said = f"reports in {NAMES[code]}" if code else "this language"
        raise NoTargetInWordsError(
            f"{said} cannot be read here; please use English, or pass targets=[{{label}}] (labels: taxonomy://labels)."
        )
    return code


def _is_other(head: str) -> bool:
    """A script or a denial of a language that is not listed: an English reading could invert what it says."""
    letters = [mark for mark in head if mark.isalpha()]
    if sum(mark > "\u024f" for mark in letters) * 2 > len(letters) > 0:
        return True
    low = folded(head)
    if ENGLISH.search(low):
        return False
    accented = sum(not mark.isascii() for mark in letters) > 0 and len(head) < LONGEST
    strange = accented and not any(is_english(word) for word in re.findall(r"[^\W\d_]{3,}", low))
    return strange or bool(_other_denials().search(low))


@lru_cache(maxsize=1)
def _other_denials() -> re.Pattern[str]:
    return _pattern(load_terms("languages.yaml")["other"], "")


def _listed(text: str) -> str | None:
    if re.search(r"[\u3040-\u30ff]", text):
        return "ja"
    if re.search(r"[\u4e00-\u9fff]", text):
        return "zh"
    if re.search(r"[\u0900-\u097f]", text):
        return "hi"
    low = folded(text)
    known = sum(is_english(word) for word in re.findall(r"[^\W\d_]{4,}", low))
    english = max(len(ENGLISH.findall(low)), known // 2)
    scores = {
        one.code: _score(one, low, english) + _marks(one.code, text)
        for one in languages()
        if one.code not in ("zh", "ja", "hi")
    }
    best = max(scores, key=lambda code: scores[code])
    least = 2 if len(text) <= LONGEST else 6
    return best if scores[best] >= least and scores[best] > english else None


def _marks(code: str, text: str) -> int:
    return min(2, sum(text.lower().count(mark) for mark in MARKS[code]))


def _score(language: Language, low: str, english: int) -> int:
    """Words of the language in the text that are no English words; the names of structures count twice."""
    lists = [language.lists[name] for name in ("asks", "doubt", "not_before", "not_behind")]
    said, denied = (
        {match.start() for pattern in some for match in pattern.finditer(low) if _is_foreign(match)}
        for some in (lists, lists[2:])
    )
    length = len(low.split())
    if length > 3 and not said and not _marks(language.code, low):
        return 0  # names of tumours are alike in all languages: without a word of grammar they say nothing
    if length > LONG and len(said) + len(denied) <= english:
        return 0
    named = {
        m.start() for pattern in language.names.values() for m in pattern.finditer(low) if _is_foreign(m)
    }
    return len(said) + len(denied) + _WEIGHT_OF_A_NAME * len(named)


def _is_foreign(match: re.Match[str]) -> bool:
    return not all(len(word) > 1 and is_english(word) for word in match.group().split())
