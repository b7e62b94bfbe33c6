"""The parts of an explanation: reading a question, changing a picture and back, reliability, cards, painting over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import calibrate
from benchmarks.calibrate import ScoredMask
from tissuetalk.models.images import Box
from tissuetalk.prompts.glossary import card_for, card_for_concept
from tissuetalk.prompts.lexicon import lexicon
from tissuetalk.prompts.question import kinds_of
from tissuetalk.prompts.taxonomy import LABELS
from tissuetalk.tools.answers import reliability
from tissuetalk.tools.answers.results import Mask, SegmentResult
from tissuetalk.tools.drawing import sheet
from tissuetalk.tools.explain import counterfactual, perturbations, windows
from tissuetalk.tools.explain.request import ExplainRequest


@pytest.fixture
def tissue() -> np.ndarray:
    """Pink ground with a purple square."""
    pixels = np.full((96, 128, 3), (226, 180, 205), np.uint8)
    pixels[30:60, 40:80] = (110, 70, 140)
    noise = np.random.default_rng(0).integers(-6, 7, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("question", "kinds"),
    [
        (None, ["grounding", "observations", "meaning"]),
        ("Tell me more", ["grounding", "observations", "meaning"]),
        ("How sure are you of the glands?", ["reliability"]),
        ("can I trust it?", ["reliability"]),
        ("What if the tumour were not there?", ["counterfactual"]),
        ("show it without the glands", ["counterfactual"]),
        ("what else is there?", ["observations"]),
        ("What does stroma mean?", ["meaning"]),
        ("which weights and settings made this?", ["provenance"]),
        ("Why is there no mask of the necrosis?", ["grounding"]),
        ("is it cancer?", ["grounding", "observations"]),
        ("what did the classifier rely on?", ["classifier"]),
        ("what did the model rely on?", ["classifier"]),
    ],
)
def test_a_question_chooses_the_kinds(question: str | None, kinds: list[str]) -> None:
    assert kinds_of(question) == kinds


def test_a_named_classifier_is_always_explained() -> None:
    assert kinds_of("how sure are you?", "demo") == ["reliability", "classifier"]


def test_what_was_asked_survives_being_stored() -> None:
    asked = ExplainRequest(
        kinds=("grounding", "meaning"),
        mask_ids=("msk_1",),
        everything=False,
        concepts=("tumor",),
        diagnosis=True,
        classifier="demo",
    )
    assert ExplainRequest.model_validate(asked.model_dump(mode="json")) == asked


def test_an_id_is_not_read_as_words() -> None:
    mask = Mask.model_construct(
        mask_id="msk_1ca", found=True, label=None, free_form=None, evidence="gland", target="gland"
    )
    result = SegmentResult.model_construct(masks=[mask], not_segmented=[])
    asked = ExplainRequest.of("why msk_1ca?", None, result)
    assert asked.mask_ids == ("msk_1ca",) and asked.concepts == ()


@pytest.mark.parametrize(
    "change", [*perturbations.KINDS, perturbations.TOGETHER], ids=lambda change: change.name
)
def test_a_mild_change_keeps_everything_in_its_place(
    change: perturbations.Perturbation, tissue: np.ndarray
) -> None:
    changed = change.apply(tissue)
    assert changed.dtype == np.uint8 and (changed.shape != tissue.shape or (changed != tissue).any())
    dark = (changed.max(axis=2) < 180).astype(np.float32)[None]
    back = change.back(dark, tissue.shape[:2])[0] > 0.5
    truth = tissue.max(axis=2) < 180
    assert back.shape == truth.shape
    assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.95


def test_the_named_weights_have_formulas_that_never_fall() -> None:
    for model in reliability.calibration()["models"].values():
        for signal in calibrate.SIGNALS:
            formula = reliability.ReliabilityFormula(**model[signal]["formula"])
            assert formula.signal >= 0 and formula.presence >= 0
            stated = [formula.value(share, 0.9, "tumour") for share in np.linspace(0, 1, 9)]
            assert stated == sorted(stated) and stated[0] > 0 and stated[-1] < 1
            checks = [model[signal][key] for key in ("left_out_groups", "never_fitted_sets")]
            assert all(check["mean_absolute_error"] < 0.14 for check in checks if check["masks"])


def test_weights_nobody_calibrated_have_no_reliability() -> None:
    assert reliability.reliability_of("0" * 64, "explain", 0.9, presence=0.9, target="gland") is None
    assert reliability.low_agreement("gland", None) == []


def test_a_mask_that_is_likely_wrong_is_warned_about() -> None:
    (warning,) = reliability.low_agreement("gland", 0.4)
    assert warning.code == "low_agreement" and "0.40" in warning.message
    assert reliability.low_agreement("gland", 0.9) == []
    (shipped,) = reliability.calibration()["models"]
    below = reliability.warned_below(shipped)
    assert below > reliability.MEDIUM == reliability.warned_below("0" * 64)
    assert reliability.low_agreement("gland", below - 0.01, below) != []
    assert reliability.low_agreement("gland", below, below) == []


def test_one_mask_in_twenty_that_holds_may_be_warned_about() -> None:
    seen = _masks(("a", "b"), "gland", 0.0)
    found = calibrate.calibrate(seen, "segment")
    assert found["left_out_groups"]["warned_of_acceptable"] <= calibrate.NEEDLESS
    assert (
        calibrate.check(
            lambda each: calibrate.fit(seen, "segment"), seen, "segment", found["warned_below"] + 0.02
        )["warned_of_acceptable"]
        > calibrate.NEEDLESS
    )


def _masks(sets: tuple[str, ...], target: str, offset: float) -> list[ScoredMask]:
    """Masks whose Dice lies ``offset`` from their signal, give or take a little."""
    random = np.random.default_rng(0)
    return [
        ScoredMask(
            name,
            f"group {number % 9}",
            target,
            "as it is",
            each,
            each,
            0.5 + each / 2,
            float(np.clip(each + offset + random.normal(0, 0.02), 0, 1)),
        )
        for name in sets
        for number, each in enumerate(np.linspace(0.4, 0.95, 60))
    ]


def test_a_formula_states_the_mean_dice_and_tells_targets_apart() -> None:
    glands, tumours = _masks(("a", "b"), "gland", 0.0), _masks(("a", "b"), "tumour", -0.25)
    formula = calibrate.fit([*glands, *tumours], "segment")
    for seen in (glands, tumours):
        found = calibrate.check(lambda each: formula, seen, "segment", 0.7)
        assert found["mean_absolute_error"] < 0.06
        assert found["rank_correlation"] > 0.95
    assert formula.value(0.9, 0.95, "gland") > formula.value(0.9, 0.95, "tumour") + 0.1
    assert formula.value(0.9, 0.95, "tumour") < formula.value(0.9, 0.95, "anything else")


def test_a_signal_that_speaks_the_wrong_way_is_not_believed() -> None:
    falling = [replace(each, segment=1 - each.segment) for each in _masks(("a",), "gland", 0.0)]
    assert calibrate.fit(falling, "segment").signal == 0


def test_a_formula_is_checked_on_groups_it_did_not_see() -> None:
    found = calibrate.calibrate(_masks(("ours", "glas"), "gland", 0.0), "explain")
    assert found["left_out_groups"]["mean_absolute_error"] < 0.05
    assert found["never_fitted_sets"]["rank_correlation"] > 0.95
    assert found["left_out_groups"]["acceptable_of_reliable"] == 1
    assert found["by_target"]["gland"]["warned_of_bad"] > 0.8
    assert set(calibrate.folds(_masks(("ours",), "gland", 0.0)).values()) == set(range(calibrate.FOLDS))


def test_every_object_that_can_be_asked_for_has_a_card_with_a_reference() -> None:
    cards = [card_for(label) for label in LABELS]
    concepts = {name: card_for_concept(name) for name in lexicon().concepts}
    assert not [name for name, card in concepts.items() if card is None]
    for card in (*cards, *concepts.values()):
        assert card is not None
        fields = (
            card.name,
            card.what_it_is,
            card.what_it_looks_like,
            card.why_it_matters,
            card.confused_with,
        )
        assert all(fields) and len(card.reference) > 10
        assert card.what_it_is.endswith(".") and len(card.what_it_is) < 160


def test_only_the_object_is_blurred(tissue: np.ndarray) -> None:
    painted = np.zeros(tissue.shape[:2], bool)
    painted[30:60, 40:80] = True
    soft = counterfactual.blurred(tissue, painted, 6)
    assert (soft[~painted] == tissue[~painted]).all() and (soft[painted] != tissue[painted]).any()
    nothing = np.zeros_like(painted)
    assert (counterfactual.blurred(tissue, nothing, 6) == tissue).all()
    assert (counterfactual.removed(tissue, nothing) == tissue).all()


def test_an_object_painted_over_looks_like_what_surrounds_it(tissue: np.ndarray) -> None:
    painted = np.zeros(tissue.shape[:2], bool)
    painted[30:60, 40:80] = True
    gone = counterfactual.removed(tissue, painted)
    around = tissue[~painted].mean(axis=0)
    assert np.abs(gone[painted].mean(axis=0) - around).max() < 12
    assert gone[painted].std() > 2, "it keeps the grain of the tissue"
    far = np.ones_like(painted)
    far[25:65, 35:85] = False
    assert (gone[far] == tissue[far]).all()
    assert (counterfactual.removed(tissue, np.ones_like(painted)) == tissue).all()


def test_the_busiest_window_is_where_the_weight_is() -> None:
    weight = np.zeros((50, 100), np.float32)
    weight[30:40, 70:90] = 1
    region = Box(1000, 2000, 1400, 2200)
    box = windows.busiest(weight, region, 80, 40)
    assert box.width == 80 and box.height == 40
    assert box.x0 >= 1250 and box.x1 <= 1390 and box.y0 >= 2110 and box.y1 <= 2170
    assert windows.busiest(weight, region, 9999, 9999).as_list() == region.as_list()
    spots = windows.hot_spots(weight, region, 40, 3, 0.2)
    assert spots and all(share >= 0.2 for _, share in spots)


def test_long_titles_wrap_and_a_sheet_keeps_its_width() -> None:
    from PIL import Image

    picture = Image.new("RGB", (300, 100), (200, 150, 180))
    one = sheet.Panel(
        picture, "a title that is much longer than the picture under it is wide", ("a note of µm²",)
    )
    page = sheet.sheet("heading", [sheet.row([one, one])], "foot")
    assert page.width == 300 * 2 + 3 * sheet.GAP_PX
    lines = sheet.wrapped("many words that have to be broken up", 80, 14)
    assert len(lines) > 2 and " ".join(lines) == "many words that have to be broken up"
