"""The full-size preset in parts: accumulated gradients, several processes, the clip tower, a TensorBoard log."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.segmentation.little import VOCABULARY, byte_tokenizer
from tissuetalk.models.segmentation.pathsegmentor.base_segmenter import load, word_pieces
from tissuetalk.models.segmentation.pathsegmentor.text_tower import MINILM
from tissuetalk.models.segmenter import Context, Prompt
from tissuetalk.models.training import loop
from tissuetalk.models.training.base import BaseRun
from tissuetalk.models.training.recipes import BaseRecipe
from tissuetalk.models.training.several import ProcessShare
from tissuetalk.models.training.triples import TripleSampler, triples
from tissuetalk.tools.train.recipes import run_recipe
from tissuetalk.tools.train.reproduce.drawn import draw_set

LABELS = ("breast-nuclei-epithelial", "breast-tissue-tumor")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts") / "set"
    draw_set(folder, [(f"{n}", "train") for n in range(4)], LABELS, seed=4, organs=("breast",))
    return folder


def recipe(folder: Path, drawn: Path, **changes: Any) -> Path:
    values = {
        "preset": "base", "name": "t", "manifests": [str(drawn / "train.csv")], "steps": 2, "batch": 4, "side_px": 64,
        "points": 64, "full_image_loss": True, "learning_rate": 1e-3, "threads": 1, "warm_up_steps": 0,
        "model": {"size": "tiny", "vocabulary": 30522},
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def losses(out: Path) -> list[float]:
    with (out / "log.csv").open() as lines:
        return [float(row["loss"]) for row in csv.DictReader(lines)]


def test_a_batch_in_four_parts_has_the_gradient_that_it_has_at_once(drawn: Path, tmp_path: Path) -> None:
    # one query, or masks of random networks would be matched by points that are drawn in another order
    one = {"size": "tiny", "vocabulary": 30522, "queries": 1}
    told = BaseRecipe.read(recipe(tmp_path, drawn, model=one))
    tokens = word_pieces(MINILM.find().with_name("vocab.txt"), told.config.context)
    torch.manual_seed(0)
    run = BaseRun(told, TripleSampler(triples(told), told, tokens), tmp_path / "out")
    run.model.eval()  # dropout would draw anew for each part
    batch, found = run.batch(0), []
    for parts in (1, 4):
        run.recipe = told.model_copy(update={"accumulate": parts})
        run.descend(run._losses(batch, torch.Generator().manual_seed(3), {}), rate=0.0)
        found.append([weight.grad.clone() for weight in run.model.parameters() if weight.grad is not None])
    assert len(found[0]) == len(found[1]) > 50
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(*found, strict=True))


def test_two_processes_share_a_batch_and_the_first_one_writes(drawn: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, drawn, steps=1)
    alone = load_file(run_recipe(path, tmp_path / "alone"))
    launched = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launched += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command = str(Path(sys.executable).with_name("tissuetalk"))
    launched += [command, "train", str(path), "--out", str(tmp_path / "two")]
    done = subprocess.run(
        launched,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(losses(tmp_path / "two")) == 1
    assert losses(tmp_path / "two")[0] > 0
    together = load_file(tmp_path / "two" / "weights" / "model.safetensors")
    assert set(together) == set(alone)
    assert max(float((together[key] - alone[key]).abs().max()) for key in alone) <= 2e-3 + 1e-6


def test_the_clip_tower_is_trained_and_its_folder_answers(drawn: Path, tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path / "words")
    clip = {"size": "tiny", "text_tower": "clip", "vocabulary": VOCABULARY, "context": 77}
    weights = run_recipe(
        recipe(tmp_path, drawn, steps=1, model=clip, vocabulary=str(tmp_path / "words")), tmp_path / "out"
    )
    model = load(weights.parent)
    assert any("resblocks" in name for name in model.model.state_dict())
    tile = np.asarray(cv2.imread(str(drawn / "images/0.png")), np.uint8)
    (answer,) = model.decode(model.encode(tile, Context({})), [Prompt(LABELS[0], "x", "nuclei in breast")])
    assert answer.logits.shape == tile.shape[:2] and np.isfinite(answer.logits).all()


def test_a_tensorboard_log_is_written_where_it_is_asked_for(drawn: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (pip install tensorboard)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_recipe(recipe(tmp_path, drawn, tensorboard=True), tmp_path / "out")
    board = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    board.Reload()
    told = [event.value for event in board.Scalars("loss")]
    assert told == pytest.approx(losses(tmp_path / "out"), rel=1e-4)
    assert torch.get_num_threads() == 1


def test_a_run_that_does_not_divide_its_batches_is_refused_in_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both would train the same and write the same files."""
    monkeypatch.setattr(loop, "share", lambda: ProcessShare(1, 2))
    path = tmp_path / "kidney.yaml"
    path.write_text("{preset: pfps, name: k, size: little, strategy: one-set, drawn_patches: 4, threads: 1}")
    with pytest.raises(InvalidArgumentError, match="without `accelerate launch`"):
        run_recipe(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
