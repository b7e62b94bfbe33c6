"""PFPs through the commands that a user has: a recipe, its scores, and what the folder it wrote answers."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from tissuetalk.models import registry
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.segmentation.pfps.card import UNIT_WORDS
from tissuetalk.models.segmentation.pfps.training import drawn_patch
from tissuetalk.prompts.prompt_sets import sentences_of_task
from tissuetalk.server.commands.train import train
from tissuetalk.tools.answers.results import TargetArgument
from tissuetalk.tools.segment.lessons import understand
from tissuetalk.tools.segment.request import SegmentArguments
from tissuetalk.tools.segment.segment import segment
from tissuetalk.tools.session import Session
from tissuetalk.tools.train.pfps import (
    TASKS,
    PfpsRecipe,
    allowed_tasks,
    patches_of,
    training_question,
)


def test_a_recipe_trains_scores_and_its_folder_answers_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "kidney.yaml"
    recipe.write_text(
        "{preset: pfps, name: kidney, size: little, strategy: two-set, keep_tasks: [1, 2, 6], train_encoder: true,"
        " epochs: 2, samples_per_epoch: 4, batch: 2, drawn_patches: 4, threads: 1}"
    )
    train(recipe, out=tmp_path / "run")
    assert capsys.readouterr().out.strip() == str(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "pfps.json", "pfps.safetensors", "log.csv", "scores.csv", "checkpoint.pt", "curves.png"
    }  # fmt: skip
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 3
    assert len((tmp_path / "run" / "scores.csv").read_text().splitlines()) == 1 + 4 * 9
    monkeypatch.setenv("TISSUETALK_PFPS", str(tmp_path / "run"))
    monkeypatch.setattr(registry, "_loaded", {})
    cv2.imwrite(str(tmp_path / "kidney.png"), drawn_patch(9, "tuft", 128).image)
    bench = Session(tmp_path, tmp_path / "workspace")
    asked = SegmentArguments(
        "kidney.png",
        targets=(TargetArgument(words="glomerular tuft"), TargetArgument(words="mitosis")),
        model="pfps",
    )
    result = segment(bench, understand(bench, asked))
    bench.close()
    assert [mask.target for mask in result.masks] == ["glomerular tuft"]
    assert [item.code for item in result.not_segmented] == ["unsupported"]


def test_a_recipe_with_a_wrong_key_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "kidney.yaml"
    recipe.write_text("{preset: pfps, name: kidney, epoch: 2}")
    with pytest.raises(InvalidArgumentError, match="unknown key epoch"):
        train(recipe, out=tmp_path / "run")


def test_the_incomplete_experiment_keeps_the_tasks_it_says() -> None:
    assert allowed_tasks("dt", (1, 2, 6)) == (1, 2, 6)
    assert allowed_tasks("pt", (1, 2, 6)) == TASKS == allowed_tasks("dt", None)


def test_training_asks_only_training_sentences_with_points_where_they_belong() -> None:
    recipe = PfpsRecipe(name="name", size="little", drawn_patches=8)
    patches, random = patches_of(recipe, "train"), np.random.default_rng(0)
    some = [training_question(recipe, patches, random) for _ in range(60)]
    assert {question.task for question in some} == set(TASKS)
    for question in some:
        assert question.truth.any() and (question.point_xy is not None) == (question.task in (6, 7, 8, 9))
        assert question.sentence in sentences_of_task(question.task, "train", UNIT_WORDS[question.unit])
        if question.task in (6, 7):
            x, y = question.point_xy
            assert question.truth[int(y), int(x)]


def test_shipped_recipes_can_be_read() -> None:
    shipped = sorted(
        (Path(str(files("tissuetalk.models"))) / "segmentation" / "pfps" / "recipes").glob("*.yaml")
    )
    assert shipped
    for path in shipped:
        assert PfpsRecipe.read(path).size in ("small", "little")
