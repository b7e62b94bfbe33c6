"""A workspace's index in PostgreSQL, for several server processes: a schema for each workspace, alike in all else."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peewee import (
    AutoField,
    DatabaseError,
    DoubleField,
    Function,
    ImproperlyConfigured,
    InterfaceError,
    OperationalError,
    SchemaManager,
    TextField,
    fn,
)
from peewee import Database as Connection
from playhouse.pool import (  # type: ignore[import-untyped]  # as in database.py
    MaxConnectionsExceeded,
    PooledPostgresqlDatabase,
)

from tissuetalk.models.errors import (
    BusyError,
    ModelUnavailableError,
    StateAwayError,
    WorkspaceFullError,
    WorkspaceUnwritableError,
)
from tissuetalk.tools.storage.database import TABLES, Database, ResultTable, Table
from tissuetalk.tools.storage.state import State

SCHEMA_VERSION = 1
_MAX_CONNECTIONS = 16
_WAIT_S = 30
_SETTINGS = {
    # a process that was stopped in a transaction must not stop everybody else
    "idle_in_transaction_session_timeout": "30s",
    "lock_timeout": f"{_WAIT_S}s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_FULL, _NO_PLACE = "53100", ("3D000", "3F000", "42501", "25006", "28000", "28P01", "42P01")
_LETS_NOBODY_IN = re.compile(
    r"FATAL: .*(does not exist|authentication failed|no pg_hba\.conf entry|permission denied)|no password supplied"
)
"""What libpq says of a server that answers and refuses, for which it has no SQLSTATE."""
_AGAIN = ("55P03", "40001", "40P01", "57014")


class SettingTable(Table):
    """What all processes of a state must agree on: the version of the tables, where files lie, the key for signatures."""

    name = TextField(primary_key=True)
    value = TextField()


class WorkerTable(Table):
    """One open workspace. beat: the database's own clock when it was last heard of."""

    token = TextField(primary_key=True)
    beat = DoubleField()


class PendingTable(Table):
    """Objects of a bucket that are nobody's yet, or no longer. token: of the worker that puts them there; null: to be removed."""

    pending_id = AutoField()
    kind = TextField()
    name = TextField(index=True)
    token = TextField(null=True)


class NameTable(Table):
    """What a result can be found by beside its id: its masks, and what was taught for it."""

    name = TextField(primary_key=True)
    result_id = TextField(index=True)


_TABLES = (*TABLES, SettingTable, WorkerTable, PendingTable, NameTable)


class ServerDatabase(Database):
    """Pooled connections to one schema. A connection sees no other schema, so a tenant's statements cannot name another's rows."""

    def __init__(self, state: State) -> None:
        self._schema = state.schema
        options = [
            f'-c search_path="{state.schema}"',
            *(f"-c {name}={value}" for name, value in _SETTINGS.items()),
        ]
        self._pool: Any = PooledPostgresqlDatabase(
            state.database,
            max_connections=_MAX_CONNECTIONS,
            timeout=_WAIT_S,
            prefer_psycopg3=True,
            options=" ".join(options),
            connect_timeout=5,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=20_000,
            application_name="tissuetalk",
        )
        self._pid = os.getpid()

    def prepare(self, *, may_create: bool) -> None:
        with self.write() as db:
            if self._has_no_tables():
                if not may_create:
                    raise self.damaged(f"has nothing in its schema {self._schema} although results exist")
                self._pool.execute_sql(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"')
            for table in _TABLES:  # those that are there stay as they are; one may be newer than the schema
                SchemaManager(table, db).create_all()
            if self.setting(db, "version", str(SCHEMA_VERSION)) != str(SCHEMA_VERSION):
                raise WorkspaceUnwritableError(
                    "the database of --state was written by another version of tissuetalk; update this one"
                )

    def is_new(self) -> bool:
        with self.read():
            return self._has_no_tables()

    def _has_no_tables(self) -> bool:
        return self._pool.execute_sql("SELECT to_regclass('results')").fetchone()[0] is None

    def setting(self, db: Connection, name: str, value: str) -> str:
        """What was agreed on first, by whoever asked first."""
        row = SettingTable.insert(name=name, value=value)
        row.on_conflict_ignore().execute(db)
        found = SettingTable.select().where(SettingTable.name == name).bind(db).get()
        return str(found.value)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._errors(), self._connected().connection_context():
            yield self._pool

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._errors(), self._connected().connection_context(), self._pool.atomic():
            # one writer of a schema at a time, as SQLite has it; the lock goes with the transaction, however that ends
            self._pool.execute_sql("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (self._schema,))
            yield self._pool

    def close(self) -> None:
        self._pool.close_all()

    def close_idle(self) -> None:
        """Connections that nobody uses now; many tenants would hold many."""
        self._pool.close_idle()

    def larger(self, one: Any, other: Any) -> Function:
        return fn.GREATEST(one, other)

    @property
    def in_order(self) -> Any:
        return ResultTable.result_id

    def damaged(self, why: str) -> WorkspaceUnwritableError:
        return WorkspaceUnwritableError(
            f"the database of --state {why}; the results are files or objects and not touched. Restore it from a copy "
            "(pg_dump), or choose an empty place with --state and --objects"
        )

    def _connected(self) -> Any:
        """The pool, this thread's connection open and awake: those that a restart of the database has cut are thrown away."""
        if self._pid != os.getpid():
            self._pool.dispose()
            self._pid = os.getpid()
        pool = self._pool
        if pool.is_closed():
            pool.connect()
            try:
                pool.execute_sql("SELECT 1")
            except (OperationalError, InterfaceError):
                pool.manual_close()
                pool.close_idle()
                pool.connect()
        return pool

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except MaxConnectionsExceeded as error:
            raise BusyError("too many calls ask the database at once; try again in a moment") from error
        except ImproperlyConfigured as error:
            raise ModelUnavailableError(
                "--state needs psycopg, which is not installed; run: pip install 'tissuetalk[service]'"
            ) from error
        except DatabaseError as error:
            raise self._named(error) from error
        except InterfaceError as error:
            raise _away() from error

    def _named(self, error: DatabaseError) -> Exception:
        code = getattr(getattr(error, "orig", None) or error.__context__, "sqlstate", None)
        if code == _FULL:
            return WorkspaceFullError("the disk of the database is full; make room there, then ask again")
        if code in _AGAIN:
            return BusyError("the workspace is in use by other processes; try again in a moment")
        if code in _NO_PLACE or (code is None and _LETS_NOBODY_IN.search(str(error))):
            return WorkspaceUnwritableError(
                f"the database of --state refuses this server{f' (SQLSTATE {code})' if code else ''}: it does not exist, or its "
                "user or password is another; create it, let its user connect and create schemas in it, and look at PGPASSWORD"
            )
        if isinstance(error, OperationalError):
            return _away()
        return error


def shared_secret(state: State) -> bytes:
    """32 bytes that all servers on a state know and nobody else. Raises StateAwayError."""
    database = ServerDatabase(state)
    try:
        database.prepare(may_create=True)
        with database.write() as db:
            return bytes.fromhex(database.setting(db, "secret", secrets.token_hex(32)))
    finally:
        database.close()


def _away() -> StateAwayError:
    return StateAwayError(
        "the database of this service does not answer; nothing of this call was kept. Ask again in a few seconds; "
        "if it lasts, the operator looks after PostgreSQL at --state"
    )
