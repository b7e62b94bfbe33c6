"""Evaluation beyond one model and one wording: levels, other words, boxes, two models, several sets."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.metrics.levels import members, published
from tissuetalk.models.metrics.oracles import boxes_as_mask
from tissuetalk.models.segmenter import RGB
from tissuetalk.server.commands.command_line import app
from tissuetalk.tools.evaluate.compare import compare, zero_shot
from tissuetalk.tools.evaluate.evaluate import ModelUnderTest, evaluate
from tissuetalk.tools.evaluate.probes import BoxProbe, evaluate_manifest, load_box_model
from tissuetalk.tools.evaluate.scores import Summary

HEADER = "file,mask,mask_kind,mask_class,group,organ,mpp_um,source\n"


def draw(folder: Path, name: str, centres: list[tuple[int, int]]) -> None:
    """Purple discs of radius 8 on pink, and their labels."""
    image = np.full((96, 96, 3), (216, 190, 240), np.uint8)
    labels = np.zeros((96, 96), np.uint16)
    for number, centre in enumerate(centres, start=1):
        cv2.circle(image, centre, 8, (120, 40, 80), -1)
        cv2.circle(labels, centre, 8, number, -1)
    cv2.imwrite(str(folder / f"{name}.png"), image)
    cv2.imwrite(str(folder / f"{name}-mask.png"), labels)


@pytest.fixture
def nuclei(tmp_path: Path) -> Path:
    """Three fields of two sources with the canonical label as their class."""
    folder = tmp_path / "drawn"
    folder.mkdir()
    rows = []
    for name, centres, source in (
        ("a", [(20, 20), (60, 60)], "TNBC"),
        ("b", [(30, 60)], "TNBC"),
        ("c", [(70, 20), (20, 70), (60, 60)], "NuCLS"),
    ):
        draw(folder, name, centres)
        rows.append(f"{name}.png,{name}-mask.png,instance,breast-nuclei-nuclei,{name},breast,0.5,{source}\n")
    (folder / "manifest.csv").write_text(HEADER + "".join(rows))
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_canonical_label_is_asked_as_it_is_and_scored_at_every_level(nuclei: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = evaluate_manifest(nuclei, out, model="classical-nuclei", words=None)
    assert summary.n_scored == 3
    rows = table(out / "scores.csv")
    assert {(row["words"], row["label"]) for row in rows} == {
        ("breast-nuclei-nuclei", "breast-nuclei-nuclei")
    }
    found = {(row["level"], row["name"]): row for row in table(out / "levels.csv")}
    assert found["source", "TNBC"]["n"] == "2"
    assert found["source", "TNBC"]["pathsegmentor"] == "0.4300"
    assert found["category", "breast-nuclei-nuclei"]["n"] == "3"
    assert {level for level, _ in found} == {"source", "region", "structure", "object", "category"}
    ElementTree.fromstring((out / "dice-by-source.svg").read_text())
    assert "## Levels of the label system" in (out / "report.md").read_text()


def test_a_row_without_a_label_counts_at_its_source_only() -> None:
    row = {"dice": 0.5, "target_present": True, "source": "mine", "label": "", "group": "g"}
    assert [(one.level, one.name) for one in members([row])] == [("source", "mine")]


def test_external_types_stand_beside_the_published_external_figures() -> None:
    label = "colon-cell-muscle"
    row = {"dice": 0.5, "target_present": True, "source": "CoNSeP", "label": label, "group": "g"}
    (muscle,) = [one for one in members([row]) if one.level == "object"]
    assert (
        muscle.published["pathsegmentor"] == published("external_consep")["muscle"]["pathsegmentor"] == 0.301
    )


def test_other_wordings_of_a_model_that_reads_none_agree_completely(nuclei: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    evaluate_manifest(nuclei, out, model="classical-nuclei", words="nuclei", wordings=2)
    said = table(out / "wordings.csv")
    assert len(said) == 3 * 3 * 2
    assert {row["quality"] for row in said} == {"low", "medium", "high"}
    assert {row["mean"] for row in table(out / "agreement.csv")} == {"1.0000"}
    robust = json.loads((out / "robustness.json").read_text())
    assert robust["spread"] == 0
    assert robust["low_minus_high"] == 0
    assert robust["agreement_predicts_dice"] is None
    assert "## Wording" in (out / "report.md").read_text()
    ElementTree.fromstring((out / "robustness.svg").read_text())


class BoxPainter:
    """Answers every box with the box itself."""

    def segment_boxes(self, image: RGB, boxes_xyxy: list[tuple[float, float, float, float]]) -> list[Mask]:
        return [boxes_as_mask(np.array([box], dtype=np.int64), image.shape[:2]) for box in boxes_xyxy]


def test_boxes_of_every_object_cost_more_prompts_and_reach_more(nuclei: Path, tmp_path: Path) -> None:
    from tissuetalk.models import registry

    out, model = tmp_path / "out", ModelUnderTest(registry.load("classical-nuclei"))
    evaluate(nuclei, out, model, words=None, probes=[BoxProbe({"painter": BoxPainter()})])
    cells = {(row["group"], row["method"]): row for row in table(out / "efficiency.csv")}
    union, each = cells["all", "painter, union box"], cells["all", "painter, instance box"]
    assert float(union["prompts_per_mask"]) == 1
    assert float(each["prompts_per_mask"]) == 2
    assert float(each["dice"]) > float(union["dice"])
    assert each["dice"] == cells["nuclei", "box as mask"]["dice"]
    assert cells["PathSeg, published", "PathSegmentor, text"]["dice"] == "0.6710"
    assert "Boxes instead of words" in (out / "report.md").read_text()


def test_the_worst_and_the_best_are_drawn(nuclei: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    evaluate_manifest(nuclei, out, model="classical-nuclei", words=None, pictures=1)
    drawn = sorted((out / "pictures").iterdir())
    dice = sorted(float(row["dice"]) for row in table(out / "scores.csv"))
    assert len(drawn) == 2
    assert [
        line.split("|")[-2].strip()
        for line in (out / "report.md").read_text().splitlines()
        if "pictures/" in line
    ] == [
        f"{dice[0]:.3f}",
        f"{dice[-1]:.3f}",
    ]
    assert cv2.imread(str(drawn[0])).shape[1] == 4 * 96


def test_only_box_models_are_prompted_with_boxes() -> None:
    with pytest.raises(InvalidArgumentError, match="litemedsam"):
        load_box_model("clipseg")


def scores(folder: Path, values: list[float], targets: tuple[str, ...] = ("nuclei",)) -> Path:
    folder.mkdir()
    lines = ["file,mask_class,group,target_present,dice,source,label"]
    lines += [
        f"{number}.png,{target},g,True,{value},S,"
        for target in targets
        for number, value in enumerate(values)
    ]
    (folder / "scores.csv").write_text("\n".join([*lines, "absent.png,nuclei,g,False,1.0,S,"]) + "\n")
    return folder


def test_the_first_model_is_tested_against_the_best_of_the_others(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 12)
    ours = scores(tmp_path / "ours", [0.8 + value for value in noise], ("nuclei", "gland"))
    second = scores(tmp_path / "second", [0.7 - value for value in noise], ("nuclei", "gland"))
    third = scores(tmp_path / "third", [0.5] * 10, ("nuclei", "gland"))
    folders = {"ours": ours, "second": second, "third": third}
    overall, *groups = compare(folders, tmp_path / "out")
    assert (overall.n, overall.test.rival if overall.test else None) == (20, "second")
    assert overall.test is not None
    assert overall.test.mark == "**"
    assert {(one.group, one.name) for one in groups} == {("target", "gland"), ("target", "nuclei")}
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "left out: ours 4, second 4" in text
    (lost, *_) = compare({"third": third, "ours": ours}, tmp_path / "lost")
    assert lost.test is not None
    assert lost.test.p_value is None


def test_on_consep_the_best_stand_in_answers_for_each_type(tmp_path: Path) -> None:
    kinds = ("colon-cell-endothelial", "colon-cell-inflammatory")
    ours = scores(tmp_path / "ours", [0.6, 0.7], kinds)
    tnbc, segpath = scores(tmp_path / "t", [0.1, 0.2], kinds), scores(tmp_path / "s", [0.3, 0.4], kinds)
    stand_ins = {"TNBC": tnbc, "SegPath": segpath, "PanNuke": scores(tmp_path / "p", [0.5, 0.5], kinds)}
    overall, *groups = compare({"ours": ours}, tmp_path / "out", stand_ins=stand_ins)
    means = {one.name: one.means["specialised"].mean for one in groups if one.group == "target"}
    assert means == pytest.approx({"colon-cell-endothelial": 0.35, "colon-cell-inflammatory": 0.5})
    assert overall.n == 4
    with pytest.raises(InvalidArgumentError, match="GlaS stand in for no type"):
        compare({"ours": ours}, tmp_path / "out", stand_ins={"GlaS": tnbc})
    other = scores(tmp_path / "g", [0.5], ("colon-tissue-gland",))
    with pytest.raises(InvalidArgumentError, match="no CoNSeP type"):
        compare({"ours": ours}, tmp_path / "out", stand_ins={"TNBC": other})


def test_models_that_share_nothing_are_not_compared(tmp_path: Path) -> None:
    ours = scores(tmp_path / "ours", [0.5], ("nuclei",))
    other = scores(tmp_path / "other", [0.5], ("gland",))
    with pytest.raises(InvalidArgumentError, match="in common"):
        compare({"ours": ours, "other": other}, tmp_path / "out")
    with pytest.raises(InvalidArgumentError, match="at least two"):
        compare({"ours": ours}, tmp_path / "out")
    with pytest.raises(InvalidArgumentError, match=r"no scores.csv"):
        compare({"ours": ours, "none": tmp_path}, tmp_path / "out")


def test_one_sentence_is_asked_of_every_set_once(nuclei: Path, tmp_path: Path) -> None:
    runs: list[str] = []

    def once(manifest: Path, folder: Path, model: str) -> Summary:
        runs.append(manifest.name)
        return evaluate_manifest(manifest, folder, model=model, words="segment all nuclei")

    def ask() -> None:
        zero_shot([nuclei], ["classical-nuclei"], "segment all nuclei", tmp_path / "out", once)

    ask()
    ask()
    assert runs == ["drawn"]
    (row,) = table(tmp_path / "out" / "zero_shot.csv")
    assert (row["set"], row["n"], row["errors"]) == ("drawn", "3", "0")
    assert "| SAM3 (text) | 52.46 |" in (tmp_path / "out" / "zero_shot.md").read_text()


def test_the_commands_run_from_the_shell(nuclei: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    for name in ("one", "two"):
        done = run(
            app,
            ["evaluate", str(nuclei), "--out", str(tmp_path / name), "--model", "classical-nuclei", "--json"],
        )
        assert done.exit_code == 0, done.output
    done = run(
        app, ["compare", f"a={tmp_path / 'one'}", f"b={tmp_path / 'two'}", "--out", str(tmp_path / "c")]
    )
    assert done.exit_code == 0, done.output
    assert "a against b" in done.output
    wrong = run(app, ["compare", "one", "--out", str(tmp_path / "c")])
    assert isinstance(wrong.exception, InvalidArgumentError)
