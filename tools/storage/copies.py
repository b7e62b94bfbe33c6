"""Copies of slides from archives, a folder each, within a share of the disk; what was not used for an hour makes room."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tissuetalk.models.control import Control
from tissuetalk.models.errors import UnknownImageError, WorkspaceFullError
from tissuetalk.models.writing import disk_errors, remove, tree_bytes, write_whole
from tissuetalk.tools.storage.archives import Archives, SeriesAddress

_LOOK_EVERY_S = 0.2
IN_USE_S = 3600.0
"""A slide that was opened within this may still be read."""


class Copies:
    """folder: its own in the workspace. scratch: where a slide is put together, on the same disk. most_bytes: of all copies."""

    def __init__(self, folder: Path, scratch: Path, archives: Archives, most_bytes: int) -> None:
        self.folder, self.archives, self.most_bytes = folder, archives, most_bytes
        self._scratch = scratch
        self._fetching: dict[str, threading.Lock] = {}

    def get(self, text: str, control: Control = Control()) -> Path:
        """The finest level of the slide at an address; fetched where it is not here yet.

        Raises OutsideRootsError for an unknown archive, the errors of ``Archive.fetch``, and WorkspaceFullError.
        """
        address = SeriesAddress.of(text)
        archive = self.archives.named(address.archive)
        place = self.folder / hashlib.sha256(str(address).encode()).hexdigest()[:32]
        with self._alone(place.name, control):
            if not place.is_dir():
                with disk_errors(self.folder):
                    self.folder.mkdir(exist_ok=True)
                    write_whole(place.with_suffix(".address"), str(address))
                    part = self._scratch / f"archive_{secrets.token_hex(8)}"
                    try:
                        part.mkdir()
                        control.report(0.0, "fetching the slide from its archive")
                        archive.fetch(address, part, self._room(), control)
                        self._publish(part, place)
                    finally:
                        remove(part)
        return self._finest(place)

    @contextmanager
    def _alone(self, name: str, control: Control) -> Iterator[None]:
        """Who else wants the same slide waits, and may stop waiting."""
        lock = self._fetching.setdefault(name, threading.Lock())
        while not lock.acquire(timeout=_LOOK_EVERY_S):
            control.check()
        try:
            yield
        finally:
            lock.release()

    def again(self, path: Path, control: Control = Control()) -> Path:
        """A file of a copy, whose copy is fetched again where it was cleared away; any other path as it is."""
        if path.parent.parent != self.folder or path.is_file():
            return path
        return self.get(str(self.address_of(path)), control)

    def address_of(self, path: Path | None) -> SeriesAddress:
        """Where the slide of a copied file came from. Raises UnknownImageError for what is no copy."""
        try:
            if path is None or path.parent.parent != self.folder:
                raise FileNotFoundError
            return SeriesAddress.of(path.parent.with_suffix(".address").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UnknownImageError(
                "this image does not come from an archive; open it by its dicomweb: address first."
            ) from error

    def _finest(self, place: Path) -> Path:
        """Its largest file; looked at, so that it stays for now."""
        try:
            with suppress(PermissionError):
                os.utime(place)
            return max(place.glob("*.dcm"), key=lambda level: level.stat().st_size)
        except (OSError, ValueError) as error:
            raise UnknownImageError("the copy of this slide was cleared away; open it again.") from error

    def _room(self) -> int:
        """Bytes that a new copy may have, when all that is not in use goes."""
        used = sum(tree_bytes(each) for each in self._copies() if self._in_use(each))
        if used >= self.most_bytes:
            raise self._full()
        return self.most_bytes - used

    def _publish(self, part: Path, place: Path) -> None:
        size = tree_bytes(part)
        for oldest in sorted(self._copies(), key=lambda each: each.stat().st_mtime):
            if size + sum(tree_bytes(each) for each in self._copies()) <= self.most_bytes:
                break
            if not self._in_use(oldest):
                remove(oldest)
        if size + sum(tree_bytes(each) for each in self._copies()) > self.most_bytes:
            raise self._full()
        try:
            part.rename(place)
        except OSError:
            if not place.is_dir():  # another process was faster
                raise

    def _copies(self) -> list[Path]:
        return [each for each in self.folder.iterdir() if each.is_dir()]

    def _in_use(self, copy: Path) -> bool:
        return time.time() - copy.stat().st_mtime < IN_USE_S

    def _full(self) -> WorkspaceFullError:
        return WorkspaceFullError(
            f"copies of slides from archives may take {self.most_bytes / 1e9:.1f} GB here, and those in use take it all; "
            "try again in an hour, or give the server a larger --quota",
            str(self.folder),
        )
