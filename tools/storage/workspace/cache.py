"""A cache of bytes in files: content-addressed, checked when read, emptied from the least recently used end."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
from contextlib import suppress
from pathlib import Path

from tissuetalk.tools.storage.workspace.disk import disk_errors, is_disk_full, remove

_MAGIC = b"TTCACHE1"
_DIGEST_BYTES = 32
_NAME = re.compile(r"[0-9a-f]{64}")
_KEEP_WHEN_FULL = 0.9
"""Eviction frees a little more than it must, so that not every put of a full cache has to evict."""


class BlobCache:
    """One file per key, named by the key's SHA-256; several processes may use the same folder.

    A file is magic, SHA-256 of the content, content. It is written beside and renamed, so a reader sees all of it
    or none; it is not flushed to the disk, since a damaged file is noticed and is only a miss. Its modification
    time is the last use.
    """

    def __init__(self, folder: Path, scratch: Path, quota_bytes: int) -> None:
        self._folder = folder
        self._scratch = scratch
        self._quota_bytes = quota_bytes
        self._guard = threading.Lock()
        self._known_bytes = 0
        self._puts_left = 0

    def get(self, key: str) -> bytes | None:
        """The bytes last put under ``key``, or None; a damaged file is removed and counts as None."""
        path = self._path(key)
        try:
            stored = path.read_bytes()
        except FileNotFoundError:
            return None
        header = len(_MAGIC) + _DIGEST_BYTES
        content = stored[header:]
        if stored[:header] != _MAGIC + hashlib.sha256(content).digest():
            remove(path)
            return None
        with suppress(
            OSError
        ):  # evicted meanwhile, or on a disk that became read-only: the bytes are still good
            os.utime(path)
        return content

    def put(self, key: str, content: bytes) -> bool:
        """Store bytes; False when they did not fit (larger than the cache, or the disk is full).

        Raises WorkspaceUnwritableError when the workspace cannot be written any more.
        """
        size = len(_MAGIC) + _DIGEST_BYTES + len(content)
        if size > self._quota_bytes:
            return False
        self._make_room(size)
        part = self._scratch / f"blob_{secrets.token_hex(8)}"
        try:
            with disk_errors(self._folder.parent):
                try:
                    with part.open("wb") as file:
                        file.write(_MAGIC + hashlib.sha256(content).digest())
                        file.write(content)
                    part.replace(self._path(key))
                except OSError as error:
                    if is_disk_full(error):
                        return False
                    raise
        finally:
            remove(part)
        return True

    def _make_room(self, size: int) -> None:
        """Count again when this process's sum says full, and now and then, since others put files here too."""
        with self._guard:
            self._puts_left -= 1
            self._known_bytes += size
            if self._puts_left >= 0 and self._known_bytes <= self._quota_bytes:
                return
            files = self._oldest_first()
            total = sum(bytes_ for _, bytes_, _ in files) + size
            if total > self._quota_bytes:
                goal = max(size, int(self._quota_bytes * _KEEP_WHEN_FULL))
                for _, bytes_, path in files:
                    if total <= goal:
                        break
                    remove(path)
                    total -= bytes_
            self._known_bytes = total
            self._puts_left = max(16, len(files) // 8)

    def _oldest_first(self) -> list[tuple[float, int, Path]]:
        files = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process evicts too
                    if _NAME.fullmatch(entry.name):
                        status = entry.stat()
                        files.append((status.st_mtime, status.st_size, Path(entry.path)))
        return sorted(files)

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()
