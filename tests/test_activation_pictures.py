"""Activation maps as pictures: right places, right colours, everything written that is needed to read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.planted_bags import DrawnBag, Patch
from tissuetalk.models.classifiers.bags import ObjectMask
from tissuetalk.models.classifiers.card import ClassifierCard
from tissuetalk.models.classifiers.classifier import (
    ObjectClassifier,
    ObjectPrediction,
    bag_of,
    predict_objects,
)
from tissuetalk.models.classifiers.encoder import PatchFeatures
from tissuetalk.models.classifiers.networks import ObjectAwareConfig, ObjectAwareModel
from tissuetalk.models.images import Box, open_image
from tissuetalk.models.segmentation.pretrained import resized
from tissuetalk.tools.explain.activation_pictures import (
    View,
    evidence_picture,
    map_panel,
    objects_painted,
    patches_painted,
    view_of_image,
)

OBJECTS = ("gland", "tumour", "other")


class ColourEncoder:
    """Mean colours as tokens."""

    name = "colours"
    weights_sha256 = "0" * 64

    def encode(self, patches: torch.Tensor) -> PatchFeatures:
        grid = torch.nn.functional.adaptive_avg_pool2d(patches.float(), 7).permute(0, 2, 3, 1) / 255
        return PatchFeatures(grid, grid.mean((1, 2)))


@pytest.fixture
def classifier() -> ObjectClassifier:
    card = ClassifierCard(
        name="toy",
        kind="object-aware",
        classes=("benign", "malignant"),
        encoder=ColourEncoder.name,
        encoder_sha256=ColourEncoder.weights_sha256,
        feature="tokens",
        sizes={},
        patch_px=64,
    )
    torch.manual_seed(0)
    return ObjectClassifier(
        card, ObjectAwareModel(ObjectAwareConfig(OBJECTS, 3, 2, hidden=8)).eval(), ColourEncoder()
    )


def patch(shade: tuple[int, int, int], gland: bool) -> Patch:
    mask = np.zeros((64, 64), bool)
    mask[:, :32] = True
    return Patch(np.full((64, 64, 3), shade, np.uint8), {"gland": mask} if gland else {})


@pytest.fixture
def bag() -> DrawnBag:
    patches = (patch((200, 120, 160), True), patch((120, 60, 140), False), patch((230, 180, 200), True))
    return DrawnBag("drawn", patches, ("gland", "tumour"), 0)


@pytest.fixture
def evidence(classifier: ObjectClassifier, bag: DrawnBag) -> ObjectPrediction:
    return predict_objects(classifier, bag)


def view_of_patches(bag: DrawnBag, across: int = 4, width_px: int = 380) -> View:
    """Patches that have no place on an image, side by side in reading order with 4 px between them."""
    side = (width_px - 4 * (across - 1)) // across
    step, down = side + 4, -(-len(bag) // across)
    pixels = np.full((down * step - 4, across * step - 4, 3), 255, np.uint8)
    places = []
    for index in range(len(bag)):
        x, y = index % across * step, index // across * step
        places.append(Box(x, y, x + side, y + side))
        pixels[y : y + side, x : x + side] = resized(bag.pixels(index), side, side)
    return View(pixels, tuple(places), Box.whole(pixels.shape[1], pixels.shape[0]))


def test_every_pixel_shows_the_value_of_its_object(evidence: ObjectPrediction, bag: DrawnBag) -> None:
    view = view_of_patches(bag, across=2, width_px=204)
    painted = objects_painted(view, bag, evidence.shares)
    values = evidence.shares.by_object()
    first, second = view.places[0], view.places[1]
    assert painted[first.y0 + 5, first.x0 + 5] == pytest.approx(values["gland"])
    assert painted[first.y0 + 5, first.x1 - 5] == pytest.approx(values["other"])
    assert (painted[second.y0 : second.y1, second.x0 : second.x1] == np.float32(values["other"])).all()
    assert np.isnan(painted[first.y0, first.x1])


def test_the_fine_map_shows_the_share_of_the_object_in_that_patch(
    evidence: ObjectPrediction, bag: DrawnBag
) -> None:
    view = view_of_patches(bag, across=3, width_px=308)
    painted = objects_painted(view, bag, evidence.shares, fine=True)
    third = view.places[2]
    assert painted[third.y0 + 3, third.x0 + 3] == pytest.approx(evidence.shares.in_patch(2)["gland"])


def test_patches_lie_where_they_are_on_the_image() -> None:
    view = View(np.zeros((4, 8, 3), np.uint8), (Box(0, 0, 4, 4), Box(4, 0, 8, 4)), Box(0, 0, 8, 4))
    painted = patches_painted(view, np.array([1.0, -2.0], np.float32))
    assert painted[:, :4].tolist() == [[1.0] * 4] * 4
    assert painted[:, 4:].tolist() == [[-2.0] * 4] * 4


def test_for_is_red_and_against_is_blue() -> None:
    view = View(
        np.full((40, 80, 3), 200, np.uint8), (Box(0, 0, 40, 40), Box(40, 0, 80, 40)), Box(0, 0, 80, 40)
    )
    panel = map_panel(view, patches_painted(view, np.array([1.0, -1.0], np.float32)), "title")
    pixels = np.asarray(panel.picture).astype(int)
    assert pixels[20, 20, 0] > pixels[20, 20, 2] + 50
    assert pixels[20, 60, 2] > pixels[20, 60, 0] + 50


def test_a_map_without_values_is_drawn_grey() -> None:
    view = View(np.full((40, 40, 3), 200, np.uint8), (Box(0, 0, 40, 40),), Box(0, 0, 40, 40))
    panel = map_panel(view, np.full((40, 40), np.nan, np.float32), "title")
    assert np.ptp(np.asarray(panel.picture)[20, 20]) == 0


def test_one_page_with_all_panels_is_no_wider_than_a_screen(
    evidence: ObjectPrediction, bag: DrawnBag
) -> None:
    picture = evidence_picture(evidence, view_of_patches(bag))
    assert picture.width < 1800
    assert picture.height < 1200


def test_an_image_is_cut_into_patches_and_explained_where_they_lie(
    tmp_path: Path, classifier: ObjectClassifier
) -> None:
    pixels = np.full((128, 192, 3), (200, 120, 160), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "field.png")
    gland = np.zeros((64, 96), bool)
    gland[:32, :32] = True
    whole = Box(0, 0, 192, 128)
    with open_image(tmp_path / "field.png", name="field.png") as source:
        masks = [ObjectMask("gland", gland, whole), ObjectMask("tumour", np.zeros((64, 96), bool), whole)]
        found = predict_objects(classifier, bag_of(classifier.card, source, masks))
        view = view_of_image(source, found.patches.boxes, mpp=None, longest_px=192)
    assert len(found.patches) == 6
    painted = objects_painted(view, found.patches, found.shares)
    values = found.shares.by_object()
    assert painted[10, 10] == pytest.approx(values["gland"])
    assert painted[100, 150] == pytest.approx(values["other"])
