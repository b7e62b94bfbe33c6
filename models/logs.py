"""What is written to a log: where something went wrong and what kind of error it was, never with which values.

A message of a library can repeat whatever it was given: a path, a header, a line of a report. So of a library's message only
the fixed part is written, of an error its kind and the lines of code it passed through.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

OWN = "tissuetalk"
_TRUSTED_TEMPLATES = ("mcp", "uvicorn", "asyncio")
"""Libraries whose messages have a fixed part worth reading; of all others only the place is written."""
_LONGEST = 300
CALLS = f"{OWN}.calls"
"""The logger of served calls: one line each, with these fields and no other, where lines are JSON."""
_FIELDS = ("tool", "outcome", "seconds")
LogFormat = Literal["text", "json"]


class QuietFormatter(logging.Formatter):
    """One line for what happened, and of an exception its kinds and lines of code, without their messages."""

    def format(self, record: logging.LogRecord) -> str:
        where = f"{record.levelname} {record.name}:{record.lineno}"
        lines = [f"{where} {_said(record)}".rstrip()]
        if record.exc_info and record.exc_info[1] is not None:
            lines.append(self.formatException(record.exc_info))
        return "\n".join(lines)

    def formatException(  # noqa: N802  # the name logging calls
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        return "" if ei[1] is None else "\n".join(["Traceback, without values:", *_chain(ei[1], set())])


class JsonFormatter(logging.Formatter):
    """The same as one JSON object a line, for whatever collects logs; served calls are in it, with tool, outcome and seconds."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "where": f"{record.name}:{record.lineno}",
        }
        if text := _said(record):
            said["said"] = text
        said |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[1] is not None:
            said["error"] = [line.strip() for line in _chain(record.exc_info[1], set())]
        return json.dumps(said)


def _said(record: logging.LogRecord) -> str:
    """What may be repeated of a message, on one line."""
    root = record.name.partition(".")[0]
    if root == OWN:
        said = record.getMessage()
    else:
        said = str(record.msg) if root in _TRUSTED_TEMPLATES and record.levelno >= logging.WARNING else ""
    return "".join(character if character.isprintable() else " " for character in said[:_LONGEST])


def _chain(error: BaseException, seen: set[int]) -> list[str]:
    """Causes first, each with its frames and its kind."""
    if id(error) in seen:
        return []
    seen.add(id(error))
    inner = [error.__cause__ or (None if error.__suppress_context__ else error.__context__)]
    inner += error.exceptions if isinstance(error, BaseExceptionGroup) else []
    lines = [line for each in inner if each is not None for line in _chain(each, seen)]
    frames = traceback.extract_tb(error.__traceback__)
    lines += [f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    return [*lines, f"{type(error).__module__}.{type(error).__qualname__}"]


def configure(lines: LogFormat = "text") -> None:
    """Logs of this process to stderr, of everything that logs, warns or crashes. Replaces what was set before.

    lines: text for people, without served calls; or JSON, with them.

    TISSUETALK_LOG=debug writes everything there is, still without values; TISSUETALK_LOG=full writes warnings as they are,
    values and all: for a developer with data of nobody.
    """
    wanted, handler = os.environ.get("TISSUETALK_LOG"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(QuietFormatter() if lines == "text" else JsonFormatter())
    if wanted == "full":
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    level = logging.DEBUG if wanted == "debug" else logging.WARNING
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger(CALLS).setLevel(logging.INFO if lines == "json" else logging.WARNING)
    logging.captureWarnings(True)
    log = logging.getLogger(OWN)

    def crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        log.critical("a crash; please report these lines", exc_info=(kind, error, trace))

    def thread_crashed(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None:
            crashed(failed.exc_type, failed.exc_value, failed.exc_traceback)

    sys.excepthook, threading.excepthook = crashed, thread_crashed
