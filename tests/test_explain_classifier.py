"""explain with a diagnosis classifier: one that weighs patches, one that reads objects, and ones that do not fit."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tissuetalk.models.classifiers.card import ClassifierCard
from tissuetalk.models.classifiers.classifier import Prediction, store_classifier
from tissuetalk.models.classifiers.encoder import load_encoder
from tissuetalk.models.classifiers.importance import (
    BagImportance,
    ObjectImportance,
    RandomBlur,
    loss_ratio,
)
from tissuetalk.models.classifiers.networks import (
    AttentionMIL,
    MilConfig,
    ObjectAwareConfig,
    ObjectAwareModel,
)
from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.tools.explain.diagnosis import importance_answer
from tissuetalk.tools.session import Session

SAMPLES = Path(__file__).parent.parent / "models" / "samples"
CLASSES = ("normal", "adenoma")


class Case:
    """The colon sample with its glands segmented, and untrained classifiers in the same folder."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "images"
        self.root.mkdir()
        (self.root / "colon.jpg").write_bytes((SAMPLES / "colon.jpg").read_bytes())
        self.session = Session(self.root, folder / "workspace")
        segmented = self.session.segment("colon.jpg", "segment the glands", mpp=1.2)
        self.result_id = segmented.result.result_id
        self._write_classifiers()

    def _write_classifiers(self) -> None:
        encoder = load_encoder(None)
        width = encoder.encode(torch.zeros(1, 3, 224, 224, dtype=torch.uint8)).tokens.shape[-1]
        torch.manual_seed(3)
        weighing = AttentionMIL(MilConfig(width=width, classes=2))
        card = ClassifierCard(
            name="untrained",
            kind="attention",
            classes=CLASSES,
            encoder=encoder.name,
            encoder_sha256=encoder.weights_sha256,
            feature="tokens",
            sizes={},
            patch_um=64.0,
            training="nothing: random weights",
            metrics={"accuracy": "chance"},
        )
        store_classifier(self.root / "weighing.safetensors", card, weighing)
        three = replace(card, classes=(*CLASSES, "carcinoma"))
        store_classifier(self.root / "three.safetensors", three, weighing)
        store_classifier(self.root / "other.safetensors", replace(card, encoder_sha256="0" * 64), weighing)
        for name, objects in {"reading": ("gland", "other"), "stroma": ("gland", "stroma", "other")}.items():
            config = ObjectAwareConfig(objects=objects, width=width, classes=2)
            model = ObjectAwareModel(config)
            store_classifier(self.root / f"{name}.safetensors", replace(card, objects=objects), model)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    case = Case(tmp_path_factory.mktemp("classifier"))
    yield case
    case.session.close()


def test_objects_are_ranked_by_what_blurring_them_costs(case: Case) -> None:
    answer = case.session.explain(case.result_id, "what did the classifier rely on?", "weighing.safetensors")
    found = answer.result.classifier
    assert found is not None and answer.result.kinds == ["classifier"]
    assert found.predicted in CLASSES and sum(found.probabilities.values()) == pytest.approx(1, abs=1e-3)
    (gland,) = found.objects
    assert (
        gland.name == "gland"
        and gland.rank == 1
        and gland.importance is not None
        and gland.control is not None
    )
    assert found.patches >= 9 and "not a diagnosis" in answer.text and found.trained_on
    strongest = found.strongest_patches
    weights = [each.attention for each in strongest]
    assert 1 <= len(strongest) == min(20, found.patches) and weights == sorted(weights, reverse=True)
    assert len(strongest) < found.patches or sum(weights) == pytest.approx(1, abs=1e-4)
    assert all(x0 < x1 and y0 < y1 for x0, y0, x1, y1 in (each.box for each in strongest))
    assert answer.picture is not None and max(Image.open(io.BytesIO(answer.picture)).size) <= 1024


def test_objects_are_ranked_by_their_share_of_the_answer(case: Case) -> None:
    found = case.session.explain(case.result_id, None, "reading.safetensors").result.classifier
    assert found is not None and [each.rank for each in found.objects] == [1, 2]
    assert {each.name for each in found.objects} == {"gland", "other"}
    added = [each.contribution for each in found.objects if each.contribution is not None]
    assert len(added) == 2 and found.logit is not None and found.bias is not None
    assert sum(added) + found.bias == pytest.approx(found.logit, abs=1e-4)
    parts = [each.contribution for each in found.strongest_patches]
    assert found.patches <= 20 and sum(parts) + found.bias == pytest.approx(found.logit, abs=1e-4)


def test_a_sure_classifier_is_explained_by_its_probability_and_not_by_a_ratio_of_nothing(case: Case) -> None:
    found = case.session.explain(case.result_id, None, "colon-adenocarcinoma").result.classifier
    assert found is not None and max(found.probabilities.values()) > 0.99
    (gland,) = found.objects
    assert gland.importance is not None and gland.probability_after is not None
    assert gland.importance <= -np.log(gland.probability_after) / -np.log(0.99) + 1.01
    told = f"takes “{found.predicted}” from {found.probabilities[found.predicted]:.2f} to {gland.probability_after:.2f}"
    assert told in found.statement and "multiplies" not in found.statement


@pytest.mark.parametrize(("random_loss", "specific"), [(0.02, True), (0.5, False)])
def test_a_random_blur_that_does_more_than_the_object_is_said(random_loss: float, specific: bool) -> None:
    card = ClassifierCard("drawn", "attention", CLASSES, "colours", "0" * 64, "pooled", {})
    control = RandomBlur(loss_ratio(random_loss, 1e-4), random_loss, 1, "any patch", 3)
    gland = ObjectImportance("gland", loss_ratio(0.1, 1e-4), 0.1, 0.9, False, 0.3, 3, 3, control)
    before = Prediction((0.9999, 0.0001), 0, np.ones(1), np.ones((1, 2)), torch.ones(1, 2))
    said = importance_answer(card, BagImportance("drawn", 0, False, before, 1e-4, 20, (gland,)), 9).statement
    assert "from 1.00 to 0.90" in said and gland.importance == pytest.approx(9.95, abs=0.01)
    assert ("not specific to gland" in said) is not specific


@pytest.mark.parametrize("classifier", ["weighing.safetensors", "reading.safetensors"])
def test_taking_an_object_away_changes_the_score_and_says_so(case: Case, classifier: str) -> None:
    answer = case.session.explain(case.result_id, "what if the glands were removed?", classifier)
    assert answer.result.classifier is not None
    for view in answer.result.counterfactuals:
        assert [score.label for score in view.scores] == list(CLASSES)
        assert sum(score.before for score in view.scores) == pytest.approx(1, abs=1e-3)
        assert any(score.before != score.after for score in view.scores)
        assert "score of" in view.statement and view.statement in answer.text


@pytest.mark.parametrize(
    ("classifier", "error", "says"),
    [
        ("three.safetensors", ModelUnavailableError, "3 classes|classes"),
        ("other.safetensors", ModelUnavailableError, "encoder"),
        ("stroma.safetensors", InvalidArgumentError, "stroma"),
    ],
)
def test_a_classifier_that_does_not_fit_is_named(
    case: Case, classifier: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        case.session.explain(case.result_id, "what did it rely on?", classifier)
