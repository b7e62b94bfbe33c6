"""Connections of the HTTP server: how many, and how long each may keep it waiting.

uvicorn waits for ever for headers, for the rest of a body, and for a client to read. This is its protocol with a clock.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tissuetalk.server.limits import Network, PeerLimits, is_within, peer_of


class Connections:
    """Everyone who is connected to one server, oldest first. proxies: who speaks for many peers."""

    def __init__(self, limits: PeerLimits, proxies: Sequence[Network]) -> None:
        self.limits, self._proxies = limits, proxies
        self._open: dict[str, dict[Connection, None]] = defaultdict(dict)

    def add(self, connection: Connection) -> None:
        """Take it up; where that is one too many, another one that owes its headers goes, or else this one."""
        mine = self._open[connection.peer]
        mine[connection] = None
        each = self.limits.connections if connection.is_from(self._proxies) else self.limits.connections_each
        if len(mine) > each:
            self._close_one(mine, connection)
        elif sum(map(len, self._open.values())) > self.limits.connections:
            self._close_one(max(self._open.values(), key=len), connection)

    def remove(self, connection: Connection) -> None:
        mine = self._open[connection.peer]
        mine.pop(connection, None)
        if not mine:
            del self._open[connection.peer]

    def _close_one(self, among: dict[Connection, None], newest: Connection) -> None:
        waiting = (each for each in among if each is not newest and each.waits_for_a_request)
        victim = next(waiting, newest)
        self.remove(victim)
        victim.give_up()

    def protocol(self) -> Callable[..., asyncio.Protocol]:
        """What uvicorn makes one of for each connection."""
        return lambda **of_uvicorn: Connection(self, **of_uvicorn)


class Connection(H11Protocol):
    """One connection, closed when the client leaves headers, a body or an answer half-way."""

    def __init__(self, all_: Connections, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._all, self._limits, self.peer = all_, all_.limits, "unnamed"
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._owes_headers = False
        self._body_since, self._body_bytes = 0.0, 0

    @property
    def waits_for_a_request(self) -> bool:
        return self.conn.their_state is h11.IDLE and self.conn.our_state is h11.IDLE

    def is_from(self, networks: Sequence[Network]) -> bool:
        return self.client is not None and is_within(self.client[0], networks)

    def give_up(self) -> None:
        """Close without another word; whoever works on a request of it sees the client gone."""
        self._clear()
        if not self.transport.is_closing():
            self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.peer = peer_of(self.client[0] if self.client else None)
        self._wait_for_headers()
        self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear()
        self._all.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            self._clear()
        elif self.conn.their_state is h11.SEND_BODY:
            self._wait_for_body(len(data))
        elif self.conn.their_state is not h11.IDLE:
            self._clear()
        elif not self._owes_headers:
            self._wait_for_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE:
            self._clear()  # between requests uvicorn's own keep-alive clock runs

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self._limits.stalled_s, self.give_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
        self._unread = None

    def _wait_for_headers(self) -> None:
        """Once per request, not per byte: headers that drip in are no better than none."""
        self._owes_headers = True
        self._in(self._limits.header_s, self.give_up)

    def _wait_for_body(self, received: int) -> None:
        now = self.loop.time()
        if not self._body_bytes:
            self._body_since = now
        self._body_bytes += received
        took = now - self._body_since
        if took > self._limits.stalled_s and self._body_bytes < took * self._limits.slowest_bytes_s:
            self.give_up()
        else:
            self._owes_headers = False
            self._in(self._limits.stalled_s, self._body_stalled)

    def _body_stalled(self) -> None:
        if self.flow.read_paused:  # we are the slow ones: what was sent is not worked on yet
            self._body_since = self.loop.time()
            self._in(self._limits.stalled_s, self._body_stalled)
        else:
            self.give_up()

    def _in(self, seconds: float, what: Callable[[], None]) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, what)

    def _clear(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
        self._owes_headers, self._body_bytes = False, 0


def allow_open_files(limits: PeerLimits) -> None:
    """Systems often let a process open 1,024 files unless it asks for more, which it may."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * limits.connections
    if soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )
