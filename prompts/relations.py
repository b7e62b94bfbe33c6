"""Set operations on masks: the relations a request can ask for, and the nine tasks of the PFPs paper (spec pfps.md, C1, C2).

Masks are [H, W] bool, instances [H, W] int with 0 for background. Nothing is changed in place.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import InvalidArgumentError, PointOutsideImageError
from tissuetalk.prompts.target import RelationOp

Mask = NDArray[np.bool_]
Instances = NDArray[np.int32]
Task = Literal[1, 2, 3, 4, 5, 6, 7, 8, 9]
POINT_TASKS = (6, 7, 8, 9)


def combine(op: RelationOp, subject: Mask, reference: Mask) -> Mask:
    """Pixels of the subject that stand in the relation to the reference; `union` and `intersection` are symmetric.

    `selected` takes the reference as the region (a box, or the instance at a point) to keep.
    """
    _same_size(subject, reference)
    if op == "outside":
        return subject & ~reference
    if op == "union":
        return subject | reference
    return subject & reference


def combine_objects(op: RelationOp, subjects: Instances, reference: Mask) -> Instances:
    """Whole objects by their centroid: `inside` keeps those whose centre lies in the reference, `outside` the others.

    Kept objects are renumbered 1..N in their old order. `union` keeps all of them.
    """
    _same_size(subjects, reference)
    if op == "union":
        return renumbered(subjects, np.unique(subjects[subjects > 0]))
    ids, rows, columns = centroids(subjects)
    within = reference[
        np.clip(np.rint(rows).astype(int), 0, None), np.clip(np.rint(columns).astype(int), 0, None)
    ]
    return renumbered(subjects, ids[~within] if op == "outside" else ids[within])


def centroids(instances: Instances) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Ids, mean rows and mean columns (px) of all objects."""
    flat = instances.ravel()
    area = np.bincount(flat)
    ids = np.flatnonzero(area)
    ids = ids[ids > 0]
    rows, columns = np.divmod(np.arange(flat.size), instances.shape[1])
    mean_rows = np.bincount(flat, weights=rows, minlength=area.size)[ids] / area[ids]
    mean_columns = np.bincount(flat, weights=columns, minlength=area.size)[ids] / area[ids]
    return ids.astype(np.int64), mean_rows, mean_columns


def renumbered(instances: Instances, kept: NDArray[np.int64] | NDArray[np.int32]) -> Instances:
    """Only the kept ids, as 1..N in ascending order of the old ids."""
    table = np.zeros(int(instances.max(initial=0)) + 1, dtype=np.int32)
    table[np.asarray(kept, dtype=np.int64)] = np.arange(1, len(kept) + 1, dtype=np.int32)
    return table[instances]


def instance_at(instances: Instances, point_xy: tuple[float, float]) -> Mask:
    """The object under a point (x right, y down, px); empty when the point lies on background.

    Raises:
        PointOutsideImageError: the point is not on the image.
    """
    column, row = int(point_xy[0]), int(point_xy[1])
    height, width = instances.shape
    if not (0 <= row < height and 0 <= column < width):
        raise PointOutsideImageError(
            f"the point ({point_xy[0]:g}, {point_xy[1]:g}) is not on the image of {width} x {height} px; "
            "give x from the left and y from the top in full-resolution pixels."
        )
    found = int(instances[row, column])
    return instances == found if found else np.zeros(instances.shape, dtype=bool)


def pfps_task(
    task: Task,
    units: Instances,
    nuclei: Instances,
    point_xy: tuple[float, float] | None = None,
    *,
    whole_nuclei: bool = False,
) -> Mask:
    """The ground truth of one of the nine tasks from unit instances and nucleus instances.

    1 units, 2 nuclei, 3 both, 4 nuclei in units, 5 nuclei outside units, 6 the nucleus at the point, 7 the unit at the
    point, 8 nuclei in that unit, 9 nuclei outside that unit. With `whole_nuclei` a nucleus belongs to a side as a whole,
    by its centroid, instead of being cut at the border.

    Raises:
        InvalidArgumentError: tasks 6 to 9 need a point.
    """
    _same_size(units, nuclei)
    if task in POINT_TASKS and point_xy is None:
        raise InvalidArgumentError(
            f"task {task} selects by a point; give one inside the object that is meant."
        )
    unit_mask, nucleus_mask = units > 0, nuclei > 0
    if task == 1:
        return unit_mask
    if task == 2:
        return nucleus_mask
    if task == 3:
        return unit_mask | nucleus_mask
    if task == 6:
        return instance_at(nuclei, point_xy or (0, 0))
    chosen = unit_mask if point_xy is None or task in (4, 5) else instance_at(units, point_xy)
    if task == 7:
        return chosen
    op: RelationOp = "inside" if task in (4, 8) else "outside"
    return combine_objects(op, nuclei, chosen) > 0 if whole_nuclei else combine(op, nucleus_mask, chosen)


def _same_size(one: NDArray[np.bool_] | Instances, other: NDArray[np.bool_] | Instances) -> None:
    if one.shape != other.shape:
        raise InvalidArgumentError(
            f"masks of different sizes cannot be combined: {one.shape[1]} x {one.shape[0]} and "
            f"{other.shape[1]} x {other.shape[0]} px; segment both on the same region."
        )
