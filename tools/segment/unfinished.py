"""Slide runs that are not finished: one folder each in the workspace, taken up again by the same order.

``unfinished/<key>/`` is the result folder in the making: ``slide/plan.json`` says what decides the result, ``slide/work``
holds finished blocks and windows. A lock beside it, which dies with its process, keeps two runs apart.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tissuetalk.models.errors import BusyError
from tissuetalk.models.writing import disk_errors, remove, write_whole

KEEP_S = 30 * 24 * 3600.0
"""Unfinished work nobody came back to for this long is removed."""


def folder_of(workspace: Path, order: Mapping[str, Any]) -> Path:
    """Where the run of an order lies: the same order, the same folder."""
    text = json.dumps(order, sort_keys=True, ensure_ascii=False)
    return workspace / "unfinished" / hashlib.sha256(text.encode()).hexdigest()[:32]


@contextmanager
def run_folder(workspace: Path, order: Mapping[str, Any]) -> Iterator[Path]:
    """The folder of this order's run, with what an earlier attempt left in it. It stays when the block ends.

    Raises BusyError while another run of the same order is going on, WorkspaceFullError and WorkspaceUnwritableError.
    """
    folder = folder_of(workspace, order)
    with disk_errors(workspace):
        folder.mkdir(parents=True, exist_ok=True)
        _forget_old(folder.parent)
        lock = FileLock(folder.with_suffix(".lock"), thread_local=False)
        try:
            lock.acquire(blocking=False)
            os.utime(lock.lock_file)
        except Timeout:
            raise BusyError(
                "this very question is being worked on; wait for its job, then ask again."
            ) from None
        try:
            folder.mkdir(exist_ok=True)
            yield folder
        finally:
            lock.release()
            if not folder.exists():
                remove(folder.with_suffix(".lock"))


def begin(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether work for exactly this is there already; anything else is cleared away first.

    identity: JSON values, everything that decides the result: image, model, region, prompts, settings.
    """
    plan = folder / "slide" / "plan.json"
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False).encode()
    with suppress(FileNotFoundError):
        if plan.read_bytes() == text:
            return True
    for entry in folder.iterdir():
        remove(entry)
    plan.parent.mkdir(parents=True)
    write_whole(plan, text)
    return False


def _forget_old(parent: Path) -> None:
    for lock in parent.glob("*.lock"):
        with suppress(OSError):
            if time.time() - lock.stat().st_mtime > KEEP_S:
                held = FileLock(lock, thread_local=False)
                try:
                    held.acquire(blocking=False)
                except Timeout:
                    continue
                remove(lock.with_suffix(""))
                held.release()
                remove(lock)


@contextmanager
def unfinished_workspace(out: Path) -> Iterator[Path]:
    """``OUT.unfinished``, where the command line works: on the same disk as the result it will become.

    It stays only if there is slide work to go on with; the same command then finds finished blocks and stored features.
    """
    out = out.absolute()
    folder = out.with_name(f"{out.name}.unfinished")
    # a run keeps a folder of its own here as long as its blocks are worth something
    runs = folder / "unfinished"
    try:
        yield folder
    except BaseException:
        if not (runs.is_dir() and any(entry.is_dir() for entry in runs.iterdir())):
            remove(folder)
        raise
    remove(folder)
