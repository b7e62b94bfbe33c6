"""A larger network is trained, teaches the small one, and leaves; broken off anywhere it ends in the same weights."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tissuetalk.models.control import Control
from tissuetalk.models.datasets.example import UNKNOWN, Example, Labelled
from tissuetalk.models.errors import CancelledError, InvalidArgumentError
from tissuetalk.models.segmentation.pathsegmentor.mini import (
    MiniConfig,
    MiniPathSegmentor,
    load_mini,
    save_mini,
)
from tissuetalk.models.training.distil import soft_answers
from tissuetalk.models.training.loop import CHECKPOINT
from tissuetalk.models.training.mini import objective, train_mini
from tissuetalk.models.training.recipes import DistilRecipe, MiniRecipe
from tissuetalk.models.training.sampler import Batch, Sampler

RECIPES = Path(__file__).parent.parent / "models" / "recipes"
TINY: dict[str, Any] = {
    "encoder_widths": [8, 8, 16, 16, 16],
    "encoder_depths": [0, 0, 0, 0, 0],
    "decoder_widths": [8, 8, 8, 8, 8],
    "hidden": 16,
    "queries": 2,
}
LARGER = TINY | {"encoder_depths": [0, 1, 1, 1, 1], "decoder_widths": [16, 16, 16, 16, 16]}


def _values(**changes: Any) -> dict[str, Any]:
    values = yaml.safe_load((RECIPES / "smoke.yaml").read_text())
    values |= {"data_root": str((RECIPES / values["data_root"]).resolve()), "model": TINY, "threads": 1}
    values |= {"crop_px": 64, "batch": 2, "group_size": 2, "image_batches": 1, "sentences": 4, "steps": 4}
    values |= {"teacher": {"model": LARGER, "steps": 3}, "distil": {"unlabelled_share": 0.3}}
    values |= {"unlabelled": ["dsb2018-histology/**/*.png"], "unlabelled_mpp": {"dsb2018-histology": 0.3}}
    return values | changes


def _recipe(folder: Path, **changes: Any) -> MiniRecipe:
    path = folder / "pair.yaml"
    path.write_text(json.dumps(_values(**changes)))
    return MiniRecipe.read(path)


def _stops_at(*reports: int) -> Control:
    """Asked to stop once the loop has told of so many steps, of teacher and student together."""
    told = list[float]()
    return Control(lambda done, what: told.append(done), lambda: len(told) in reports)


def test_a_pair_broken_off_in_either_phase_ends_as_one_that_was_not(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, style_mixing=0.5, norm_momentum=0.03)
    whole = load_mini(train_mini(recipe, tmp_path / "whole")).state_dict()
    broken = tmp_path / "broken"
    teacher = broken / "teacher"
    with pytest.raises(CancelledError):
        train_mini(recipe, broken, _stops_at(2))
    assert (teacher / CHECKPOINT).is_file()
    assert torch.load(broken / CHECKPOINT, weights_only=True)["step"] == 0
    with pytest.raises(CancelledError):
        train_mini(recipe, broken, _stops_at(3))  # one step of the teacher is left, then two of the student
    assert {path.name for path in teacher.iterdir()} == {"teacher.safetensors"}
    assert torch.load(broken / CHECKPOINT, weights_only=True)["step"] == 2
    again = load_mini(train_mini(recipe, broken)).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    assert not (teacher / "teacher.safetensors").exists()
    assert {path.suffix for path in broken.iterdir() if path.is_file()} >= {".pt", ".safetensors"}
    # a finished run says so again, without a teacher
    train_mini(recipe, broken)
    assert not (teacher / CHECKPOINT).exists()


def test_another_teacher_is_another_run(tmp_path: Path) -> None:
    with pytest.raises(CancelledError):
        train_mini(_recipe(tmp_path), tmp_path / "run", _stops_at(1))
    with pytest.raises(InvalidArgumentError, match="teacher differs"):
        train_mini(_recipe(tmp_path, teacher={"model": TINY, "steps": 3}), tmp_path / "run")


def test_several_loaders_draw_the_same_batches(tmp_path: Path) -> None:
    one, three = (
        load_mini(train_mini(_recipe(tmp_path, loaders=count, steps=3), tmp_path / str(count))).state_dict()
        for count in (1, 3)
    )
    assert all(torch.equal(value, three[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"teacher": {"model": {"encoder_widths": [64, 128, 512, 1024, 1024]}}}, "million weights, more than 60"),
        ({"teacher": {"model": {"encoder": "lite9"}}}, "no network can be built"),
        ({"teacher": {"model": {"text_width": 512}}}, "a teacher's sizes are"),
        ({"distil": None}, "only with distil"),
        ({"teacher": None}, "somebody who teaches"),
        ({"minutes": 10}, "minutes of the whole run and of the teacher"),
        ({"minutes": 5, "teacher": {"model": TINY, "minutes": 6}}, "leave the student some"),
    ],
)  # fmt: skip
def test_a_pair_that_cannot_work_is_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        _recipe(tmp_path, **change)


def test_the_student_has_the_minutes_that_the_teacher_leaves(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, minutes=10, teacher={"model": LARGER, "minutes": 6})
    assert recipe.teacher is not None
    assert (recipe.own_minutes, recipe.for_teacher(recipe.teacher).own_minutes) == (4, 6)


def _unknown_batch(recipe: MiniRecipe) -> Batch:
    image = np.random.default_rng(1).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    nobody = Labelled(np.full((100, 100), UNKNOWN, np.uint8))
    example = Example("dsb2018-histology", "a", "g", False, image, 0.25, True, {"nuclei": nobody})
    rng = np.random.default_rng(0)
    bank = {level: rng.normal(size=(4, 384)).astype(np.float32) for level in ("low", "medium", "high")}
    told = recipe.model_copy(update={"mix": {"dsb2018-histology/nuclei": 1.0}, "counter_share": 0.0})
    return Sampler([example], told, {"nuclei": bank, "gland": bank}).batch(0)


def test_what_nobody_annotated_is_learned_from_the_teacher(tmp_path: Path) -> None:
    """Unknown ground teaches no mask by itself; with a teacher the student comes to paint as it does."""
    recipe = _recipe(tmp_path)
    batch = _unknown_batch(recipe)
    assert (batch.mask_known == 0).all()
    torch.manual_seed(0)
    teacher, student = (
        MiniPathSegmentor(MiniConfig(**{key: _tuple(value) for key, value in sizes.items()})).train(False)
        for sizes in (LARGER, TINY)
    )
    soft = soft_answers(teacher, batch, DistilRecipe(agreement=0.0, tolerance=1.0))
    assert (soft.mask_known == 1).all()

    def away() -> float:
        with torch.no_grad():
            return float(((student(batch.tiles, batch.text).mask / 2).sigmoid() - soft.mask).abs().mean())

    before = away()
    optimiser = torch.optim.Adam(student.parameters(), 1e-2)
    for _ in range(20):
        loss, parts = objective(student, batch, recipe, soft)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert away() < before / 2
    assert parts["agreed"] == 1


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def test_pixels_and_questions_on_which_the_teacher_contradicts_itself_are_not_taught(tmp_path: Path) -> None:
    batch = _unknown_batch(_recipe(tmp_path))
    assert batch.again is not None

    class LeftIsIt(MiniPathSegmentor):
        """Paints the left half of whatever it is shown, so that the mirrored look is another half; surely, or hardly so."""

        loud = 8.0

        def forward(self, tiles: torch.Tensor, text: torch.Tensor) -> Any:
            said = super().forward(tiles, text)
            mask = torch.full_like(said.mask, -self.loud)
            mask[..., : mask.shape[-1] // 2] = self.loud
            return replace(said, mask=mask)

    teacher = LeftIsIt(MiniConfig(**{key: _tuple(value) for key, value in TINY.items()})).eval()
    sure = soft_answers(teacher, batch, DistilRecipe(agreement=0.0, tolerance=0.25))
    assert (sure.mask_known == 0).all()
    teacher.loud = 0.1
    assert (soft_answers(teacher, batch, DistilRecipe(agreement=0.0)).mask_known == 1).all()
    apart = soft_answers(teacher, batch, DistilRecipe(agreement=0.5))
    assert (apart.mask_known == 0).all() and (apart.presence_known == 0).all()
    assert (apart.distance_known == 0).all()


def test_the_starting_weights_teach_where_no_teacher_is_named(tmp_path: Path) -> None:
    """Self-training: unlabelled crops are drawn, and what is learned on them is in the log."""
    start = MiniPathSegmentor(MiniConfig(**{key: _tuple(value) for key, value in TINY.items()}))
    save_mini(start, tmp_path / "start.safetensors")
    recipe = _recipe(
        tmp_path,
        teacher=None,
        model={},
        start_from="start.safetensors",
        distil={"unlabelled_share": 0.9, "agreement": 0.0, "tolerance": 1.0},
        steps=20,
    )
    train_mini(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "teacher").exists()
    with (tmp_path / "run" / "log.csv").open() as lines:
        (row,) = csv.DictReader(lines)
    assert float(row["agreed"]) == pytest.approx(1)
    assert float(row["taught"]) > 0
