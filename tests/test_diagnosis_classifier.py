"""The attention classifier, its training, and its file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawn_tissue import ColourEncoder, pairs

from benchmarks.planted_bags import planted_bags
from tissuetalk.models.classifiers.card import FOLDER_VARIABLE, ClassifierCard, classifiers
from tissuetalk.models.classifiers.classifier import (
    load_classifier,
    predict_bag,
    store_classifier,
)
from tissuetalk.models.classifiers.encoder import encode_bag
from tissuetalk.models.classifiers.networks import AttentionMIL, MilConfig
from tissuetalk.models.classifiers.training import TrainSettings, train_attention
from tissuetalk.models.errors import ModelUnavailableError

SMALL = TrainSettings(classes=2, epochs=30, hidden=16, learning_rate=5e-3)


def model_of(**sizes: object) -> AttentionMIL:
    torch.manual_seed(0)
    return AttentionMIL(MilConfig(**({"width": 12, "classes": 3, "hidden": 8} | sizes))).eval()


@pytest.mark.parametrize("sizes", [{}, {"gated": False, "hidden": 128}, {"pre_fc": 6}])
def test_attention_sums_to_one_and_patches_sum_to_the_logits(sizes: dict[str, object]) -> None:
    model, patches = model_of(**sizes), torch.randn(9, 12)
    model.remember(torch.randn(50, 12) * 4 + 7)
    logits, attention = model.attend(patches)
    assert float(attention.detach().sum()) == pytest.approx(1, abs=1e-6)
    assert torch.allclose(model.contributions(patches).sum(0) + model.classify.bias, logits, atol=1e-5)


def test_the_order_of_patches_does_not_matter() -> None:
    model, patches = model_of(), torch.randn(9, 12)
    assert torch.allclose(model(patches), model(patches.flip(0)), atol=1e-6)


def test_the_same_seed_gives_the_same_classifier() -> None:
    bags = [torch.randn(4, 6) + label for label in (0, 1) * 5]
    first, second, other = (
        train_attention(bags, [0, 1] * 5, settings=replace(SMALL, epochs=2, seed=seed))[0].state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["classify.weight"], other["classify.weight"])


def test_training_keeps_the_best_epoch_on_validation_slides() -> None:
    torch.manual_seed(0)
    bags = [torch.randn(4, 6) for _ in range(12)]
    _, trained = train_attention(
        bags[:8], [0, 1] * 4, validation=[(bag, 1) for bag in bags[8:]],
        settings=replace(SMALL, epochs=200, patience=5, earliest=10),
    )  # fmt: skip
    assert 10 <= trained.epochs < 200 and trained.validation_loss is not None


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A trained classifier of the drawn tissue, on disk."""
    encoder = ColourEncoder()
    bags = planted_bags(pairs(0), "blue", count=16)
    vectors = [encode_bag(encoder, bag, "pooled") for bag in bags]
    model, _ = train_attention(vectors, [bag.label for bag in bags], settings=SMALL)
    card = ClassifierCard(
        "drawn",
        "attention",
        ("plain", "blue"),
        encoder.name,
        encoder.weights_sha256,
        "pooled",
        {},
    )
    store_classifier(tmp_path / "drawn", card, model)
    return tmp_path / "drawn.safetensors"


def changed(path: Path, **entries: object) -> Path:
    card = path.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text("utf-8")) | entries), "utf-8")
    return path


def test_a_stored_classifier_says_the_same(stored: Path) -> None:
    encoder = ColourEncoder()
    classifier = load_classifier(stored, encoder)
    bags = planted_bags(pairs(1), "blue", count=10)
    said = [predict_bag(classifier, bag) for bag in bags]
    assert [each.label for each in said] == [bag.label for bag in bags]
    assert [each.probabilities for each in said] == [
        predict_bag(load_classifier(stored, encoder), bag).probabilities for bag in bags
    ]
    assert all(sum(each.probabilities) == pytest.approx(1) for each in said)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"classes": ["plain", "blue", "green"]}, "names 3 classes"),
        ({"classes": ["plain", "plain"]}, "all different"),
        ({"encoder_sha256": "f" * 64}, "train the classifier again with this encoder"),
        ({"encoder": "another"}, "features of another"),
        ({"kind": "object-aware"}, "of the kind 'object-aware'"),
        ({"weights_sha256": "1" * 64}, "not the file its card describes"),
        ({"sizes": {"width": 3, "classes": 2}}, "do not fit its card"),
        ({"format": "other"}, "not a classifier's card"),
        ({"colour": 1}, "unknown keys"),
    ],
)
def test_a_classifier_that_does_not_fit_is_a_named_error(
    stored: Path, entries: dict[str, object], says: str
) -> None:
    with pytest.raises(ModelUnavailableError, match=says):
        load_classifier(changed(stored, **entries), ColourEncoder())


def test_a_class_it_does_not_have_is_named_with_those_it_has(stored: Path) -> None:
    card = load_classifier(stored, ColourEncoder()).card
    assert card.class_number("blue") == 1
    with pytest.raises(Exception, match="0 to 1: plain, blue"):
        card.class_number("red")


def test_words_name_listed_classifiers_and_never_open_a_file(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelUnavailableError, match="no classifier is called"):
        load_classifier(str(stored), ColourEncoder())
    monkeypatch.setenv(FOLDER_VARIABLE, str(stored.parent))
    assert "drawn" in classifiers()
    assert load_classifier("drawn", ColourEncoder()).card.classes == ("plain", "blue")
