"""Who is alive: one locked file per open workspace, which the system unlocks when its process dies."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tissuetalk.models.errors import BusyError
from tissuetalk.tools.storage.files import remove

_REGISTRY_WAIT_S = 60.0
_TOKEN = re.compile(r"[0-9a-f]{16}")


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
