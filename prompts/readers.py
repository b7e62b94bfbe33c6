"""Readers: words in, targets out. The rule reader, and which reader is chosen with which settings.

Nothing heavy is imported for ``rules``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, get_args
from urllib.parse import urlsplit

from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError, NoTargetInWordsError
from tissuetalk.prompts.foreign_lists import language_of
from tissuetalk.prompts.glossary import plain_line
from tissuetalk.prompts.kind import kind_of
from tissuetalk.prompts.languages import read_foreign
from tissuetalk.prompts.lexicon import is_english
from tissuetalk.prompts.names import labels_in, unread
from tissuetalk.prompts.organs import region_of
from tissuetalk.prompts.reading.report import read_lines, read_report, targets_of
from tissuetalk.prompts.request.parse import read_request
from tissuetalk.prompts.request.survey import NO_JUDGEMENT
from tissuetalk.prompts.target import Reader, ReaderName, Request
from tissuetalk.prompts.words import Words

if TYPE_CHECKING:
    from tissuetalk.prompts.llm.endpoint import EndpointModel
    from tissuetalk.prompts.llm.reader import LanguageModelReader


WORRIED = re.compile(
    r"\b(?:danger\w*|serious|harmful|is (?:it|this|that) (?:bad|cancer)|worr(?:y|ied)|benign or malignant|malignant or benign|"
    r"cancerous|should i be)\b.*\?",
    re.IGNORECASE | re.DOTALL,
)
LONGEST_TEXT = 1_000_000
LONGEST_UNREAD, MOST_UNREAD = 100_000, 12
LONGEST_LABELS = 4_000
"""Characters a list of labels or of sentences made from them may have."""
ADVICE = (
    "the words name nothing that can be outlined; name an object such as 'tumour', 'glands' or 'lymphocytes', "
    "or ask 'what is in this image?' and say which organ it is from."
)


class RuleReader:
    """Reads reports, requests and questions with a lexicon and rules; the same words always give the same answer."""

    def translate(self, text: str, *, organ: str | None = None) -> Request:
        """Targets of a text.

        Raises:
            NoTargetInWordsError: it names nothing at all.
            InvalidArgumentError: it is longer than a million characters.
        """
        if len(text) > LONGEST_TEXT:
            raise InvalidArgumentError(
                f"the text has {len(text):,} characters, the limit is {LONGEST_TEXT:,}; "
                "give the diagnosis and the microscopic description only."
            )
        labels = labels_in(text) if len(text) < LONGEST_LABELS else []
        if labels:
            return Request("request", tuple(labels), labels[0].organ)
        region = region_of(organ)
        language = language_of(text)
        kind = "request" if language else kind_of(text)
        if language:
            request = read_foreign(text, language, region)
        elif kind == "report":
            reading = read_report(text, region)
            request = Request(
                "report",
                targets_of(reading),
                reading.organ,
                notes=not_understood(text, reading.words if len(text) <= LONGEST_UNREAD else None),
                read_as=read_lines(reading),
            )
        else:
            request = read_request(text, region, kind == "exploratory")
        if not request.targets:
            raise NoTargetInWordsError(" ".join([ADVICE, *request.notes]))
        if request.kind == "exploratory":
            plain = tuple(replace(t, plain=t.plain or _plain(t.label, t.words)) for t in request.targets)
            request = replace(request, targets=plain)
        if request.kind != "report" and WORRIED.search(text):
            request = replace(request, notes=(*request.notes, NO_JUDGEMENT))
        return request


def not_understood(text: str, words: Words | None = None) -> tuple[str, ...]:
    """One line that names the structures of a report that nobody here knows; silence would hide them."""
    said = (text[span.start : span.end] for span in unread(text[:LONGEST_UNREAD], words))
    names = dict.fromkeys(name.lower() for name in said if not all(map(is_everyday, name.lower().split())))
    if not names:
        return ()
    shown = ", ".join(list(names)[:MOST_UNREAD]) + (" and others" if len(names) > MOST_UNREAD else "")
    return (f"named in the report and not known here, so not looked for: {shown}",)


def is_everyday(word: str) -> bool:
    return is_english(word) or word.endswith("thelial")


def _plain(label: str | None, words: str) -> str:
    if label is not None:
        return plain_line(label)
    return f"{words[0].upper()}{words[1:]}: what you asked about; no label of the taxonomy is made for it."


@lru_cache(maxsize=1)
def rule_reader() -> RuleReader:
    """The reader everybody shares; it holds no state about any text."""
    return RuleReader()


@dataclass(frozen=True)
class LanguageSettings:
    """Where the language model is and what one ask may cost. Read from TISSUETALK_LLM_* variables.

    url: base URL of an OpenAI-compatible server (…/v1). api_key: empty for a server that wants none.
    timeout_s: for one whole answer. context_tokens: of the served model. max_tokens: longest answer.
    max_passages: asks one text may be cut into.
    """

    url: str = ""
    model: str = ""
    api_key: str = field(default="", repr=False)
    timeout_s: float = 60.0
    context_tokens: int = 8192
    max_tokens: int = 2048
    max_passages: int = 12

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> LanguageSettings:
        """The settings of this process. A malformed value raises ModelUnavailableError naming the variable."""
        variables = os.environ if environment is None else environment
        return cls(
            url=variables.get("TISSUETALK_LLM_URL", "").strip().rstrip("/"),
            model=variables.get("TISSUETALK_LLM_MODEL", "").strip(),
            api_key=variables.get("TISSUETALK_LLM_API_KEY", "").strip(),
            timeout_s=_number(variables, "TISSUETALK_LLM_TIMEOUT_S", cls.timeout_s, 0.1, 3600),
            context_tokens=int(
                _number(variables, "TISSUETALK_LLM_CONTEXT_TOKENS", cls.context_tokens, 512, 10**7)
            ),
            max_tokens=int(_number(variables, "TISSUETALK_LLM_MAX_TOKENS", cls.max_tokens, 64, 10**5)),
            max_passages=int(_number(variables, "TISSUETALK_LLM_MAX_PASSAGES", cls.max_passages, 1, 1000)),
        )

    def require_server(self) -> None:
        """Raises ModelUnavailableError unless a server and a model are named."""
        parts = urlsplit(self.url)
        if parts.username or parts.password or parts.query:
            raise ModelUnavailableError(
                "TISSUETALK_LLM_URL holds a name, password or query, which would be shown in messages; "
                "put the key in TISSUETALK_LLM_API_KEY instead"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ModelUnavailableError(
                "no language model is set up: let TISSUETALK_LLM_URL be the address of an OpenAI-compatible server, "
                "such as http://127.0.0.1:8000/v1 (docs/language-models.md), or use the rule reader"
            )
        if not self.model:
            raise ModelUnavailableError(
                "no language model is named: let TISSUETALK_LLM_MODEL be a name the server lists at GET /models"
            )


def _number(variables: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    said = variables.get(name, "").strip()
    if not said:
        return default
    try:
        value = float(said)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise ModelUnavailableError(f"{name} is {said[:20]!r}; set it to a number from {least:g} to {most:g}")
    return value


def make_reader(name: str, settings: LanguageSettings | None = None) -> Reader:
    """A reader by name. Settings default to the environment; ``rules`` needs none.

    ``hybrid`` without a server is no error here: it answers by its rules and says so.

    Raises:
        InvalidArgumentError: no such reader.
        ModelUnavailableError: ``llm`` without a server, or without the extra ``tissuetalk[llm]``.
    """
    if name not in get_args(ReaderName):
        raise InvalidArgumentError(
            f"no reader {name[:40]!r}; choose one of {', '.join(get_args(ReaderName))}"
        )

    if name == "rules":
        return rule_reader()
    settings = settings or LanguageSettings.from_environment()
    if name == "llm":
        return _language_model_reader(settings)
    from tissuetalk.prompts.llm.hybrid import HybridReader

    return HybridReader(rule_reader(), lambda: _language_model_reader(settings))


def endpoint_model(settings: LanguageSettings) -> EndpointModel:
    """Raises ModelUnavailableError without a server, or without the extra ``tissuetalk[llm]``."""
    settings.require_server()
    from tissuetalk.prompts.llm.endpoint import EndpointModel

    return EndpointModel(
        url=settings.url,
        model=settings.model,
        key=settings.api_key,
        timeout_s=settings.timeout_s,
        max_tokens=settings.max_tokens,
    )


def _language_model_reader(settings: LanguageSettings) -> LanguageModelReader:
    model = endpoint_model(settings)
    from tissuetalk.prompts.llm.reader import LanguageModelReader, TokenBudget

    return LanguageModelReader(
        model, TokenBudget(settings.context_tokens, settings.max_tokens, settings.max_passages)
    )
