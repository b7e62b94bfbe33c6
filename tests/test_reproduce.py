"""`tissuetalk reproduce`: one run of each grid on drawn data, what is missing said before anything starts, figures side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.server.commands.command_line import app
from tissuetalk.tools.train.reproduce.grid import reproduce
from tissuetalk.tools.train.reproduce.papers import NOT_YET, PAPERS, paper_named

RUNS = {
    "pfps": "text-incomplete-1/",
    "vlsm": "fine-tuned/cris/kvasir/P6",
    "prompt-groups": "pannuke/clipseg/pairs",
}


VISUAL = ("visual", "test only", "Grounded")
"""What marks rows of the prompt-group paper that are not run here."""


@pytest.mark.parametrize("name", PAPERS)
def test_one_run_of_each_grid_works_on_drawn_data_and_is_not_done_twice(name: str, tmp_path: Path) -> None:
    asked = ["reproduce", name, "--dry-run", "--out", str(tmp_path), "--only", RUNS[name], "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    page = Path(json.loads(done.stdout)["page"])
    said = page.read_text()
    assert said.startswith(f"# {PAPERS[name].title}") and "Its figures mean nothing." in said
    assert "## Runs: 1 of 1 done" in said
    ours = [figure for figure in paper_named(name).figures(tmp_path, [7]) if figure.ours is not None]
    assert ours and all(0 <= figure.ours <= 1 for figure in ours)
    (log,) = tmp_path.rglob("log.csv")
    before = log.stat().st_mtime_ns
    assert CliRunner().invoke(app, asked).exit_code == 0
    assert log.stat().st_mtime_ns == before


@pytest.mark.parametrize("name", PAPERS)
def test_a_whole_grid_fills_every_figure_that_is_not_left_out(name: str, tmp_path: Path) -> None:
    """Scores that every run would write, without running any."""
    paper = paper_named(name)
    paper.draw(tmp_path / "data")
    cells = paper.cells(tmp_path / "data", dry=True, seeds=[7, 8])
    assert len({cell.name for cell in cells}) == len(cells) > 20
    for cell in cells:
        (tmp_path / cell.name).mkdir(parents=True)
        if name == "pfps":
            rows = [
                f"{unit},{task},{part},0.5,4"
                for unit in ("pt", "dt", "tuft", "capsule")
                for task in range(1, 10)
                for part in ("test", "train")
            ]
            text = "\n".join(["unit,task,sentences,dice,n", *rows])
        elif name == "prompt-groups":
            rows = [
                f"{Path(one['manifest']).name},{kind},,{level},0.5,0.1,4"
                for one in cell.values["test"]
                for kind in ("T1", "T2")
                for level in ("all", "low", "medium", "high")
            ]
            text = "\n".join(["set,kind,class,level,dice,spread,n", *rows])
        else:
            rows = [f"{Path(one['manifest']).name},P1,0.5,4,0,0" for one in cell.values["test"]]
            text = "\n".join(["set,prompt,dice,n,trained_on,validated_on", *rows])
        (tmp_path / cell.name / "scores.csv").write_text(text)
    empty = [figure for figure in paper.figures(tmp_path, [7, 8]) if figure.ours is None]
    baselines = {"U-Net", "U-Net++", "DeepLabV3+", "literature best"}
    left_out = {"camus", "busi", "chexlocalize"}
    for figure in empty:
        named = {figure.row.partition(" trained on")[0], figure.column, figure.row.rpartition(" on ")[2]}
        published_only = name == "prompt-groups" and any(word in figure.row for word in VISUAL)
        assert published_only or named & (baselines | left_out), figure


def test_what_is_missing_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    monkeypatch.delenv("TISSUETALK_TINYLLAMA", raising=False)
    with pytest.raises(ModelUnavailableError, match="nothing of 13 runs can start"):
        reproduce(paper_named("pfps"), tmp_path, tmp_path / "out", has_gpu=lambda: True)
    page = (tmp_path / "out" / "page.md").read_text()
    for told in (
        "has no patches.csv",
        "no efficient_sam_vits.pt",
        "hf download TinyLlama/TinyLlama",
        "lacks EfficientSAM-S",
    ):
        assert told in page
    with pytest.raises(ModelUnavailableError, match="needs --data"):
        reproduce(paper_named("vlsm"), None, tmp_path / "out", has_gpu=lambda: True)


def test_hundreds_of_gpu_hours_are_not_begun_without_a_gpu(tmp_path: Path) -> None:
    paper = paper_named("vlsm")
    paper.draw(tmp_path / "data")
    (tmp_path / "data" / "cris.pth").write_bytes(b"weights")
    (tmp_path / "data" / "isic" / "manifest.csv").write_text(
        (tmp_path / "data" / "isic" / "manifest.csv").read_text().replace(",test", ",train")
    )
    with pytest.raises(
        ModelUnavailableError, match=r"GPU hours are left and there is no GPU|nothing of \d+ runs"
    ):
        reproduce(paper, tmp_path / "data", tmp_path / "out", has_gpu=lambda: False)
    assert "no row of the split test" in (tmp_path / "out" / "page.md").read_text()


def test_a_run_that_fails_is_named_and_kept_apart(tmp_path: Path) -> None:
    paper = paper_named("vlsm")
    paper.draw(tmp_path / "drawn")
    (tmp_path / "drawn" / "dfu" / "images" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ModelUnavailableError, match="1 of 1 runs failed"):
        reproduce(paper, None, tmp_path, dry=True, only="fine-tuned/clipseg/dfu/P1", has_gpu=lambda: False)
    assert "invalid_argument: cannot read the image" in (tmp_path / "page.md").read_text()


def test_papers_without_a_grid_say_so() -> None:
    for name in NOT_YET:
        with pytest.raises(InvalidArgumentError, match="has no grid of its own yet; by hand"):
            paper_named(name)
    with pytest.raises(InvalidArgumentError, match="choose pfps, "):
        paper_named("sam")
