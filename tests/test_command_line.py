"""The command: what it writes, what it prints, and with which status it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import disc_image
from PIL import Image

from tissuetalk.server.commands import command_line

COMMAND = str(Path(sys.executable).with_name("tissuetalk"))


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """The command as its entry point runs it, in this process."""

    def command(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["tissuetalk", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        out, err = capfd.readouterr()
        return Ran(ended.value.code, out, err)

    return command


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return disc_image(tmp_path / "nuclei.png", 8)


MODEL = ("--model", "classical-nuclei", "--mpp", "0.5")


@pytest.fixture
def result(run: Callable[..., Ran], image: Path, tmp_path: Path) -> Path:
    done = run("segment", image, "--target", "nuclei", "--out", tmp_path / "out", *MODEL)
    assert done.status == 0, done.err
    return tmp_path / "out"


def test_segment_writes_what_the_contract_names(result: Path) -> None:
    answer = json.loads((result / "result.json").read_text("utf-8"))
    (mask,) = answer["masks"]
    assert mask["count"] == 8
    pixels = np.asarray(Image.open(result / "masks" / f"{mask['mask_id']}.png"))
    labels = np.asarray(Image.open(result / "instances" / f"{mask['mask_id']}.png"))
    assert pixels.dtype == np.uint8 and set(np.unique(pixels)) == {0, 255}
    assert labels.max() == 8 and ((labels > 0) == (pixels > 0)).all()
    assert (result / "overlay.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((result / "objects.geojson").read_text("utf-8"))["features"]) == 8


def test_a_table_for_people_names_the_target_and_the_verdict(
    run: Callable[..., Ran], image: Path, tmp_path: Path
) -> None:
    done = run("segment", image, "please", "outline", "all", "nuclei", "--out", tmp_path / "out", *MODEL)
    assert done.status == 0 and "nuclei" in done.out and "8 objects" in done.out.replace("\n", " ")


def test_points_boxes_and_regions_are_numbers_with_commas(
    run: Callable[..., Ran], image: Path, tmp_path: Path
) -> None:
    asked = ("--target", "nuclei", "--json", *MODEL)
    pointed = run("segment", image, *asked, "--out", tmp_path / "1", "--point", "30,30", "--point", "70,30")
    assert pointed.json()["masks"][0]["count"] == 2
    boxed = run("segment", image, *asked, "--out", tmp_path / "2", "--box", "0,0,100,50")
    assert boxed.json()["masks"][0]["count"] == 2
    cut = run("segment", image, *asked, "--out", tmp_path / "3", "--region", "0,0,90,50")
    assert cut.json()["image"]["region"] == [0, 0, 90, 50]


def test_json_prints_the_result_and_nothing_else(
    run: Callable[..., Ran], image: Path, result: Path, tmp_path: Path
) -> None:
    segmented = run("segment", image, "--target", "nuclei", "--out", tmp_path / "other", "--json", *MODEL)
    written = json.loads((tmp_path / "other" / "result.json").read_text("utf-8"))
    assert segmented.json() == written
    for arguments in (("measure", result), ("explain", result), ("models",), ("doctor",)):
        done = run(*arguments, "--json")
        assert done.status in (0, 3) and done.json(), arguments


def test_measure_prints_tables_json_and_csv(run: Callable[..., Ran], result: Path) -> None:
    table = run("measure", result, "--metric", "count")
    assert table.status == 0 and "count" in table.out and "8" in table.out
    (row,) = run("measure", result, "--metric", "count", "--format", "json").json()["measurements"]
    assert row["value"] == 8
    header, line = run("measure", result, "--metric", "count", "--format", "csv").out.splitlines()
    assert header == "mask_id,name,metric,value,unit,rule" and ",count,8.0,objects," in line


def test_explain_says_which_words_led_to_which_mask(run: Callable[..., Ran], result: Path) -> None:
    done = run("explain", result, "which", "words?")
    assert done.status == 0 and "“nuclei”" in done.out and "esearch use only" in done.out


def test_export_writes_geojson(run: Callable[..., Ran], result: Path, tmp_path: Path) -> None:
    done = run("export", result, "--format", "geojson", "--out", tmp_path / "objects.geojson")
    assert done.status == 0
    assert len(json.loads((tmp_path / "objects.geojson").read_text("utf-8"))["features"]) == 8


def test_translate_reads_and_writes_json_lines(run: Callable[..., Ran], tmp_path: Path) -> None:
    items, out = tmp_path / "items.jsonl", tmp_path / "predictions.jsonl"
    items.write_text(
        '{"id": "1", "text": "Please outline all nuclei."}\n{"id": "2", "text": "hello there"}\n'
    )
    assert run("translate", "--in", items, "--out", out).status == 0
    first, second = (json.loads(line) for line in out.read_text("utf-8").splitlines())
    assert first["id"] == "1" and first["targets"][0]["evidence"] == "nuclei"
    assert second["id"] == "2" and second["targets"] == []


def test_version_is_one_line(run: Callable[..., Ran]) -> None:
    assert run("version").out.strip().count("\n") == 0


WRONG: list[tuple[str, Sequence[str], str]] = [
    ("no out", ["segment", "IMAGE", "nuclei"], "--out"),
    ("an image that is not there", ["segment", "nowhere.png", "nuclei", "--out", "OUT"], "unknown_image"),
    ("an image that is text", ["segment", "TEXT", "nuclei", "--out", "OUT"], "unreadable_image"),
    ("no words", ["segment", "IMAGE", "--out", "OUT"], "invalid_argument"),
    ("words that name nothing", ["segment", "IMAGE", "hello", "there", "--out", "OUT"], "no_target_in_words"),
    ("an out folder in use", ["segment", "IMAGE", "nuclei", "--out", "USED"], "not an empty folder"),
    ("a point of one number", ["segment", "IMAGE", "nuclei", "--out", "OUT", "--point", "5"], "--point"),
    ("a point in words", ["segment", "IMAGE", "nuclei", "--out", "OUT", "--point", "a,b"], "--point"),
    (
        "a point outside",
        ["segment", "IMAGE", "nuclei", "--out", "OUT", "--point", "9999,1"],
        "point_outside_image",
    ),
    ("a box of three numbers", ["segment", "IMAGE", "nuclei", "--out", "OUT", "--box", "1,2,3"], "--box"),
    (
        "a region outside",
        ["segment", "IMAGE", "nuclei", "--out", "OUT", "--region", "900,900,950,950"],
        "outside",
    ),
    ("an mpp in words", ["segment", "IMAGE", "nuclei", "--out", "OUT", "--mpp", "half"], "mpp"),
    ("a negative mpp", ["segment", "IMAGE", "nuclei", "--out", "OUT", "--mpp", "-1"], "invalid_argument"),
    ("an unknown option", ["segment", "IMAGE", "nuclei", "--out", "OUT", "--sudo"], "--sudo"),
    ("an unknown command", ["dissect"], "dissect"),
    ("measuring nothing", ["measure", "USED"], "unknown_result"),
    ("an unknown metric", ["measure", "RESULT", "--metric", "luck"], "instance_dispersion"),
    ("an unknown format", ["measure", "RESULT", "--format", "xml"], "invalid_argument"),
    ("explaining nothing", ["explain", "USED"], "unknown_result"),
    (
        "exporting in an unknown format",
        ["export", "RESULT", "--format", "exe", "--out", "OUT"],
        "invalid_argument",
    ),
    ("a recipe that is not there", ["train", "nowhere.yaml"], "invalid_argument"),
    (
        "serving everybody without a token",
        ["serve", "--root", "USED", "--http", "0.0.0.0:8123"],
        "TISSUETALK_TOKEN",
    ),
    ("an address without a port", ["serve", "--root", "USED", "--http", "127.0.0.1"], "HOST:PORT"),
]


@pytest.mark.parametrize(
    ("arguments", "mentions"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_a_wrong_request_ends_with_2_and_one_line(
    run: Callable[..., Ran],
    image: Path,
    result: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: Sequence[str],
    mentions: str,
) -> None:
    monkeypatch.delenv("TISSUETALK_TOKEN", raising=False)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    (tmp_path / "text.png").write_text("no picture")
    places = {
        "IMAGE": image,
        "TEXT": tmp_path / "text.png",
        "OUT": tmp_path / "new",
        "USED": tmp_path / "used",
        "RESULT": result,
    }
    done = run(*(places.get(argument, argument) for argument in arguments))
    assert done.status == 2, done
    assert mentions in done.err and "Traceback" not in done.err
    assert len(done.err.strip().splitlines()) == 1 and done.out == ""
    assert not (tmp_path / "new").exists()


def test_what_the_operator_must_fix_ends_with_3(run: Callable[..., Ran], image: Path, tmp_path: Path) -> None:
    done = run("segment", image, "nuclei", "--out", tmp_path / "new", "--model", "gpt-9")
    assert done.status == 3 and done.err.startswith("tissuetalk: model_unavailable: ")
    assert not (tmp_path / "new").exists()


def test_serving_a_root_that_is_not_there_says_so_in_one_line(
    run: Callable[..., Ran], tmp_path: Path
) -> None:
    done = run(
        "serve",
        "--root",
        tmp_path / "nowhere",
        "--workspace",
        tmp_path / "workspace",
        "--http",
        "127.0.0.1:0",
    )
    assert done.status == 2 and len(done.err.strip().splitlines()) == 1


def test_the_installed_command_reports_errors_like_that_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "segment", "nowhere.png", "nuclei", "--out", "out"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=280,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tissuetalk: unknown_image: ") and done.stderr.count("\n") == 1


def test_groups_hold_what_is_not_a_verb_and_old_spellings_still_work(run: Callable[..., Ran]) -> None:
    listed = run("--help").out
    for group in ("data", "compare", "training"):
        assert f"│ {group} " in listed
    for hidden in ("zero-shot", "ablate", "weights"):
        assert f"│ {hidden} " not in listed
        assert run(hidden, "--help").status == 0
    assert "NAME=FOLDER" in run("compare", "models", "--help").out
    assert "models" in run("compare", "--help").out and "sets" in run("compare", "--help").out


def test_every_command_takes_json(run: Callable[..., Ran]) -> None:
    top = (
        "segment",
        "measure",
        "explain",
        "export",
        "models",
        "demo",
        "doctor",
        "translate",
        "evaluate",
        "train",
    )
    grouped = ("data sources", "data prepare", "data subset", "compare models", "compare sets")
    for command in (*top, *grouped, "training ablate", "training weights", "version"):
        assert "--json" in run(*command.split(), "--help").out, command


def test_choices_are_those_of_the_tables(run: Callable[..., Ran], tmp_path: Path) -> None:
    from tissuetalk.models.registry import MODELS
    from tissuetalk.server.commands import terminal
    from tissuetalk.tools.export import FORMATS
    from tissuetalk.tools.measure.metrics import METRICS

    models = terminal.choices(terminal._models)
    assert models("") == list(MODELS) and models("classical") == ["classical-nuclei"]
    measure, export = (
        " ".join(run(name, "--help").out.replace("│", " ").split()) for name in ("measure", "export")
    )
    assert all(name in measure for name in METRICS) and all(name in export for name in FORMATS)
    wrong = run("segment", "x.png", "nuclei", "--out", tmp_path / "new", "--reader", "oracle")
    assert wrong.status == 2 and "rules" in wrong.err and "hybrid" in wrong.err


def test_the_shell_completes_choices() -> None:
    done = subprocess.run(
        [COMMAND],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "_TISSUETALK_COMPLETE": "complete_bash",
            "COMP_WORDS": "tissuetalk export result --format dicom",
            "COMP_CWORD": "4",
        },
    )
    assert done.stdout.split() == ["dicom-seg", "dicom-ann", "dicom-sr"]
