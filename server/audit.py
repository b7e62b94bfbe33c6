"""The audit log: who asked for what of which image, when, and how it ended. Lines are added and never changed.

A line is one JSON object. It holds the hash of the line before and its own, so a line that was changed, taken out or put in
between is found. Whoever may write the file can also make a whole new chain: keep a copy, or the last hash, elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.writing import disk_errors

NAME: Final = "audit.jsonl"
FIRST: Final = "0" * 64
"""What the first line holds as the hash of the line before."""
COLUMNS: Final = ("time", "tenant", "who", "tool", "image", "result", "job", "outcome", "before", "hash")
_LONGEST_LINE = 8192
_WAIT_S = 30.0


@dataclass(frozen=True)
class Deed:
    """One thing that somebody asked for. who: the account, or what stands for a token. image, result, job: ids, never names.

    outcome: done, job, or the code of the error.
    """

    tool: str
    outcome: str
    who: str
    tenant: str = ""
    image: str | None = None
    result: str | None = None
    job: str | None = None


class AuditLog:
    """One file, added to by any number of threads and processes. It may be moved away at any time; the next line begins anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        self._lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=_WAIT_S, thread_local=False)

    def add(self, deed: Deed) -> None:
        """The line is in the file when this returns. Raises WorkspaceFullError, WorkspaceUnwritableError."""
        with disk_errors(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._guard, self._lock:
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
                with os.fdopen(os.open(self.path, flags, 0o600), "r+b", buffering=0) as file:
                    last, torn = _last_of(file)
                    now = datetime.now(UTC).isoformat(timespec="milliseconds")
                    line = {"time": now, **asdict(deed), "before": last}
                    # what a full disk or a kill left of a line stays, on a line of its own
                    file.write(b"\n" * torn + _packed({**line, "hash": _hash(line)}) + b"\n")

    def lines(self, since: datetime | None = None, tenant: str | None = None) -> Iterator[dict[str, Any]]:
        """Whole lines, oldest first; those of one tenant, from a moment on. Raises InvalidArgumentError where there is no file."""
        for _, line in self._numbered():
            if line is None or (tenant is not None and line.get("tenant") != tenant):
                continue
            if since is None or datetime.fromisoformat(line["time"]) >= since:
                yield line

    def verify(self, known: str | None = None) -> tuple[int, str, list[str]]:
        """How many lines, the last hash, and what is wrong. known: a hash that was noted before and must still be there."""
        problems, before, count, seen = [], FIRST, 0, known in (None, FIRST)
        for number, line in self._numbered():
            if line is None:
                problems.append(f"line {number} is no line of an audit log")
                continue
            count += 1
            said = {name: value for name, value in line.items() if name != "hash"}
            if line["before"] != before:
                problems.append(f"line {number} does not follow the one before it")
            if line["hash"] != _hash(said):
                problems.append(f"line {number} was changed")
            before = line["hash"]
            seen = seen or before == known
        if not seen:
            problems.append(f"no line has the hash {str(known)[:80]}: lines are missing")
        return count, before, problems

    def _numbered(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Every line with its number; None for one that is not ours."""
        try:
            with self.path.open("rb") as file:
                for number, raw in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
                    if raw.strip():
                        yield number, _read(raw)
        except OSError as error:
            raise InvalidArgumentError(
                f"{self.path} cannot be read ({error.strerror}); name the file or its workspace."
            ) from error


def _last_of(file: Any) -> tuple[str, bool]:
    """The hash of the last whole line, and whether something that is no line follows it."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 2 * _LONGEST_LINE))
    tail: bytes = file.read(2 * _LONGEST_LINE)
    whole = [line for raw in tail.split(b"\n") if (line := _read(raw)) is not None]
    return (whole[-1]["hash"] if whole else FIRST), not (end == 0 or tail.endswith(b"\n"))


def _read(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) and set(line) == set(COLUMNS) else None


def _hash(line: dict[str, Any]) -> str:
    return hashlib.sha256(_packed(line)).hexdigest()


def _packed(line: dict[str, Any]) -> bytes:
    return json.dumps({name: line[name] for name in COLUMNS if name in line}, separators=(",", ":")).encode()
