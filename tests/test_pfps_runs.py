"""PFPs through the commands that a user has: a recipe, its scores, and what the folder it wrote answers."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tissuetalk.models import registry
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.segmentation.pfps.card import UNIT_WORDS
from tissuetalk.models.segmentation.pfps.network import PfpsSizes
from tissuetalk.models.segmentation.pfps.segmenter import build_pfps
from tissuetalk.models.segmentation.pfps.training import (
    KidneyQuestion,
    answer,
    drawn_patch,
    loss_of,
    optimiser_of,
)
from tissuetalk.prompts.prompt_sets import sentences_of_task
from tissuetalk.server.commands.train import train
from tissuetalk.tools.answers.results import TargetArgument
from tissuetalk.tools.segment.lessons import understand
from tissuetalk.tools.segment.request import SegmentArguments
from tissuetalk.tools.segment.segment import segment
from tissuetalk.tools.session import Session
from tissuetalk.tools.train.pfps import (
    LITTLE,
    TASKS,
    PfpsRecipe,
    allowed_tasks,
    patches_of,
    question_of,
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
    cv2.imwrite(str(tmp_path / "kidney.png"), drawn_patch(9, "tuft", 64).image)
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


def test_a_share_of_the_places_is_boxes_around_the_same_objects() -> None:
    recipe = PfpsRecipe(name="name", size="little", drawn_patches=8, box_share=0.5)
    patches, random = patches_of(recipe, "train"), np.random.default_rng(0)
    some = [training_question(recipe, patches, random) for _ in range(80)]
    placed = [each for each in some if each.task in (6, 7, 8, 9)]
    boxed = [each for each in placed if each.point_xy is None]
    assert all((each.point_xy is None) == (each.box_xyxy is not None) for each in placed)
    assert 0.25 < len(boxed) / len(placed) < 0.75
    assert not any(each.box_xyxy for each in some if each.task not in (6, 7, 8, 9))
    for each in boxed:
        if each.task in (6, 7):
            rows, columns = np.nonzero(each.truth)
            assert each.box_xyxy == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_shipped_recipes_can_be_read() -> None:
    shipped = sorted(
        (Path(str(files("tissuetalk.models"))) / "segmentation" / "pfps" / "recipes").glob("*.yaml")
    )
    assert shipped
    for path in shipped:
        assert PfpsRecipe.read(path).size in ("small", "little")


def test_a_small_network_learns_units_and_the_unit_at_a_point_by_heart() -> None:
    """Three of the nine tasks on two patches; ``recipes/overfit.yaml`` is all of them on eight, and takes long."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_pfps(PfpsSizes(LITTLE, "two-set"))
    model.image_encoder.requires_grad_(True)
    optimiser, asked = optimiser_of(model), list[KidneyQuestion]()
    for number, unit in enumerate(("pt", "tuft")):
        for task in (1, 3, 7):
            question = question_of(drawn_patch(number, unit, 64), task, np.random.default_rng(number), "")
            assert question is not None
            asked.append(question)
    reached = [0.0]
    for step in range(160):
        loss = loss_of(model, [asked[(step + more) % 6] for more in range(3)])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 20 == 19:
            reached = [dice(answer(model, each), each.truth) for each in asked]
            if min(reached) > 0.9:
                break
    assert min(reached) > 0.9


def test_an_overfit_run_is_scored_on_what_it_learned() -> None:
    recipe = PfpsRecipe(name="name", size="little", drawn_patches=4, overfit=True)
    learned, scored = (patches_of(recipe, split)[0].read().image for split in ("train", "test"))
    assert np.array_equal(learned, scored)
    apart = patches_of(recipe.model_copy(update={"overfit": False}), "test")[0].read().image
    assert not np.array_equal(learned, apart)
