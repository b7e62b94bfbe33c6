"""The database of a workspace: its tables, one way to read and one to write them; and the file that it is by default."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from peewee import (
    SQL,
    AutoField,
    BigIntegerField,
    BooleanField,
    DatabaseError,
    DoubleField,
    FloatField,
    Function,
    IntegerField,
    Model,
    SchemaManager,
    TextField,
    fn,
)
from peewee import Database as Connection

# playhouse ships with peewee, but only peewee itself has type stubs
from playhouse.pool import PooledSqliteDatabase  # type: ignore[import-untyped]

from tissuetalk.models.errors import BusyError, WorkspaceUnwritableError
from tissuetalk.models.writing import full_disk

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x7C155E7A
"""Written into the file's header, so that a database of another program is never taken for ours."""

_BUSY_TIMEOUT_MS = 30_000
_MAX_CONNECTIONS = 64
_DAMAGED = (
    *(sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA),
    *(sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_NOMEM),
)
"""What SQLite says of a file whose pages or schema are not what we wrote; our own statements never cause these."""
_UNWRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR)
_LEAST_FREE_BYTES = 256 * 1024
"""SQLite needs about this much to open a file; with less free, its input/output errors mean a full disk."""
_ID = re.compile(r"(res|job|msk)_[0-9a-f]{32}")


def new_id(kind: Literal["res", "job", "msk"]) -> str:
    """``res_`` and 128 random bits in hexadecimal: nobody can guess it, and it is safe in a URL, a file name and a shell."""
    return f"{kind}_{secrets.token_hex(16)}"


def is_id(kind: Literal["res", "job", "msk"], text: str) -> bool:
    """True only for what ``new_id(kind)`` could have returned: no separator, dot or newline can hide in it."""
    return text.startswith(kind) and _ID.fullmatch(text) is not None


def shown(text: str) -> str:
    """An id as a caller gave it, quoted and cut short, for an error message."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


class _DamagedRowError(DatabaseError):
    """A value that we never wrote."""


class _JsonField(TextField):
    """JSON values kept as text."""

    def db_value(self, value: Any) -> str | None:
        return None if value is None else json.dumps(value)

    def python_value(self, value: str | None) -> Any:
        try:
            return None if value is None else json.loads(value)
        except (TypeError, ValueError) as error:
            raise _DamagedRowError("a text that should be JSON is not") from error


class _MomentField(DoubleField):
    """Written as seconds since 1970, read as a date and time."""

    def python_value(self, value: float) -> datetime:
        try:
            return datetime.fromtimestamp(value, UTC)
        except (TypeError, ValueError, OverflowError, OSError) as error:
            raise _DamagedRowError("a time is not one") from error


class Table(Model):
    """Its name in the file: ``results`` for ResultTable. Times are seconds since 1970."""

    class Meta:
        @staticmethod
        def table_function(table: type[Model]) -> str:
            return table.__name__.removesuffix("Table").lower() + "s"


class ResultTable(Table):
    """One finished result; its files lie in ``results/<result_id>``."""

    result_id = TextField(primary_key=True)
    image_id = TextField(index=True)
    kind = TextField()
    created_at = _MomentField(index=True)
    last_used = DoubleField(index=True)
    size_bytes = BigIntegerField()


class ImageTable(Table):
    """One image that was opened, by the hash of its content."""

    image_id = TextField(primary_key=True)
    path = TextField()
    # nobody reads these; workspaces of 0.1.0 have the columns and insist on values
    sha256 = TextField(default="")
    width = IntegerField(default=0)
    height = IntegerField(default=0)
    mpp = DoubleField(null=True)
    mpp_source = TextField(default="unknown")
    details = TextField(default="{}")
    last_used = DoubleField(index=True)


class UploadTable(Table):
    """One uploaded file in ``images/``."""

    name = TextField(primary_key=True)
    size_bytes = BigIntegerField()
    last_used = DoubleField(index=True)


class RemovalTable(Table):
    """What was taken away to make room. announced: said in an answer already."""

    removal_id = AutoField()
    name = TextField()
    size_bytes = BigIntegerField()
    last_used = DoubleField()
    removed_at = _MomentField(index=True)
    announced = BooleanField(default=False)


class JobTable(Table):
    """One piece of long work. worker: token of the workspace that runs it. beat: grows whenever it reports."""

    job_id = TextField(primary_key=True)
    kind = TextField()
    request = _JsonField()
    owner = TextField()
    state = TextField(index=True, default="queued")
    progress = DoubleField(default=0.0)
    eta_s = DoubleField(null=True)
    message = TextField(default="")
    result = _JsonField(null=True)
    error_code = TextField(null=True)
    error_message = TextField(null=True)
    cancel_requested = BooleanField(default=False)
    worker = TextField(null=True)
    attempts = IntegerField(column_name="attempt", default=0)
    beat = DoubleField(column_name="lease_until", default=0.0)
    created_at = _MomentField(index=True)
    updated_at = _MomentField()


TABLES = (ResultTable, ImageTable, UploadTable, RemovalTable, JobTable)


class Database(ABC):
    """What a workspace remembers. Threads share it; other processes are kept apart by the database itself."""

    @abstractmethod
    def prepare(self, *, may_create: bool) -> None:
        """Create the tables, or check that they are ours. Raises WorkspaceUnwritableError for what is damaged or not ours."""

    @abstractmethod
    def is_new(self) -> bool:
        """Whether nobody has prepared it yet."""

    def read_all(self) -> None:
        """Every value. Raises WorkspaceUnwritableError for what we never wrote; a start looks at less, to be quick."""
        with self.read() as db:
            for table in TABLES:
                for _ in table.select().execute(db):
                    pass

    @abstractmethod
    def read(self) -> AbstractContextManager[Connection]:
        """A connection for statements that each see a consistent state and change nothing."""

    @abstractmethod
    def write(self) -> AbstractContextManager[Connection]:
        """A transaction that is alone among all processes from its first statement; an exception undoes it."""

    @abstractmethod
    def close(self) -> None:
        """Give the database back. Safe to call twice."""

    @abstractmethod
    def damaged(self, why: str) -> WorkspaceUnwritableError:
        """The error to raise; what can be done is the same for every kind of damage."""

    @property
    @abstractmethod
    def in_order(self) -> Any:
        """Results as they were made, where the clock says they are of one moment."""

    @abstractmethod
    def larger(self, one: Any, other: Any) -> Function:
        """Of two numbers, in a statement."""


class FileDatabase(Database):
    """Pooled connections to one SQLite file, on a disk of this machine."""

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
                raise self.damaged("is missing or empty although results exist")
            if not empty and application != _APPLICATION_ID:
                raise self._refused("belongs to another program; move it away")
            if version > SCHEMA_VERSION:
                raise self._refused(f"was written by a newer version (format {version}); update tissuetalk")
            for table in TABLES:  # those that are there stay as they are; one may be newer than the file
                SchemaManager(table, db).create_all()
            if empty:
                self._pool.execute_sql(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._pool.execute_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
            # stops at the first fault; the full check would read every page of a large workspace
            if _scalar(db, "PRAGMA quick_check(1)") != "ok" or any(_wrong_rows(db, each) for each in TABLES):
                raise self.damaged("is damaged")

    def is_new(self) -> bool:
        return not self.path.exists()

    def read_all(self) -> None:
        """Every page, too."""
        with self.read() as db:
            if _scalar(db, "PRAGMA integrity_check(1)") != "ok":
                raise self.damaged("is damaged")
        super().read_all()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._errors(), self._of_this_process().connection_context():
            yield self._pool

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._errors(), self._of_this_process().connection_context(), self._pool.atomic("IMMEDIATE"):
            yield self._pool

    def close(self) -> None:
        self._pool.close_all()

    @property
    def in_order(self) -> Any:
        return SQL("rowid")

    def larger(self, one: Any, other: Any) -> Function:
        return fn.MAX(one, other)

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
        except UnicodeDecodeError as error:  # in a value, or in what SQLite says of a damaged schema
            raise self.damaged("is damaged") from error
        except (DatabaseError, sqlite3.DatabaseError) as error:
            # peewee keeps sqlite3's error in orig, or lets it through while rows are read; the low byte is the primary code,
            # the rest says where it happened
            code = getattr(getattr(error, "orig", error), "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and self._no_room()):
                raise full_disk(self.path.parent) from error
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise BusyError(
                    "the workspace is in use by other processes; try again in a moment"
                ) from error
            if code in _DAMAGED or isinstance(error, _DamagedRowError) or "decode to UTF-8" in str(error):
                raise self.damaged("is damaged or not a database") from error
            if code in _UNWRITABLE:
                why = "cannot be written; make its folder writable"
                raise self._refused(why) from error
            raise

    def _no_room(self) -> bool:
        return shutil.disk_usage(self.path.parent).free < _LEAST_FREE_BYTES

    def damaged(self, why: str) -> WorkspaceUnwritableError:
        return self._refused(
            f"{why}; the results are files and not touched. Restore it from a copy, or end the servers on this workspace "
            "and index the results anew: tissuetalk doctor --workspace DIR --repair. "
            "Where it never was a workspace, move it away"
        )

    def _refused(self, why: str) -> WorkspaceUnwritableError:
        return WorkspaceUnwritableError(
            f"the database of the workspace {why}, or choose another folder with --workspace", str(self.path)
        )


def _scalar(db: Any, sql: str) -> Any:
    return db.execute_sql(sql).fetchone()[0]


def _wrong_rows(db: Any, table: type[Model]) -> int:
    """Rows with a value of a kind that we never write: what is left of a page that was overwritten."""
    kinds = {
        AutoField: "integer",
        IntegerField: "integer",
        BigIntegerField: "integer",
        BooleanField: "integer",
    }
    wrong = []
    for field in table._meta.sorted_fields:
        kind = kinds.get(type(field), "real" if isinstance(field, FloatField) else "text")
        column = f'"{field.column_name}"'
        # a whole number in a column of REAL may be stored as one
        right = f"typeof({column}) IN ('{kind}'" + (", 'integer')" if kind == "real" else ")")
        if isinstance(field, _JsonField):
            right += f" AND json_valid({column})"
        wrong.append(f"NOT ({right}" + (f" OR {column} IS NULL)" if field.null else ")"))
    name = table._meta.table_name
    return int(_scalar(db, f'SELECT count(*) FROM "{name}" WHERE {" OR ".join(wrong)}'))
