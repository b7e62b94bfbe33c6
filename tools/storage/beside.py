"""Where the command line works on a result: a workspace beside the folder it will be written to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tissuetalk.tools.storage.workspace.disk import remove


@contextmanager
def workspace_beside(out: Path) -> Iterator[Path]:
    """``OUT.unfinished``, on the same disk as the result. It stays only if there is slide work to go on with.

    The same command finds it again, with finished blocks and stored features.
    """
    out = out.absolute()
    folder = out.with_name(f"{out.name}.unfinished")
    try:
        yield folder
    except BaseException:
        if not _has_work(folder):
            remove(folder)
        raise
    remove(folder)


def _has_work(folder: Path) -> bool:
    runs = folder / "unfinished"
    return runs.is_dir() and any(entry.is_dir() for entry in runs.iterdir())
