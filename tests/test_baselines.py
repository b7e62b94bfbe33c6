"""`tissuetalk compare --all`: every method of the papers' comparisons has its line, and what was run here stands in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tissuetalk.models import registry
from tissuetalk.models.metrics.levels import published
from tissuetalk.models.segmentation.vlsm.networks import NAMES
from tissuetalk.server.commands.command_line import app
from tissuetalk.tools.evaluate.baselines import all_baselines, baselines
from tissuetalk.tools.train.recipes import TRAINERS


def test_every_row_of_the_list_is_there_and_says_how_it_stands() -> None:
    assert {one.row for one in baselines()} == {f"F{number}" for number in range(1, 16)}
    for one in baselines():
        assert one.model or one.command or one.reason, one.method
        assert one.model in ("", *registry.MODELS) and one.trained in ("", *TRAINERS)
        assert all(0 < value < 1 for value in one.published.values())
    assert "clipseg" in NAMES


def test_figures_are_those_of_the_published_tables() -> None:
    columns = {"nnU-Net": "nnunet", "SAM-Path": "sam_path", "MedSAM": "medsam_union_box"}
    columns |= {
        "SAM-Med2D": "sam_med2d_union_box",
        "BiomedParse": "biomedparse",
        "DeepLabV3+": "deeplabv3plus",
    }
    for one in baselines():
        if one.paper == "PathSegmentor":
            overall = [
                published(table)["overall"][columns[one.method]] for table in ("by_source", "external_consep")
            ]
            assert list(one.published.values()) == overall, one.method


def test_the_command_prints_the_table_with_what_was_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    said = CliRunner().invoke(app, ["compare", "--all"])
    assert said.exit_code == 0, said.output
    lines = [line for line in said.stdout.splitlines() if line.startswith("| F")]
    assert len(lines) == len(baselines())
    assert all(": " in line.rsplit("|", 2)[1] for line in lines)
    mean = {"mean": 0.61, "low": None, "high": None, "group_low": None, "group_high": None, "n": 3}
    overall = {"n_images": 3, "n_groups": 3, "metrics": {"dice": mean}, "n_absent": 0, "false_masks": None}
    summary = {"manifest": "m", "model": "own", "words": None, "n_images": 3, "n_groups": 3, "n_scored": 3}
    summary |= {"overall": overall, "by_class": {}, "errors": {}, "skipped": {}, "seconds": 1.0}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    table = all_baselines({"nnU-Net": tmp_path}, tmp_path / "out")
    (row,) = [line for line in table.splitlines() if "| nnU-Net |" in line]
    assert row.endswith("| ran here: Dice 0.610 |")
    assert (tmp_path / "out" / "baselines.md").read_text() == table
    wrong = CliRunner().invoke(app, ["compare", "--all", f"TransUNet={tmp_path}"])
    assert wrong.exit_code != 0 and "none of the methods" in str(wrong.exception)
    without = CliRunner().invoke(app, ["compare", f"a={tmp_path}"])
    assert without.exit_code != 0 and "--out" in str(without.exception)
