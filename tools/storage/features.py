"""Features of tiles, kept so that a follow-up question about the same image costs only the decoder.

Two levels: memory, bounded and emptied from the least recently used end; then the workspace's cache on disk, for
models that can pack their features. A key names the pixels, the place, the scale and the weights, so nothing stale
can be found under it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

MEMORY_BYTES = 512 * 2**20


@runtime_checkable
class Packable(Protocol):
    """A model whose features can be stored: half precision is enough for a follow-up question."""

    def pack(self, features: Any) -> bytes: ...

    def unpack(self, stored: bytes) -> Any: ...


class Store(Protocol):
    """Where packed features go: the workspace."""

    def cache_get(self, key: str) -> bytes | None: ...

    def cache_put(self, key: str, content: bytes) -> bool: ...


SLIDE_MEMORY_BYTES = 256 * 2**20
SLIDE_SHARE = 0.8
"""Of the store, for one slide: what comes after that would only push out what came before."""


@dataclass(frozen=True)
class _Kept:
    features: Any
    size_bytes: int


class FeatureCache:
    """Shared by all requests of a process; safe under any number of threads."""

    def __init__(self, store: Store | None = None, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self._store = store
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._total_bytes = 0

    def get(self, key: str, model: object, encode: Callable[[], Any]) -> Any:
        """The features under ``key``: from memory, from disk, or encoded now and kept.

        The first answer, too, is decoded from the packed form, so that it and any later one come from the same numbers.
        Features of a model that does not pack are cheap to make and are not kept.
        """
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return kept.features
        if not isinstance(model, Packable):
            return encode()
        packed = None if self._store is None else self._store.cache_get(key)
        if packed is None:
            packed = model.pack(encode())
            if self._store is not None:
                self._store.cache_put(key, packed)
        features = model.unpack(packed)
        self._keep(key, features, 2 * len(packed))
        return features

    def for_slides(self, store_bytes: int) -> FeatureCache:
        """A cache on the same store for one pass over a slide: little memory, and never more than the store can keep."""
        store = None if self._store is None else _Sparing(self._store, int(store_bytes * SLIDE_SHARE))
        return FeatureCache(store, memory_bytes=min(SLIDE_MEMORY_BYTES, self._memory_bytes))

    def holds(self, key: str, model: object) -> bool:
        """Whether ``get`` will answer without encoding; the features are then in memory."""
        with self._lock:
            if key in self._kept:
                return True
        if self._store is None or not isinstance(model, Packable):
            return False
        if (packed := self._store.cache_get(key)) is None:
            return False
        self._keep(key, model.unpack(packed), 2 * len(packed))
        return key in self._kept

    def _keep(self, key: str, features: Any, size_bytes: int) -> None:
        """size_bytes: of the unpacked features."""
        if size_bytes > self._memory_bytes:
            return
        with self._lock:
            replaced = self._kept.pop(key, None)
            self._kept[key] = _Kept(features, size_bytes)
            self._total_bytes += size_bytes - (replaced.size_bytes if replaced else 0)
            while self._total_bytes > self._memory_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._total_bytes -= oldest.size_bytes


class _Sparing:
    """Stores until a pass has met ``most_bytes``, found or new, and then only reads."""

    def __init__(self, store: Store, most_bytes: int) -> None:
        self._store, self._left = store, most_bytes

    def cache_get(self, key: str) -> bytes | None:
        content = self._store.cache_get(key)
        if content is not None:
            self._left -= len(content)
        return content

    def cache_put(self, key: str, content: bytes) -> bool:
        if self._left < len(content):
            return False
        self._left -= len(content)
        return self._store.cache_put(key, content)
