"""Where a service keeps what several processes share: a PostgreSQL database and, for several machines, a bucket."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from tissuetalk.models.errors import InvalidArgumentError

_LONGEST_TENANT = 56
"""PostgreSQL cuts names after 63 characters, and two tenants must never become one."""
_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]*://\S+")


@dataclass(frozen=True)
class State:
    """database: ``postgresql://USER@HOST/NAME``; libpq's own variables and files may say the rest, as the password.

    objects: an address that fsspec knows, ``s3://BUCKET/PREFIX``, or None where all processes use one folder.
    tenant: whose; each has a schema in the database and a folder in the bucket.
    """

    database: str
    objects: str | None = None
    tenant: str | None = None

    @classmethod
    def of(cls, database: str | None, objects: str | None) -> State | None:
        """As an operator gives it; None for a workspace that is one folder. Raises InvalidArgumentError; no password is repeated."""
        if database is None:
            if objects is not None:
                raise InvalidArgumentError(
                    "--objects goes with --state: a bucket needs a database beside it."
                )
            return None
        if urlsplit(database).scheme not in ("postgresql", "postgres"):
            raise InvalidArgumentError(
                "--state is no address of a PostgreSQL database, such as postgresql://tissuetalk@db.example.org/tissuetalk."
            )
        if objects is not None and not _PROTOCOL.fullmatch(objects):
            raise InvalidArgumentError(
                "--objects is no address of a bucket, such as s3://tissuetalk/results."
            )
        return cls(f"postgresql{database[database.index(':') :]}", objects and objects.rstrip("/"))

    @classmethod
    def of_environment(cls) -> State | None:
        """What ``TISSUETALK_STATE`` and ``TISSUETALK_OBJECTS`` say."""
        return cls.of(os.environ.get("TISSUETALK_STATE"), os.environ.get("TISSUETALK_OBJECTS"))

    def of_tenant(self, name: str) -> State:
        """The same state, a place of its own in it."""
        if len(name) > _LONGEST_TENANT:
            raise InvalidArgumentError(
                f"with --state the name of a tenant has at most {_LONGEST_TENANT} characters; shorten {name[:20]}…"
            )
        objects = self.objects and f"{self.objects}/tenants/{name}"
        return replace(self, objects=objects, tenant=name)

    @property
    def schema(self) -> str:
        return "tissuetalk" if self.tenant is None else f"tenant_{self.tenant}"
