"""A classifier that reads a slide object by object: pooling inside masks, exact shares, toy slides, files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.planted_bags import DrawnBag, Patch
from tissuetalk.models.classifiers.activation_maps import object_map
from tissuetalk.models.classifiers.card import ClassifierCard
from tissuetalk.models.classifiers.classifier import (
    ObjectClassifier,
    load_object_classifier,
    predict_objects,
    store_classifier,
)
from tissuetalk.models.classifiers.encoder import PatchFeatures
from tissuetalk.models.classifiers.evaluation import classification_scores
from tissuetalk.models.classifiers.networks import ObjectAwareConfig, ObjectAwareModel
from tissuetalk.models.classifiers.objects import ObjectBag, pool_objects, read_objects, token_weights
from tissuetalk.models.classifiers.training import TrainSettings, probabilities, train_objects
from tissuetalk.models.control import Control
from tissuetalk.models.errors import CancelledError, InvalidArgumentError, ModelUnavailableError

OBJECTS = ("gland", "tumour", "other")
WIDTH = 8
QUICK = TrainSettings(classes=2, epochs=12, learning_rate=5e-3, hidden=16)


class ColourEncoder:
    """Mean colours of a 7 x 7 grid as tokens: an encoder whose answers are known."""

    name = "colours"
    weights_sha256 = "0" * 64

    def encode(self, patches: torch.Tensor) -> PatchFeatures:
        grid = torch.nn.functional.adaptive_avg_pool2d(patches.float(), 7).permute(0, 2, 3, 1) / 255
        return PatchFeatures(grid, grid.mean((1, 2)))


def masks(gland: NDArray[np.bool_], tumour: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    return {"gland": gland, "tumour": tumour}


def blob(side: int, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.bool_]:
    mask = np.zeros((side, side), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def random_bag(seed: int, n: int = 6, absent: tuple[str, ...] = ()) -> ObjectBag:
    random = np.random.default_rng(seed)
    coverage = random.random((n, len(OBJECTS))).astype(np.float32) * (random.random((n, len(OBJECTS))) > 0.4)
    for name in absent:
        coverage[:, OBJECTS.index(name)] = 0
    features = random.normal(size=(n, len(OBJECTS), WIDTH)).astype(np.float32)
    return ObjectBag(OBJECTS, features * (coverage > 0)[..., None], coverage)


def model(seed: int = 0) -> ObjectAwareModel:
    torch.manual_seed(seed)
    return ObjectAwareModel(ObjectAwareConfig(OBJECTS, WIDTH, 2, hidden=8)).eval()


def toy_slides(count: int, seed: int, carrier: str = "tumour") -> tuple[list[ObjectBag], list[int]]:
    """Slides whose class shows in the look of one object, and in nothing else; every object is in both classes."""
    random = np.random.default_rng(seed)
    bags, labels = [], []
    for number in range(count):
        label = number % 2
        bag = random_bag(int(random.integers(1 << 30)), n=8)
        features = bag.features.copy()
        row = OBJECTS.index(carrier)
        features[:, row, 0] += (2.5 if label else -2.5) * bag.present[:, row]
        bags.append(ObjectBag(OBJECTS, features, bag.coverage))
        labels.append(label)
    return bags, labels


def test_other_and_the_union_cover_every_token() -> None:
    weights = token_weights(masks(blob(50, 3, 5, 30, 41), blob(50, 20, 20, 50, 50)), OBJECTS, 7, 7)
    union = token_weights(
        {"gland": blob(50, 3, 5, 30, 41) | blob(50, 20, 20, 50, 50)}, ("gland", "other"), 7, 7
    )
    assert np.allclose(union.sum(0), 1, atol=1e-5)
    assert np.allclose(weights[2], union[1], atol=1e-6)
    assert (weights[2] >= 0).all()


def test_an_object_gets_the_mean_of_the_tokens_under_it_by_covered_area() -> None:
    tokens = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    pooled = pool_objects(tokens, [masks(blob(8, 0, 0, 3, 2), blob(8, 0, 0, 0, 0))], OBJECTS)
    assert pooled.features[0, 0, 0] == pytest.approx((0 * 1 + 1 * 0.5) / 1.5)
    assert pooled.coverage[0] == pytest.approx([6 / 64, 0, 58 / 64])


def test_an_object_that_fills_the_patch_leaves_no_other() -> None:
    pooled = pool_objects(
        np.ones((1, 7, 7, 2), np.float32), [masks(blob(50, 0, 0, 50, 50), blob(50, 0, 0, 0, 0))], OBJECTS
    )
    assert pooled.present.tolist() == [[True, False, False]]


def test_an_object_nobody_looked_for_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no mask for tumour"):
        token_weights({"gland": blob(8, 0, 0, 4, 4)}, OBJECTS, 4, 4)


def test_masks_of_different_size_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="differ in size"):
        token_weights(masks(blob(8, 0, 0, 4, 4), blob(9, 0, 0, 4, 4)), OBJECTS, 4, 4)


def test_shares_of_objects_add_up_to_the_logit_also_when_one_is_nowhere() -> None:
    for bag in (random_bag(1), random_bag(2, absent=("tumour",)), random_bag(3, n=1)):
        for number in (0, 1):
            found = object_map(model(), bag, number)
            assert sum(found.by_object().values()) + found.bias == pytest.approx(found.logit, abs=1e-5)
            assert np.mean([each.activation for each in found.ranking]) + found.bias == pytest.approx(
                found.logit, abs=1e-5
            )
            assert found.fine.sum() + found.bias == pytest.approx(found.logit, abs=1e-5)


def test_attention_of_every_object_sums_to_one_or_to_nothing_where_it_is_absent() -> None:
    bag = random_bag(2, absent=("tumour",))
    attention = model().attend(bag).attention
    assert attention.sum(1).tolist() == pytest.approx([1, 0, 1], abs=1e-6)
    assert (attention.T[torch.from_numpy(~bag.present)] == 0).all()


def test_a_patch_without_the_object_leaves_its_feature_unchanged() -> None:
    bag = random_bag(4, n=5)
    extra = random_bag(5, n=1).without("tumour")
    longer = ObjectBag(
        OBJECTS,
        np.concatenate([bag.features, extra.features]),
        np.concatenate([bag.coverage, extra.coverage]),
    )
    before, after = model().attend(bag).slide[1], model().attend(longer).slide[1]
    assert torch.allclose(before, after, atol=1e-6)


def test_plain_attention_is_there_too() -> None:
    config = ObjectAwareConfig(OBJECTS, WIDTH, 3, hidden=8, gated=False)
    assert ObjectAwareModel(config)(random_bag(1)).shape == (3,)


def test_centring_the_classes_changes_no_probability() -> None:
    one, bag = model(), random_bag(6)
    before = torch.softmax(one(bag), 0)
    one.centre_classes()
    assert torch.allclose(before, torch.softmax(one(bag), 0), atol=1e-6)
    assert one.classify.weight.sum(0).abs().max() < 1e-6


def test_toy_slides_are_told_apart_and_the_carrying_object_ranks_first() -> None:
    bags, labels = toy_slides(40, seed=1)
    trained, _ = train_objects(bags, labels, settings=QUICK)
    test_bags, truth = toy_slides(40, seed=2)
    predicted = probabilities(trained, test_bags)
    assert classification_scores(predicted, truth, resamples=50).macro_auc.value > 0.95
    right = [
        bag for bag, row, label in zip(test_bags, predicted, truth, strict=True) if row.argmax() == label
    ]
    first = [object_map(trained, bag).ranking[0].name for bag in right if bag.present[:, 1].any()]
    assert np.mean([name == "tumour" for name in first]) >= 0.95


def test_training_with_the_same_seed_gives_the_same_weights() -> None:
    bags, labels = toy_slides(8, seed=1)
    brief = replace(QUICK, epochs=2)
    first, _ = train_objects(bags, labels, settings=brief)
    second, _ = train_objects(bags, labels, settings=brief)
    third, _ = train_objects(bags, labels, settings=replace(brief, seed=1))
    assert torch.equal(first.classify.weight, second.classify.weight)
    assert not torch.equal(first.classify.weight, third.classify.weight)


def drawn_bag() -> DrawnBag:
    red, blue = np.full((32, 32, 3), (200, 30, 30), np.uint8), np.full((32, 32, 3), (30, 30, 200), np.uint8)
    return DrawnBag(
        "drawn", (Patch(red, {"gland": blob(32, 0, 0, 16, 32)}), Patch(blue)), ("gland", "tumour"), 0
    )


def classifier(**card: object) -> ObjectClassifier:
    told: dict[str, object] = {
        "name": "toy",
        "kind": "object-aware",
        "classes": ("benign", "malignant"),
        "encoder": ColourEncoder.name,
        "encoder_sha256": ColourEncoder.weights_sha256,
        "feature": "tokens",
        "sizes": {},
        "objects": ("gland", "tumour"),
    }
    torch.manual_seed(0)
    network = ObjectAwareModel(ObjectAwareConfig(OBJECTS, 3, 2, hidden=8)).eval()
    return ObjectClassifier(ClassifierCard(**(told | card)), network, ColourEncoder())  # type: ignore[arg-type]


def test_evidence_of_patches_names_every_object_with_its_area_and_patches() -> None:
    evidence = predict_objects(classifier(), drawn_bag())
    by_name = {share.name: share for share in evidence.shares.ranking}
    assert set(by_name) == set(OBJECTS)
    assert by_name["gland"].area_fraction == pytest.approx(0.25, abs=0.01)
    assert by_name["gland"].patches == 1
    assert (by_name["tumour"].patches, by_name["tumour"].activation) == (0, 0.0)
    assert sum(evidence.probabilities) == pytest.approx(1, abs=1e-6)
    assert evidence.shares.class_index == evidence.label


def test_pixels_outside_a_mask_never_reach_its_feature() -> None:
    bag = drawn_bag()
    changed = bag.patches[0].pixels.copy()
    changed[:, 20:] = 255
    other = replace(bag, patches=(replace(bag.patches[0], pixels=changed), bag.patches[1]))
    before = read_objects(ColourEncoder(), bag, OBJECTS).features[0, 0]
    after = read_objects(ColourEncoder(), other, OBJECTS).features[0, 0]
    assert np.abs(before - after).max() < 0.02


def test_an_object_nobody_segmented_is_named_with_what_the_classifier_needs() -> None:
    bag = replace(drawn_bag(), objects=("gland",))
    with pytest.raises(InvalidArgumentError, match="reads gland, tumour, but nobody looked for tumour"):
        predict_objects(classifier(), bag)


def test_a_mask_the_classifier_does_not_know_counts_as_other_and_is_named() -> None:
    bag = replace(drawn_bag(), objects=("gland", "tumour", "necrosis"))
    assert predict_objects(classifier(), bag).ignored == ("necrosis",)


def test_a_class_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="class 7 does not exist"):
        predict_objects(classifier(), drawn_bag(), about=7)


def test_slides_pooled_for_other_objects_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="Pool it again"):
        model()(ObjectBag(("other",), np.zeros((1, 1, WIDTH), np.float32), np.ones((1, 1), np.float32)))


def test_reading_objects_stops_when_told() -> None:
    with pytest.raises(CancelledError):
        predict_objects(classifier(), drawn_bag(), control=Control(stop=lambda: True))


def test_a_stored_classifier_answers_as_before(tmp_path: Path) -> None:
    one = classifier()
    store_classifier(tmp_path / "toy.safetensors", one.card, one.model)
    again = load_object_classifier(tmp_path / "toy.safetensors", ColourEncoder())
    assert (
        predict_objects(again, drawn_bag()).probabilities == predict_objects(one, drawn_bag()).probabilities
    )
    assert again.wanted == ("gland", "tumour")


def test_a_classifier_whose_classes_do_not_fit_its_weights_is_refused(tmp_path: Path) -> None:
    one = classifier(classes=("benign", "malignant", "third"))
    store_classifier(tmp_path / "toy.safetensors", one.card, one.model)
    with pytest.raises(ModelUnavailableError, match=r"3 classes, but its weights decide between 2"):
        load_object_classifier(tmp_path / "toy.safetensors", ColourEncoder())
