"""What is checked while vLLM runs, and once it is gone. Every check ends the program when it fails."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tissuetalk.models.errors import CancelledError, ModelUnavailableError, NoTargetInWordsError
from tissuetalk.prompts.llm.endpoint import EndpointModel
from tissuetalk.prompts.llm.reader import LanguageModelReader, TokenBudget
from tissuetalk.prompts.llm.seam import Cancelled, LanguageModel, ModelAnswer, Reply, Turn, never
from tissuetalk.prompts.readers import LanguageSettings, make_reader
from tissuetalk.prompts.target import Request
from tissuetalk.prompts.taxonomy import is_label

CONTEXT, ANSWER = 4096, 512
TEXTS = (
    ("Invasive ductal carcinoma with focal necrosis. No lymphovascular invasion is seen.", "breast"),
    ("Outline the glands and count the lymphocytes.", "colon"),
    ("Papillary urothelial carcinoma, high grade. Muscularis propria is free of tumour.", "bladder"),
)


def require(true: bool, otherwise: str) -> None:
    if not true:
        raise SystemExit(f"test-vllm: FAILED: {otherwise}")


def free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return int(any_port.getsockname()[1])


def is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def settings(port: int, *, model: str = "smollm2", timeout_s: float = 300) -> LanguageSettings:
    url = f"http://127.0.0.1:{port}/v1"
    return LanguageSettings(
        url=url, model=model, timeout_s=timeout_s, context_tokens=CONTEXT, max_tokens=ANSWER
    )


@dataclass
class Overheard:
    """A model whose replies are held against the form that was asked for."""

    model: LanguageModel
    valid: int = 0
    cut: int = 0
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.model.name

    def ask(self, turns: Sequence[Turn], schema: type[ModelAnswer], cancelled: Cancelled = never) -> Reply:
        reply = self.model.ask(turns, schema, cancelled)
        if reply.end == "complete":
            schema.model_validate_json(reply.text)
            self.valid += 1
        else:
            self.cut += 1
        return reply


def reading(port: int) -> None:
    """Every complete answer has the form; every target is canonical and verbatim; the rest is refused in words."""
    asked = settings(port)
    model = Overheard(EndpointModel(asked.url, asked.model, asked.api_key, asked.timeout_s, asked.max_tokens))
    reader = LanguageModelReader(model, TokenBudget(CONTEXT, ANSWER))
    for text, organ in TEXTS:
        began = time.monotonic()
        outcome = _outcome(lambda text=text, organ=organ: reader.translate(text, organ=organ))
        if isinstance(outcome, Request):
            for target in outcome.targets:
                require(target.label is None or is_label(target.label), f"{target.label} is no label")
                start = target.start or 0
                require(
                    text[start : start + len(target.evidence)] == target.evidence,
                    "a quote is not in the text",
                )
            outcome = f"{len(outcome.targets)} targets, all canonical and verbatim"
        print(f"test-vllm: {organ}: {outcome} ({time.monotonic() - began:.0f} s)", flush=True)
    print(
        f"test-vllm: {model.valid} answers of the right form, {model.cut} cut off at {ANSWER} tokens",
        flush=True,
    )
    require(model.valid > 0, "no answer had the right form: guided decoding does not work")


def _outcome(translate: Callable[[], Request]) -> Request | str:
    try:
        return translate()
    except NoTargetInWordsError as error:
        return f"valid, nothing left after the quotes were checked: {error}"
    except ModelUnavailableError as error:
        require("answered twice" in str(error), f"an unexpected refusal: {error}")
        return f"refused: {error}"


def wrong_model(port: int) -> None:
    _refused(settings(port, model="no-such-model"), "TISSUETALK_LLM_MODEL")


def too_slow(port: int) -> None:
    _refused(settings(port, timeout_s=0.5), "TISSUETALK_LLM_TIMEOUT_S")


def _refused(asked: LanguageSettings, setting: str) -> None:
    try:
        make_reader("llm", asked).translate(TEXTS[0][0], organ=TEXTS[0][1])
    except ModelUnavailableError as error:
        require(setting in str(error), f"{setting} is not named in: {error}")
        print(f"test-vllm: refused as it should be: {error}", flush=True)
    else:
        require(False, f"{setting} had no effect")


def cancelling(port: int) -> None:
    """A cancelled ask ends at once, and vLLM stops generating for it."""
    asked = settings(port)
    model = EndpointModel(asked.url, asked.model, asked.api_key, asked.timeout_s, asked.max_tokens)
    give_up = time.monotonic() + 2
    try:
        LanguageModelReader(model, TokenBudget(CONTEXT, ANSWER)).translate(
            TEXTS[1][0], cancelled=lambda: time.monotonic() > give_up
        )
    except CancelledError:
        waited = time.monotonic() - give_up
    else:
        require(False, "cancelling had no effect")
    while _running(port) > 0:
        require(time.monotonic() < give_up + 60, "vLLM still generates a minute after the ask was cancelled")
        time.sleep(0.2)
    print(f"test-vllm: cancelled within {waited:.1f} s, and vLLM is idle", flush=True)


def _running(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    running = [float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running")]
    require(bool(running), "vLLM does not say how many requests it is working on")
    return sum(running)


def gone(port: int) -> None:
    """Without its server `llm` says what to do, and `hybrid` answers by its rules and says so."""
    _refused(settings(port), "TISSUETALK_LLM_URL")
    request = make_reader("hybrid", settings(port)).translate("Segment the tumour and the quokkoid bodies.")
    require(bool(request.targets), "hybrid lost what the rules had found")
    print(
        f"test-vllm: hybrid without a server: {len(request.targets)} targets; {'; '.join(request.notes)}",
        flush=True,
    )
