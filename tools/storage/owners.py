"""Who is alive on a workspace, and what it holds: locks of the kernel, which die with their process and need no disk."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tissuetalk.models.errors import BusyError
from tissuetalk.models.writing import remove

if sys.platform != "win32":
    import fcntl

_REGISTRY_WAIT_S = 60.0
_TOKEN = re.compile(r"[0-9a-f]{16}")
_PARTIAL = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}\.partial", re.DOTALL)
"""What ``writing.whole_file`` calls a file before it is whole."""
_ELSEWHERE = "elsewhere_"


def partials(folder: Path, of: str | None = None) -> list[Path]:
    """What a kill left half-written directly in a folder; of: only of the file of that name."""
    found = ((path, _PARTIAL.fullmatch(path.name)) for path in folder.iterdir())
    return [path for path, match in found if match and of in (None, match["name"])]


@contextmanager
def held(folder: Path, *, alone: bool = False) -> Iterator[None]:
    """Keep a folder where it is while the block runs; alone: to take it away, which waits for nobody.

    Raises FileNotFoundError when it is gone, BlockingIOError when ``alone`` and somebody holds it.
    """
    if sys.platform == "win32":  # which itself refuses to move a folder whose files are open
        folder.stat()
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
        # it may have been taken away between the two lines above
        if not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise FileNotFoundError(folder)
        yield
    finally:
        os.close(descriptor)


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
            raise BusyError("another process is starting on this workspace; try again") from None
        try:
            yield
        finally:
            lock.release()

    def enter(self) -> None:
        """Become an owner. Called under ``registry()``."""
        self._lock.acquire(blocking=False)
        self.folder.mkdir(exist_ok=True)

    @contextmanager
    def writing(self, target: Path) -> Iterator[None]:
        """Note that a file or folder outside the workspace is being written, so that a start after a kill sweeps its parts."""
        note = self.folder / f"{_ELSEWHERE}{secrets.token_hex(8)}"
        with suppress(OSError):  # a full workspace must not keep anybody from saving elsewhere
            note.write_text(json.dumps([str(target.parent), target.name]), "utf-8")
        try:
            yield
        finally:
            remove(note)

    def leave(self) -> None:
        """Stop being one: what is left half-written is removed, and jobs may be taken over."""
        # in this order: whoever finds the lock free may bury what is left
        remove(self.folder)
        if self._lock.is_locked:
            with suppress(OSError):  # Windows keeps a locked file; the next start removes it
                self._lock_path(self.token).unlink()
        self._lock.release()

    def is_alive(self, token: str) -> bool:
        """Whether the workspace with this token is still open somewhere."""
        if token == self.token:
            return self._lock.is_locked
        with self.registry():
            return not self._is_gone(token)

    def living(self) -> list[str]:
        """Tokens of the open workspaces. Called under ``registry()``."""
        return [token for token in self._tokens() if not self._is_gone(token)]

    def dead(self) -> list[str]:
        """Tokens that left something behind and whose process is gone. Called under ``registry()``, before entering."""
        return [token for token in self._tokens() if self._is_gone(token)]

    def _tokens(self) -> list[str]:
        names = {path.name.removesuffix(".lock") for path in self._partial.iterdir()}
        return sorted(name for name in names if _TOKEN.fullmatch(name))

    def bury(self, token: str) -> None:
        """Remove what a dead owner left half-written, here and elsewhere. Called under ``registry()``."""
        for note in (self._partial / token).glob(f"{_ELSEWHERE}*"):
            with suppress(OSError, ValueError):  # a note that was cut short, a folder that is gone
                parent, name = json.loads(note.read_text("utf-8"))
                target = Path(parent) / name
                left = partials(target.parent, of=name)
                if target.is_dir() and not target.is_symlink():
                    left += partials(target)
                for path in left:
                    remove(path)
                target.rmdir()  # where nothing whole came to lie in it
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
