"""The default engine: deterministic, offline, fast. Words in, targets out, each with the words that said so."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from tissuetalk.models.errors import InvalidArgumentError, NoTargetInWordsError
from tissuetalk.prompts.glossary import plain_line
from tissuetalk.prompts.kind import kind_of
from tissuetalk.prompts.organs import region_of
from tissuetalk.prompts.reading.report import read_report
from tissuetalk.prompts.reading.resolve import targets_of
from tissuetalk.prompts.request.parse import read_request
from tissuetalk.prompts.target import Request

LONGEST_TEXT = 200_000
ADVICE = (
    "the words name nothing that can be outlined; name an object such as 'tumour', 'glands' or 'lymphocytes', "
    "or ask 'what is in this image?' and say which organ it is from."
)


class RulesEngine:
    """Reads reports, requests and questions with a lexicon and rules; the same words always give the same answer."""

    def translate(self, text: str, *, organ: str | None = None) -> Request:
        """Targets of a text.

        Raises:
            NoTargetInWordsError: it names nothing at all.
            InvalidArgumentError: it is longer than 200,000 characters.
        """
        if len(text) > LONGEST_TEXT:
            raise InvalidArgumentError(
                f"the text has {len(text):,} characters, the limit is {LONGEST_TEXT:,}; "
                "give the diagnosis and the microscopic description only."
            )
        region = region_of(organ)
        kind = kind_of(text)
        if kind == "report":
            reading = read_report(text, region)
            request = Request("report", targets_of(reading, text), reading.organ)
        else:
            request = read_request(text, region, kind == "exploratory")
        if not request.targets:
            raise NoTargetInWordsError(ADVICE)
        if request.kind == "exploratory":
            plain = tuple(replace(t, plain=t.plain or _plain(t.label, t.words)) for t in request.targets)
            request = replace(request, targets=plain)
        return request


def _plain(label: str | None, words: str) -> str:
    if label is not None:
        return plain_line(label)
    return f"{words[0].upper()}{words[1:]}: what you asked about; no label of the taxonomy is made for it."


@lru_cache(maxsize=1)
def rules_engine() -> RulesEngine:
    """The engine everybody shares; it holds no state about any text."""
    return RulesEngine()
