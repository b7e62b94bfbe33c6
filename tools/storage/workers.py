"""Who is at work on a state that several machines share: each says so every few seconds, by the database's own clock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from peewee import SQL

from tissuetalk.models.errors import TissuetalkError
from tissuetalk.tools.storage.postgres import ServerDatabase, WorkerTable

BEAT_S: Final = 4.0
STALE_S: Final = 20.0
"""Silent for this long, a worker is taken for dead and its jobs may be taken over."""
_SWEEP_EVERY_S = 60.0
_NOW = "extract(epoch FROM clock_timestamp())"
_STALE = f"greatest(beat, extract(epoch FROM pg_postmaster_start_time())) < {_NOW} - {STALE_S}"
"""Nobody could be heard while the database was down."""
_log = logging.getLogger(__name__)


class Workers:
    """The open workspaces on a state, seen from the one with ``token``. sweep: what each does now and then for all."""

    def __init__(self, database: ServerDatabase, token: str, sweep: Callable[[], None]) -> None:
        self._database, self._token, self._sweep = database, token, sweep
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="tissuetalk heartbeat", daemon=True)

    def enter(self) -> None:
        """Become one of them. Raises StateAwayError."""
        self._beat()
        self._thread.start()

    def leave(self) -> None:
        """Stop being one: what this one was doing may be taken over at once. Safe to call twice."""
        self._left.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(TissuetalkError), self._database.read() as db:
            WorkerTable.delete().where(WorkerTable.token == self._token).execute(db)

    def is_alive(self, token: str) -> bool:
        """Whether it was heard of lately."""
        with self._database.read() as db:
            return WorkerTable.select().where(WorkerTable.token == token, ~SQL(_STALE)).bind(db).exists()

    def any_alive(self) -> bool:
        """Whether any was heard of lately."""
        with self._database.read() as db:
            return WorkerTable.select().where(~SQL(_STALE)).bind(db).exists()

    def bury_dead(self) -> None:
        """Forget those that have been silent for long. What they held is found by their names being unknown."""
        with self._database.read() as db:
            WorkerTable.delete().where(SQL(_STALE)).execute(db)

    def _beat(self) -> None:
        now = SQL(_NOW)
        row = WorkerTable.insert(token=self._token, beat=now)
        # a statement of its own: a heartbeat waits for no writer
        with self._database.read() as db:
            row.on_conflict(conflict_target=[WorkerTable.token], update={WorkerTable.beat: now}).execute(db)

    def _go_on(self) -> None:
        swept = -_SWEEP_EVERY_S
        is_there = True
        while not self._left.wait(BEAT_S if is_there else 1.0):
            try:
                self._beat()
                if not is_there:
                    _log.warning("the state of this service answers again")
                is_there = True
                self._database.close_idle()
                if time.monotonic() - swept >= _SWEEP_EVERY_S:
                    swept = time.monotonic()
                    self._sweep()
            except TissuetalkError as error:
                if is_there:
                    _log.warning("the state of this service does not answer (%s)", error.code)
                is_there = False
            except Exception:  # noqa: BLE001
                # nobody waits for this thread: without its heartbeat the jobs of a living server would be taken from it
                _log.exception("looking after the state of this service failed")
