"""What an account may do: read, or also write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mcp.server.auth.middleware.auth_context import get_access_token

from tissuetalk.models.errors import NotPermittedError

Scope = Literal["segment:read", "segment:write", "admin"]
SCOPES: tuple[Scope, ...] = ("segment:read", "segment:write", "admin")
_CONTAINS: dict[str, set[Scope]] = {"admin": set(SCOPES), "segment:write": {"segment:read", "segment:write"}}


def scopes_of(claims: Mapping[str, Any]) -> list[str]:
    """Scopes of a token that mean something here, each with those it contains."""
    given = claims.get("scope", claims.get("scp", ""))
    names = given.split() if isinstance(given, str) else given if isinstance(given, list) else []
    known = [name for name in names if isinstance(name, str)]
    found = {*known, *(each for name in known for each in _CONTAINS.get(name, ()))}
    return [scope for scope in SCOPES if scope in found]


def require(scope: Scope) -> None:
    """Raises NotPermittedError where whoever calls has a token without the scope. Without accounts everybody has all."""
    token = get_access_token()
    if token is not None and scope not in token.scopes:
        raise NotPermittedError(
            f"this account lacks the scope {scope}; sign in with it, or ask whoever runs the server."
        )
