"""The classifiers that come with the package can be used as they are, and say what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tissuetalk.models.classifiers.bags import ObjectMask
from tissuetalk.models.classifiers.card import SHIPPED, read_card
from tissuetalk.models.classifiers.classifier import (
    Classifier,
    ObjectClassifier,
    bag_of,
    load_classifier,
    load_object_classifier,
    predict_bag,
    predict_objects,
)
from tissuetalk.models.images import Box, open_image

PROJECT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.safetensors")), ids=lambda path: path.stem)
def test_a_shipped_classifier_fits_the_shipped_encoder_and_says_what_it_is(path: Path) -> None:
    load = load_object_classifier if read_card(path).kind == "object-aware" else load_classifier
    classifier: Classifier | ObjectClassifier = load(path)
    assert path.stat().st_size < 1_000_000
    assert (
        classifier.card.research_only
        and "CC-BY" in classifier.card.licence
        and "Not for diagnosis" in classifier.card.limits
    )
    assert "macro AUC" in classifier.card.metrics and "patients" in classifier.card.training


def test_the_colon_classifier_reads_the_sample_image() -> None:
    with open_image(PROJECT / "models" / "samples" / "colon.jpg", name="colon.jpg") as source:
        classifier = load_classifier("colon-adenocarcinoma")
        said = predict_bag(classifier, bag_of(classifier.card, source))
    assert sum(said.probabilities) == pytest.approx(1) and len(said.attention) >= 2


def test_the_object_aware_one_tells_what_the_glands_of_the_sample_add() -> None:
    classifier = load_object_classifier("colon-adenocarcinoma-objects")
    (glands,) = classifier.wanted
    with open_image(PROJECT / "models" / "samples" / "colon.jpg", name="colon.jpg") as source:
        everywhere = Box(0, 0, source.width, source.height)
        left = np.zeros((8, 8), bool)
        left[:, :4] = True
        bag = bag_of(classifier.card, source, [ObjectMask(glands, left, everywhere)])
        said = predict_objects(classifier, bag)
    assert {share.name for share in said.shares.ranking} == {glands, "other"}
    added = [share.share for share in said.shares.ranking]
    assert np.sum(added) + said.shares.bias == pytest.approx(said.shares.logit, abs=1e-4)
