"""Mask algebra on a toy image of two units and five nuclei, where every answer can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tissuetalk.models.errors import InvalidArgumentError, PointOutsideImageError
from tissuetalk.prompts.relations import Instances, combine, combine_objects, instance_at, pfps_task

IN_FIRST, IN_SECOND = (5.0, 5.0), (25.0, 5.0)


@pytest.fixture
def units() -> Instances:
    """Two squares of 100 px at x 0..9 and x 20..29."""
    image = np.zeros((10, 40), dtype=np.int32)
    image[:, 0:10], image[:, 20:30] = 1, 2
    return image


@pytest.fixture
def nuclei() -> Instances:
    """Five nuclei of 4 px: two in unit 1, one in unit 2, one outside, one that the right border of unit 1 cuts in half."""
    image = np.zeros((10, 40), dtype=np.int32)
    for number, (y, x) in enumerate([(1, 1), (5, 5), (3, 24), (4, 34), (7, 9)], start=1):
        image[y : y + 2, x : x + 2] = number
    return image


def test_the_nine_tasks_have_the_areas_counted_by_hand(units: Instances, nuclei: Instances) -> None:
    areas = {
        1: 200, 2: 20, 3: 206, 4: 14, 5: 6, 6: 4, 7: 100, 8: 10, 9: 10,
    }  # fmt: skip
    for task, area in areas.items():
        point = (5.0, 5.0) if task == 6 else IN_FIRST
        assert pfps_task(task, units, nuclei, point).sum() == area, task  # type: ignore[arg-type]  # a loop over literals


def test_tasks_four_and_five_and_eight_and_nine_partition_the_nuclei(
    units: Instances, nuclei: Instances
) -> None:
    for whole in (False, True):
        for one, other, point in ((4, 5, None), (8, 9, IN_SECOND)):
            inside = pfps_task(one, units, nuclei, point, whole_nuclei=whole)  # type: ignore[arg-type]  # as above
            outside = pfps_task(other, units, nuclei, point, whole_nuclei=whole)  # type: ignore[arg-type]  # as above
            assert not (inside & outside).any()
            assert ((inside | outside) == (nuclei > 0)).all()


def test_whole_nuclei_are_not_cut_at_the_border(units: Instances, nuclei: Instances) -> None:
    kept = combine_objects("inside", nuclei, units > 0)
    assert sorted(np.bincount(kept.ravel())[1:]) == [4] * kept.max()


def test_set_operations(units: Instances, nuclei: Instances) -> None:
    unit, nucleus = units > 0, nuclei > 0
    assert (combine("union", unit, nucleus) == pfps_task(3, units, nuclei)).all()
    assert (combine("inside", nucleus, unit) == combine("intersection", unit, nucleus)).all()
    assert (combine("outside", nucleus, unit) == pfps_task(5, units, nuclei)).all()


def test_a_point_picks_the_instance_it_lies_in(units: Instances) -> None:
    assert (instance_at(units, IN_SECOND) == (units == 2)).all()
    assert not instance_at(units, (15, 5)).any()
    with pytest.raises(PointOutsideImageError, match="40 x 10"):
        instance_at(units, (40, 5))


def test_a_point_task_needs_a_point_and_masks_must_match(units: Instances, nuclei: Instances) -> None:
    with pytest.raises(InvalidArgumentError, match="point"):
        pfps_task(7, units, nuclei)
    with pytest.raises(InvalidArgumentError, match="different sizes"):
        combine("inside", units > 0, np.zeros((3, 3), dtype=bool))
