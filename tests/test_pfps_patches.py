"""What PFPs learn from: drawn patches, patches of a folder, and points inside objects."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tissuetalk.models.errors import InvalidArgumentError, UnreadableImageError
from tissuetalk.models.segmentation.pfps.card import UNIT_WORDS
from tissuetalk.models.segmentation.pfps.training import drawn_patch, read_patches, valid_point


@pytest.mark.parametrize("unit", UNIT_WORDS)
def test_drawn_patches_have_units_and_nuclei_on_both_sides(unit: str) -> None:
    patch = drawn_patch(3, unit, 256)
    assert patch.image.shape == (256, 256, 3) and patch.units.max() >= 2 and patch.nuclei.max() >= 10
    inside = (patch.nuclei > 0) & (patch.units > 0)
    assert inside.any() and (~inside & (patch.nuclei > 0)).any()
    assert np.array_equal(drawn_patch(3, unit, 256).image, patch.image)


def test_points_lie_inside_objects_and_every_object_gets_some() -> None:
    instances = np.zeros((60, 60), np.int32)
    instances[5:25, 5:25], instances[30:32, 30:60] = 1, 2
    random = np.random.default_rng(0)
    points = [valid_point(instances, random) for _ in range(60)]
    hit = [int(instances[int(y), int(x)]) for x, y in points if (x, y)]
    assert set(hit) == {1, 2} and len(hit) == 60
    assert all(7 <= x < 23 and 7 <= y < 23 for (x, y), number in zip(points, hit, strict=True) if number == 1)
    assert valid_point(np.zeros((4, 4), np.int32), random) is None


def test_patches_are_read_from_a_folder(tmp_path: Path) -> None:
    patch = drawn_patch(0, "pt", 64)
    cv2.imwrite(str(tmp_path / "a.png"), patch.image[..., ::-1])
    for name, labels in (("u.png", patch.units), ("n.png", patch.nuclei)):
        cv2.imwrite(str(tmp_path / name), labels.astype(np.uint16))
    (tmp_path / "patches.csv").write_text("image,units,nuclei,unit,split\na.png,u.png,n.png,pt,train\n")
    (place,) = read_patches(tmp_path, "train")
    read = place.read()
    assert np.array_equal(read.image, patch.image) and np.array_equal(read.nuclei, patch.nuclei)
    assert read_patches(tmp_path, "test") == []
    cv2.imwrite(str(tmp_path / "n.png"), patch.nuclei.astype(np.uint16)[:32])
    with pytest.raises(UnreadableImageError, match=r"label images of a\.png have another size"):
        place.read()
    (tmp_path / "patches.csv").write_text("image,units,nuclei,unit,split\na.png,u.png,n.png,liver,train\n")
    with pytest.raises(InvalidArgumentError, match="'liver' is no unit"):
        read_patches(tmp_path)
