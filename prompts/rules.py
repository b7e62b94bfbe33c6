"""The default engine: deterministic, offline, fast. Words in, targets out, each with the words that said so."""

from __future__ import annotations

from functools import lru_cache

from tissuetalk.models.errors import NoTargetInWordsError
from tissuetalk.prompts.lexicon import lexicon, read_words
from tissuetalk.prompts.organs import organ_of, region_of
from tissuetalk.prompts.target import Assertion, Request, Target
from tissuetalk.prompts.words import clean

NEGATIONS = frozenset({"no", "not", "without", "absent", "negative", "none", "never", "skip"})
ADVICE = (
    "the words name nothing that can be outlined; name an object such as 'tumour', 'glands' or 'lymphocytes', "
    "or ask 'what is in this image?' and say which organ it is from."
)


class RulesEngine:
    """Reads reports, requests and questions with a lexicon and rules; the same words always give the same answer."""

    def translate(self, text: str, *, organ: str | None = None) -> Request:
        """Targets of a text. Raises NoTargetInWordsError when it names nothing at all."""
        words = read_words(text, loose=len(text) < 400)
        region = region_of(organ) or organ_of(words, text)
        targets: dict[str, Target] = {}
        for hit in lexicon().find(words, text):
            start, end = words[hit.first].start, words[hit.last].end
            place = lexicon().place(hit.concept, region)
            clause = words[max(0, hit.first - 4) : hit.first] + words[hit.last + 1 : hit.last + 4]
            said: Assertion = "absent" if any(word.norm in NEGATIONS for word in clause) else "present"
            key = place.label or place.words
            if key not in targets or (said == "present" and targets[key].assertion != "present"):
                targets[key] = Target(
                    place.label,
                    clean(text[start:end]),
                    said,
                    text[start:end],
                    start,
                    region,
                    alternatives=place.alternatives,
                    reason=place.reason,
                )
        if not targets:
            raise NoTargetInWordsError(ADVICE)
        return Request("report" if len(text) > 400 else "request", tuple(targets.values()), region)


@lru_cache(maxsize=1)
def rules_engine() -> RulesEngine:
    """The engine everybody shares; it holds no state about any text."""
    return RulesEngine()
