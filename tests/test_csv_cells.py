"""A cell never runs as a formula in a spreadsheet, numbers stay numbers, and our own readers get back what was meant."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from drawn import save, stored

from tissuetalk.models.datasets.manifest import draw_subset, read_manifest
from tissuetalk.models.images import open_image
from tissuetalk.models.writing import CsvWriter, as_meant, defused
from tissuetalk.tools.export import export

HERE = Path(__file__).resolve().parent.parent
FORMULAS = [
    '=HYPERLINK("http://example.org","nuclei")',
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "  =1+1",
    "\uff1d1+1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_begins_like_a_formula_is_shown_and_read_back(text: str) -> None:
    assert defused(text) == f"'{text}" and as_meant(f"'{text}") == text


@pytest.mark.parametrize("number", ["-0.25", "+3", "-1e-9", "-inf", -0.25, np.float64(-2.5), 7, None, ""])
def test_numbers_and_empty_cells_stay_what_they_are(number: object) -> None:
    assert defused(number) is number


@pytest.mark.parametrize("text", ["nuclei", "5-HT cells", "a=b", "it's", "'quoted'"])
def test_other_texts_are_left_alone(text: str) -> None:
    assert defused(text) == text and as_meant(text) == text


def test_a_column_that_is_not_there_is_no_silence() -> None:
    with pytest.raises(ValueError, match="no column"):
        CsvWriter(io.StringIO(), ["a"]).row({"b": 1})


def test_an_exported_table_runs_nothing(tmp_path: Path) -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[5:9, 5:9] = 1
    image = save(tmp_path / "picture.png", np.full((40, 40, 3), 200, np.uint8))
    folder = stored(tmp_path / "result", {FORMULAS[0]: (labels > 0, labels)})
    folder.write_request({"image": str(image)})
    out = export(folder, "csv", tmp_path / "objects.csv", lambda: open_image(image, name="picture.png"))
    with out.open(newline="", encoding="utf-8") as lines:
        (row,) = csv.DictReader(lines)
    assert row["name"] == f"'{FORMULAS[0]}" and float(row["area_px"]) == 16


def test_a_manifest_of_ours_is_read_as_it_was_meant(tmp_path: Path) -> None:
    columns = "file,mask,mask_kind,mask_class,group,organ,mpp_um"
    (tmp_path / "manifest.csv").write_text(f"{columns}\n=a.png,,none,-b,g,colon,0.5\n", "utf-8")
    draw_subset(tmp_path, tmp_path / "subset.csv", fraction=1.0)
    assert "'=a.png" in (tmp_path / "subset.csv").read_text("utf-8")
    (record,) = read_manifest(tmp_path / "subset.csv")
    assert record.image == tmp_path / "=a.png" and record.mask_class == "-b"


def test_every_writer_of_tables_is_the_one_that_defuses() -> None:
    """A new table cannot forget it: nothing else here makes a writer of the csv module, or asks pandas for one."""
    for area in ("models", "prompts", "tools", "server"):
        for path in sorted((HERE / area).rglob("*.py")):
            text = path.read_text("utf-8")
            allowed = 1 if path == HERE / "models" / "writing.py" else 0
            made = text.count("csv.writer(") + text.count("csv.DictWriter(") + text.count(".to_csv(")
            assert made == allowed, f"{path}: write tables with models.writing.CsvWriter"
