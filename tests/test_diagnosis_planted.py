"""The planted-evidence experiment on drawn tissue, and the rules by which its bags and real tissues are drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn_tissue import COLOURS, ColourEncoder, pairs

from benchmarks.planted import RememberingEncoder, figures, train_planted
from benchmarks.planted_bags import PlantedTissue, Sides, planted_bags, planted_tissues, without_evidence
from tissuetalk.models.errors import InvalidArgumentError

SAMPLES = Path(__file__).parents[1] / "models" / "datasets" / "samples"


def test_only_the_planted_object_decides_the_label() -> None:
    for planted in COLOURS:
        bags = planted_bags(pairs(0), planted, count=40)
        assert [bag.label for bag in bags] == [0, 1] * 20
        for bag in bags:
            held = {name for name in bag.objects for i in range(len(bag)) if bag.mask(i, name) is not None}
            assert (planted in held) == bool(bag.label)
            assert {i for i in range(len(bag)) if bag.mask(i, planted) is not None} == set(bag.evidence)
        shown = [
            sum(bag.mask(i, name) is not None for bag in bags for i in range(len(bag))) for name in COLOURS
        ]
        assert all(shown)
        assert len({len(bag) for bag in bags}) == 1


def test_taking_the_evidence_away_changes_nothing_else() -> None:
    bag = next(bag for bag in planted_bags(pairs(0), "blue", count=4) if bag.label)
    bare = without_evidence(bag, pairs(0))
    assert all(bare.mask(i, "blue") is None for i in range(len(bare)))
    same = [i for i in range(len(bag)) if bag.patches[i] is bare.patches[i]]
    assert set(same) == set(range(len(bag))) - set(bag.evidence)


def test_an_object_no_tissue_carries_cannot_be_planted() -> None:
    with pytest.raises(InvalidArgumentError, match="choose from: blue, green, brown"):
        planted_bags(pairs(0), "red", count=2)


def test_the_experiment_on_drawn_tissue_finds_what_was_planted() -> None:
    encoder = RememberingEncoder(ColourEncoder())
    sides = Sides(tuple(pairs(0, 12)), tuple(pairs(1)))
    classifier, test = train_planted(encoder, sides, "blue", feature="pooled", bags=(100, 20), seed=0)
    found = figures(classifier, sides.test, test, planted="blue")
    assert found.bags == 10 and found.scores.macro_auc.value > 0.95
    assert found.first == found.above_control == found.both == 1.0
    assert found.flips_blurred > 0.9 and found.flips_replaced > 0.9
    assert found.median_importance > found.median_control


def test_real_tissue_is_parted_by_image_and_cut_with_and_without_its_object() -> None:
    metastasis = PlantedTissue(
        "metastasis",
        "camelyon-node-tumour",
        1.0,
        96,
        1.0,
        (0.1, 1.0),
        lambda record: record.image.stem >= "10690",
        "places",
    )
    sides = planted_tissues(SAMPLES, tissues=(metastasis,), most=6)
    for side in (sides.train[0], sides.test[0]):
        assert side.with_object and all(patch.masks["metastasis"].mean() >= 0.1 for patch in side.with_object)
        assert all(patch.pixels.shape == (96, 96, 3) and not patch.masks for patch in side.without)
    images = [
        {patch.name.split("_")[0] for patch in (*side.with_object, *side.without)}
        for side in (sides.train[0], sides.test[0])
    ]
    assert not images[0] & images[1]
