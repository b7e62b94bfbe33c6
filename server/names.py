"""Which host names an HTTP server answers to, and which pages may call it.

A page anywhere can point its own name at this machine (DNS rebinding), so a request must name the server by a name its
operator knows, and a page that calls must come from such a name, too.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from tissuetalk.models.errors import InvalidArgumentError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?\.?|[0-9a-f:.]+")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


@dataclass(frozen=True)
class Names:
    """known: every name that is answered. given: those of the operator, whose pages may call from any port.

    own_addresses: also the address a connection came in at, for a server that listens on all of them.
    """

    known: frozenset[str]
    given: frozenset[str]
    port: int
    own_addresses: bool

    @classmethod
    def of(cls, host: str, port: int, allowed: Iterable[str]) -> Names:
        """Raises InvalidArgumentError for what is no host name."""
        given = frozenset(map(_checked, allowed))
        if is_loopback(host):
            own = {*LOOPBACK_NAMES, host}
        elif _is_any(host):
            own = {*LOOPBACK_NAMES, host, socket.gethostname().lower()}
        else:
            own = {host.lower()}
        return cls(frozenset(own) | given, given, port, _is_any(host))

    def answers(self, host: str, own_address: str | None) -> bool:
        """Whether a Host header names this server. Any port does: a container's is not the one it is reached at."""
        name, _ = _split(host)
        return name is not None and (name in self.known or (self.own_addresses and name == own_address))

    def may_call(self, origin: str, host: str) -> bool:
        """Whether a page of this origin may: one from the very same host and port, or from a name of the operator's."""
        scheme, _, place = origin.partition("://")
        name, port = _split(place)
        if scheme not in ("http", "https") or name is None:
            return False
        usual = 443 if scheme == "https" else 80
        here_name, here_port = _split(host)
        if name in self.given:
            return True
        ports = (here_port if here_port is not None else usual, self.port)
        return (name in self.known or name == here_name) and (port if port is not None else usual) in ports

    def sentence(self) -> str:
        """What an operator reads at the start."""
        also = " and every address of this machine" if self.own_addresses else ""
        return f"answers to the host names {', '.join(sorted(self.known))}{also}; add others with --allowed-host NAME"


def _checked(name: str) -> str:
    name = name.strip().strip("[]").lower()
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            f"--allowed-host {name[:80]!r} is no host name; give the name alone, such as tissue.example.org, "
            "without scheme, port or path."
        )
    return name.rstrip(".")


def _split(place: str) -> tuple[str | None, int | None]:
    """Host and port of ``host:port``, ``[v6]:port`` or either without a port; no host where it is neither."""
    try:
        parts = urlsplit(f"//{place}")
        name, port = parts.hostname, parts.port
    except ValueError:
        return None, None
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return None, None
    return (name.rstrip(".") if name else None), port
