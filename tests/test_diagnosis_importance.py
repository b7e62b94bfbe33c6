"""Object importance on bags whose evidence is known."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_tissue import COLOURS, ColourEncoder, pairs, patch

from benchmarks.planted_bags import DrawnBag, Patch, planted_bags, without_evidence
from tissuetalk.models.classifiers.card import ClassifierCard
from tissuetalk.models.classifiers.classifier import Classifier, predict_bag
from tissuetalk.models.classifiers.encoder import encode_bag, encode_patches
from tissuetalk.models.classifiers.evaluation import macro_auc
from tissuetalk.models.classifiers.importance import (
    bag_importance,
    blurred_where,
    by_class,
    control_of,
    moved_masks,
)
from tissuetalk.models.classifiers.occlusion import (
    OCCLUSIONS,
    found_by_occlusion,
    grey_squares,
    random_masks,
    superpixels,
)
from tissuetalk.models.classifiers.training import TrainSettings, probabilities, train_attention
from tissuetalk.models.errors import InvalidArgumentError


def trained(planted: str) -> Classifier:
    encoder = ColourEncoder()
    bags = planted_bags(pairs(0), planted, count=30)
    model, _ = train_attention(
        [encode_bag(encoder, bag, "pooled") for bag in bags],
        [bag.label for bag in bags],
        settings=TrainSettings(classes=2, epochs=60, hidden=16, learning_rate=5e-3),
    )
    card = ClassifierCard(
        planted,
        "attention",
        ("without", "with"),
        encoder.name,
        encoder.weights_sha256,
        "pooled",
        {},
    )
    return Classifier(card, model, encoder)


@pytest.fixture(scope="module")
def blue() -> Classifier:
    return trained("blue")


def carriers(planted: str = "blue", count: int = 20) -> list[DrawnBag]:
    return [bag for bag in planted_bags(pairs(1), planted, count=count, seed=5) if bag.label]


@pytest.mark.parametrize("planted", COLOURS)
def test_the_object_that_carries_the_class_comes_first_and_above_its_control(planted: str) -> None:
    classifier = trained(planted)
    test = planted_bags(pairs(1), planted, count=20, seed=5)
    shares = probabilities(classifier.model, [encode_bag(classifier.encoder, bag, "pooled") for bag in test])
    assert macro_auc(shares, [bag.label for bag in test]) > 0.95
    for bag in carriers(planted):
        first = bag_importance(classifier, bag, label=1).ranked()[0]
        assert first.name == planted and first.importance > 1
        assert first.control is not None and first.importance > first.control.importance


def test_blurring_the_evidence_flips_the_prediction_as_taking_it_away_does(blue: Classifier) -> None:
    for number, bag in enumerate(carriers()):
        found = next(each for each in bag_importance(blue, bag, draws=0).objects if each.name == "blue")
        assert found.flips
        assert predict_bag(blue, without_evidence(bag, pairs(1), seed=number)).label == 0


def test_an_object_that_is_not_there_has_importance_one_exactly(blue: Classifier) -> None:
    bag = carriers()[0]
    empty = DrawnBag(
        "empty", tuple(Patch(p.pixels, {"blue": np.zeros((64, 64), bool)}) for p in bag.patches), ("blue",), 1
    )
    found = bag_importance(blue, empty).objects[0]
    assert found.importance == 1.0 and found.encoder_passes == 0 and found.control is None


def test_blurring_changes_masked_pixels_only() -> None:
    shown = patch(np.random.default_rng(0), "blue")
    mask = shown.masks["blue"]
    soft = blurred_where(shown.pixels, mask)
    assert np.array_equal(soft[~mask], shown.pixels[~mask])
    assert (soft[mask] != shown.pixels[mask]).any(-1).mean() > 0.9


def test_importance_of_twelve_objects_encodes_only_the_patches_they_touch(blue: Classifier) -> None:
    random = np.random.default_rng(3)
    names = tuple(f"object{number}" for number in range(12))
    mask = np.zeros((64, 64), bool)
    mask[8:20, 8:40] = True
    patches = tuple(
        Patch(patch(random, "blue").pixels, {name: mask for name in names if random.random() < 0.2})
        for _ in range(30)
    )
    bag = DrawnBag("twelve", patches, names, 1)
    touched = sum(len(each.masks) for each in patches)
    encoder = ColourEncoder()
    found = bag_importance(Classifier(blue.card, blue.model, encoder), bag, draws=0)
    assert 0 < touched < 12 * len(bag) / 3
    assert encoder.passes == len(bag) + touched, (
        "every patch once, then each patch once for every object in it"
    )
    assert sum(each.encoder_passes for each in found.objects) == touched


def test_a_control_blurs_as_many_pixels_elsewhere() -> None:
    bag = carriers()[0]
    masks = {i: mask for i in bag.evidence if (mask := bag.mask(i, "blue")) is not None}
    for place in ("any patch", "same patches"):
        drawn = moved_masks(bag, masks, place, np.random.default_rng(0))
        assert sum(int(mask.sum()) for mask in drawn.values()) == sum(
            int(mask.sum()) for mask in masks.values()
        )
        assert place == "any patch" or set(drawn) == set(masks)
        assert any(i not in masks or not np.array_equal(drawn[i], masks[i]) for i in drawn)


def test_a_control_can_be_asked_for_later_and_is_the_same_each_time(blue: Classifier) -> None:
    bag = carriers()[0]
    found = bag_importance(blue, bag, draws=0)
    first, second = (control_of(blue, bag, found, "blue", draws=2, seed=4) for _ in range(2))
    assert first is not None and first == second and first.draws == 2
    missing = next(
        name for name in COLOURS if all(bag.mask(i, name) is None for i in range(len(bag))) or name == "blue"
    )
    assert (control_of(blue, bag, found, missing) is None) == (missing != "blue")


def test_without_a_true_class_the_predicted_one_is_explained(blue: Classifier) -> None:
    found = bag_importance(blue, carriers()[0], draws=0)
    assert (found.label, found.label_known) == (1, False)
    assert bag_importance(blue, carriers()[0], label=0, draws=0).label_known


def test_a_class_that_does_not_exist_is_refused(blue: Classifier) -> None:
    with pytest.raises(InvalidArgumentError, match="0 to 1: without, with"):
        bag_importance(blue, carriers()[0], label=2)


def test_aggregates_are_the_three_of_the_paper(blue: Classifier) -> None:
    bags = [
        bag_importance(blue, bag, label=bag.label) for bag in planted_bags(pairs(1), "blue", count=12, seed=7)
    ]
    rows = {(row.name, row.label): row for row in by_class(bags)}
    held = [(bag, each) for bag in bags if bag.label == 1 for each in bag.objects if each.name == "blue"]
    before, after = np.array([bag.loss for bag, _ in held]), np.array([each.loss_after for _, each in held])
    row = rows["blue", 1]
    assert row.slides == len(held) and ("blue", 0) not in rows, "no bag of class 0 has the planted object"
    assert row.ratio_of_means == pytest.approx(after.mean() / before.mean())
    assert row.median_ratio == pytest.approx(np.median(after / before))
    assert row.mean_ratio == pytest.approx(np.mean(after / np.maximum(before, 1e-4)))
    assert row.control is not None and row.control < row.ratio_of_means
    assert rows["green", None].slides == sum(
        any(each.name == "green" and each.patches_touched for each in bag.objects) for bag in bags
    )


@pytest.mark.parametrize("method", [grey_squares, superpixels, random_masks])
def test_perturbations_without_objects_point_at_the_evidence_too(blue: Classifier, method) -> None:
    shown = patch(np.random.default_rng(2), "blue")

    def loss_of(pictures):
        vectors = encode_patches(blue.encoder, list(pictures), "pooled")
        return [float(-(blue.model(vector[None]).detach() / 20).log_softmax(0)[1]) for vector in vectors]

    found = method(shown.pixels, loss_of)
    mask = shown.masks["blue"]
    assert found.relevance.shape == (64, 64) and found.patches > 10
    assert found.relevance[mask].mean() > found.relevance[~mask].mean()


def test_maps_that_know_no_objects_lie_on_the_object_that_carries_the_class(blue: Classifier) -> None:
    bag = carriers(count=8)[0]
    told = found_by_occlusion(blue, bag, tuple(OCCLUSIONS), label=1, patches=1)
    assert [each.method for each in told] == list(OCCLUSIONS) and {each.name for each in told} == {"blue"}
    areas = {each.method: each.found for each in told}
    # superpixels follow the drawn stripes, half of which are the stroma's opposite
    assert min(areas["grey squares"], areas["random masks"]) > 0.55 and 0 <= areas["superpixels"] <= 1
