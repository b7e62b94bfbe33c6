"""Who does the blocks and windows: threads of this process here, any cluster behind the same three calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from tissuetalk.models.images import ImageSource
from tissuetalk.models.segmenter import RGB, Segmenter
from tissuetalk.tools.segment import blocks, windows
from tissuetalk.tools.segment.blocks import BlockSpec
from tissuetalk.tools.segment.settings import SlideSettings
from tissuetalk.tools.segment.windows import WindowSpec
from tissuetalk.tools.storage.features import FeatureCache


class Runner(Protocol):
    """Does blocks and windows in any order and anywhere; their files are the only thing that comes back.

    in_flight: how many blocks, and how many windows, the run hands out before it waits for one. A task that is done
    twice writes the same file twice.
    """

    in_flight: int

    def block(self, spec: BlockSpec) -> Future[str]: ...

    def window(self, spec: WindowSpec) -> Future[str]: ...

    def close(self) -> None:
        """Drop what has not begun and wait for what has."""
        ...


MakeRunner = Callable[[ImageSource, Segmenter, FeatureCache, SlideSettings], Runner]


@dataclass(frozen=True, eq=False)
class _Ready:
    """A block whose pixels are being read; None where its features are stored."""

    spec: BlockSpec
    tile: Future[RGB | None]


class LocalRunner:
    """Threads: some read ahead, one asks the model, some decide objects meanwhile."""

    def __init__(
        self, source: ImageSource, model: Segmenter, features: FeatureCache, settings: SlideSettings
    ) -> None:
        self.in_flight = settings.batch + settings.readers
        self._source, self._model, self._features = source, model, features
        self._batch = settings.batch
        self._readers = ThreadPoolExecutor(settings.readers, thread_name_prefix="slide-read")
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="slide-model")
        self._finishers = ThreadPoolExecutor(settings.finishers, thread_name_prefix="slide-finish")
        self._waiting: deque[_Ready] = deque()
        self._written: set[str] = set()

    def block(self, spec: BlockSpec) -> Future[str]:
        ready = _Ready(spec, self._readers.submit(self._read, spec))
        self._waiting.append(ready)
        return self._asking.submit(self._ask, ready)

    def window(self, spec: WindowSpec) -> Future[str]:
        return self._finishers.submit(windows.compute, spec, self._model, self._source)

    def close(self) -> None:
        for pool in (self._readers, self._asking, self._finishers):
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, spec: BlockSpec) -> RGB | None:
        if self._features.holds(spec.feature_key, self._model):
            return None
        return blocks.read_tile(spec, self._source)

    def _ask(self, ready: _Ready) -> str:
        """This block, and with it those that are read already, as many as the model is given at once."""
        if ready.spec.out in self._written:
            self._written.discard(ready.spec.out)
            return ready.spec.out
        self._waiting.remove(ready)
        batch, tiles = [ready.spec], [ready.tile.result()]
        for other in list(self._waiting)[: self._batch - 1]:
            if other.tile.done() and other.tile.exception() is None:
                self._waiting.remove(other)
                batch.append(other.spec)
                tiles.append(other.tile.result())
        written = blocks.compute(batch, tiles, self._model, self._source, self._features)
        self._written.update(written[1:])
        return written[0]
