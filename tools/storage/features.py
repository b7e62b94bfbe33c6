"""Features of tiles, kept so that a follow-up question about the same image costs only the decoder.

Two levels: memory, bounded and emptied from the least recently used end; then the workspace's cache on disk, for
models that can pack their features. A key names the pixels, the place, the scale and the weights, so nothing stale
can be found under it.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from tissuetalk.models.writing import disk_errors, is_disk_full, remove, whole_file

MEMORY_BYTES: Final = 512 * 2**20
SLIDE_MEMORY_BYTES: Final = 256 * 2**20
SLIDE_SHARE: Final = 0.8
"""Of the store, for one slide: what comes after that would only push out what came before."""

_MAGIC = b"TTCACHE2"
_HEADER_BYTES = len(_MAGIC) + 4
_NAME = re.compile(r"[0-9a-f]{64}")
_KEEP_WHEN_FULL = 0.9
"""Eviction frees a little more than it must, so that not every put of a full cache has to evict."""


@runtime_checkable
class Packable(Protocol):
    """A model whose features can be stored: half precision is enough for a follow-up question."""

    def pack(self, features: Any) -> bytes: ...

    def unpack(self, stored: bytes) -> Any: ...


class FeatureCache:
    """Shared by all requests of a process; safe under any number of threads."""

    def __init__(
        self, store: BlobCache | _Sparing | None = None, *, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self._store = store
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        # features and their bytes in memory, the least recently used first
        self._entries: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._total_bytes = 0

    def get(self, key: str, model: object, encode: Callable[[], Any]) -> Any:
        """The features under ``key``: from memory, from disk, or encoded now and kept.

        The first answer, too, is decoded from the packed form, so that it and any later one come from the same numbers.
        Features of a model that does not pack are cheap to make and are not kept.
        """
        with self._lock:
            if (entry := self._entries.get(key)) is not None:
                self._entries.move_to_end(key)
                return entry[0]
        if not isinstance(model, Packable):
            return encode()
        packed = None if self._store is None else self._store.get(key)
        if packed is None:
            packed = model.pack(encode())
            if self._store is not None:
                self._store.put(key, packed)
        features = model.unpack(packed)
        # packed in half precision, so twice the bytes in memory
        self._keep(key, features, 2 * len(packed))
        return features

    def for_slides(self, store_bytes: int) -> FeatureCache:
        """A cache on the same store for one pass over a slide: little memory, and never more than the store can keep."""
        store = None if self._store is None else _Sparing(self._store, int(store_bytes * SLIDE_SHARE))
        return FeatureCache(store, memory_bytes=min(SLIDE_MEMORY_BYTES, self._memory_bytes))

    def write_waiting(self) -> None:
        """Store what a pass over a slide has put: whoever encodes does not wait for the disk."""
        if isinstance(self._store, _Sparing):
            self._store.write()

    def holds(self, key: str, model: object) -> bool:
        """Whether ``get`` will answer without encoding; the features are then in memory."""
        with self._lock:
            if key in self._entries:
                return True
        if self._store is None or not isinstance(model, Packable):
            return False
        if (packed := self._store.get(key)) is None:
            return False
        self._keep(key, model.unpack(packed), 2 * len(packed))
        return key in self._entries

    def _keep(self, key: str, features: Any, size_bytes: int) -> None:
        """size_bytes: of the unpacked features."""
        if size_bytes > self._memory_bytes:
            return
        with self._lock:
            _, replaced_bytes = self._entries.pop(key, (None, 0))
            self._entries[key] = (features, size_bytes)
            self._total_bytes += size_bytes - replaced_bytes
            # the newest entry alone always fits, see above
            while self._total_bytes > self._memory_bytes:
                _, (_, oldest_bytes) = self._entries.popitem(last=False)
                self._total_bytes -= oldest_bytes


class _Sparing:
    """Stores until a pass has met ``most_bytes``, found or new, and then only reads. What is put waits for ``write``."""

    def __init__(self, store: BlobCache | _Sparing, most_bytes: int) -> None:
        self._store, self._left = store, most_bytes
        self._waiting: deque[tuple[str, bytes]] = deque()

    def get(self, key: str) -> bytes | None:
        content = self._store.get(key)
        if content is not None:
            self._left -= len(content)
        return content

    def put(self, key: str, content: bytes) -> bool:
        if self._left < len(content):
            return False
        self._left -= len(content)
        self._waiting.append((key, content))
        return True

    def write(self) -> None:
        while self._waiting:
            self._store.put(*self._waiting.popleft())


def _header(content: bytes) -> bytes:
    return _MAGIC + zlib.crc32(content).to_bytes(4, "big")


class BlobCache:
    """One file per key, named by the key's SHA-256; several processes may use the same folder.

    A file is magic, CRC-32 of the content, content: a check against accidents, at half the cost of a hash. It is written
    whole, so a reader sees all of it or none; it is not flushed to the disk, since a damaged file is noticed and is only a
    miss. Its modification time is the last use.
    """

    def __init__(self, folder: Path, scratch: Path, quota_bytes: int) -> None:
        self._folder = folder
        self._scratch = scratch
        self.quota_bytes = quota_bytes
        self._guard = threading.Lock()
        self._known_bytes = 0
        self._puts_left = 0

    def get(self, key: str) -> bytes | None:
        """The bytes last put under ``key``, or None; a damaged file is removed and counts as None."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                header, content = file.read(_HEADER_BYTES), file.read()
        except FileNotFoundError:
            return None
        # never trusted unread: the cache is not flushed, so a power cut may leave half a file
        if header != _header(content):
            remove(path)
            return None
        with suppress(OSError):  # evicted meanwhile, or the disk became read-only: the bytes are still good
            os.utime(path)
        return content

    def put(self, key: str, content: bytes) -> bool:
        """Store bytes; False when they did not fit (larger than the cache, or the disk is full).

        Raises WorkspaceUnwritableError when the workspace cannot be written any more.
        """
        size = _HEADER_BYTES + len(content)
        if size > self.quota_bytes:
            return False
        self._make_room(size)
        with disk_errors(self._folder.parent):
            try:
                # in the owner's folder: what a kill leaves there goes at the next start
                with whole_file(self._path(key), scratch=self._scratch) as part, part.open("wb") as file:
                    file.writelines((_header(content), content))
            except OSError as error:
                if is_disk_full(error):
                    return False
                raise
        return True

    def _make_room(self, size: int) -> None:
        """Count again when this process's sum says full, and now and then, since others put files here too."""
        with self._guard:
            self._puts_left -= 1
            self._known_bytes += size
            if self._puts_left >= 0 and self._known_bytes <= self.quota_bytes:
                return
            files = self._oldest_first()
            total = sum(bytes_ for _, bytes_, _ in files) + size
            if total > self.quota_bytes:
                goal = max(size, int(self.quota_bytes * _KEEP_WHEN_FULL))
                for _, bytes_, path in files:
                    if total <= goal:
                        break
                    remove(path)
                    total -= bytes_
            self._known_bytes = total
            # a scan of a full folder costs; the larger it is, the rarer it is looked through
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
