"""Intervals, tests, levels, oracles, trends and wording, on numbers worked out by hand or published."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.metrics.levels import Sample, by_level
from tissuetalk.models.metrics.oracles import ask_oracle, boxes_as_mask, instance_boxes
from tissuetalk.models.metrics.report import BIN_WIDTH, PUBLISHED, binned, fit
from tissuetalk.models.metrics.robustness import SentenceScore, agreement, robustness
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.metrics.statistics import against_second_best, bootstrap, paired_t_test
from tissuetalk.models.segmenter import RGB
from tissuetalk.tools.evaluate.compare import best_stand_in

DATA = Path(__file__).parent / "data" / "evaluation"


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "method",
    [
        "deeplabv3plus",
        "sam_path",
        "nnunet",
        "medsam_union_box",
        "sam_med2d_union_box",
        "biomedparse",
        "pathsegmentor",
    ],
)
def test_published_overall_dice_is_the_mean_weighted_by_test_masks(method: str) -> None:
    table = {row["source"]: float(row[method]) for row in rows("pathseg_dice_by_source.csv")}
    published = table.pop("Overall")
    sizes = {row["source"]: int(row["test_masks"]) for row in rows("pathseg_sources.csv")}
    overall = np.average(list(table.values()), weights=[sizes[source] for source in table])
    assert overall == pytest.approx(published, abs=0.0011)
    if method == "pathsegmentor":
        assert round(overall, 3) == 0.671


def test_bootstrap_is_repeatable_and_brackets_the_mean() -> None:
    values = np.random.default_rng(0).normal(0.8, 0.1, size=200)
    first, second = bootstrap(values), bootstrap(values)
    assert first == second
    assert first.low is not None
    assert first.high is not None
    assert first.low < first.mean < first.high
    assert first.high - first.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.15)


def test_one_sample_has_a_mean_but_no_interval() -> None:
    interval = bootstrap([0.7])
    assert (interval.mean, interval.low, interval.high) == (0.7, None, None)
    assert bootstrap([0.7, 0.9], groups=["a", "a"]).low is None


def test_images_of_one_patient_widen_the_interval() -> None:
    values = [0.9] * 20 + [0.5] * 20 + [0.7] * 20
    groups = ["a"] * 20 + ["b"] * 20 + ["c"] * 20
    alone, together = bootstrap(values), bootstrap(values, groups)
    assert alone.mean == together.mean
    assert None not in (alone.low, alone.high, together.low, together.high)
    assert (together.high or 0) - (together.low or 0) > 2 * ((alone.high or 0) - (alone.low or 0))


def test_paired_test_is_one_sided_and_equals_the_textbook() -> None:
    random = np.random.default_rng(1)
    theirs = random.uniform(0.4, 0.8, size=30)
    ours = theirs + random.normal(0.02, 0.05, size=30)
    p = paired_t_test(ours, theirs)
    assert p == pytest.approx(stats.ttest_rel(ours, theirs, alternative="greater").pvalue)
    assert paired_t_test(theirs, ours) == pytest.approx(1 - p)


def test_a_constant_gain_is_certain_however_it_was_rounded() -> None:
    assert paired_t_test([0.6, 0.7], [0.3, 0.4]) == 0.0
    assert paired_t_test([0.6, 0.7], [0.6, 0.7]) == 1.0
    assert paired_t_test([0.3, 0.4], [0.6, 0.7]) == 1.0


def test_the_rival_is_the_second_best_and_a_loser_gets_no_p_value() -> None:
    random = np.random.default_rng(2)
    base = random.uniform(0.4, 0.6, size=40)
    scores = {"ours": base + 0.1 + random.normal(0, 0.01, 40), "second": base + 0.05, "third": base}
    won = against_second_best("ours", scores)
    assert (won.rival, won.mark) == ("second", "**")
    assert won.p_value is not None
    lost = against_second_best("third", scores)
    assert (lost.rival, lost.p_value, lost.mark) == ("ours", None, "")


def test_levels_group_by_the_parts_of_the_label() -> None:
    samples = [
        Sample("A", "colon-tissue-gland", 0.9),
        Sample("A", "colon-nuclei-epithelial", 0.5),
        Sample("B", "breast-nuclei-epithelial", 0.7),
        Sample("B", "breast-nuclei-epithelial", 0.7),
    ]
    assert {name: entry.mean for name, entry in by_level(samples, "region").items()} == pytest.approx(
        {"breast": 0.7, "colon": 0.7}
    )
    assert by_level(samples, "object")["epithelial"].mean == pytest.approx(1.9 / 3)
    assert list(by_level(samples, "structure")) == ["nuclei", "tissue"]
    assert by_level(samples, "category")["breast-nuclei-epithelial"].n == 2
    assert by_level(samples, "source")["B"].mean == pytest.approx(0.7)


def test_the_best_of_several_stand_ins_answers_for_a_type() -> None:
    scores = {("SegPath", "endothelial"): 0.02, ("TNBC", "endothelial"): 0.03}
    assert best_stand_in("endothelial", scores) == (("TNBC", "endothelial"), 0.03)
    assert best_stand_in("muscle", scores) is None


def two_squares() -> Mask:
    mask = np.zeros((40, 60), dtype=np.bool_)
    mask[0:10, 0:10] = True
    mask[20:40, 30:50] = True
    return mask


def test_boxes_from_the_annotation_are_half_open() -> None:
    labels = np.zeros((40, 60), dtype=np.int32)
    labels[0:10, 0:10], labels[20:40, 30:50] = 5, 2
    assert instance_boxes(labels).tolist() == [[30, 20, 50, 40], [0, 0, 10, 10]]
    assert instance_boxes((labels > 0).astype(np.int32)).tolist() == [[0, 0, 50, 40]]
    assert (boxes_as_mask(instance_boxes(labels), (40, 60)) == (labels > 0)).all()
    assert instance_boxes(np.zeros((4, 4), dtype=np.int32)).shape == (0, 4)


class BoxPainter:
    """Answers every box with the box itself."""

    def segment_boxes(self, image: RGB, boxes_xyxy: list[tuple[float, float, float, float]]) -> list[Mask]:
        return [boxes_as_mask(np.array([box], dtype=np.int64), image.shape[:2]) for box in boxes_xyxy]


def test_more_prompts_buy_more_dice() -> None:
    truth, image = two_squares(), np.zeros((40, 60, 3), dtype=np.uint8)
    union = ask_oracle("union box", truth, image=image, model=BoxPainter())
    instances = ask_oracle("instance box", truth, image=image, model=BoxPainter())
    painted = ask_oracle("box as mask", truth)
    assert (union.prompts, instances.prompts, painted.prompts) == (1, 2, 2)
    assert dice(union.mask, truth) == pytest.approx(2 * 500 / (500 + 2000))
    assert dice(instances.mask, truth) == 1.0
    assert (painted.mask == truth).all()
    with pytest.raises(ValueError, match="needs an image"):
        ask_oracle("union box", truth)


def test_published_trends_give_the_published_extremes() -> None:
    irregular = np.array([0.025])
    assert PUBLISHED["shape"]["PathSegmentor"](irregular)[0] == pytest.approx(0.805, abs=0.01)
    assert PUBLISHED["shape"]["MedSAM"](irregular)[0] < 0.3
    small = np.array([0.01])
    assert PUBLISHED["size"]["MedSAM"](small)[0] < PUBLISHED["size"]["PathSegmentor"](small)[0]
    crowded = np.array([100.0])
    assert PUBLISHED["density"]["MedSAM"](crowded)[0] == pytest.approx(0.1246, abs=1e-3)


def test_samples_that_share_a_value_are_averaged_before_binning() -> None:
    bins = binned([1, 1, 1, 1, 4], [0.2, 0.4, 0.6, 0.8, 1.0], width=2.0)
    assert [(b.low, b.high, b.n) for b in bins] == [(0.0, 2.0, 4), (4.0, 6.0, 1)]
    assert [b.dice for b in bins] == pytest.approx([0.5, 1.0])


def test_trends_recover_planted_curves() -> None:
    x = np.random.default_rng(5).uniform(0, 1, size=3000)
    line = fit(binned(x, 0.2 * x + 0.7, BIN_WIDTH["shape"]), "shape")
    assert line is not None
    assert line.at(np.array([0.0, 1.0])) == pytest.approx([0.7, 0.9], abs=1e-3)
    curve = fit(binned(x, 0.9 - 0.4 * np.exp(-6 * x), BIN_WIDTH["size"]), "size")
    assert curve is not None
    assert curve.at(np.array([0.0, 0.1, 1.0])) == pytest.approx(
        [0.5, 0.9 - 0.4 * np.exp(-0.6), 0.9 - 0.4 * np.exp(-6)], abs=0.02
    )


def test_bins_of_a_single_value_need_no_density() -> None:
    assert binned([3, 3], [0.4, 0.6], width=2.0)[0].dice == pytest.approx(0.5)
    assert fit(binned([3, 3], [0.4, 0.6], width=2.0), "density") is None


def test_robustness_separates_levels_from_spread() -> None:
    wordings = [
        SentenceScore("one", "nuclei", "low", 0.80),
        SentenceScore("one", "outline every nucleus", "high", 0.84),
        SentenceScore("two", "nuclei", "low", 0.60),
        SentenceScore("two", "outline every nucleus", "high", 0.60),
    ]
    result = robustness(wordings)
    assert result.by_quality["low"].mean == pytest.approx(0.70)
    assert result.low_minus_high == pytest.approx(-0.02)
    assert result.spread == pytest.approx(0.01)  # 0.02 and 0
    assert result.worst_spread == pytest.approx(0.02)
    with pytest.raises(ValueError, match="one way only: one"):
        robustness(wordings[:1])


def test_agreement_of_three_wordings() -> None:
    a = two_squares()
    b = a.copy()
    b[0:10, 0:10] = False
    result = agreement([a, a, b])
    assert result.pairwise_dice[0, 1] == 1.0
    assert result.lowest == pytest.approx(2 * 400 / 900)
    assert result.mean == pytest.approx((1 + 2 * 800 / 900) / 3)
    assert result.uncertainty[5, 5] == pytest.approx(4 * (2 / 3) * (1 / 3))
    assert result.uncertainty[25, 35] == result.uncertainty[39, 0] == 0.0
