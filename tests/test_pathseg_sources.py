"""The 17 PathSeg sources from files in their own layouts, and the rules that bring them to one size."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from pathseg_files import MAKERS, image, mask, two
from typer.testing import CliRunner

from tissuetalk.models.datasets.manifest import draw_subset, read_manifest, read_mask
from tissuetalk.models.datasets.pathseg.prepare import (
    patches,
    prepare,
    random_split,
    read_source,
    windows,
)
from tissuetalk.models.datasets.pathseg.source import source_named, sources
from tissuetalk.models.errors import BadRequestError, InvalidArgumentError, UnreadableImageError
from tissuetalk.models.metrics.annotations import read_annotations
from tissuetalk.prompts.taxonomy import is_label
from tissuetalk.server.commands.command_line import app

EXPECTED = {
    "BCSS": {"breast-tissue-tumor": 1},
    "CoCaHis": {"liver-tissue-metastatic colon cancer in a liver": 2},
    "CoNIC2022": {"colon-nuclei-epithelial": 2, "colon-nuclei-lymphocyte": 2},
    "CRAG": {"colon-tissue-gland": 2},
    "DigestPath2019": {"colon-tissue-malignant lesion": 1},
    "GlaS": {"colon-tissue-gland": 3},
    "Janowczyk": {"breast-nuclei-nuclei": 1},
    "MIDOG": {
        "unspecified-nuclei-neuroendocrine tumor mitotic figure": 1,
        "unspecified-nuclei-neuroendocrine tumor non mitotic figure": 1,
    },
    "MoNuSAC": {"unspecified-cell-epithelial": 1, "unspecified-cell-macrophage": 1},
    "NuCLS": {"breast-nuclei-tumor": 1, "breast-nuclei-plasma cells": 1},
    "PanNuke": {
        "bile duct-nuclei-neoplastic": 1,
        "bile duct-nuclei-epithelial": 1,
        "adrenal-nuclei-neoplastic": 1,
        "adrenal-nuclei-epithelial": 1,
    },
    "RINGS": {"prostate-tissue-prostate healthy glands": 2, "prostate-tissue-prostate tumor": 1},
    "SegPath": {"unspecified-tissue-epithelial": 2, "unspecified-cell-red blood cells": 2},
    "SICAPv2": {"prostate-tissue-prostate cancer": 1},
    "TNBC": {"breast-cell-adipocyte": 1, "breast-cell-cancerous": 1},
    "WSSS4LUAD": {"lung-tissue-tumor epithelial tissue": 1, "lung-tissue-tumor associated stroma tissue": 1},
    "CoNSeP": {"colon-cell-healthy epithelial": 2, "colon-cell-malignant epithelial": 2},
}
TEST_IMAGES = {"CoCaHis": 1, "CRAG": 1, "GlaS": 2, "MoNuSAC": 1, "RINGS": 1, "SegPath": 2, "CoNSeP": 2}
"""Images of the published test splits in the drawn files."""


@pytest.mark.parametrize(
    ("length", "starts", "shared"),
    [
        (1500, [0], 0),
        (1501, [0, 477], 547),
        (1600, [0, 576], 448),
        (2048, [0, 1024], 0),
        (5412, [0, 878, 1755, 2633, 3510, 4388], 146.4),
    ],
)
def test_windows_overlap_evenly_and_end_at_the_border(length: int, starts: list[int], shared: float) -> None:
    found = windows(length)
    assert [start for start, _ in found] == starts
    assert found[-1][0] + found[-1][1] == length
    ends = [start + side for start, side in found[:-1]]
    overlaps = [end - start for end, (start, _) in zip(ends, found[1:], strict=True)]
    assert overlaps == pytest.approx([shared] * len(overlaps), abs=1)


def test_patches_are_1024_px_and_know_their_scale() -> None:
    pixels, labels = np.full((100, 800, 3), 200, np.uint8), np.zeros((100, 800), np.int32)
    labels[:, :10] = 7
    first, second = patches(pixels, {"a-b-c": labels}, 20)
    assert first.image.shape == second.image.shape == (1024, 1024, 3)
    assert first.labels["a-b-c"].shape == (1024, 1024)
    assert set(np.unique(first.labels["a-b-c"])) == {0, 7}
    assert second.labels == {}
    assert (second.x, second.width, second.height) == (576, 1024, 200)
    assert second.mpp_xy == pytest.approx((0.25, 0.25 * 200 / 1024))


def test_a_random_split_is_a_fifth_and_the_same_in_any_order() -> None:
    names = [f"image{number}" for number in range(50)]
    split = random_split(names)
    assert Counter(split.values()) == {"train": 40, "test": 10}
    assert random_split(names[::-1]) == split


def test_every_label_of_the_table_is_one_of_the_160() -> None:
    assert len(sources()) == 17
    for source in sources().values():
        classes = {**source.classes, **{k: v for files in source.images for k, v in files.classes.items()}}
        for label in classes.values():
            assert is_label(label if source.name != "PanNuke" else f"breast-nuclei-{label}"), (
                source.name,
                label,
            )


@pytest.mark.parametrize("name", MAKERS)
def test_a_source_in_its_own_layout_becomes_patches_with_labels(name: str, tmp_path: Path) -> None:
    files, out = tmp_path / "files", tmp_path / "out"
    files.mkdir()
    MAKERS[name](files)
    done = prepare(name, files, out)
    records = read_manifest(out)
    assert Counter(record.mask_class for record in records) == EXPECTED[name]
    assert {record.source for record in records} == {name}
    assert done.masks == len(records)
    with (out / "manifest.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len({row["file"] for row in rows if row["split"] == "test"}) == TEST_IMAGES.get(name, 0)
    for record, row in zip(records, rows, strict=True):
        (annotation,) = read_annotations(record)
        assert annotation.mask.shape == (1024, 1024)
        assert annotation.mask.any()
        assert (annotation.instances is None) == (row["n_instances"] == "")
        side = 100 if name == "RINGS" else 64
        at_40x = side * 40 / sources()[name].magnification
        assert record.mpp == pytest.approx(0.25 * at_40x / 1024, rel=1e-3)


@pytest.mark.parametrize("name", MAKERS)
def test_a_wrong_folder_is_refused_with_what_was_expected(name: str, tmp_path: Path) -> None:
    source = source_named(name.lower())
    with pytest.raises(InvalidArgumentError, match="expected"):
        read_source(source, tmp_path)
    with pytest.raises(InvalidArgumentError, match="no folder"):
        read_source(source, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "gone", "told"),
    [
        ("BCSS", "masks", "has no annotation at"),
        ("CoNSeP", "Test/Labels", "has no annotation at"),
        ("CoNIC2022", "labels.npy", "belong together"),
        ("PanNuke", "Fold 1/masks", "belong together"),
        ("MIDOG", "images", "none of the 2 images"),
        ("TNBC", "classes.csv", "number,label"),
        ("NuCLS", "csv", "has no annotation at"),
    ],
)
def test_a_missing_part_is_named(name: str, gone: str, told: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    part = tmp_path / gone
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    with pytest.raises(BadRequestError, match=told):
        read_source(source_named(name), tmp_path)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("MIDOG", "MIDOG.json"),
        ("MoNuSAC", "train/TCGA-5P-A9K0-01Z/TCGA-5P-A9K0-01Z_1.xml"),
        ("CoNSeP", "Train/Labels/image_1.mat"),
        ("CoNIC2022", "images.npy"),
        ("CoCaHis", "CoCaHis.hdf5"),
        ("NuCLS", "csv/TCGA-A1-A0SK-DX1_id-1_left-2.csv"),
        ("BCSS", "masks/TCGA-A1-A0SK-DX1_xmin1_ymin2_MPP-0.2500.png"),
    ],
)
def test_a_damaged_file_is_named(name: str, file: str, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    MAKERS[name](files)
    (files / file).write_bytes(b"xmin\nnot what it was\n")
    with pytest.raises(UnreadableImageError, match=Path(file).name):
        prepare(name, files, tmp_path / "out")


def test_an_unknown_source_names_all_of_them() -> None:
    with pytest.raises(InvalidArgumentError, match="PanNuke"):
        source_named("imagenet")


def test_objects_of_a_type_stay_apart(tmp_path: Path) -> None:
    image(tmp_path / "8863_500_f00003_original.tif")
    mask(tmp_path / "8863_500_f00003_mask.png", two(255, 255))
    prepare("Janowczyk", tmp_path, tmp_path / "out")
    (record,) = read_manifest(tmp_path / "out")
    assert record.kind == "instance"
    assert record.group == "8863_500"
    assert cv2.imread(str(record.mask), cv2.IMREAD_UNCHANGED).max() == 2


def test_prepared_patches_know_their_split_and_what_is_absent(tmp_path: Path) -> None:
    MAKERS["CoNSeP"](tmp_path)
    prepare("CoNSeP", tmp_path, tmp_path / "out")
    records = read_manifest(tmp_path / "out")
    first = {record.mask_class: record for record in records if record.image == records[0].image}
    assert {record.split for record in first.values()} == {"test"}
    assert set(first) == set(EXPECTED["CoNSeP"])
    epithelium = first["colon-cell-healthy epithelial"]
    assert "colon-cell-muscle" in epithelium.absent
    assert epithelium.kind == "instance"
    assert read_mask(epithelium).any()


def test_a_tenth_is_drawn_from_every_organ_and_the_same_every_time(tmp_path: Path) -> None:
    rows = [f"{organ}{n}.png,m.png,binary,gland,g,{organ},0.5" for organ in ("a", "b") for n in range(20)]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("file,mask,mask_kind,mask_class,group,organ,mpp_um\n" + "\n".join(rows) + "\n")
    assert draw_subset(manifest, tmp_path / "sub" / "tenth.csv") == 4
    drawn = read_manifest(tmp_path / "sub" / "tenth.csv")
    assert Counter(record.organ for record in drawn) == {"a": 2, "b": 2}
    assert all(record.image.resolve().parent == tmp_path for record in drawn)
    draw_subset(manifest, tmp_path / "sub" / "again.csv")
    assert read_manifest(tmp_path / "sub" / "again.csv") == drawn
    with pytest.raises(InvalidArgumentError, match="no share"):
        draw_subset(manifest, tmp_path / "x.csv", fraction=0)
    with pytest.raises(InvalidArgumentError, match="no column"):
        draw_subset(manifest, tmp_path / "x.csv", by="tissue")


def test_prepared_patches_are_scored_by_the_command_line(tmp_path: Path) -> None:
    image(tmp_path / "8863_500_f00003_original.tif", 256)
    mask(tmp_path / "8863_500_f00003_mask.png", two(255, 255, 256))
    run, out = CliRunner().invoke, str(tmp_path / "out")
    listed = run(app, ["data", "sources"])
    assert "Janowczyk (40x, random split)" in listed.output
    done = run(app, ["data", "prepare", "janowczyk", str(tmp_path), "--out", out])
    assert "1 images, 1 patches, 1 masks (0 for testing), 1 labels" in done.output
    again = run(app, ["data", "prepare", "janowczyk", str(tmp_path), "--out", out])
    assert isinstance(again.exception, InvalidArgumentError)
    scored = run(app, ["evaluate", out, "--out", str(tmp_path / "s"), "--model", "classical-nuclei"])
    assert scored.exit_code == 0, scored.output
    assert "breast-nuclei-nuclei" in (tmp_path / "s" / "levels.csv").read_text()
    tenth = run(app, ["data", "subset", out, "--out", str(tmp_path / "t.csv")])
    assert tenth.output.startswith("1 images")


def test_patches_of_one_image_never_stand_on_both_sides_of_a_split(tmp_path: Path) -> None:
    """Protects from: CoNIC was split by patch, and three of four source images stood on both sides."""
    count = 24
    np.save(tmp_path / "images.npy", np.full((count, 8, 8, 3), 200, np.uint8))
    np.save(tmp_path / "labels.npy", np.ones((count, 8, 8, 2), np.uint16))
    info = tmp_path / "patch_info.csv"
    info.write_text("patch_info\n" + "".join(f"crag_{number % 6}-{number:04d}\n" for number in range(count)))
    sides: dict[str, set[str]] = {}
    for picture in read_source(source_named("CoNIC2022"), tmp_path):
        sides.setdefault(picture.group, set()).add(picture.split or "")
    assert len(sides) == 6 and all(len(side) == 1 for side in sides.values())
    assert set.union(*sides.values()) == {"train", "test"}
    info.write_text("patch_info\ncrag_0-0001\n")
    with pytest.raises(InvalidArgumentError, match=r"names 1 patches, images\.npy holds 24"):
        read_source(source_named("CoNIC2022"), tmp_path)
    info.unlink()
    with pytest.raises(InvalidArgumentError, match="would stand on both sides"):
        read_source(source_named("CoNIC2022"), tmp_path)
