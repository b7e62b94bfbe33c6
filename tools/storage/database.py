"""The SQLite file of a workspace: its tables, its version, one way to read and one to write it; and who is alive on it."""

from __future__ import annotations

import json
import os
import re
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from peewee import (
    AutoField,
    BigIntegerField,
    BooleanField,
    DatabaseError,
    FloatField,
    IntegerField,
    Model,
    SchemaManager,
    SqliteDatabase,
    TextField,
)

# playhouse ships with peewee, but only peewee itself has type stubs
from playhouse.pool import PooledSqliteDatabase  # type: ignore[import-untyped]

from tissuetalk.models.errors import BusyError, WorkspaceUnwritableError
from tissuetalk.models.writing import full_disk, remove

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x7C155E7A
"""Written into the file's header, so that a database of another program is never taken for ours."""

_BUSY_TIMEOUT_MS = 30_000
_REGISTRY_WAIT_S = 60.0
_MAX_CONNECTIONS = 64
_UNWRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR)
_ID = re.compile(r"(res|job|msk)_[0-9a-f]{32}")
_TOKEN = re.compile(r"[0-9a-f]{16}")


def new_id(kind: Literal["res", "job", "msk"]) -> str:
    """``res_`` and 128 random bits in hexadecimal: nobody can guess it, and it is safe in a URL, a file name and a shell."""
    return f"{kind}_{secrets.token_hex(16)}"


def is_id(kind: Literal["res", "job", "msk"], text: str) -> bool:
    """True only for what ``new_id(kind)`` could have returned: no separator, dot or newline can hide in it."""
    return text.startswith(kind) and _ID.fullmatch(text) is not None


def shown(text: str) -> str:
    """An id as a caller gave it, quoted and cut short, for an error message."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


class _JsonField(TextField):
    """JSON values kept as text."""

    def db_value(self, value: Any) -> str | None:
        return None if value is None else json.dumps(value)

    def python_value(self, value: str | None) -> Any:
        return None if value is None else json.loads(value)


class _MomentField(FloatField):
    """Written as seconds since 1970, read as a date and time."""

    def python_value(self, value: float) -> datetime:
        return datetime.fromtimestamp(value, UTC)


class _Table(Model):
    """Its name in the file: ``results`` for ResultTable. Times are seconds since 1970."""

    class Meta:
        @staticmethod
        def table_function(table: type[Model]) -> str:
            return table.__name__.removesuffix("Table").lower() + "s"


class ResultTable(_Table):
    """One finished result; its files lie in ``results/<result_id>``."""

    result_id = TextField(primary_key=True)
    image_id = TextField(index=True)
    kind = TextField()
    created_at = _MomentField(index=True)
    last_used = FloatField(index=True)
    size_bytes = BigIntegerField()


class ImageTable(_Table):
    """One image that was opened, by the hash of its content."""

    image_id = TextField(primary_key=True)
    path = TextField()
    # nobody reads these; workspaces of 0.1.0 have the columns and insist on values
    sha256 = TextField(default="")
    width = IntegerField(default=0)
    height = IntegerField(default=0)
    mpp = FloatField(null=True)
    mpp_source = TextField(default="unknown")
    details = TextField(default="{}")
    last_used = FloatField(index=True)


class UploadTable(_Table):
    """One uploaded file in ``images/``."""

    name = TextField(primary_key=True)
    size_bytes = BigIntegerField()
    last_used = FloatField(index=True)


class PinTable(_Table):
    """Somebody is reading: the result with the id ``name`` must stay where it is."""

    pin_id = AutoField()
    name = TextField(index=True)
    owner = TextField(index=True)


class JobTable(_Table):
    """One piece of long work. worker: token of the workspace that runs it."""

    job_id = TextField(primary_key=True)
    kind = TextField()
    request = _JsonField()
    owner = TextField()
    state = TextField(index=True, default="queued")
    progress = FloatField(default=0.0)
    eta_s = FloatField(null=True)
    message = TextField(default="")
    result = _JsonField(null=True)
    error_code = TextField(null=True)
    error_message = TextField(null=True)
    cancel_requested = BooleanField(default=False)
    worker = TextField(null=True)
    attempts = IntegerField(column_name="attempt", default=0)
    lease_until = FloatField(default=0.0)
    created_at = _MomentField(index=True)
    updated_at = _MomentField()


_TABLES = (ResultTable, ImageTable, UploadTable, PinTable, JobTable)


class Database:
    """Pooled connections to one file. Threads share the pool; other processes are kept apart by SQLite itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pool: Any = PooledSqliteDatabase(
            str(path),
            max_connections=_MAX_CONNECTIONS,
            timeout=_BUSY_TIMEOUT_MS / 1000,
            check_same_thread=False,
            pragmas={
                "busy_timeout": _BUSY_TIMEOUT_MS,
                # readers go on while somebody writes; a power cut may lose the last transactions, never the file
                "journal_mode": "wal",
                "synchronous": "normal",
                "foreign_keys": 1,
            },
        )
        self._pid = os.getpid()

    def prepare(self, *, may_create: bool) -> None:
        """Create the tables, or check that they are ours. Called while no other process does the same.

        Raises WorkspaceUnwritableError for a file that is damaged, foreign, from a newer version, or missing
        although results exist (``may_create`` is false): nothing is ever repaired by wiping.
        """
        with self.write() as db:
            # both numbers live in the file's header, so they can be read before any table is known
            version = int(_scalar(db, "PRAGMA user_version"))
            application = int(_scalar(db, "PRAGMA application_id"))
            empty = int(_scalar(db, "SELECT count(*) FROM sqlite_master")) == 0
            if empty and not may_create:
                raise self._refused("is missing or empty although results exist; restore it from a copy")
            if empty:
                for table in _TABLES:
                    SchemaManager(table, db).create_all()
                self._pool.execute_sql(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._pool.execute_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
                return
            if application != _APPLICATION_ID:
                raise self._refused("belongs to another program; move it away")
            if version > SCHEMA_VERSION:
                raise self._refused(f"was written by a newer version (format {version}); update tissuetalk")
            # stops at the first fault; the full check would read every page of a large workspace
            if _scalar(db, "PRAGMA quick_check(1)") != "ok":
                raise self._refused("is damaged; restore it from a copy or move it away")

    @contextmanager
    def read(self) -> Iterator[SqliteDatabase]:
        """A connection for statements that each see a consistent state and change nothing."""
        with self._errors(), self._of_this_process().connection_context():
            yield self._pool

    @contextmanager
    def write(self) -> Iterator[SqliteDatabase]:
        """A transaction that is alone among all processes from its first statement; an exception undoes it."""
        with self._errors(), self._of_this_process().connection_context(), self._pool.atomic("IMMEDIATE"):
            yield self._pool

    def close(self) -> None:
        """Give the file back. Safe to call twice."""
        self._pool.close_all()

    def _of_this_process(self) -> Any:
        """After a fork the parent's connections are forgotten: SQLite forbids their use in the child."""
        if self._pid != os.getpid():
            self._pool.dispose()
            self._pid = os.getpid()
        return self._pool

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            # peewee keeps sqlite3's error in orig; the low byte is the primary code, the rest says where it happened
            code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_FULL:
                raise full_disk(self.path.parent) from error
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise BusyError(f"{self.path} is in use by other processes; try again in a moment") from error
            if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                why = "is damaged or not a database; restore it from a copy or move it away"
                raise self._refused(why) from error
            if code in _UNWRITABLE:
                why = f"cannot be written ({error}); make its folder writable"
                raise self._refused(why) from error
            raise

    def _refused(self, why: str) -> WorkspaceUnwritableError:
        return WorkspaceUnwritableError(f"{self.path} {why}, or choose another folder with --workspace")


def _scalar(db: Any, sql: str) -> Any:
    return db.execute_sql(sql).fetchone()[0]


class Owners:
    """The open workspaces on one folder, seen from one of them.

    ``partial/<token>.lock`` is locked as long as the workspace with that token is open, and everything it has
    half-written lies in ``partial/<token>/``. A lock dies with its process, whatever kills it, and means the same
    in every container that shares the disk, which a process number does not.
    """

    def __init__(self, partial: Path) -> None:
        self._partial = partial
        self.token = secrets.token_hex(8)
        self.folder = partial / self.token
        # thread_local=False: close() may run in another thread than the one that opened the workspace
        self._lock = FileLock(self._lock_path(self.token), thread_local=False)

    @contextmanager
    def registry(self) -> Iterator[None]:
        """The lock under which owners come and are looked at, so that no look is mistaken for a living owner.

        Never taken inside a database transaction. Raises BusyError when others hold it for a minute.
        """
        lock = FileLock(self._partial / "registry.lock", timeout=_REGISTRY_WAIT_S, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise BusyError(f"another process is starting on {self._partial.parent}; try again") from None
        try:
            yield
        finally:
            lock.release()

    def enter(self) -> None:
        """Become an owner. Called under ``registry()``."""
        self._lock.acquire(blocking=False)
        self.folder.mkdir(exist_ok=True)

    def leave(self) -> None:
        """Stop being one: what is left half-written is removed, and jobs may be taken over."""
        # in this order: whoever finds the lock free may bury what is left
        remove(self.folder)
        self._lock.release()

    def is_alive(self, token: str) -> bool:
        """Whether the workspace with this token is still open somewhere."""
        if token == self.token:
            return self._lock.is_locked
        with self.registry():
            return not self._is_gone(token)

    def dead(self) -> list[str]:
        """Tokens that left something behind and whose process is gone. Called under ``registry()``, before entering."""
        tokens = {path.name.removesuffix(".lock") for path in self._partial.iterdir()}
        return sorted(token for token in tokens if _TOKEN.fullmatch(token) and self._is_gone(token))

    def bury(self, token: str) -> None:
        """Remove what a dead owner left half-written. Called under ``registry()``."""
        remove(self._partial / token)
        remove(self._lock_path(token))

    def _is_gone(self, token: str) -> bool:
        path = self._lock_path(token)
        if not path.exists():
            return True
        # taking the lock is the only sure test; it is given back at once
        lock = FileLock(path, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        lock.release()
        return True

    def _lock_path(self, token: str) -> Path:
        return self._partial / f"{token}.lock"
