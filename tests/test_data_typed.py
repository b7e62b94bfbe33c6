"""Sets that tell kinds of nuclei and tissues apart, on small drawn folders in the form of the real ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tissuetalk.models.datasets.example import BACKGROUND, FOREGROUND, UNKNOWN, Example
from tissuetalk.models.datasets.sources import load
from tissuetalk.models.datasets.spread import StainSpread, artefacts, flakes, fold, pen, stain_place
from tissuetalk.models.datasets.tissues import boxed_tumour
from tissuetalk.models.datasets.typed import figure_mask

HEADER = "file,mask,mask_kind,mask_class,group,organ,mpp_um,note\n"
PINK, PURPLE, DARK = (220, 170, 200), (150, 110, 170), (50, 25, 70)


def crop(rng: np.random.Generator, side: int = 128, figure: bool = True) -> np.ndarray:
    """Pale nuclei, and a dark plate in the middle."""
    image = np.full((side, side, 3), PINK, np.uint8)
    for x, y in ((22, 24), (100, 30), (30, 104), (104, 98)):
        cv2.circle(image, (x, y), 10, PURPLE, -1)
    if figure:
        cv2.ellipse(image, (side // 2, side // 2), (13, 6), 20, 0, 360, DARK, -1)
    return np.asarray(np.clip(image + rng.normal(0, 4, image.shape), 0, 255), np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases of MIDOG, and one field of NuCLS."""
    root, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    midog, nucls = root / "midog-mitosis", root / "nucls-typed"
    for folder in (midog, nucls):
        (folder / "images").mkdir(parents=True)
    rows, boxes = [HEADER], ["file,type,subtype,x_center,y_center,width,height,source_id\n"]
    for case in range(5):
        for number in range(12):
            name = f"images/{case}_{number}.png"
            cv2.imwrite(str(midog / name), crop(rng)[..., ::-1])
            rows.append(f"{name},,boxes,see boxes.csv,{case},breast,0.24,\n")
            boxes.append(f"{name},mitosis,typical,64.0,64.0,50,50,1\n")
    (midog / "manifest.csv").write_text("".join(rows))
    (midog / "boxes.csv").write_text("".join(boxes))
    cv2.imwrite(str(nucls / "images" / "a.png"), crop(rng, figure=False)[..., ::-1])
    numbers = np.zeros((128, 128), np.uint16)
    for number, at in enumerate(((22, 24), (100, 30), (30, 104)), 1):
        cv2.circle(numbers, at, 10, number, -1)
    cv2.imwrite(str(nucls / "a_mask.png"), numbers)
    (nucls / "manifest.csv").write_text(HEADER + "images/a.png,a_mask.png,instance,nucleus,1,breast,0.25,\n")
    (nucls / "types.csv").write_text(
        "file,label,type\nimages/a.png,1,sTIL\nimages/a.png,2,tumour\nimages/a.png,3,unknown\n"
    )
    (nucls / "points.csv").write_text(
        "file,x_center,y_center\nimages/a.png,104.0,98.0\nimages/a.png,22.0,24.0\n"
    )
    return root


def test_a_figure_is_the_dark_body_at_its_point() -> None:
    image = crop(np.random.default_rng(1))
    drawn = np.zeros(image.shape[:2], np.uint8)
    cv2.ellipse(drawn, (64, 64), (13, 6), 20, 0, 360, (1,), -1)
    found = figure_mask(image, 66, 62)
    assert (found & (drawn > 0)).sum() / (found | (drawn > 0)).sum() > 0.7
    # Nothing stands out beside the figure: a disc is better than no label.
    assert 250 < figure_mask(np.full_like(image, 200), 64, 64).sum() < 400


def test_mosaics_of_figures_have_most_windows_without_one_and_keep_cases_apart(root: Path) -> None:
    examples = load(root, "midog-mitosis")
    assert {example.group for example in examples if example.held_out}.isdisjoint(
        example.group for example in examples if not example.held_out
    )
    assert {example.held_out for example in examples} == {True, False}
    windows, dark_outside = [], []
    for example in examples:
        labelled = example.targets["mitosis"]
        assert labelled.distance is not None
        assert (labelled.distance[labelled.label != FOREGROUND] == 0).all()
        there = labelled.label == FOREGROUND
        windows += [there[y : y + 104, x : x + 104].any() for y in (0, 104, 208) for x in (0, 104, 208)]
        clear = cv2.dilate((labelled.label != BACKGROUND).astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
        dark_outside.append((example.image[clear].mean(1) < 90).mean())
    assert 0.15 < np.mean(windows) < 0.5
    # No figure that was taken out is left standing as background.
    assert max(dark_outside) < 1e-3


def test_types_say_what_was_looked_for_and_nothing_else(root: Path) -> None:
    (example,) = load(root, "nucls-typed")
    nuclei, lymphocytes, mitosis = (
        example.targets[name].label for name in ("nuclei", "lymphocytes", "mitosis")
    )
    assert nuclei[24, 22] == nuclei[30, 100] == FOREGROUND
    assert nuclei[98, 104] == UNKNOWN  # a centre that nobody outlined
    assert nuclei[64, 64] == BACKGROUND
    assert (lymphocytes[24, 22], lymphocytes[30, 100], lymphocytes[104, 30]) == (
        FOREGROUND,
        BACKGROUND,
        UNKNOWN,
    )
    assert (mitosis[24, 22], mitosis[30, 100]) == (BACKGROUND, UNKNOWN)


def test_tumour_around_boxes_is_sure_only_near_them() -> None:
    image = np.full((400, 400, 3), PINK, np.uint8)
    boxes = [("tumor_nuclei", 100.0 + 12 * k, 100.0 + 9 * k) for k in range(6)]
    boxes += [("non_tumor_nuclei", 350.0, 350.0)]
    label = boxed_tumour(Example("d", "n", "g", False, image, 0.25), [*boxes, *boxes]).targets["tumour"].label
    at = 0.25 / 0.8
    assert label[round(120 * at), round(130 * at)] == FOREGROUND
    assert label[round(350 * at), round(350 * at)] == BACKGROUND
    assert label[round(60 * at), round(300 * at)] == UNKNOWN


def test_a_crop_takes_on_the_staining_of_another_source_and_glass_stays_glass() -> None:
    rng = np.random.default_rng(2)

    def tissue(colour: tuple[int, int, int]) -> np.ndarray:
        noise = rng.normal(0, 18, (80, 80, 1))
        return np.asarray(np.clip(np.array(colour) + noise, 0, 255), np.uint8)

    pink, blue = tissue((215, 120, 170)), tissue((110, 90, 190))
    pink[:20] = 245
    examples = [Example("pink", "a", "g", False, pink, 0.25), Example("blue", "b", "h", False, blue, 0.25)]
    spread = StainSpread(examples)
    assert spread.sources == ["blue", "pink"]
    moved = [spread.move(pink, examples[0], np.random.default_rng(seed)) for seed in range(24)]
    reds = [float(image[20:, :, 0].mean()) for image in moved]
    assert min(reds) < pink[20:, :, 0].mean() - 30  # towards blue
    assert max(reds) > pink[20:, :, 0].mean() - 10  # or to its own source's place
    assert all(abs(float(image[:20].mean()) - 245) < 6 for image in moved)
    assert stain_place(np.full((50, 50, 3), 240, np.uint8)) is None


@pytest.mark.parametrize("draw", [pen, fold, flakes])
def test_artefacts_change_the_picture_and_say_what_they_hide(draw: object) -> None:
    image = crop(np.random.default_rng(3))
    changed = [draw(image, np.random.default_rng(seed)) for seed in range(12)]  # type: ignore[operator]
    assert any((shown != image).any() for shown, _ in changed)
    hidden = [where for _, where in changed if where is not None]
    assert bool(hidden) == (draw is not fold)
    assert all(where.shape == image.shape[:2] for where in hidden)


def test_no_artefacts_without_a_share_and_one_in_every_crop_with_all() -> None:
    image = crop(np.random.default_rng(4))
    assert artefacts(image, np.random.default_rng(0), 0.0)[0] is image
    assert all((artefacts(image, np.random.default_rng(k), 1.0)[0] != image).any() for k in (1, 2, 3, 5))
