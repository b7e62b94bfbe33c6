"""Blocks and windows through a runner: what is done already is skipped, what is nearest to the user comes first.

A runner does the work: threads of this process here, any cluster behind the same three calls.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from concurrent.futures import CancelledError as DroppedError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tissuetalk.models.control import Control
from tissuetalk.models.images import ImageSource
from tissuetalk.models.segmenter import RGB, Decoded, Segmenter
from tissuetalk.models.writing import remove
from tissuetalk.tools.segment import tiles, windows
from tissuetalk.tools.segment.engine import Plan, ScaleLayer
from tissuetalk.tools.segment.grid import Block, SlideSettings, Window
from tissuetalk.tools.segment.tiles import BlockSpec
from tissuetalk.tools.segment.windows import WindowSpec
from tissuetalk.tools.storage.features import FeatureCache

LOOK_EVERY_S = 0.2
CHECK_EVERY_S = 2.0
"""How often the slide is checked for having been replaced."""
WINDOW_SHARE = 0.15
"""Work of deciding objects, in blocks per block."""

Key = tuple[int, str]
"""ScaleLayer and name of a block or window."""


@dataclass
class _Todo:
    """What is left. needs[window]: its blocks that are not there yet. used_by[block]: windows that still need it."""

    windows: list[tuple[int, Window]] = field(default_factory=list)
    finished: list[tuple[ScaleLayer, Window]] = field(default_factory=list)
    blocks: list[tuple[int, Block]] = field(default_factory=list)
    needs: dict[Key, set[Key]] = field(default_factory=dict)
    used_by: dict[Key, set[Key]] = field(default_factory=dict)
    done_blocks: int = 0
    done_windows: int = 0
    all_blocks: int = 0
    all_windows: int = 0

    def share(self) -> float:
        total = self.all_blocks + WINDOW_SHARE * max(self.all_blocks, 1)
        windows = self.done_windows / max(self.all_windows, 1)
        return (self.done_blocks + WINDOW_SHARE * max(self.all_blocks, 1) * windows) / max(total, 1e-9)


def drive(
    plan: Plan,
    runner: Runner,
    *,
    near: list[tuple[float, float]],
    control: Control,
    on_window: Callable[[ScaleLayer, Window, float], None] = lambda layer, window, done: None,
) -> None:
    """Every window of the plan, done. near: full-resolution places to begin with.

    Raises CancelledError, ImageChangedError and whatever a block or window raised; finished files stay.
    """
    todo = _what_is_left(plan, near)
    for layer, window in todo.finished:
        on_window(layer, window, todo.share())
    blocks, windows = iter(todo.blocks), list(todo.windows)
    running: dict[Future[str], tuple[bool, int, Block | Window]] = {}
    checked = time.monotonic()
    more = True
    while more or running or windows:
        control.check()
        if time.monotonic() - checked > CHECK_EVERY_S:
            plan.field.source.verify_unchanged()
            checked = time.monotonic()
        more = _hand_out(plan, runner, todo, blocks, windows, running)
        done, _ = wait(running, timeout=LOOK_EVERY_S, return_when=FIRST_COMPLETED)
        for future in done:
            _, number, what = running.pop(future)
            future.result()
            if isinstance(what, Block):
                todo.done_blocks += 1
                for waiting in todo.used_by[number, what.name]:
                    todo.needs[waiting].discard((number, what.name))
            else:
                todo.done_windows += 1
                _let_go(plan, todo, number, what)
                on_window(plan.layers[number], what, todo.share())
            control.report(todo.share(), f"block {todo.done_blocks} of {todo.all_blocks}")


def _hand_out(
    plan: Plan,
    runner: Runner,
    todo: _Todo,
    blocks: Iterator[tuple[int, Block]],
    windows: list[tuple[int, Window]],
    running: dict[Future[str], tuple[bool, int, Block | Window]],
) -> bool:
    """Windows whose blocks are there first, then blocks; False when there is no block left.

    Blocks wait while windows lag behind, so that maps do not pile up on the disk and progress is worth its name.
    """
    ready = [entry for entry in windows if not todo.needs[entry[0], entry[1].name]]
    free = runner.in_flight - sum(not is_block for is_block, _, _ in running.values())
    for entry in ready[: max(free, 0)]:
        number, window = entry
        windows.remove(entry)
        layer = plan.layers[number]
        running[runner.window(plan.window_spec(layer, window))] = (False, number, window)
    if len(ready) > max(free, 0) + runner.in_flight:
        return True
    while sum(is_block for is_block, _, _ in running.values()) < runner.in_flight:
        following = next(blocks, None)
        if following is None:
            return False
        number, block = following
        layer = plan.layers[number]
        running[runner.block(plan.block_spec(layer, block))] = (True, number, block)
    return True


def _what_is_left(plan: Plan, near: list[tuple[float, float]]) -> _Todo:
    """Windows without a summary and the blocks they need that are not there, in the order to do them."""
    todo = _Todo()
    for number, layer in enumerate(plan.layers):
        todo.all_blocks += len(layer.blocks)
        todo.all_windows += len(layer.windows)
        for window in sorted(layer.windows, key=lambda each: _distance(each, near)):
            if plan.files(layer, window).summary.exists():
                todo.done_windows += 1
                todo.finished.append((layer, window))
                continue
            todo.windows.append((number, window))
            missing = set[Key]()
            for block in layer.blocks_of(window):
                key = (number, block.name)
                first = key not in todo.used_by
                todo.used_by.setdefault(key, set()).add((number, window.name))
                if not plan.block_file(layer, block).exists():
                    missing.add(key)
                    if first:
                        todo.blocks.append((number, block))
            todo.needs[number, window.name] = missing
    todo.done_blocks = todo.all_blocks - len(todo.blocks)
    return todo


def _distance(window: Window, near: list[tuple[float, float]]) -> tuple[float, int, int]:
    """From the nearest place of interest to the window's middle, in full-resolution pixels; reading order breaks ties."""
    x, y = (window.full.x0 + window.full.x1) / 2, (window.full.y0 + window.full.y1) / 2
    closest = min((((x - px) ** 2 + (y - py) ** 2) ** 0.5 for px, py in near), default=0.0)
    return closest, window.row, window.column


def _let_go(plan: Plan, todo: _Todo, number: int, window: Window) -> None:
    """Remove maps that no window needs any more: what lies on the disk does not grow with the slide."""
    layer = plan.layers[number]
    for block in layer.blocks_of(window):
        using = todo.used_by.get((number, block.name), set())
        using.discard((number, window.name))
        if not using:
            remove(plan.block_file(layer, block))


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
    """Threads: some read ahead, one asks the model, one writes what it said, some decide objects meanwhile."""

    def __init__(
        self, source: ImageSource, model: Segmenter, features: FeatureCache, settings: SlideSettings
    ) -> None:
        self.in_flight = settings.batch + settings.readers
        self._source, self._model, self._features = source, model, features
        self._batch = settings.batch
        self._readers = ThreadPoolExecutor(settings.readers, thread_name_prefix="slide-read")
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="slide-model")
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="slide-write")
        self._finishers = ThreadPoolExecutor(settings.finishers, thread_name_prefix="slide-finish")
        self._waiting: deque[_Ready] = deque()
        self._answered: dict[str, list[Decoded]] = {}

    def block(self, spec: BlockSpec) -> Future[str]:
        ready = _Ready(spec, self._readers.submit(self._read, spec))
        self._waiting.append(ready)
        return self._writing.submit(self._write, spec, self._asking.submit(self._ask, ready))

    def window(self, spec: WindowSpec) -> Future[str]:
        return self._finishers.submit(windows.write_window, spec, self._model, self._source)

    def close(self) -> None:
        """What has not begun is dropped; what the model has said is still written."""
        for pool in (self._readers, self._asking, self._finishers):
            pool.shutdown(wait=True, cancel_futures=True)
        self._writing.shutdown(wait=True)

    def _read(self, spec: BlockSpec) -> RGB | None:
        if self._features.holds(spec.feature_key(), self._model):
            return None
        return tiles.read_tile(spec, self._source)

    def _ask(self, ready: _Ready) -> list[Decoded]:
        """This block, and with it those that are read already, as many as the model is given at once."""
        if (answers := self._answered.pop(ready.spec.out, None)) is not None:
            return answers
        self._waiting.remove(ready)
        batch, pixels = [ready.spec], [ready.tile.result()]
        for other in list(self._waiting)[: self._batch - 1]:
            if other.spec.block.tile_size != ready.spec.block.tile_size:
                continue  # a batch is one array
            if other.tile.done() and other.tile.exception() is None:
                self._waiting.remove(other)
                batch.append(other.spec)
                pixels.append(other.tile.result())
        answered = tiles.answers_of(batch, pixels, self._model, self._source, self._features)
        self._answered.update((spec.out, each) for spec, each in zip(batch[1:], answered[1:], strict=True))
        return answered[0]

    def _write(self, spec: BlockSpec, asked: Future[list[Decoded]]) -> str:
        """The model goes on meanwhile."""
        try:
            answers = asked.result()
        except DroppedError:
            if spec.out not in self._answered:  # it was asked beside another block
                raise
            answers = self._answered.pop(spec.out)
        tiles.write_maps(Path(spec.out), answers)
        self._features.write_waiting()
        return spec.out
