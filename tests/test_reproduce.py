"""`tissuetalk reproduce`: one run of each grid on drawn data, what is missing said before anything starts, figures side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.models.metrics.levels import published
from tissuetalk.server.commands.command_line import app
from tissuetalk.tools.train.reproduce.diagnosis import MOST_IMPORTANT, OCCLUDED
from tissuetalk.tools.train.reproduce.grid import GridCell, reproduce
from tissuetalk.tools.train.reproduce.papers import PAPERS, paper_named

RUNS = {
    "pfps": "text-incomplete-1/",
    "vlsm": "fine-tuned/cris/busi/P6",
    "prompt-groups": "pannuke/clipseg/pairs",
    "pathsegmentor": "train/",
    "diagnosis": "standard-maps/",
}


BOX = '"medsam, union box"'
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
    ours = [figure.ours for figure in paper_named(name).figures(tmp_path, [7]) if figure.ours is not None]
    # training of PathSegmentor is scored in runs of their own
    assert ours or name == "pathsegmentor"
    assert all(0 <= value <= 1 for value in ours) or name == "diagnosis"
    (log,) = [*tmp_path.rglob("log.csv"), *tmp_path.rglob("metrics.json")]
    before = log.stat().st_mtime_ns
    assert CliRunner().invoke(app, asked).exit_code == 0
    assert log.stat().st_mtime_ns == before


@pytest.mark.parametrize("name", PAPERS)
def test_a_whole_grid_fills_every_figure_that_is_not_left_out(name: str, tmp_path: Path) -> None:
    """Scores that every run would write, without running any."""
    paper = paper_named(name)
    paper.draw(tmp_path / "data")
    cells = paper.cells(tmp_path / "data", dry=True, seeds=[7, 8])
    assert len({cell.name for cell in cells}) == len(cells) >= 12
    for cell in cells:
        (tmp_path / cell.name).mkdir(parents=True)
        for file, text in written_by(name, cell).items():
            (tmp_path / cell.name / file).write_text(text)
    empty = [figure for figure in paper.figures(tmp_path, [7, 8]) if figure.ours is None]
    for figure in empty:
        named = {figure.row.partition(" trained on")[0], figure.column, figure.row.rpartition(" on ")[2]}
        left_out = NOT_RUN | ({"DeepLabV3+"} if name == "pathsegmentor" else set())
        assert named & left_out or any(word in figure.row for word in VISUAL), figure


NOT_RUN = {"literature best"}
NOT_RUN |= {"SAM-Med2D, union box", "nnU-Net", "SAM-Path"}


def written_by(name: str, cell: GridCell) -> dict[str, str]:
    """Files with the scores of a run, as far as the tables of its paper read them."""
    if name == "diagnosis":
        one = {"ratio_of_means": 2.0, "control": 1.0, "slides": 3}
        objects = [one | {"name": o, "class": c} for o in MOST_IMPORTANT for c in ("IDC", "ILC", "all")]
        scores = {key: {"value": 0.5} for key in ("macro_auc", "macro_accuracy", "macro_f1")}
        files = ["importance.json", *(f"importance-sigma-{s}.json" for s in (5, 10, 40))]
        told = json.dumps({"objects": objects})
        maps = [
            {"name": MOST_IMPORTANT[0], "method": method, "class": "IDC", "found": 0.6} for method in OCCLUDED
        ]
        written = dict.fromkeys(files, told) | {"occlusion.json": json.dumps({"objects": maps})}
        return {"metrics.json": json.dumps({"test": scores})} | written
    if name == "pathsegmentor":
        types = [f"colon-cell-{kind}" for kind in published("external_consep")]
        labels = [*published("by_category"), *types]
        boxes = [f"a.png,{label},0.5,{BOX}" for label in labels]
        return {
            "scores.csv": "\n".join(
                ["source,label,mask_class,dice", *(f"s,{one},{one},0.5" for one in labels)]
            ),
            "boxes.csv": "\n".join(["file,mask_class,dice,method", *boxes]),
        }
    if name == "pfps":
        rows = [
            f"{unit},{task},{part},0.5,4"
            for unit in ("pt", "dt", "tuft", "capsule")
            for task in range(1, 10)
            for part in ("test", "train")
        ]
        return {"scores.csv": "\n".join(["unit,task,sentences,dice,n", *rows])}
    if name == "prompt-groups":
        rows = [
            f"{Path(one['manifest']).name},{kind},,{level},0.5,0.1,4"
            for one in cell.values["test"]
            for kind in ("T1", "T2")
            for level in ("all", "low", "medium", "high")
        ]
        return {"scores.csv": "\n".join(["set,kind,class,level,dice,spread,n", *rows])}
    # a set of several classes has a table for each, which names it
    tables = [Path(one["manifest"]) for one in cell.values["test"]]
    names = [table.parent.name if table.name == "manifest.csv" else table.stem for table in tables]
    rows = [f"{name},P1,0.5,4,0,0" for name in names]
    log = "step,epoch,validation_dice\n1,1,0.4\n2,2,0.3\n"
    return {"scores.csv": "\n".join(["set,prompt,dice,n,trained_on,validated_on", *rows]), "log.csv": log}


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


def test_another_paper_is_told_which_there_are() -> None:
    with pytest.raises(
        InvalidArgumentError, match="choose pathsegmentor, diagnosis, pfps, vlsm, prompt-groups"
    ):
        paper_named("sam")


def test_scoring_before_training_says_what_comes_first(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="1 of 1 runs failed"):
        reproduce(
            paper_named("pathsegmentor"),
            None,
            tmp_path,
            dry=True,
            only="pathsegmentor/GlaS",
            has_gpu=lambda: False,
        )
    assert "train/seed-7 has left no weights; run it first" in (tmp_path / "page.md").read_text()
    reproduce(
        paper_named("pathsegmentor"), None, tmp_path, dry=True, only="biomedparse/GlaS", has_gpu=lambda: False
    )
    said = (tmp_path / "page.md").read_text()
    (row,) = [line for line in said.splitlines() if line.startswith("| glas |")]
    assert "0.937 / not run | 0.862 / 0." in row
