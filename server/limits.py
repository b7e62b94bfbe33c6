"""How much one peer may hold of an HTTP server, and all of them together.

A peer is an address: one IPv4 address, or the /64 an IPv6 host usually has to itself. Behind a proxy it is what the
proxy says of it, where the operator named the proxy.
"""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tissuetalk.models.errors import BusyError
from tissuetalk.tools.answers.arguments import MAX_UPLOAD_BYTES

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class PeerLimits:
    """Safe for a machine with 2 GB to spare. ``*_each`` is per peer, the other half is for all peers together.

    sessions: open MCP sessions; the oldest idle one of the greediest peer ends when there are more.
    requests: being worked on at once. body_bytes: of such requests, in memory. one_body_bytes: the largest one.
    uploads: being received at once; upload_bytes: what they may come to, on disk.
    connections: open at once; half-open ones are closed first.
    session_idle_s: a session without a request ends. half_open_s: one whose client has not said that it took the answer;
    each is about 40 kB of the SDK's. stalled_s: nothing was sent, or read, for so long.
    requests_per_minute: of all peers together; None for any number.
    header_s: until a request's headers are whole. slowest_bytes_s: bytes a second a long body must keep up.
    """

    sessions_each: int = 200
    sessions: int = 2000
    requests_each: int = 128
    requests: int = 512
    body_bytes_each: int = 64 * 2**20
    body_bytes: int = 128 * 2**20
    one_body_bytes: int = 8 * 2**20
    uploads_each: int = 16
    uploads: int = 64
    upload_bytes_each: int = 4 * MAX_UPLOAD_BYTES
    upload_bytes: int = 16 * MAX_UPLOAD_BYTES
    connections_each: int = 256
    connections: int = 1024
    session_idle_s: float = 1800.0
    half_open_s: float = 60.0
    stalled_s: float = 30.0
    header_s: float = 10.0
    slowest_bytes_s: float = 4096.0
    requests_per_minute: int | None = None


class Share:
    """An amount of one thing, shared between peers."""

    def __init__(self, what: str, each: int, total: int) -> None:
        self._what, self._each, self._total = what, each, total
        self._held: Counter[str] = Counter()

    def take(self, peer: str, amount: int = 1) -> None:
        """Raises BusyError, and takes nothing, when the peer or all of them would hold too much."""
        if self._held[peer] + amount > self._each:
            who = "this address has"
        elif self._held.total() + amount > self._total:
            who = "the server has"
        else:
            self._held[peer] += amount
            return
        raise BusyError(f"{who} as many {self._what} as are served at once; try again in a few seconds.")

    def give(self, peer: str, amount: int = 1) -> None:
        self._held[peer] -= amount
        if self._held[peer] <= 0:
            del self._held[peer]

    @contextmanager
    def held(self, peer: str) -> Iterator[Holding]:
        """What is taken through the holding is given back at the end."""
        holding = Holding(self, peer)
        try:
            yield holding
        finally:
            self.give(peer, holding.amount)


class Holding:
    """What one request holds of a share."""

    def __init__(self, share: Share, peer: str) -> None:
        self._share, self._peer, self.amount = share, peer, 0

    def grow_to(self, amount: int) -> None:
        """Raises BusyError."""
        if amount > self.amount:
            self._share.take(self._peer, amount - self.amount)
            self.amount = amount


class Rate:
    """So many of something a minute, a tenth of them at once. a_minute: None for any number."""

    def __init__(self, a_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._a_second = None if a_minute is None else a_minute / 60
        self._most = max(1.0, (a_minute or 0) / 10)
        self._left, self._seen, self._clock = self._most, clock(), clock

    def take(self) -> None:
        """Raises BusyError."""
        if self._a_second is None:
            return
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._seen) * self._a_second)
        self._seen = now
        if self._left < 1:
            raise BusyError(
                "more requests came in this minute than are taken here; try again in a few seconds."
            )
        self._left -= 1


def peer_of(host: str | None) -> str:
    """The peer behind a client's address; what is no address counts as it stands."""
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return host or "unnamed"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def is_within(host: str, networks: Sequence[Network]) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return any(address in network for network in networks)
