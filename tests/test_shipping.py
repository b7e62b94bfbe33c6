"""From weights to what ships: bad pictures, the card, averages of weights, and steps that are done once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data as photographs

from benchmarks.corruptions import CORRUPTIONS
from benchmarks.held_out import SAME_CASE, TargetScore, is_judged, summary
from benchmarks.model_card import card
from benchmarks.ship import blended, once
from tissuetalk.models.datasets.example import FOREGROUND, UNKNOWN, Example, Labelled
from tissuetalk.models.metrics.scores import MaskScores
from tissuetalk.models.segmentation.pathsegmentor.mini import (
    MiniConfig,
    MiniPathSegmentor,
    load_mini,
    save_mini,
)

TINY = MiniConfig((8, 8, 16, 16, 16), (0, 0, 1, 0, 0), (8, 8, 8, 8, 8), hidden=16, queries=4)


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {"as it is"}))
def test_every_corruption_changes_a_picture_and_more_so_when_stronger(name: str) -> None:
    tissue = np.ascontiguousarray(photographs.immunohistochemistry()[:256, :256])
    far = []
    for _, change in CORRUPTIONS[name]:
        changed = change(tissue)
        assert changed.shape == tissue.shape and changed.dtype == np.uint8
        assert np.array_equal(changed, change(tissue)), "the same picture every time"
        far.append(float(np.abs(changed.astype(float) - tissue).mean()))
    assert 0.3 < far[0] < far[1]


def test_an_average_of_weights_lies_between_them(tmp_path: Path) -> None:
    files = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        files.append(tmp_path / f"{seed}.safetensors")
        save_mini(MiniPathSegmentor(TINY), files[-1])
    mixed = load_mini(blended(*files, 0.25, tmp_path / "mixed.safetensors")).state_dict()
    one, other = (load_mini(file).state_dict() for file in files)
    name = "prompt_head.first.weight"
    assert torch.allclose(mixed[name], 0.25 * one[name] + 0.75 * other[name], atol=1e-3)


def test_a_step_is_done_once(tmp_path: Path) -> None:
    def make() -> dict[str, int]:
        calls.append(1)
        return {"found": 3}

    calls: list[int] = []
    assert once(tmp_path / "step.json", make) == once(tmp_path / "step.json", make) == {"found": 3}
    assert calls == [1]


def _scores(dataset: str, groups: list[str]) -> list[TargetScore]:
    return [
        TargetScore(
            dataset,
            "tumour",
            f"{k}",
            MaskScores(dice=0.7 + 0.02 * k, iou=0.5, precision=0.8, recall=0.7),
            None,
            group,
        )
        for k, group in enumerate(groups)
    ]


def test_the_card_leads_with_patients_never_seen_and_counts_cases() -> None:
    table = summary(
        [*_scores("wsss4luad", ["a", "a", "b", "c"]), *_scores("ocdc-oral-tumour", ["one", "one"])]
    )
    assert table["wsss4luad/tumour"]["groups"] == 3
    assert table["wsss4luad/tumour"]["new_patients"] and not table["ocdc-oral-tumour/tumour"]["new_patients"]
    low, high = table["ocdc-oral-tumour/tumour"]["dice_95"]
    assert low == high == table["ocdc-oral-tumour/tumour"]["dice"], "one case shows no spread"
    stored = json.loads((Path(__file__).parents[1] / "models/weights/tissuetalk-mini.json").read_text())
    found = card(stored | {"held_out": table}, "tissuetalk-mini")
    never, known = found.index("On patients never seen"), found.index("Other fields of cases")
    assert never < found.index("wsss4luad/tumour") < known < found.index("ocdc-oral-tumour/tumour")
    assert "Unknown on new patients" in found[never:known]
    assert SAME_CASE


@pytest.mark.parametrize(
    ("target", "code", "unknown", "judged"),
    [
        ("tumour", FOREGROUND, 0.2, True),
        ("tumour", FOREGROUND, 0.8, False),
        ("tumour", 0, 0.0, False),
        ("stroma", FOREGROUND, 0.0, False),
    ],
)
def test_only_what_is_outlined_offered_and_mostly_known_is_scored(
    target: str, code: int, unknown: float, judged: bool
) -> None:
    label = np.full((10, 10), code, np.uint8)
    label[: round(10 * unknown)] = UNKNOWN
    image = np.zeros((10, 10, 3), np.uint8)
    example = Example("wsss4luad", "n", "g", True, image, 1.0, True, {target: Labelled(label)})
    assert is_judged(example, target) == judged
