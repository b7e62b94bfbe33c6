"""Blocks and windows through a runner: what is done already is skipped, what is nearest to the user comes first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

from tissuetalk.models.errors import CancelledError
from tissuetalk.tools.segment.engine import Progress, Stop
from tissuetalk.tools.segment.grid import Block, Window
from tissuetalk.tools.segment.plan import Layer, Plan
from tissuetalk.tools.segment.runners import Runner
from tissuetalk.tools.storage.files import remove

LOOK_EVERY_S = 0.2
CHECK_EVERY_S = 2.0
"""How often the slide is checked for having been replaced."""
WINDOW_SHARE = 0.15
"""Work of deciding objects, in blocks per block."""

Key = tuple[int, str]
"""Layer and name of a block or window."""


def check(stop: Stop) -> None:
    """Raises CancelledError when asked to stop."""
    if stop():
        raise CancelledError("stopped as asked; what is finished is kept: segment again to go on from there.")


@dataclass
class _Todo:
    """What is left. needs[window]: its blocks that are not there yet. used_by[block]: windows that still need it."""

    windows: list[tuple[int, Window]] = field(default_factory=list)
    finished: list[tuple[Layer, Window]] = field(default_factory=list)
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
    progress: Progress,
    stop: Stop,
    on_window: Callable[[Layer, Window, float], None] = lambda layer, window, done: None,
) -> None:
    """Every window of the plan, done. near: full-resolution places to begin with.

    Raises CancelledError, ImageChangedError and whatever a block or window raised; finished files stay.
    """
    todo = _what_is_left(plan, near)
    for layer, window in todo.finished:
        on_window(layer, window, todo.share())
    for layer in plan.layers:
        layer.block_folder.mkdir(parents=True, exist_ok=True)
        layer.window_folder.mkdir(parents=True, exist_ok=True)
    blocks, windows = iter(todo.blocks), list(todo.windows)
    running: dict[Future[str], tuple[bool, int, Block | Window]] = {}
    checked = time.monotonic()
    more = True
    while more or running or windows:
        check(stop)
        if time.monotonic() - checked > CHECK_EVERY_S:
            plan.source.verify_unchanged()
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
            progress(todo.share(), f"block {todo.done_blocks} of {todo.all_blocks}")


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
        for window in sorted(layer.windows, key=lambda each: _distance(layer, each, near)):
            if layer.files(window).summary.exists():
                todo.done_windows += 1
                todo.finished.append((layer, window))
                continue
            todo.windows.append((number, window))
            missing = set[Key]()
            for block in layer.blocks_of(window):
                key = (number, block.name)
                first = key not in todo.used_by
                todo.used_by.setdefault(key, set()).add((number, window.name))
                if not layer.block_file(block).exists():
                    missing.add(key)
                    if first:
                        todo.blocks.append((number, block))
            todo.needs[number, window.name] = missing
    todo.done_blocks = todo.all_blocks - len(todo.blocks)
    return todo


def _distance(layer: Layer, window: Window, near: list[tuple[float, float]]) -> tuple[float, int, int]:
    """From the nearest place of interest to the window's middle, in full-resolution pixels; reading order breaks ties."""
    step, core = layer.grid.step, window.core
    x, y = (core.x0 + core.x1) / 2 * step, (core.y0 + core.y1) / 2 * step
    closest = min((((x - px) ** 2 + (y - py) ** 2) ** 0.5 for px, py in near), default=0.0)
    return closest, window.row, window.column


def _let_go(plan: Plan, todo: _Todo, number: int, window: Window) -> None:
    """Remove maps that no window needs any more: what lies on the disk does not grow with the slide."""
    layer = plan.layers[number]
    for block in layer.blocks_of(window):
        using = todo.used_by.get((number, block.name), set())
        using.discard((number, window.name))
        if not using:
            remove(layer.block_file(block))
