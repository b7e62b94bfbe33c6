"""Annotated images become examples that say what is known, and nothing more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tissuetalk.models.datasets.augment import Strength, affine, colours, counterexamples, warp
from tissuetalk.models.datasets.example import (
    BACKGROUND,
    FOREGROUND,
    UNKNOWN,
    core_distance,
    from_instances,
    split_touching,
)
from tissuetalk.models.datasets.manifest import microns_per_pixel, read_manifest
from tissuetalk.models.datasets.sources import SOURCES, load
from tissuetalk.models.datasets.wordings import LEVELS, targets, wordings
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.segmentation.pathsegmentor.card import TARGET_MPP

SAMPLES = Path(__file__).parent.parent / "models" / "datasets" / "samples"


def disc(side: int, x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 < radius**2)


@pytest.mark.parametrize(
    ("text", "mpp"), [("0.25", 0.25), ("about 0.25 (estimated)", 0.25), ("unknown", None), ("", None)]
)
def test_scales_are_read_as_people_write_them(text: str, mpp: float | None) -> None:
    assert microns_per_pixel(text) == mpp


def test_a_manifest_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("file,mask\na.png,b.png\n")
    with pytest.raises(InvalidArgumentError, match="mask_kind"):
        read_manifest(tmp_path)
    with pytest.raises(InvalidArgumentError, match="no manifest"):
        read_manifest(tmp_path / "nowhere")


@pytest.mark.parametrize("dataset", ["ebhi-seg-glands", "dsb2018-histology", "camelyon-node-tumour"])
def test_examples_have_labels_of_their_images_size(dataset: str) -> None:
    examples = load(SAMPLES, dataset)
    assert examples
    for example in examples:
        for labelled in example.targets.values():
            assert labelled.label.shape == example.image.shape[:2]
            assert set(np.unique(labelled.label)) <= {BACKGROUND, UNKNOWN, FOREGROUND}
            assert labelled.distance is None or labelled.distance.shape == labelled.label.shape


def test_no_group_is_on_both_sides_of_the_split() -> None:
    for dataset in ("ebhi-seg-glands", "dsb2018-histology"):
        examples = load(SAMPLES, dataset)
        kept = {example.group for example in examples if not example.held_out}
        held = {example.group for example in examples if example.held_out}
        assert kept
        assert held
        assert not kept & held


def test_sets_that_must_not_feed_weights_cannot_be_loaded() -> None:
    for forbidden in ("glas", "kumar-multiorgan", "wsss4luad", "lc25000"):
        assert forbidden not in SOURCES
        with pytest.raises(InvalidArgumentError, match="not a training set"):
            load(SAMPLES, forbidden)


def test_only_carcinoma_says_anything_about_tumour() -> None:
    for example in load(SAMPLES, "ebhi-seg-glands"):
        carcinoma, normal = example.name.startswith("adenocarcinoma"), example.name.startswith("normal")
        assert ("tumour" in example.targets) == carcinoma
        assert ("tumour" in example.absent) == normal


def test_core_distance_is_full_at_the_middle_and_nothing_outside() -> None:
    instances = disc(60, 20, 30, 12).astype(np.int32)
    instances[disc(60, 45, 30, 6)] = 2
    distance = core_distance(instances)
    assert distance[30, 20] == distance[30, 45] == 255
    assert (distance[instances == 0] == 0).all()
    assert from_instances(instances).label[30, 20] == FOREGROUND
    assert (core_distance(np.zeros((8, 8), np.int32)) == 0).all()


def test_touching_discs_are_parted_and_one_disc_is_not() -> None:
    two = disc(80, 28, 40, 14) | disc(80, 52, 40, 14)
    assert split_touching(two, smallest_px=9).max() == 2
    assert split_touching(disc(80, 40, 40, 14), smallest_px=9).max() == 1


def test_the_same_seed_makes_the_same_crop_and_labels_move_with_it() -> None:
    image = np.zeros((90, 90, 3), np.uint8)
    image[disc(90, 45, 45, 12)] = 200
    label = disc(90, 45, 45, 12).astype(np.uint8) * FOREGROUND

    def crop(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        matrix = affine((40, 50), 1.4, 64, rng)
        return warp(image, matrix, 64, smooth=True), warp(label, matrix, 64, smooth=False)

    first, again = crop(3), crop(3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert ((first[0][..., 0] > 100) == (first[1] > 0)).mean() > 0.98


def test_changed_colours_keep_shape_and_blank_glass_stays_bright() -> None:
    glass = np.full((32, 32, 3), 245, np.uint8)
    changed = [colours(glass, np.random.default_rng(seed), Strength(plain=0)) for seed in range(20)]
    assert all(image.shape == glass.shape and image.dtype == np.uint8 for image in changed)
    assert np.median([image.mean() for image in changed]) > 180


def test_counter_examples_are_no_tissue_and_the_cat_is_kept_for_tests() -> None:
    pictures = list(counterexamples())
    assert not any(picture.tissue or picture.targets for picture in pictures)
    assert all(set(picture.absent) == set(TARGET_MPP) for picture in pictures)
    assert not any(picture.name in ("cat", "chelsea") for picture in pictures)


@pytest.mark.parametrize("target", targets())
def test_every_level_has_sentences_and_test_sentences_are_new(target: str) -> None:
    train, test = wordings(target), wordings(target, part="test")
    assert {wording.level for wording in train} == {wording.level for wording in test} == set(LEVELS)
    assert not {wording.text for wording in train} & {wording.text for wording in test}
