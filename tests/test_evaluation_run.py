"""A whole evaluation of drawn images, with answers whose scores are arithmetic."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tissuetalk.models.errors import InvalidArgumentError, UnknownLabelError, WorkspaceUnwritableError
from tissuetalk.models.masks.characteristics import Labels, Mask
from tissuetalk.models.metrics.annotations import class_name, indexed_classes
from tissuetalk.models.metrics.report import scores_svg, trend_svg
from tissuetalk.models.metrics.statistics import Interval
from tissuetalk.models.metrics.tables import intervals_svg, table
from tissuetalk.tools.evaluate.evaluate import default_words, evaluate
from tissuetalk.tools.evaluate.scores import Summary

HEADER = "file,mask,mask_kind,mask_class,group,organ,mpp_um\n"


def save(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def two_nuclei() -> NDArray[np.uint16]:
    labels = np.zeros((50, 60), dtype=np.uint16)
    labels[5:15, 5:15], labels[25:45, 25:45] = 1, 300
    return labels


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two nuclei images of one patient, one gland image of another, and a two-class image."""
    grey = np.full((50, 60, 3), 200, dtype=np.uint8)
    for name in ("a", "b", "c", "d"):
        save(tmp_path / f"{name}.png", grey)
    save(tmp_path / "masks/nuclei.png", two_nuclei())
    save(tmp_path / "masks/gland.png", (two_nuclei() == 300).astype(np.uint8) * 255)
    classes = np.zeros((50, 60), dtype=np.uint8)
    classes[:, :30], classes[:, 30:40] = 1, 2
    save(tmp_path / "masks/classes.png", classes)
    rows = [
        "a.png,masks/nuclei.png,instance,nucleus (all),P1,breast (triple-negative carcinoma),about 0.25\n",
        "b.png,masks/nuclei.png,instance,nucleus (all),P1,unknown,0.5\n",
        "c.png,masks/gland.png,binary,gland,P2,colon/rectum (endoscopic biopsy),unknown\n",
        "d.png,masks/classes.png,class-index,1=tumour epithelium 2=stroma 3=normal 0=background/unlabelled,P3,lung,1\n",
        "d.png,,boxes,see boxes.csv,P3,lung,\n",
    ]
    path = tmp_path / "manifest.csv"
    path.write_text(HEADER + "".join(rows), encoding="utf-8")
    return path


class Answers:
    """Answers per image file, and remembers what was asked."""

    name = "drawn"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, float | None]] = []

    def label_of(self, words: str) -> str:
        return ""

    def segment_image(self, image: Path, words: str, mpp: float | None) -> tuple[Mask, Labels | None]:
        self.asked.append((image.name, words, mpp))
        truth = two_nuclei()
        if image.name == "a.png":
            return truth > 0, truth.astype(np.int32)
        if image.name == "b.png":  # one of the two, with no objects of its own
            return truth == 300, None
        if image.name == "c.png":
            raise UnknownLabelError("no such target; ask for nuclei")
        left = np.zeros((50, 60), dtype=np.bool_)
        left[:, :30] = True
        return left, None


def test_every_image_and_target_gets_a_row_with_its_scores(manifest: Path, tmp_path: Path) -> None:
    answers, out = Answers(), tmp_path / "out"
    summary = evaluate(manifest, out, answers, words=None)
    assert answers.asked == [
        ("a.png", "nucleus in breast", 0.25),
        ("b.png", "nucleus", 0.5),
        ("c.png", "gland in colon", None),
        ("d.png", "tumour epithelium in lung", 1.0),
        ("d.png", "stroma in lung", 1.0),
        ("d.png", "normal in lung", 1.0),
    ]
    with (out / "scores.csv").open(newline="") as file:
        a, b, c, tumour, stroma, normal = csv.DictReader(file)
    assert [float(a[name]) for name in ("dice", "pq", "aji", "f1")] == [1.0] * 4
    assert a["objects_from"] == "model"
    assert float(b["dice"]) == pytest.approx(2 * 400 / 900, abs=1e-5)
    assert (float(b["precision"]), float(b["recall"])) == (1.0, 0.8)
    assert (float(b["f1"]), float(b["aji"])) == pytest.approx((2 / 3, 0.8), abs=1e-5)
    assert b["objects_from"] == "components"
    assert (c["error"], c["dice"]) == ("unknown_label", "")
    assert float(tumour["dice"]) == 1.0
    assert (tumour["pq"], stroma["dice"]) == ("", "0.0")
    assert (normal["target_present"], normal["dice"]) == ("False", "0.0")
    assert float(tumour["everything_dice"]) == pytest.approx(2 * 1500 / 4500, abs=1e-5)
    assert float(a["boxes_dice"]) == 1.0
    assert Summary.model_validate_json((out / "summary.json").read_text()) == summary


def test_summary_counts_what_was_scored_and_what_was_not(manifest: Path, tmp_path: Path) -> None:
    summary = evaluate(manifest, tmp_path / "out", Answers(), words=None)
    assert (summary.n_images, summary.n_groups, summary.n_scored) == (4, 3, 5)
    assert summary.errors == {"unknown_label": 1}
    assert summary.skipped == {"boxes": 1}
    nuclei = summary.by_class["nucleus"].metrics["dice"]
    assert nuclei.mean == pytest.approx((1 + 800 / 900) / 2)
    assert (nuclei.n, nuclei.group_low) == (2, None)  # two images, one patient
    assert nuclei.low == pytest.approx(800 / 900)
    assert summary.by_class["normal"].metrics == {}
    assert summary.by_class["normal"].false_masks == 1.0
    assert summary.overall is not None
    assert summary.overall.metrics["dice"].n == 4
    assert summary.overall.metrics["pq"].n == 2
    assert "gland" not in summary.by_class


def test_report_shows_scores_failures_and_trivial_answers(manifest: Path, tmp_path: Path) -> None:
    evaluate(manifest, tmp_path / "out", Answers(), words=None)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| nucleus | 2 | 0.944 [0.889, 1.000] |" in text
    assert "painting everything" in text
    assert "| c.png | gland | unknown_label |" in text
    assert "Something was painted in 1 of 1." in text
    assert "![dice.svg](dice.svg)" in text
    ElementTree.fromstring((tmp_path / "out" / "dice.svg").read_text())


def test_given_words_are_asked_of_every_image_and_pick_the_class(manifest: Path, tmp_path: Path) -> None:
    answers = Answers()
    evaluate(manifest, tmp_path / "out", answers, words="stroma of the tumor")
    assert {words for _, words, _ in answers.asked} == {"stroma of the tumor"}
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        assert [row["mask_class"] for row in csv.DictReader(file)][3:] == ["stroma"]


def test_rows_are_on_disk_before_a_crash(manifest: Path, tmp_path: Path) -> None:
    class CrashesAtC(Answers):
        def segment_image(self, image: Path, words: str, mpp: float | None) -> tuple[Mask, Labels | None]:
            if image.name == "c.png":
                raise RuntimeError("out of memory")
            return super().segment_image(image, words, mpp)

    with pytest.raises(RuntimeError, match="out of memory"):
        evaluate(manifest, tmp_path / "out", CrashesAtC(), words=None)
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("a.png,masks/missing.png,instance,nucleus,P,lung,1", "unreadable_image"),
        ("a.png,manifest.csv,instance,nucleus,P,lung,1", "unreadable_image"),
        ("a.png,colour.png,binary,nucleus,P,lung,1", "unreadable_image"),
        ("a.png,small.png,binary,nucleus,P,lung,1", "invalid_argument"),
        ("a.png,small.png,class-index,who knows,P,lung,1", "invalid_argument"),
    ],
)
def test_a_bad_row_keeps_its_code_and_the_others_are_scored(
    manifest: Path, tmp_path: Path, row: str, code: str
) -> None:
    colour = np.zeros((50, 60, 3), dtype=np.uint8)
    colour[..., 0] = 255
    save(tmp_path / "colour.png", colour)
    save(tmp_path / "small.png", np.full((10, 10), 255, dtype=np.uint8))
    manifest.write_text(
        HEADER + row + "\nb.png,masks/nuclei.png,instance,nucleus,P,lung,1\n", encoding="utf-8"
    )
    summary = evaluate(manifest, tmp_path / "out", Answers(), words=None)
    assert summary.errors == {code: 1}
    assert summary.n_scored == 1


def test_a_manifest_without_masks_or_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(HEADER + "a.png,,class-label,tumour,P,lung,1\n", encoding="utf-8")
    with pytest.raises(InvalidArgumentError, match="no image with a mask"):
        evaluate(path, tmp_path / "out", Answers(), words=None)
    path.write_text("file,label\na.png,tumour\n", encoding="utf-8")
    with pytest.raises(InvalidArgumentError, match="lacks the column"):
        evaluate(path, tmp_path / "out", Answers(), words=None)


def test_an_unwritable_folder_is_named(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(WorkspaceUnwritableError, match="taken"):
        evaluate(manifest, tmp_path / "taken", Answers(), words=None)


def test_class_names_lose_their_remarks() -> None:
    assert class_name("tumour region (BCSS class 1)") == "tumour region"
    assert class_name("nucleus; type per label in types.csv") == "nucleus"
    assert indexed_classes("0=background, 1=gland (any), 12=stroma") == {1: "gland", 12: "stroma"}
    assert indexed_classes("see the paper") == {}


def test_default_words_name_the_organ_only_when_it_is_one() -> None:
    assert default_words("gland", "colon (adenocarcinoma and normal)") == "gland in colon"
    assert default_words("nucleus", "one of 7 organs (not recorded in this copy)") == "nucleus"


def test_plots_are_well_formed_and_escape_names() -> None:
    svg = intervals_svg(
        "a < b", {"x & y": Interval(0.8, 0.7, 0.9, 12), "single": Interval(0.5, None, None, 1)}
    )
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    rows = [
        {
            "mask_class": "nucleus",
            "dice": 0.5 + 0.02 * k,
            "target_present": True,
            "irregularity": 0.04 * k,
            "instance_ratio": 0.01 * k,
            "instance_count": k,
        }
        for k in range(20)
    ]
    for svg in (scores_svg(rows), *(trend_svg(rows, trend) for trend in ("shape", "size", "density"))):
        ElementTree.fromstring(svg)
    assert table(["a"], [["x|y"]]).endswith("| x\\|y |")


def test_summary_is_plain_json(manifest: Path, tmp_path: Path) -> None:
    evaluate(manifest, tmp_path / "out", Answers(), words=None)
    stored = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert stored["overall"]["metrics"]["dice"].keys() == {
        "mean",
        "low",
        "high",
        "group_low",
        "group_high",
        "n",
    }
