"""Runs in epochs: killed and continued to the same weights, the best kept, what was seen in training said beside scores."""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from test_backends_text import tiny_clipseg
from torch import Tensor, nn

from tissuetalk.models import registry
from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.models.segmentation.little import save_little_llama
from tissuetalk.models.segmentation.pfps.training import drawn_patch
from tissuetalk.models.training.loop import EpochRun
from tissuetalk.models.training.recipes import RunRecipe
from tissuetalk.tools.answers.results import TargetArgument
from tissuetalk.tools.evaluate.probes import evaluate_manifest
from tissuetalk.tools.segment.lessons import understand
from tissuetalk.tools.segment.request import SegmentArguments
from tissuetalk.tools.segment.segment import segment
from tissuetalk.tools.session import Session
from tissuetalk.tools.train.recipes import run_recipe

SAMPLES = Path(__file__).parent.parent / "models" / "datasets" / "samples"
RUN = (
    "import sys; from pathlib import Path; from tissuetalk.tools.train.recipes import run_recipe; "
    "run_recipe(Path(sys.argv[1]), Path(sys.argv[2]))"
)


def glands(folder: Path, splits: Sequence[str] = ()) -> Path:
    """The bundled glands with other splits: the first rows get those given, all others none."""
    rows = table(SAMPLES / "ebhi-seg-glands" / "manifest.csv")
    shutil.copytree(SAMPLES / "ebhi-seg-glands", folder)
    for number, row in enumerate(rows):
        row["split"] = splits[number] if number < len(splits) else ""
    with (folder / "manifest.csv").open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def vlsm_recipe(folder: Path, data: Path, **changes: object) -> Path:
    """A tiny CLIPSeg on glands."""
    if not (folder / "clipseg").is_dir():
        (folder / "clipseg").mkdir(parents=True)
        tiny_clipseg(folder / "clipseg")
    one = [{"manifest": str(data), "label": "colon-tissue-gland"}]
    values = {
        "preset": "vlsm",
        "name": "t",
        "network": "clipseg",
        "weights": "clipseg",
        "train": one,
        "test": one,
    }
    values |= {"epochs": 3, "batch": 2, "checkpoint_seconds": 0, "threads": 1, "prompt": "random"}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(values | changes))
    return path


def pfps_recipe(folder: Path, **changes: object) -> Path:
    """Sentences through a tiny language model, whose LoRA drops out at random."""
    if not (folder / "llama").is_dir():
        (folder / "llama").mkdir(parents=True)
        save_little_llama(folder / "llama")
    values = {"preset": "pfps", "name": "t", "size": "little", "language_model": str(folder / "llama")}
    values |= {
        "train_encoder": True,
        "epochs": 3,
        "samples_per_epoch": 4,
        "validate_every": 1,
        "drawn_patches": 4,
    }
    values |= {"checkpoint_seconds": 0, "threads": 1, "test_sentences": 1, "keep_tasks": [1, 6]}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(values | changes))
    return path


@pytest.mark.parametrize("system", ["vlsm", "pfps"])
def test_a_run_that_was_killed_ends_in_the_weights_of_one_that_was_not(system: str, tmp_path: Path) -> None:
    path = vlsm_recipe(tmp_path, SAMPLES / "ebhi-seg-glands") if system == "vlsm" else pfps_recipe(tmp_path)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([sys.executable, "-c", RUN, str(path), str(killed)], stderr=subprocess.DEVNULL)
    while not (killed / "log.csv").is_file() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (killed / "scores.csv").is_file()
    run_recipe(path, killed)
    run_recipe(path, whole)
    for name in (f"{system}.safetensors", "scores.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    logs = [[{**row, "seconds": ""} for row in table(run / "log.csv")] for run in (killed, whole)]
    assert logs[0] == logs[1] and [row["epoch"] for row in logs[0]] == ["1", "2", "3"]
    assert (whole / "curves.png").stat().st_size > 0


def test_a_finished_run_is_not_trained_again_and_another_recipe_is_refused(tmp_path: Path) -> None:
    data = SAMPLES / "ebhi-seg-glands"
    out = run_recipe(vlsm_recipe(tmp_path, data, epochs=1), tmp_path / "run")
    before = (out / "vlsm.safetensors").read_bytes()
    run_recipe(vlsm_recipe(tmp_path, data, epochs=1), out)
    assert (out / "vlsm.safetensors").read_bytes() == before and len(table(out / "log.csv")) == 1
    run_recipe(vlsm_recipe(tmp_path, data, epochs=2), out)
    assert len(table(out / "log.csv")) == 2
    with pytest.raises(InvalidArgumentError, match="another recipe: learning_rate differs"):
        run_recipe(vlsm_recipe(tmp_path, data, learning_rate=0.1), out)


def test_rows_marked_val_say_when_to_stop_and_seen_images_stand_beside_the_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects from: without test rows the training images were scored, and rows marked val were trained on."""
    marked = glands(tmp_path / "marked", ["train", "train", "val", "test", "test", "test"] + ["train"] * 4)
    out = run_recipe(vlsm_recipe(tmp_path, marked, epochs=1), tmp_path / "marked-run")
    (row,) = table(out / "scores.csv")
    assert (row["n"], row["trained_on"], row["validated_on"]) == ("3", "0", "0")
    assert "trained on" not in capsys.readouterr().err
    unmarked = glands(tmp_path / "unmarked", ["val", "val", "val"])
    out = run_recipe(vlsm_recipe(tmp_path, unmarked, epochs=1), tmp_path / "unmarked-run")
    (row,) = table(out / "scores.csv")
    assert (row["n"], row["trained_on"], row["validated_on"]) == ("10", "7", "3")
    assert "unmarked: 7 of the 10 scored images were trained on and 3 validated on" in capsys.readouterr().err


def test_too_little_to_train_or_validate_on_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    data = glands(tmp_path / "data", ["val"] * 10)
    with pytest.raises(InvalidArgumentError, match="0 images to learn from and 10 to validate on"):
        run_recipe(vlsm_recipe(tmp_path, data), tmp_path / "run")
    drawn_patch(0, "pt", 64)
    (tmp_path / "patches.csv").write_text("image,units,nuclei,unit,split\na.png,u.png,n.png,pt,train\n")
    with pytest.raises(InvalidArgumentError, match="no row of the split test"):
        run_recipe(pfps_recipe(tmp_path, data=str(tmp_path)), tmp_path / "pfps-run")


def test_what_a_vision_language_run_saves_answers_segment_and_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = glands(tmp_path / "data", ["test"] * 2)
    out = run_recipe(vlsm_recipe(tmp_path, data, epochs=1, prompt="P1"), tmp_path / "run")
    shutil.rmtree(tmp_path / "clipseg")  # the folder needs no published file
    monkeypatch.setattr(registry, "_loaded", {})
    monkeypatch.delenv("TISSUETALK_VLSM", raising=False)
    with pytest.raises(ModelUnavailableError, match="preset: vlsm, then set TISSUETALK_VLSM"):
        registry.load("vlsm")
    monkeypatch.setenv("TISSUETALK_VLSM", str(out))
    evaluate_manifest(data, tmp_path / "evaluation", model="vlsm", words="gland")
    scored = table(tmp_path / "evaluation" / "scores.csv")
    assert len(scored) == 10
    (image, *_) = sorted((data / "images").iterdir())
    bench = Session(tmp_path, tmp_path / "workspace")
    asked = SegmentArguments(
        str(image.relative_to(tmp_path)), targets=(TargetArgument(words="gland"),), model="vlsm"
    )
    result = segment(bench, understand(bench, asked))
    bench.close()
    assert len(result.masks) + len([one for one in result.not_segmented if one.code != "unsupported"]) == 1
    (out / "vlsm.json").write_text("{}")
    monkeypatch.setattr(registry, "_loaded", {})
    with pytest.raises(ModelUnavailableError, match="missing or damaged"):
        registry.load("vlsm")


class Line(EpochRun[Tensor]):
    """Two steps an epoch on one weight; scores come from a list."""

    def __init__(self, out: Path, scores: Sequence[float], **changes: object) -> None:
        self.scores, self.kept = scores, list[float]()
        self.line = nn.Linear(1, 1)
        optimiser = torch.optim.SGD(self.line.parameters(), 0.1)
        super().__init__(
            RunRecipe(name="line", checkpoint_seconds=0), self.line, out, optimiser, epochs=len(scores), epoch_steps=2, **changes
        )  # fmt: skip

    def batch(self, step: int) -> Tensor:
        return torch.ones(1, 1)

    def update(self, batch: Tensor) -> dict[str, float]:
        loss = self.line(batch).square().mean()
        self.descend(loss)
        return {"loss": float(loss.detach())}

    def validate(self) -> float:
        return self.scores[self.epoch - 1]

    def keep(self) -> None:
        self.kept.append(self.epoch)


def test_the_best_is_kept_and_a_run_that_no_longer_improves_ends(tmp_path: Path) -> None:
    run = Line(tmp_path / "all", [0.1, 0.5, 0.2, 0.5, 0.6])
    run.go("line")
    assert run.kept == [1, 2, 5] and run.step == 10
    run = Line(tmp_path / "patient", [0.1, 0.5, 0.2, 0.5, 0.6], patience=1)
    run.go("line")
    assert run.kept == [1, 2] and run.epoch == 4
    run = Line(tmp_path / "seldom", [0.1, 0.5, 0.2, 0.1, 0.0], check_every=3)
    run.go("line")
    assert run.kept == [3]
    assert [row["validation_dice"] for row in table(tmp_path / "seldom" / "log.csv")] == [
        "nan", "nan", "0.2", "nan", "0.0"
    ]  # fmt: skip


@pytest.mark.parametrize("cut", [b"", b"step,sec", b"step,seconds,epoch,validation_dice,loss\r\n2,0.1"])
def test_a_log_that_a_kill_cut_anywhere_is_written_again(cut: bytes, tmp_path: Path) -> None:
    Line(tmp_path, [0.1, 0.2], patience=0).save()
    (tmp_path / "log.csv").write_bytes(cut)
    Line(tmp_path, [0.1, 0.2]).go("line")
    assert [row["epoch"] for row in table(tmp_path / "log.csv")] == ["1", "2"]


def test_a_loss_that_is_no_number_and_a_full_gpu_leave_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Line(tmp_path, [0.1, 0.2])
    run.go("line")
    longer = Line(tmp_path, [0.1, 0.2, 0.3])
    assert longer.step == 4
    monkeypatch.setattr(longer, "batch", lambda step: torch.full((1, 1), math.nan))
    with pytest.raises(InvalidArgumentError, match="no longer a number at step 4"):
        longer.go("line")

    def full(batch: Tensor) -> dict[str, float]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(longer, "update", full)
    with pytest.raises(ModelUnavailableError, match="memory is full at step 4"):
        longer.go("line")
    assert Line(tmp_path, [0.1, 0.2, 0.3]).step == 4
