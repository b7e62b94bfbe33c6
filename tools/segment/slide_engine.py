"""Any slide, block by block, in bounded memory: blocks and windows through a runner, then one numbering of all objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box
from tissuetalk.prompts.target import Request
from tissuetalk.tools.segment import choosing, objects, painting
from tissuetalk.tools.segment.choosing import Choice, Mapped
from tissuetalk.tools.segment.driving import check, drive
from tissuetalk.tools.segment.engine import PRESENT, Progress, Stop
from tissuetalk.tools.segment.first_look import FirstLook
from tissuetalk.tools.segment.memory import give_back
from tissuetalk.tools.segment.plan import Layer, Plan
from tissuetalk.tools.segment.runners import Runner
from tissuetalk.tools.segment.stitching import WindowStore, number, stitch
from tissuetalk.tools.segment.targets import Wanted

DRIVEN_SHARE = 0.93
"""Part of the work, for the progress, after which only numbering and painting are left."""


@dataclass(frozen=True)
class SlideFound:
    """What became of one target. mask, labels: thumbnails. area_px: full-resolution pixels. box_xyxy: likewise."""

    mask: NDArray[np.bool_]
    labels: NDArray[np.uint16] | None
    presence: float
    area_px: int
    count: int | None
    box_xyxy: list[int] | None
    model_mpp: float
    size: tuple[int, int]
    """Width and height of the finest label level."""
    weak_px: int
    shrunk: int
    """Large objects whose outline was measured on a shrunk picture."""


def run_slide(
    plan: Plan,
    runner: Runner,
    request: Request,
    asked: Sequence[Wanted],
    mask_ids: Sequence[str],
    folder: Path,
    *,
    progress: Progress,
    stop: Stop,
) -> list[SlideFound]:
    """Do or go on with the work of a plan and write labels and objects into ``folder`` (``slide/`` of a result).

    Raises CancelledError, ImageChangedError, UnreadableImageError; what is finished stays in the plan's files.
    """
    near = [(x, y) for x, y in request.points] + [
        ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in request.boxes
    ]
    look = FirstLook(plan, asked, folder.parent)
    look.take()
    drive(
        plan,
        runner,
        near=near,
        progress=lambda done, what: progress(done * DRIVEN_SHARE, what),
        stop=stop,
        on_window=look.add,
    )
    progress(DRIVEN_SHARE, "numbering the objects")
    mapped = _mapped(plan, asked, stop)
    choices = choosing.choose(request, [each for each, _ in mapped], plan.scale.mpp)
    found = []
    for index, ((each, presence), choice) in enumerate(zip(mapped, choices, strict=True)):
        progress(
            DRIVEN_SHARE + (1 - DRIVEN_SHARE) * index / max(len(mapped), 1), "writing labels and objects"
        )
        layer = _layer_of(plan, index)
        found.append(_write(plan, layer, each, presence, choice, mask_ids[index], folder, stop))
    plan.source.verify_unchanged()
    return found


def _layer_of(plan: Plan, target: int) -> Layer:
    return next(layer for layer in plan.layers if target in layer.targets)


def _mapped(plan: Plan, asked: Sequence[Wanted], stop: Stop) -> list[tuple[Mapped, float]]:
    """Every target's objects, joined over windows, with the highest presence any window saw."""
    found = []
    for index, each in enumerate(asked):
        layer = _layer_of(plan, index)
        store = WindowStore(layer.window_folder, layer.grid, layer.windows, layer.targets.index(index))
        presence = max((store.summary(place).presence for place in store.order()), default=0.0)
        objects_ = each.capability.objects
        stitched = stitch(store, objects=objects_, stop=lambda: check(stop))
        store.forget()
        give_back()
        present = presence >= PRESENT
        found.append((Mapped(each.target, store, stitched, layer.grid.step, objects_, present), presence))
    return found


def _write(
    plan: Plan,
    layer: Layer,
    mapped: Mapped,
    presence: float,
    choice: Choice,
    mask_id: str,
    folder: Path,
    stop: Stop,
) -> SlideFound:
    store, grid = mapped.store, layer.grid
    numbered = number(store, mapped.stitched, choice.small, choice.group)
    known = plan.scale.known
    unit_px = plan.scale.mpp if known else 1.0
    painted = painting.paint(
        folder / "labels" / f"{mask_id}.ome.zarr",
        store,
        mapped.stitched,
        numbered,
        objects=mapped.objects,
        corner_um=tuple((at * grid.step + (grid.step - 1) / 2) * unit_px for at in (grid.x0, grid.y0)),  # type: ignore[arg-type]  # two values from two
        pixel=grid.step * unit_px,
        unit="micrometer" if known else None,
        about={"mask_id": mask_id, "image_sha256": plan.source.sha256, "model_mpp": layer.model_mpp},
        stop=lambda: check(stop),
    )
    shrunk = objects.write_objects(
        folder / "objects" / f"{mask_id}.parquet",
        store,
        mapped.stitched,
        numbered,
        plan.source,
        objects.Scale(grid.step, layer.model_mpp, plan.scale.mpp if known else None),
        stop=lambda: check(stop),
    )
    store.forget()
    weak = 0 if mapped.present else sum(store.summary(place).seen_px for place in store.order())
    box = None
    if painted.box is not None:
        box = grid.full(Box(*painted.box), plan.source.width, plan.source.height).as_list()
    return SlideFound(
        mask=painted.mask,
        labels=painted.labels if mapped.objects else None,
        presence=presence,
        area_px=round(painted.area * grid.step**2),
        count=numbered.count if mapped.objects else None,
        box_xyxy=box,
        model_mpp=layer.model_mpp,
        size=(grid.width, grid.height),
        weak_px=round(weak * grid.step**2),
        shrunk=shrunk,
    )
