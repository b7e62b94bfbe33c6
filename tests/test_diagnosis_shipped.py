"""The classifiers that come with the package can be used as they are, and say what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tissuetalk.models.diagnosis.classifier import SHIPPED, load_classifier, predict
from tissuetalk.models.images import open_image

PROJECT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.safetensors")), ids=lambda path: path.stem)
def test_a_shipped_classifier_fits_the_shipped_encoder_and_says_what_it_is(path: Path) -> None:
    classifier = load_classifier(path)
    assert path.stat().st_size < 1_000_000
    assert (
        classifier.card.research_only
        and "CC-BY" in classifier.card.licence
        and "Not for diagnosis" in classifier.card.limits
    )
    assert "macro AUC" in classifier.card.metrics and "patients" in classifier.card.training


def test_the_colon_classifier_reads_the_sample_image() -> None:
    with open_image(PROJECT / "models" / "samples" / "colon.jpg", name="colon.jpg") as source:
        said = predict(load_classifier("colon-adenocarcinoma"), source)
    assert sum(said.probabilities) == pytest.approx(1) and len(said.attention) >= 2
