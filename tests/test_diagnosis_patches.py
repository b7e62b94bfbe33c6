"""Tissue and patches by CLAM's rules, on pictures whose tissue is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn import save

from tissuetalk.models.classifiers.bags import ObjectMask, SourceBag
from tissuetalk.models.classifiers.patches import (
    TissueRules,
    find_tissue,
    patch_boxes,
    patch_side_px,
    require_patches,
)
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box, open_image

PINK, GLASS = (230, 180, 210), (255, 255, 255)


@pytest.fixture
def half_tissue(tmp_path: Path) -> Path:
    """1200 x 800 px: the left 800 columns are tissue, the rest is glass."""
    picture = np.full((800, 1200, 3), GLASS, np.uint8)
    picture[:, :800] = PINK
    return save(tmp_path / "half.png", picture)


def test_patches_cover_the_tissue_once_and_leave_out_glass(half_tissue: Path) -> None:
    with open_image(half_tissue, name="half") as source:
        boxes = patch_boxes(source, side_px=200)
    assert sorted((box.x0, box.y0) for box in boxes) == [
        (x, y) for x in range(0, 800, 200) for y in range(0, 800, 200)
    ]


def test_patches_of_a_region_lie_inside_it(half_tissue: Path) -> None:
    with open_image(half_tissue, name="half") as source:
        boxes = patch_boxes(source, side_px=100, region=Box(250, 150, 650, 480))
    assert len(boxes) == 12
    assert all(box.x0 >= 250 and box.y0 >= 150 and box.x1 <= 650 and box.y1 <= 480 for box in boxes)


def test_a_patch_never_leaves_the_image(half_tissue: Path) -> None:
    with open_image(half_tissue, name="half") as source:
        for side in (130, 333, 700, 801):
            for box in patch_boxes(source, side_px=side):
                assert box.x0 >= 0 and box.x1 <= 1200 and box.y0 >= 0 and box.y1 <= 800


def test_a_large_hole_is_no_tissue(tmp_path: Path) -> None:
    picture = np.full((1200, 1200, 3), PINK, np.uint8)
    picture[400:800, 400:800] = GLASS
    with open_image(save(tmp_path / "hole.png", picture), name="hole") as source:
        rules = TissueRules(least_tissue=1, least_hole=0.1)
        assert Box(500, 500, 700, 700) not in patch_boxes(source, side_px=200, rules=rules)
        assert find_tissue(source, rules).holes.mean() == pytest.approx(1 / 9, abs=0.02)


def test_specks_are_no_tissue(tmp_path: Path) -> None:
    picture = np.full((1024, 1024, 3), GLASS, np.uint8)
    picture[500:540, 500:540] = PINK
    with open_image(save(tmp_path / "speck.png", picture), name="speck") as source:
        assert patch_boxes(source, side_px=64) == []


def test_a_patch_spans_as_many_micrometres_on_every_scanner() -> None:
    assert [patch_side_px(mpp) for mpp in (0.25, 0.5, None)] == [1024, 512, 1024]


def test_too_few_patches_are_refused_with_what_to_do(half_tissue: Path) -> None:
    with open_image(half_tissue, name="half") as source:
        boxes = patch_boxes(source, side_px=800)
        with pytest.raises(InvalidArgumentError, match="give a larger image"):
            require_patches(boxes, source, 800)


def test_a_mask_reaches_the_patch_it_lies_in_and_no_other(half_tissue: Path) -> None:
    mask = np.zeros((80, 60), bool)
    mask[30:40, 20:30] = True
    seen = ObjectMask("gland", mask, Box(100, 0, 700, 800))
    with open_image(half_tissue, name="half") as source:
        bag = SourceBag(source, patch_boxes(source, side_px=200), [seen])
        touched = {
            bag.boxes[i].as_list()[0:2][0] for i in range(len(bag)) if bag.mask(i, "gland") is not None
        }
        found = {tuple(bag.boxes[i].as_list()[:2]): bag.mask(i, "gland") for i in range(len(bag))}
    assert touched == {200, 400} - ({400} if found[(400, 200)] is None else set())
    inside = found[(200, 200)]
    assert inside is not None and inside[100:200, 100:200].all() and inside.sum() == 100 * 100


def test_two_masks_of_one_name_are_refused(half_tissue: Path) -> None:
    mask = ObjectMask("gland", np.ones((4, 4), bool), Box(0, 0, 4, 4))
    with open_image(half_tissue, name="half") as source, pytest.raises(InvalidArgumentError, match="merge"):
        SourceBag(source, [], [mask, mask])
