"""Warnings before anyone trusts a mask."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from drawn import STROMA, discs, lattice, rectangles
from PIL import Image

from tissuetalk.models.images import Box
from tissuetalk.tools.answers.results import MaskResources, Warned
from tissuetalk.tools.segment.algebra import HeldLabels
from tissuetalk.tools.segment.quality import picture_warnings
from tissuetalk.tools.segment.records import MaskOutcome, mask_warnings

IMAGES = Path(__file__).parent / "data" / "images"
SKIN = IMAGES / "skin_crop_256x160.png"


def codes(view: np.ndarray) -> list[str]:
    return [warning.code for warning in picture_warnings(view)]


def test_real_tissue_is_not_warned_about() -> None:
    assert codes(np.asarray(Image.open(SKIN).convert("RGB"))) == []


def test_drawn_nuclei_on_stroma_look_like_histology() -> None:
    assert codes(discs(260, 260, lattice(36), background=STROMA)) == []


def test_empty_glass_is_not_histology() -> None:
    assert codes(np.full((200, 200, 3), 255, np.uint8)) == ["not_histology"]


def test_green_leaves_are_not_histology() -> None:
    leaves = np.random.default_rng(1).integers((20, 80, 10), (90, 200, 60), (300, 300, 3)).astype(np.uint8)
    assert "not_histology" in codes(leaves)


def test_fluorescence_is_not_histology() -> None:
    dark = np.zeros((300, 300, 3), np.uint8)
    dark[100:200, 100:200] = (120, 30, 220)
    assert "not_histology" in codes(dark)


def test_a_pen_on_tissue_is_warned_about_and_the_tissue_beside_it_is_not() -> None:
    marked = np.asarray(Image.open(IMAGES / "green_pen.jpg").convert("RGB"))
    (warning,) = picture_warnings(marked)
    assert warning.code == "low_agreement" and "pen" in warning.message
    assert codes(np.ascontiguousarray(marked[:, 260:])) == []


def test_a_yellowish_light_is_no_ink() -> None:
    skin = np.asarray(Image.open(SKIN).convert("RGB"))
    assert codes((skin * np.array([0.9, 1.0, 0.75])).astype(np.uint8)) == []


def test_tissue_out_of_focus_is_blurred() -> None:
    sharp = discs(260, 260, lattice(36), background=STROMA)
    assert "blurred" in codes(cv2.GaussianBlur(sharp, (0, 0), 12))


def warned(labels: np.ndarray, *, objects: bool, tissue_share: float = 1.0) -> list[Warned]:
    """About a found mask of a region of tissue."""
    held = HeldLabels(labels, Box.whole(labels.shape[1], labels.shape[0]), objects)
    files = MaskResources(mask="", instances=None, geojson="", table="")
    count = held.count if objects else None
    outcome = MaskOutcome("msk", files, held, int((labels > 0).sum()), count, None, 0.9, 0.5, 64)
    return mask_warnings("nuclei", outcome, float((labels > 0).mean()), tissue_share)


def test_a_mask_that_is_everything_is_implausible() -> None:
    everything = np.ones((100, 100), np.int32)
    assert [each.code for each in warned(everything, objects=False)] == ["implausible_coverage"]
    half = rectangles((100, 100), [(0, 0, 100, 50)])
    assert warned(half, objects=False) == []
    assert [each.code for each in warned(half, objects=False, tissue_share=0.5)] == ["implausible_coverage"]


def test_objects_cut_by_the_border_are_counted() -> None:
    boxes = [(0, 0, 10, 10), (90, 0, 100, 10), (40, 95, 50, 100), (50, 50, 60, 60)]
    (warning,) = warned(rectangles((100, 100), boxes), objects=True)
    assert warning.code == "touches_border" and warning.message.startswith("3 of 4 nuclei")
    assert warned(rectangles((100, 100), [(10, 10, 20, 20), (50, 50, 60, 60)]), objects=True) == []
