"""Who may look: the operator's token, and what a browser has instead of it.

A browser cannot send a bearer token with a picture's address. It trades a token, or a code that works once, for a cookie;
and an address can carry a signature of its own, for a while. All are made from the token: they hold after a restart, and
end when the token changes.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from threading import Lock

from starlette.requests import Request

COOKIE = "tissuetalk"
READING = ("GET", "HEAD")
COOKIE_S = 12 * 3600
ONCE_S = 600.0
MOST_CODES = 100
LONGEST_LINK_S = 24 * 3600


def cookie_of(request: Request) -> str:
    """Empty where it does not count: only a page of ours sends it, and to change something a page must say which one it is."""
    if request.method not in READING and "origin" not in request.headers:
        return ""
    return request.cookies.get(COOKIE, "")


class Keys:
    """token: None where everybody who reaches the server may look. name: of the tenant, which a signed address then tells.

    clock: seconds since 1970, replaced in tests.
    """

    def __init__(self, token: str | None, clock: Callable[[], float] = time.time, name: str = "") -> None:
        self._token, self._clock, self._name = token, clock, name
        self._codes: dict[str, float] = {}
        self._guard = Lock()

    @property
    def needed(self) -> bool:
        return self._token is not None

    @property
    def fingerprint(self) -> str:
        """What the audit log calls whoever has the token."""
        return f"token:{hashlib.sha256(self._token.encode()).hexdigest()[:16]}" if self._token else "local"

    def is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(
            given.encode("latin-1", "replace"), self._token.encode()
        )

    def code(self) -> str:
        """Opens a page once, within ten minutes."""
        code, now = secrets.token_urlsafe(24), self._clock()
        with self._guard:
            self._codes = {each: until for each, until in self._codes.items() if until > now}
            while len(self._codes) >= MOST_CODES:
                del self._codes[next(iter(self._codes))]
            self._codes[code] = now + ONCE_S
        return code

    def redeem(self, code: str) -> bool:
        with self._guard:
            return self._codes.pop(code, 0.0) > self._clock()

    def cookie(self) -> str:
        until = int(self._clock()) + COOKIE_S
        return f"{until}.{self._signature('cookie', str(until))}"

    def is_cookie(self, given: str) -> bool:
        until, _, signature = given.partition(".")
        return self._holds(until, signature, "cookie")

    def link(self, subject: str, lasts_s: int) -> str:
        """The query that opens what there is of one image or result without a token. subject: its id."""
        until = str(int(self._clock()) + min(lasts_s, LONGEST_LINK_S))
        name = f"{self._name}." if self._name else ""
        return f"until={until}&key={name}{self._signature('link', subject, until)}"

    def is_link(self, subject: str, until: str, signature: str) -> bool:
        return bool(subject) and self._holds(until, signature.rpartition(".")[2], "link", subject)

    def _holds(self, until: str, signature: str, *what: str) -> bool:
        if not (until.isascii() and until.isdigit() and len(until) < 12) or int(until) <= self._clock():
            return False
        return hmac.compare_digest(signature.encode(), self._signature(*what, until).encode())

    def _signature(self, *parts: str) -> str:
        key = (self._token or "").encode()
        return hmac.new(key, "\n".join(parts).encode(), hashlib.sha256).hexdigest()
