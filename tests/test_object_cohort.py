"""Training an object-aware classifier on a table of labelled slides, segmented by a model."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from drawn_tissue import ColourEncoder
from PIL import Image

from tissuetalk.models.classifiers import cohort, cohort_training
from tissuetalk.models.classifiers.bags import ObjectMask
from tissuetalk.models.classifiers.classifier import bag_of, load_object_classifier, predict_objects
from tissuetalk.models.classifiers.cohort_training import train_cohort
from tissuetalk.models.classifiers.objects import data_objects
from tissuetalk.models.classifiers.recipe import CohortRecipe
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box, open_image
from tissuetalk.models.segmenter import RGB, Capability, Context, Decoded, Finished, ModelCard, Prompt
from tissuetalk.tools.train.recipes import TRAINERS, prompt_of_label, run_recipe

GLAND, TUMOUR = "colon-tissue-gland", "breast-tissue-tumor"


class ColourSegmenter:
    """Blue is gland, green is tumour. Counts the tiles it is shown."""

    card = ModelCard("colours", "", "MIT", True, ("gland", "tumour"), (1.0,), "fixed", "", {}, "")
    weights_sha256 = "1" * 64
    tile_px, margin_px = 64, 0

    def __init__(self) -> None:
        self.tiles = 0
        self.asked: set[str] = set()

    def capability(self, prompt: Prompt) -> Capability | None:
        channel = {GLAND: "gland", TUMOUR: "tumour"}.get(prompt.label or "")
        return None if channel is None else Capability(channel, 1.0, False)

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return []

    def sent(self, prompt: Prompt) -> str:
        return prompt.text

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        return 1.0

    def prepare(self, overview: RGB) -> Context:
        return Context({})

    def encode(self, tile: RGB, context: Context) -> RGB:
        self.tiles += 1
        return tile

    def decode(self, features: RGB, prompts: Sequence[Prompt]) -> list[Decoded]:
        pixels = features.astype(np.float32)
        self.asked |= {prompt.text for prompt in prompts}
        maps = {
            GLAND: pixels[..., 2] - pixels[..., 0] - 40,
            TUMOUR: pixels[..., 1] - pixels[..., 0] - 40,
        }
        return [Decoded(maps[prompt.label or ""]) for prompt in prompts]

    def finish(self, stitched: Decoded, prompt: Prompt, context: Context) -> Finished:
        mask = stitched.logits > 0
        return Finished(mask, None, float(mask.any()))


def slide(path: Path, random: np.random.Generator, malignant: bool) -> None:
    """128 x 128 px: four patches of pink, blue glands in all, green tumour only where malignant."""
    pixels = np.clip(random.normal((225, 170, 205), 6, (128, 128, 3)), 0, 255).astype(np.uint8)
    pixels[8:40, 70:110] = (80, 90, 200)
    if malignant:
        pixels[80:110, 10:50] = (80, 200, 90)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def recipe(tmp_path: Path) -> CohortRecipe:
    random = np.random.default_rng(0)
    images = tmp_path / "slides"
    images.mkdir()
    with (tmp_path / "labels.csv").open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["slide", "label", "patient"])
        for number in range(12):
            slide(images / f"s{number}.png", random, number % 2 == 1)
            writer.writerow([f"s{number}.png", ["benign", "malignant"][number % 2], f"p{number}"])
    return CohortRecipe(
        preset="diagnosis-objects",
        name="drawn",
        images=images,
        labels=tmp_path / "labels.csv",
        classes={"benign": ("benign",), "malignant": ("malignant",)},
        mpp=1.0,
        patch_um=64,
        patch_px=64,
        least_patches=2,
        epochs=20,
        folds=3,
        seeds=(0,),
        objects=(GLAND, TUMOUR, "breast-nuclei-plasma cells"),
    )


@pytest.fixture
def segmenter(monkeypatch: pytest.MonkeyPatch) -> ColourSegmenter:
    model = ColourSegmenter()
    monkeypatch.setattr(cohort_training.registry, "load", lambda name=None: model)
    monkeypatch.setattr(cohort, "load_encoder", lambda name=None: ColourEncoder())
    return model


def test_a_cohort_becomes_a_classifier_that_names_the_object_its_classes_differ_in(
    recipe: CohortRecipe, segmenter: ColourSegmenter, tmp_path: Path
) -> None:
    told: list[str] = []
    card = train_cohort(recipe, tmp_path / "out", prompt_of=prompt_of_label, report=told.append)
    assert card.objects == (GLAND, TUMOUR)
    assert any("plasma cells" in line for line in told)
    table = json.loads((tmp_path / "out" / "objects.json").read_text())
    assert table["not_looked_for"] == ["breast-nuclei-plasma cells"]
    malignant = [row["name"] for row in table["objects"] if row["class"] == "malignant"]
    assert malignant[0] == TUMOUR

    loaded = load_object_classifier(tmp_path / "out" / "drawn-objects.safetensors", ColourEncoder())
    whole = Box(0, 0, 128, 128)
    with open_image(recipe.images / "s1.png", name="s1.png") as source:
        pixels = source.read_region(whole, width=128, height=128).astype(int)
        masks = [
            ObjectMask(GLAND, pixels[..., 2] > pixels[..., 0] + 40, whole),
            ObjectMask(TUMOUR, pixels[..., 1] > pixels[..., 0] + 40, whole),
        ]
        evidence = predict_objects(loaded, bag_of(loaded.card, source, masks, mpp=1.0))
    assert evidence.classes[evidence.label] == "malignant"
    assert evidence.shares.ranking[0].name == TUMOUR


def test_objects_are_asked_for_in_the_sentence_models_were_trained_with(
    recipe: CohortRecipe, segmenter: ColourSegmenter, tmp_path: Path
) -> None:
    brief = recipe.model_copy(update={"epochs": 1, "folds": 0})
    train_cohort(brief, tmp_path / "out", prompt_of=prompt_of_label, report=lambda line: None)
    assert segmenter.asked == {
        "tissue-level gland in colon pathology",
        "tissue-level tumor in breast pathology",
    }


def test_a_second_run_segments_nothing_again(
    recipe: CohortRecipe, segmenter: ColourSegmenter, tmp_path: Path
) -> None:
    first = train_cohort(recipe, tmp_path / "out", prompt_of=prompt_of_label, report=lambda line: None)
    tiles = segmenter.tiles
    second = train_cohort(recipe, tmp_path / "out", prompt_of=prompt_of_label, report=lambda line: None)
    assert segmenter.tiles == tiles
    assert first.weights_sha256 == second.weights_sha256


def test_a_recipe_whose_objects_nobody_can_segment_is_refused(
    recipe: CohortRecipe, segmenter: ColourSegmenter, tmp_path: Path
) -> None:
    alien = recipe.model_copy(update={"objects": ("skin-nuclei-neoplastic",)})
    with pytest.raises(InvalidArgumentError, match=r"knows none .*neoplastic"):
        train_cohort(alien, tmp_path / "out", prompt_of=prompt_of_label)


def test_the_tcga_recipe_asks_for_the_21_objects_of_the_paper_and_runs_by_its_preset() -> None:
    path = Path(cohort.__file__).parent / "recipes" / "tcga_brca_objects.yaml"
    recipe = CohortRecipe.read(path)
    assert list(recipe.objects) == [row.label for row in data_objects("breast")]
    assert TRAINERS[recipe.preset].train == "tools.train.recipes:train_classifier"


def test_the_command_that_trains_takes_the_recipe(
    recipe: CohortRecipe, segmenter: ColourSegmenter, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "{preset: diagnosis-objects, name: drawn, images: slides, labels: labels.csv, mpp: 1.0, patch_um: 64, patch_px: 64,"
        " least_patches: 2, epochs: 1, seeds: [0], objects: [colon-tissue-gland],"
        " classes: {benign: [benign], malignant: [malignant]}}"
    )
    out = run_recipe(tmp_path / "recipe.yaml", tmp_path / "out")
    assert sorted(path.name for path in out.glob("*.*")) == [
        "drawn-objects.json",
        "drawn-objects.safetensors",
        "metrics.json",
        "objects.json",
        "split.json",
    ]
