"""The smoke recipe proves the whole path: read, crop, train, be killed, go on, save, load."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tissuetalk.models.datasets.example import UNKNOWN, Example, Labelled
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.segmentation.pathsegmentor.mini import (
    MiniConfig,
    MiniPathSegmentor,
    load_mini,
    save_mini,
)
from tissuetalk.models.training.mini import objective
from tissuetalk.models.training.recipes import MiniRecipe
from tissuetalk.models.training.sampler import Sampler
from tissuetalk.tools.train.recipes import run_recipe

RECIPES = Path(__file__).parent.parent / "models" / "recipes"
TINY = MiniConfig((8, 8, 16, 16, 16), (0, 0, 1, 0, 0), (8, 8, 8, 8, 8), hidden=16, queries=4)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    assert MiniRecipe.read(path).steps > 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lerning_rate": 1}, "unknown key lerning_rate"),
        ({"mix": {"glas/gland": 1}}, "not data set/target"),
        ({"name": None}, "lacks"),
    ],
)
def test_wrong_recipes_are_refused_with_the_key(tmp_path: Path, change: dict[str, object], told: str) -> None:
    values = yaml.safe_load((RECIPES / "smoke.yaml").read_text()) | change
    values = {key: value for key, value in values.items() if value is not None}
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InvalidArgumentError, match=told):
        MiniRecipe.read(path)
    with pytest.raises(InvalidArgumentError, match="no recipe"):
        MiniRecipe.read(tmp_path / "none.yaml")


def _recipe(**changes: object) -> MiniRecipe:
    values: dict[str, object] = {
        "name": "t",
        "data_root": Path(),
        "mix": {"tnbc-nuclei/nuclei": 1.0},
        "batch": 3,
        "crop_px": 64,
    }
    return MiniRecipe.model_validate(values | changes)


def _sampler(recipe: MiniRecipe, *examples: Example) -> Sampler:
    rng = np.random.default_rng(0)
    bank = {level: rng.normal(size=(4, 384)).astype(np.float32) for level in ("low", "medium", "high")}
    return Sampler(examples, recipe, {"nuclei": bank, "glomerulus": bank})


def _example(label_code: int) -> Example:
    image = np.random.default_rng(1).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    label = np.full((100, 100), label_code, np.uint8)
    return Example(
        "tnbc-nuclei", "a", "g", False, image, 0.25, True, {"nuclei": Labelled(label)}, ("glomerulus",)
    )


def test_a_step_is_the_same_batch_whenever_it_is_drawn() -> None:
    sampler = _sampler(_recipe(), _example(255))
    first, again, other = sampler.batch(5), sampler.batch(5), sampler.batch(6)
    assert torch.equal(first.tiles, again.tiles)
    assert torch.equal(first.text, again.text)
    assert not torch.equal(first.tiles, other.tiles)


def test_unknown_pixels_are_neither_background_nor_evidence_of_absence() -> None:
    batch = _sampler(_recipe(), _example(UNKNOWN)).batch(0)
    assert (batch.mask_known[:, :2] == 0).all()
    assert (batch.presence_known[:, :2] == 0).all()
    assert (batch.mask_known[:, 2] == 1).all()
    assert (batch.presence_known[:, 2] == 1).all()
    assert (batch.presence[:, 2] == 0).all()


def test_the_image_is_encoded_once_for_all_sentences_of_a_group() -> None:
    recipe = _recipe(group_size=3)
    model = MiniPathSegmentor(TINY)
    calls: list[int] = []
    model.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    loss, parts = objective(model, _sampler(recipe, _example(255)).batch(0), recipe)
    assert len(calls) == 1
    assert torch.isfinite(loss)
    assert parts["consistency"] > 0


def test_consistency_brings_two_synonyms_together() -> None:
    def difference(beta: float) -> float:
        torch.manual_seed(0)
        recipe = _recipe(consistency=beta, text_noise=0.0)
        sampler, model = _sampler(recipe, _example(255), _example(0)), MiniPathSegmentor(TINY)
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)
        for step in range(15):
            loss, _ = objective(model, sampler.batch(step), recipe)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        model.eval()
        batch = sampler.batch(99)
        with torch.inference_mode():
            mask = model(batch.tiles, batch.text).mask
        return float((mask[:, 0] - mask[:, 1]).abs().mean())

    assert difference(5.0) < difference(0.0)


def test_a_killed_run_goes_on_and_ends_in_weights_that_load(tmp_path: Path) -> None:
    values = yaml.safe_load((RECIPES / "smoke.yaml").read_text())
    values |= {
        "data_root": str((RECIPES / values["data_root"]).resolve()),
        "checkpoint_seconds": 0,
        "steps": 100_000,
        "crop_px": 64,
    }
    values |= {"threads": 1}
    path, out = tmp_path / "smoke.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(values))
    code = "import sys; from pathlib import Path; from tissuetalk.tools.train.recipes import run_recipe; run_recipe(Path(sys.argv[1]), Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", code, str(path), str(out)], stdout=subprocess.DEVNULL)
    while not (out / "log.csv").is_file() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = torch.load(out / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < reached < 100_000
    steps = 20 * (reached // 20 + 2)  # the log has every 20th
    path.write_text(yaml.safe_dump(values | {"steps": steps}))
    weights = run_recipe(path, out)
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == steps
    with (out / "log.csv").open() as lines:
        assert [int(row["step"]) for row in csv.DictReader(lines)] == list(range(20, steps + 1, 20))
    assert (out / "curves.png").stat().st_size > 0
    assert load_mini(weights).config.queries == 4


def test_a_run_from_other_weights_keeps_steps_and_a_share_of_its_start(tmp_path: Path) -> None:
    """All that mini2.yaml asks for, at tiny size, and once again from its checkpoint."""
    values = yaml.safe_load((RECIPES / "smoke.yaml").read_text())
    values["data_root"] = str((RECIPES / values["data_root"]).resolve())
    values |= {"crop_px": 64, "threads": 1, "batch": 3, "group_size": 2, "image_batches": 2, "sentences": 4}
    start = MiniPathSegmentor(
        MiniConfig(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.pop("model").items()})
    )
    save_mini(start, tmp_path / "start.safetensors")
    values |= {
        "start_from": "start.safetensors",
        "start_share": 0.5,
        "steps": 4,
        "keep_every": 2,
        "schedule": "constant",
        "stain_spread": 0.5,
        "unlabelled": ["dsb2018-histology/**/*.png"],
        "artefacts": 0.5,
        "style_mixing": 1.0,
        "norm_momentum": 0.03,
        "wide_scales": {"nuclei": [0.25, 0.8]},
        "aimed": {"gland": 1.0},
        "leave_out": ["camelyon-node-tumour"],
    }
    path, out = tmp_path / "other.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(values))
    written = run_recipe(path, out)
    assert (out / "step2.safetensors").is_file()
    kept, last, first = (
        load_mini(file).state_dict()
        for file in (written, out / "step4.safetensors", tmp_path / "start.safetensors")
    )
    name = "prompt_head.first.weight"
    assert not torch.equal(last[name], first[name])
    assert torch.allclose(kept[name], (last[name] + first[name]) / 2, atol=2e-4)
    values["steps"] = 5
    path.write_text(yaml.safe_dump(values))
    run_recipe(path, out)
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 5


@pytest.mark.parametrize(
    ("change", "trained"),
    [
        ({}, [True, False]),
        ({"full_data": True}, [True, True]),
        ({"leave_out": ("tnbc-nuclei",)}, [False, False]),
        ({"leave_out": ("tnbc-nuclei:g",)}, [False, False]),
        ({"take_back": ("tnbc-nuclei:h",)}, [True, True]),
        ({"leave_out": ("tnbc-nuclei:g",), "take_back": ("tnbc-nuclei:h",)}, [False, True]),
    ],
)
def test_cases_are_left_out_and_taken_back(change: dict[str, object], trained: list[bool]) -> None:
    here = _example(255)
    there = replace(here, group="h", held_out=True)
    assert [_recipe(**change).trains_on(each) for each in (here, there)] == trained


def test_hidden_nuclei_are_no_nuclei_in_what_is_asked() -> None:
    """A pen's line or dirt over a nucleus: the answer has a hole there, so fewer pixels than without artefacts."""
    plain, dirty = (
        _sampler(_recipe(batch=24, artefacts=share), _example(255)).batch(0).mask[:, 0].mean()
        for share in (0.0, 1.0)
    )
    assert plain == 1
    assert dirty < 1
