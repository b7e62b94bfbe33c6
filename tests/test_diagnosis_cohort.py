"""Recipes for cohorts are checked as shipped, and the TCGA recipe runs on a tiny drawn cohort."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from drawn import save

from tissuetalk.models.classifiers.classifier import bag_of, load_classifier, predict_bag
from tissuetalk.models.classifiers.cohort_training import train_cohort
from tissuetalk.models.classifiers.objects import importance_objects
from tissuetalk.models.classifiers.recipe import CohortRecipe, read_slides
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import open_image
from tissuetalk.tools.train.recipes import prompt_of_label, run_recipe

RECIPES = Path(__file__).parents[1] / "models" / "classifiers" / "recipes"
DARK, PALE = (120, 60, 140), (230, 180, 210)


def drawn_cohort(folder: Path, slides_each: int = 1) -> Path:
    """So many slides of each of six patients, 128 x 128 px: dark stripes for IDC, pale ones for ILC. Returns the folder."""
    rows = ["slide,label,patient"]
    for number in range(6 * slides_each):
        kind = "IDC" if number // slides_each % 2 else "ILC"
        picture = np.random.default_rng(number).integers(-8, 9, (128, 128, 3)) + np.array(PALE)
        picture[:, :: 4 if kind == "IDC" else 32] = DARK
        save(
            folder / "tcga-brca" / "slides" / f"TCGA-{number:02d}.png", picture.clip(0, 255).astype(np.uint8)
        )
        rows.append(f"TCGA-{number:02d},{kind},P{number // slides_each}")
    (folder / "tcga-brca" / "labels.csv").write_text("\n".join(rows) + "\nTCGA-99,other,P99\n", "utf-8")
    return folder


def tcga_recipe(folder: Path, **changes: object) -> Path:
    """The shipped recipe, copied beside a cohort, with patches that fit tiny slides."""
    text = (RECIPES / "tcga_brca.yaml").read_text("utf-8")
    for key, value in {
        "patch_px": 64,
        "least_patches": 2,
        "suffixes": "[.png]",
        "seeds": "[0]",
        **changes,
    }.items():
        kept = [line for line in text.splitlines() if not line.startswith(f"{key}:")]
        text = "\n".join([*kept, f"{key}: {value}"])
    path = folder / "recipe.yaml"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    recipe = CohortRecipe.read(path)
    assert len(recipe.classes) >= 2 and recipe.limits and recipe.summary


def test_the_tcga_recipe_asks_for_the_twelve_objects_of_the_paper() -> None:
    recipe = CohortRecipe.read(RECIPES / "tcga_brca.yaml")
    assert set(recipe.objects) == {row.label for row in importance_objects()} and len(recipe.objects) == 12
    assert (recipe.patch_px, recipe.patch_um, recipe.least_patches, recipe.tissue) == (1024, 256, 10, "tcga")


def test_the_tcga_recipe_runs_on_a_drawn_cohort_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    recipe = tcga_recipe(drawn_cohort(tmp_path), epochs=2, occlusions="[grey squares]", occlusion_patches=1)
    out = tmp_path / "out"
    run_recipe(recipe, out)
    maps = json.loads((out / "occlusion.json").read_text("utf-8"))
    assert "breast-tissue-dcis" in maps["not_looked_for"]
    assert all(0 <= row["found"] <= 1 and row["class"] in ("IDC", "ILC") for row in maps["objects"])
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    split = json.loads((out / "split.json").read_text("utf-8"))
    assert metrics["slides"] == 6 and metrics["left_out"] == []
    assert sorted(name for side in split.values() for name in side) == [f"TCGA-{i:02d}" for i in range(6)]
    importance = json.loads((out / "importance.json").read_text("utf-8"))
    assert importance["sigma_px_of_0.25_um"] == 20 and "breast-tissue-dcis" in importance["not_looked_for"]
    assert len((out / "predictions.csv").read_text("utf-8").splitlines()) == 1 + len(split["test"])
    stored = {path.name: path.stat().st_mtime_ns for path in (out / "features").iterdir()}
    assert len(stored) == 6
    train_cohort(CohortRecipe.read(recipe).model_copy(update={"objects": ()}), out, prompt_of=prompt_of_label)
    assert {path.name: path.stat().st_mtime_ns for path in (out / "features").iterdir()} == stored
    classifier = load_classifier(out / "tcga-brca-idc-ilc.safetensors")
    assert classifier.card.classes == ("IDC", "ILC") and "macro AUC" in classifier.card.metrics
    with open_image(tmp_path / "tcga-brca" / "slides" / "TCGA-00.png", name="slide") as source:
        assert sum(predict_bag(classifier, bag_of(classifier.card, source)).probabilities) == pytest.approx(1)


def test_labels_that_are_in_no_class_are_left_out_and_patients_can_be_thinned(tmp_path: Path) -> None:
    recipe = CohortRecipe.read(tcga_recipe(drawn_cohort(tmp_path, slides_each=2)))
    assert len(read_slides(recipe)) == 12
    assert len(read_slides(recipe.model_copy(update={"per_group": 1}))) == 6


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"colour": "red"}, "unknown key colour; known: .*tissue"),
        ({"tissue": "any"}, "tissue: .*clam.*tcga"),
        ({"feature": "all"}, "feature: .*tokens.*pooled"),
        ({"label_column": "diagnosis"}, "no column diagnosis"),
        ({"labels": "nowhere.csv"}, "no table of labels"),
        ({"suffixes": "[.svs]"}, "is not in"),
    ],
)
def test_a_recipe_that_is_wrong_says_where(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    path = tcga_recipe(drawn_cohort(tmp_path), **changes)
    with pytest.raises(InvalidArgumentError, match=says):
        read_slides(CohortRecipe.read(path))


def test_a_class_without_slides_is_refused(tmp_path: Path) -> None:
    recipe = CohortRecipe.read(tcga_recipe(drawn_cohort(tmp_path)))
    with pytest.raises(InvalidArgumentError, match=r"no row of labels\.csv has the class 'mucinous'"):
        read_slides(recipe.model_copy(update={"classes": {**recipe.classes, "mucinous": ("MUC",)}}))
