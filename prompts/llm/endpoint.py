"""A language model behind an OpenAI-compatible endpoint, reached through LangChain structured output."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tissuetalk.models.errors import BusyError, ModelUnavailableError, TissuetalkError
from tissuetalk.prompts.llm.seam import Cancelled, Reply, Turn, never, raise_if

if TYPE_CHECKING:
    import openai

_POLL_S = 0.05


@dataclass
class EndpointModel:
    """One model of one server. Every ask has a hard limit in time and is given up at once when cancelled.

    url: base URL, ending in ``/v1`` for vLLM. key: may be empty for a server without one.
    timeout_s: for a whole answer, tries included, however slowly bytes drip in.
    max_tokens: longest answer.
    """

    url: str
    model: str
    key: str
    timeout_s: float
    max_tokens: int

    def __post_init__(self) -> None:
        self.name = f"{self.model} at {self.url}"
        if importlib.util.find_spec("langchain_openai") is None:
            raise ModelUnavailableError(
                "the language model client is not installed; run: pip install 'tissuetalk[llm]', or use the rule reader"
            )

    def ask(self, turns: Sequence[Turn], schema: type[BaseModel], cancelled: Cancelled = never) -> Reply:
        """Send the turns and wait. Call it from a thread that runs no event loop of its own."""
        import langchain_openai  # noqa: F401  # loaded before the clock starts: a second, on a busy machine many
        import openai

        from tissuetalk.prompts.llm.transport import AnswerTooLongError

        raise_if(cancelled)
        try:
            return asyncio.run(self._answer_or_give_up(turns, schema, cancelled))
        except openai.LengthFinishReasonError as error:
            return Reply(error.completion.choices[0].message.content or "", "cut")
        except openai.ContentFilterFinishReasonError:
            return Reply("", "refused")
        except openai.RateLimitError:
            said: TissuetalkError = BusyError(
                f"the language model {self.name} is busy; try again in a minute"
            )
        except AnswerTooLongError as error:
            said = ModelUnavailableError(
                f"the answer of the language model {self.name} was given up: {error}; check the server, or use the rule reader"
            )
        except openai.OpenAIError as error:
            said = ModelUnavailableError(self._what_to_do(error))
        except (ValueError, TypeError, LookupError, AttributeError):
            # What the client raises on a body that is no chat completion: HTML, empty, another JSON.
            said = ModelUnavailableError(self._other_api())
        # Without what the client raised: a server may echo the report and the key, and logs print causes.
        raise said

    async def _answer_or_give_up(
        self, turns: Sequence[Turn], schema: type[BaseModel], cancelled: Cancelled
    ) -> Reply:
        """Cancelling closes the connection, which makes vLLM stop generating."""
        task = asyncio.create_task(self._answer(turns, schema))
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        try:
            while not (await asyncio.wait({task}, timeout=_POLL_S))[0]:
                raise_if(cancelled)
                if asyncio.get_running_loop().time() > deadline:
                    raise ModelUnavailableError(self._too_slow())
            return await task
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _answer(self, turns: Sequence[Turn], schema: type[BaseModel]) -> Reply:
        from langchain_openai import ChatOpenAI
        from langsmith import tracing_context
        from pydantic import SecretStr

        from tissuetalk.prompts.llm.transport import client

        async with client(self.url, self.timeout_s) as http:
            chat = ChatOpenAI(
                model=self.model,
                base_url=self.url,
                api_key=SecretStr(self.key or "none"),
                temperature=0,
                max_completion_tokens=self.max_tokens,
                timeout=self.timeout_s,
                max_retries=1,
                http_async_client=http,
                openai_proxy=None,  # not OPENAI_PROXY: which proxy is asked, if any, is the client's business
            )
            # As a JSON schema: given the class, the client raises on a wrong answer and its text is lost to the repair.
            form = schema.model_json_schema()
            structured = chat.with_structured_output(
                form, method="json_schema", strict=True, include_raw=True
            )
            # A report must not reach a tracing service because of an environment variable set for other work.
            with tracing_context(enabled=False):
                reply: dict[str, Any] = dict(await structured.ainvoke([_message(turn) for turn in turns]))
        message = reply["raw"]
        if message.additional_kwargs.get("refusal"):
            return Reply("", "refused")
        return Reply(message.content if isinstance(message.content, str) else "")

    def _too_slow(self) -> str:
        return (
            f"the language model {self.name} gave no answer within {self.timeout_s:g} s; raise "
            "TISSUETALK_LLM_TIMEOUT_S, check the server, or use the rule reader"
        )

    def _what_to_do(self, error: openai.OpenAIError) -> str:
        import openai

        match error:
            case openai.APITimeoutError():
                return self._too_slow()
            case openai.APIConnectionError():
                return (
                    f"no language model answers at {self.url}; start it or correct TISSUETALK_LLM_URL "
                    "(docs/language-models.md), or use the rule reader"
                )
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return f"{self.url} refused the key; set TISSUETALK_LLM_API_KEY to one it accepts"
            case openai.NotFoundError():
                return (
                    f"{self.url} has no model {self.model!r}; set TISSUETALK_LLM_MODEL to a name listed by "
                    "GET /models there, and let TISSUETALK_LLM_URL end in /v1"
                )
            case openai.APIStatusError():
                return (
                    f"the language model server at {self.url} failed with HTTP {error.status_code}; "
                    "look at its log, or use the rule reader"
                )
            case _:
                return self._other_api()

    def _other_api(self) -> str:
        return f"{self.url} does not speak the OpenAI chat-completions API; correct TISSUETALK_LLM_URL"


def _message(turn: Turn) -> tuple[str, Any]:
    if not turn.picture:
        return turn.role, turn.text
    url = f"data:image/png;base64,{base64.b64encode(turn.picture).decode()}"
    return turn.role, [{"type": "text", "text": turn.text}, {"type": "image_url", "image_url": {"url": url}}]
