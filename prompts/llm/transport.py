"""How bytes reach a language model server and come back: no detours, no endless answers."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx2

MOST_ANSWER_BYTES = 1_000_000
"""Of one answer. The longest we ask for, 24 objects with their quotes, has 30 kB."""


class AnswerTooLongError(Exception):
    """The server sent more than any answer can be. Passes unchanged through the clients between here and the endpoint."""


def is_on_this_machine(host: str) -> bool:
    """Whether a host name can only mean this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost")


def client(url: str, timeout_s: float) -> httpx2.AsyncClient:
    """A client that follows no redirect, adds no account names, and ends an answer that does not end.

    To a server on this machine it goes straight, whatever HTTP_PROXY and its like say: a text for this machine must not
    leave it. To any other those settings are honoured.
    """
    direct = is_on_this_machine(httpx2.URL(url).host)
    return httpx2.AsyncClient(
        timeout=timeout_s,
        follow_redirects=False,
        transport=httpx2.AsyncHTTPTransport()
        if direct
        else None,  # with one of its own a client asks no proxy
        headers={"Accept-Encoding": "identity"},
        event_hooks={"request": [_forget_account], "response": [_bound]},
    )


async def _forget_account(request: httpx2.Request) -> None:
    """The OpenAI client adds account names it finds in OPENAI_* variables; this server need not know them."""
    for name in ("OpenAI-Organization", "OpenAI-Project"):
        request.headers.pop(name, None)


async def _bound(response: httpx2.Response) -> None:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise AnswerTooLongError("it was compressed, which was not asked for and may hold any amount")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream)


class _Bounded(httpx2.AsyncByteStream):
    """What a server sends, up to the limit."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    @property
    def elapsed(self) -> timedelta | None:
        """How long the answer took, which the client's own stream knows."""
        return getattr(self._stream, "elapsed", None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for chunk in self._stream:
            received += len(chunk)
            if received > MOST_ANSWER_BYTES:
                raise AnswerTooLongError(f"it went on after {MOST_ANSWER_BYTES:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
