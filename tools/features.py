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
