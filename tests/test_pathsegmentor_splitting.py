"""Objects come apart where their depth says so, wherever the picture was cut into tiles."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from tissuetalk.models.segmentation.pathsegmentor.segmenter import halves
from tissuetalk.models.segmentation.pathsegmentor.splitting import RULES, around, split_objects, tidy


def disc(shape: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 < radius**2)


def depth_of(*discs: np.ndarray) -> np.ndarray:
    """Logits of relative depth, as the network would give them for these objects."""
    depth = np.zeros(discs[0].shape, np.float32)
    for one in discs:
        distance = cv2.distanceTransform(one.astype(np.uint8), cv2.DIST_L2, 5)
        depth = np.maximum(depth, distance / distance.max())
    clipped = np.clip(depth, 0.02, 0.98)
    return np.asarray(np.log(clipped / (1 - clipped)), np.float32)


@pytest.mark.parametrize("target", ["nuclei", "gland"])
def test_touching_objects_come_apart_and_keep_their_area(target: str) -> None:
    size = {"nuclei": 14.5, "gland": 40.5}[target]
    shape = (int(5 * size), int(6 * size))
    left, right = disc(shape, 2 * size, 2.4 * size, size), disc(shape, 3.95 * size, 2.4 * size, size)
    instances = split_objects(left | right, depth_of(left, right), target)
    assert instances.max() == 2
    assert ((instances > 0) == (left | right)).all()
    areas = np.bincount(instances.ravel())[1:]
    assert areas.min() > 0.85 * areas.max()


def test_one_long_gland_stays_one() -> None:
    mask = np.zeros((120, 400), np.bool_)
    mask[40:80, 20:380] = True
    assert split_objects(mask, depth_of(mask), "gland").max() == 1


@pytest.mark.parametrize("target", sorted(set(RULES) - {"tumour"}))
def test_nothing_gives_nothing(target: str) -> None:
    empty = np.zeros((64, 48), np.bool_)
    assert split_objects(empty, np.full((64, 48), -9, np.float32), target).max() == 0


def test_odd_sides_keep_their_size() -> None:
    one = disc((61, 47), 23, 30, 14)
    instances = split_objects(one, depth_of(one), "nuclei")
    assert instances.shape == (61, 47)
    assert instances.max() == 1


def test_specks_go_and_pinholes_close() -> None:
    mask = disc((80, 80), 40, 40, 20)
    mask[40, 40] = False
    mask[2, 2] = True
    clean = tidy(mask, "nuclei")
    assert clean[40, 40]
    assert not clean[2, 2]


def test_objects_are_numbered_in_reading_order() -> None:
    discs = [disc((100, 100), x, y, 10) for x, y in ((20, 20), (70, 22), (20, 75))]
    instances = split_objects(np.logical_or.reduce(discs), depth_of(*discs), "nuclei")
    assert [int(instances[y, x]) for x, y in ((20, 20), (70, 22), (20, 75))] == [1, 2, 3]


def test_a_shallow_dip_parts_no_nucleus() -> None:
    """Two peaks in one long nucleus, nearly as deep all the way between them; then the same with a dip."""
    rows, columns = np.mgrid[:80, :120]
    nucleus = ((columns - 60) / 40) ** 2 + ((rows - 40) / 15) ** 2 < 1
    edge = cv2.distanceTransform(nucleus.astype(np.uint8), cv2.DIST_L2, 5) / 15

    def parts(dip: float) -> int:
        way = 1 - dip * np.exp(-(((columns - 60) / 8) ** 2))
        depth = np.clip(np.minimum(edge * 1.6, 0.9) * way, 0.02, 0.98)
        logits = np.log(depth / (1 - depth)).astype(np.float32)
        return int(split_objects(nucleus, logits, "nuclei").max())

    assert (parts(0.03), parts(0.4)) == (1, 2)


def test_features_are_halved_as_torch_does_it() -> None:
    random = torch.Generator().manual_seed(0)
    for kind in (torch.bfloat16, torch.float32):
        pixels = (torch.randn(2, 7, 33, 5, generator=random) * 100).to(kind)
        halved = halves(pixels.contiguous(memory_format=torch.channels_last))
        assert halved.is_contiguous() and torch.equal(halved, pixels.half())


@pytest.mark.parametrize("target", sorted(RULES))
@pytest.mark.parametrize("corner", [(0, 0), (203, 141), (290, 340)])
def test_what_lies_far_from_the_mask_need_not_be_looked_at(target: str, corner: tuple[int, int]) -> None:
    random = np.random.default_rng(4)
    logits = np.full((540, 600), -3, np.float32)
    rows, columns = slice(corner[0], corner[0] + 250), slice(corner[1], corner[1] + 260)
    logits[rows, columns] = 8 * cv2.GaussianBlur(random.normal(size=(250, 260)), (0, 0), 5)
    depth = (4 * cv2.GaussianBlur(random.normal(size=logits.shape), (0, 0), 3)).astype(np.float32)
    at = around(logits > 0)
    assert (logits[at].size < logits.size) and not (np.delete(logits, np.r_[at[0]], 0) > 0).any()
    mask = tidy(logits > 0, target)
    near = np.zeros_like(mask)
    near[at] = tidy(logits[at] > 0, target)
    assert (near == mask).all()
    labels = np.zeros(mask.shape, np.int32)
    labels[at] = split_objects(mask[at], depth[at], target)
    assert (labels == split_objects(mask, depth, target)).all()
