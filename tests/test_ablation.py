"""K and beta are compared by really training every cell, on the smoke recipe cut short."""

from __future__ import annotations

import csv
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.training.ablation import ablate

RECIPES = Path(__file__).parent.parent / "models" / "recipes"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    values = yaml.safe_load((RECIPES / "smoke.yaml").read_text())
    values |= {
        "data_root": str((RECIPES / values["data_root"]).resolve()),
        "mix": {"dsb2018-histology/nuclei": 1.0},
    }
    values |= {"steps": 3, "batch": 2, "crop_px": 64, "image_batches": 1, "sentences": 4, "threads": 1}
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_every_cell_is_trained_once_and_tabled(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "cells"

    def run() -> list[tuple[int, float]]:
        scores = ablate(
            recipe, out, group_sizes=[1, 2], betas=[0.5], gradients=["softmax"], images=1, each_level=1
        )
        return [(score.k, score.beta) for score in scores]

    assert run() == [(1, 0.0), (2, 0.5)]
    score = out / "k2-beta0.5-softmax" / "score.json"
    cell = yaml.safe_load((out / "k2-beta0.5-softmax" / "recipe.yaml").read_text())
    assert (cell["group_size"], cell["consistency"], cell["group_gradient"]) == (2, 0.5, "softmax")
    before = score.stat().st_mtime_ns
    assert run() == [(1, 0.0), (2, 0.5)]
    assert score.stat().st_mtime_ns == before
    with (out / "ablation.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["k"] for row in rows] == ["1", "2"]
    assert all(0 <= float(row["dice"]) <= 1 and float(row["spread"]) >= 0 for row in rows)
    assert "| K = 4 | 79.92 | 61.24 |" in (out / "ablation.md").read_text()
    ElementTree.fromstring((out / "ablation.svg").read_text())


def test_impossible_cells_are_refused(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="at least 1"):
        ablate(recipe, tmp_path, group_sizes=[0], betas=[0.1])
    with pytest.raises(InvalidArgumentError, match="at least 0"):
        ablate(recipe, tmp_path, group_sizes=[2], betas=[-1.0])
    with pytest.raises(InvalidArgumentError, match="no gradient mode hard"):
        ablate(recipe, tmp_path, group_sizes=[2], betas=[0.1], gradients=["hard"])  # type: ignore[list-item]
