"""Accounts: whose token a request carries, checked as an OAuth 2.1 resource server does, and what it allows.

Tokens are JWTs of one issuer, signed with a key that it publishes, made for this server's address. The operator's file says who
the issuer is and which tenants there are. Nobody signs in here: that is the issuer's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import jwt
from mcp.server.auth.provider import AccessToken
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.reading import content_of, yaml_in
from tissuetalk.server.names import is_loopback
from tissuetalk.server.scopes import scopes_of
from tissuetalk.tools.storage.room import Keep

if TYPE_CHECKING:
    from tissuetalk.tools.storage.archives import Archive

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
"""All with a public key: a token signed with that very key as a secret, or not at all, is none."""
LEEWAY_S = 30
LONGEST_TOKEN = 16_384
KEYS_LAST_S = 300
LEAST_BETWEEN_FETCHES_S = 10.0


class TenantArchive(BaseModel):
    """url: of its DICOMweb service. credentials: a file with user:password or Bearer TOKEN."""

    model_config = ConfigDict(extra="forbid")
    url: Annotated[str, Field(max_length=1000)]
    credentials: Path | None = None


class Tenant(BaseModel):
    """What one tenant has. roots: folders of images. quota_gb: of its workspace. requests_at_once: over all of its callers.

    requests_per_minute, jobs_at_once: likewise. keep_*_days: in place of what ``serve`` was told.
    name_in_metrics: without it a tenant is a number there.
    archives: DICOMweb archives it may ask, by the name that addresses use.
    """

    model_config = ConfigDict(extra="forbid")
    roots: Annotated[tuple[Path, ...], Field(min_length=1, max_length=100)]
    quota_gb: Annotated[float, Field(gt=0, le=100_000)] = 10
    requests_at_once: Annotated[int, Field(gt=0, le=10_000)] = 64
    requests_per_minute: Annotated[int | None, Field(gt=0, le=1_000_000)] = None
    jobs_at_once: Annotated[int | None, Field(gt=0, le=10_000)] = None
    keep_results_days: Annotated[float | None, Field(gt=0, le=36_500)] = None
    keep_uploads_days: Annotated[float | None, Field(gt=0, le=36_500)] = None
    keep_jobs_days: Annotated[float | None, Field(gt=0, le=36_500)] = None
    name_in_metrics: Annotated[str, Field(max_length=100)] = ""
    archives: Annotated[dict[str, TenantArchive], Field(max_length=20)] = Field(default_factory=dict)

    def existing_roots(self, name: str) -> tuple[Path, ...]:
        """name: of the tenant. Raises InvalidArgumentError for a root that is no folder here."""
        for root in self.roots:
            if not root.is_dir():
                raise InvalidArgumentError(
                    f"the root {str(root)!r} of the tenant {name} is not a folder on this machine, or not in this container; "
                    "make it, mount it, or mend the file of accounts."
                )
        return self.roots

    def opened_archives(self) -> tuple[Archive, ...]:
        """Raises InvalidArgumentError for an address that is not safe to use, or credentials that cannot be read."""
        from tissuetalk.tools.storage.archives import Archive

        return tuple(Archive.at(name, each.url, each.credentials) for name, each in self.archives.items())

    def keep(self, others: Keep | None) -> Keep:
        """How long things are kept here. others: what holds where nothing is said."""
        days = {
            "results_s": self.keep_results_days,
            "uploads_s": self.keep_uploads_days,
            "jobs_s": self.keep_jobs_days,
        }
        own = {name: 86_400.0 * each for name, each in days.items() if each is not None}
        return replace(others or Keep(), **own)


class Accounts(BaseModel):
    """The operator's file. keys: an address (https, or of this machine) or a file of the issuer's public keys (JWKS).

    audience: the address of /mcp as clients know it; tokens must be made for it. tenant_claim: names a tenant in each token.
    """

    model_config = ConfigDict(extra="forbid")
    issuer: Annotated[str, Field(pattern=r"^https?://", max_length=500)]
    audience: Annotated[str, Field(pattern=r"^https?://", max_length=500)]
    keys: Annotated[str, Field(max_length=1000)]
    tenant_claim: Annotated[str, Field(min_length=1, max_length=100)] = "tenant"
    tenants: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")], Tenant],
        Field(min_length=1, max_length=500),
    ]

    @classmethod
    def read(cls, file: Path) -> Accounts:
        """Raises InvalidArgumentError that says what is wrong with the file."""
        try:
            accounts = cls.model_validate(yaml_in(content_of(file, 2**18)))
        except (OSError, ValueError) as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else None
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
            raise InvalidArgumentError(
                f"{file.name} is no file of accounts ({why}); see docs/http.md."
            ) from error
        address = urlsplit(accounts.keys)
        if address.scheme == "http" and not is_loopback(address.hostname or ""):
            raise InvalidArgumentError("keys: public keys come over https, or from this machine.")
        return accounts


class Verifier:
    """The SDK's TokenVerifier over an issuer's keys. Whatever is wrong with a token, it is none; why is nobody's business."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at = -KEYS_LAST_S * 1.0
        self._fetching = asyncio.Lock()

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            if len(token) > LONGEST_TOKEN:
                return None
            header = jwt.get_unverified_header(token)
            key = await self._key(str(header.get("kid", "")))
            if key is None or header.get("alg") not in ALGORITHMS:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._accounts.audience,
                issuer=self._accounts.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            return None
        return AccessToken(
            token=token,
            client_id=str(claims.get("client_id") or claims.get("azp") or claims["sub"]),
            scopes=scopes_of(claims),
            expires_at=int(claims["exp"]) + LEEWAY_S,
            resource=self._accounts.audience,
            subject=str(claims["sub"]),
            claims={"iss": claims["iss"], "tenant": claims.get(self._accounts.tenant_claim)},
        )

    async def _key(self, kid: str) -> jwt.PyJWK | None:
        """The issuer's key of that name; asks again when it is new or the keys are old, but not for every stranger's token.

        Who comes while it is being asked for waits as well: at a start, that is everybody.
        """
        if self._asks_for(kid) or (kid not in self._keys and self._fetching.locked()):
            async with self._fetching:
                if self._asks_for(kid):
                    self._fetched_at = time.monotonic()
                    self._keys = await asyncio.to_thread(self._fetch) or self._keys
        return self._keys.get(kid)

    def _asks_for(self, kid: str) -> bool:
        age = time.monotonic() - self._fetched_at
        return age > KEYS_LAST_S or (kid not in self._keys and age > LEAST_BETWEEN_FETCHES_S)

    def _fetch(self) -> dict[str, jwt.PyJWK]:
        """{} where the issuer does not answer or makes no sense: then the keys at hand go on for a while."""
        try:
            if urlsplit(self._accounts.keys).scheme in ("http", "https"):
                keys = jwt.PyJWKClient(self._accounts.keys, timeout=5).get_jwk_set().keys
            else:
                keys = jwt.PyJWKSet.from_json(content_of(Path(self._accounts.keys), 2**20).decode()).keys
        except (jwt.PyJWTError, OSError, ValueError):
            return {}
        return {key.key_id: key for key in keys if key.key_id}
