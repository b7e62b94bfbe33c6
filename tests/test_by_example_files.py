"""Annotations drawn elsewhere, learned files and results in folders: the command line, and data to learn from."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import discs, lattice, save
from taught import LEFT, PINK, PLAIN, RIGHT, geojson, shares, two_tissues

from tissuetalk.models import registry
from tissuetalk.models.by_example import Place, Shown, teach
from tissuetalk.models.datasets.manifest import read_manifest
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import open_image
from tissuetalk.models.metrics.annotations import read_annotations
from tissuetalk.server.commands.command_line import main
from tissuetalk.tools.session import Session
from tissuetalk.tools.storage.targets import KeptTargets, read_learned
from tissuetalk.tools.teach.drawn import MOST_OF_A_KIND, Drawing

HERE = ["--mpp", "0.5", "--model", "classical-nuclei"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command with these arguments: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tissuetalk", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return command


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return [two_tissues(tmp_path / f"{name}.png", seed) for seed, name in enumerate("ab")]


def mask_in(out: Path) -> np.ndarray:
    (only,) = json.loads((out / "result.json").read_text())["masks"]
    from PIL import Image

    return np.asarray(Image.open(out / only["resources"]["mask"])) > 0


def test_a_target_is_taught_from_qupath_and_used_on_other_images(
    run: Any, images: list[Path], tmp_path: Path
) -> None:
    file = geojson(tmp_path / "a.geojson", ("Stroma", LEFT), ("Ignore*", RIGHT))
    status, out, error = run(
        "teach", "stroma", images[0], "--examples", file, "--out", "stroma.safetensors", *HERE
    )
    assert status == 0, error
    assert "stroma.safetensors: stroma (taught by 1 + 1 examples on 1 image(s); region;" in out
    assert "Research use only" in Path("stroma.md").read_text()
    learned = read_learned(Path("stroma.safetensors"))
    assert (learned.name, learned.base) == ("stroma", "classical-nuclei")
    status, out, error = run(
        "segment", images[1], "--learned", "stroma.safetensors", "--mpp", "0.5", "--out", "found"
    )
    assert status == 0, error
    pink, purple = shares(mask_in(Path("found")))
    assert pink > 0.8 and purple < 0.1
    status, out, _ = run("segment", images[1], "stroma", "--learned", "stroma.safetensors", "--dry-run")
    assert status == 0 and "would look for stroma" in out
    again = run("teach", "stroma", images[0], "--examples", file, "--out", "stroma.safetensors", *HERE)
    assert again[0] == 2 and "nothing is overwritten" in again[2]


def test_a_file_of_a_colleague_is_known_by_name_in_a_workspace_and_takes_no_name_from_another(
    run: Any, images: list[Path], tmp_path: Path
) -> None:
    file = geojson(tmp_path / "a.geojson", ("Pink", LEFT), ("Purple", RIGHT))
    for name in ("pink", "purple"):
        options = ("--examples", file, "--class", name.title(), "--out", f"{name}.safetensors", *HERE)
        assert run("teach", name, images[0], *options)[0] == 0
    into = ("--workspace", tmp_path / "ws")
    status, out, error = run("teach", "odd things", "--import", "pink.safetensors", *into)
    assert status == 0 and "odd things (taught by 1 + 1 examples" in out, error
    assert run("teach", "odd things", "--import", "pink.safetensors", *into)[0] == 0
    taken = run("teach", "Odd  Things", "--import", "purple.safetensors", *into)
    assert taken[0] == 2 and "another NAME" in taken[2]
    Path("foreign.safetensors").write_bytes(b"\x80\x04cos\nsystem")
    foreign = run("teach", "evil", "--import", "foreign.safetensors", *into)
    assert foreign[0] == 2 and "learned target" in foreign[2]
    with Session([tmp_path], tmp_path / "ws") as session:
        kept = [each for each in session.library("targets").result.targets if each.source == "taught"]
        assert [each.name for each in kept] == ["odd things"]
        found = session.segment(images[1], "odd things", **PLAIN)
    assert found.result.masks[0].area_px > 0
    assert run("teach", "pink", "--out", "x.safetensors")[0] == 2


def test_many_classes_at_once_are_a_target_each(run: Any, images: list[Path], tmp_path: Path) -> None:
    for image in images:
        geojson(tmp_path / f"{image.stem}.geojson", ("Pink", LEFT), ("Purple", RIGHT))
    files = [option for image in images for option in ("--examples", tmp_path / f"{image.stem}.geojson")]
    status, _, error = run("teach", "map", *images, *files, "--out", "map.safetensors", *HERE)
    assert status == 0, error
    pink, purple = (read_learned(Path(f"map-{name}.safetensors")) for name in ("pink", "purple"))
    assert (pink.card.images, pink.card.positive, pink.card.negative, purple.name) == (2, 2, 2, "Purple")
    both = ["--learned", "map-pink.safetensors", "--learned", "map-purple.safetensors"]
    status, _, error = run("segment", images[0], *both, "--mpp", "0.5", "--out", "both")
    assert status == 0, error
    masks = json.loads(Path("both/result.json").read_text())["masks"]
    assert [mask["taught"]["name"] for mask in masks] == ["Pink", "Purple"]
    folder = run("teach", "Pink", *images, "--examples", tmp_path, "--out", "pink.safetensors", *HERE)
    assert folder[0] == 0, folder[2]


def test_examples_and_corrections_from_files(run: Any, images: list[Path], tmp_path: Path) -> None:
    shown = geojson(tmp_path / "shown.geojson", ("necrosis", LEFT), ("not necrosis", RIGHT))
    status, out, error = run("segment", images[0], "necrosis", "--examples", shown, "--out", "one", *HERE)
    assert status == 0 and "for --learned: one/learned/" in out, error
    more = geojson(tmp_path / "more.geojson", ("necrosis", [300, 100, 330, 140]))
    status, _, error = run("segment", images[0], "--base-result", "one", "--examples", more, "--out", "two")
    assert status == 0, error
    first, second = (json.loads(Path(name, "result.json").read_text()) for name in ("one", "two"))
    assert second["parent"] == first["result_id"]
    assert mask_in(Path("two"))[100:140, 300:330].all() and not mask_in(Path("one"))[100:140, 300:330].all()
    (learned,) = Path("one/learned").iterdir()
    status, _, error = run(
        "segment", "--cohort", "[ab].png", "--learned", learned, "--mpp", "0.5", "--out", "cohort"
    )
    assert status == 0, error
    table = json.loads(Path("cohort/cohort.json").read_text())
    assert [mask["name"] for slide in table["slides"] for mask in slide["masks"]] == ["necrosis"] * 2
    refused = run("segment", "x", "--cohort", "[ab].png", "--examples", shown, "--out", "c2", *HERE)
    assert refused[0] == 2 and "teach first and pass --learned" in refused[2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "cannot be read as GeoJSON"),
        (b"[" * 100_000, "cannot be read as GeoJSON"),
        (b'{"type": "FeatureCollection", "features": 3}', "no list of features"),
        (b'{"type": "FeatureCollection", "features": []}', "has no polygon and no point"),
        (
            b'{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": 7}}',
            "feature 1 .* no geometry",
        ),
        (b'{"type": "Feature", "geometry": null}', "feature 1 .* no geometry"),
        (
            b'{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0,0],[9,9],[9,0],[0,9],[0,0]]]}}',
            "crosses itself",
        ),
    ],
)
def test_what_is_no_annotation_is_refused_in_words(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.geojson").write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=message):
        Drawing.read(tmp_path / "x.geojson")


def test_drawings_of_another_image_are_refused(run: Any, images: list[Path], tmp_path: Path) -> None:
    outside = geojson(tmp_path / "far.geojson", ("x", [9000, 9000, 9100, 9100]), ("Ignore*", RIGHT))
    other = geojson(
        tmp_path / "other.geojson", ("x", LEFT), ("Ignore*", RIGHT), tissuetalk={"image_id": "img_0"}
    )
    for file, message in ((outside, "lies outside its image"), (other, "was drawn on another image")):
        status, _, error = run("teach", "x", images[0], "--examples", file, "--out", "x.safetensors", *HERE)
        assert status == 2 and message in error and not Path("x.safetensors").exists()
    status, _, error = run("teach", "x", *images, "--examples", other, "--out", "x.safetensors", *HERE)
    assert status == 2 and "2 image(s) and 1 file(s)" in error


def test_classes_holes_points_and_thousands_of_drawings(tmp_path: Path) -> None:
    ring = [[[0, 0], [40, 0], [40, 40], [0, 40], [0, 0]], [[10, 10], [30, 10], [30, 30], [10, 30], [10, 10]]]
    features: list[dict[str, Any]] = [
        {
            "geometry": {"type": "Polygon", "coordinates": ring},
            "properties": {"classification": {"name": "gland"}},
        },
        {
            "geometry": {"type": "MultiPoint", "coordinates": [[1, 1], [2, 2]]},
            "properties": {"classification": "other"},
        },
        {
            "geometry": {"type": "Point", "coordinates": [70, 7]},
            "properties": {"classification": {"name": "other"}},
        },
        {
            "geometry": {"type": "Point", "coordinates": [80, 7]},
            "properties": {"classification": {"name": "not x"}},
        },
        {"geometry": {"type": "Point", "coordinates": [90, 7]}, "properties": {}},
    ]
    (tmp_path / "old.geojson").write_text(json.dumps(features))
    drawing = Drawing.read(tmp_path / "old.geojson")
    assert drawing.classes == ["other", "gland"] and drawing.class_for("Gland") == "gland"
    with pytest.raises(
        InvalidArgumentError, match="has no class “tumour”; say which one is meant with --class"
    ):
        drawing.class_for("tumour")
    examples = drawing.examples("gland")
    assert sum(each.is_it for each in examples) == 2, "the ring, cut open through its hole"
    assert [each.point for each in examples if not each.is_it] == [[70, 7]], (
        "the points on the ring are not against it"
    )
    many = [("a", [x, y, x + 4, y + 4]) for x in range(0, 500, 5) for y in range(0, 100, 5)]
    thousands = Drawing.read(geojson(tmp_path / "many.geojson", *many, ("b", [0, 200, 9, 209])))
    assert MOST_OF_A_KIND / 2 < len(thousands.examples("a")) <= MOST_OF_A_KIND + 1


def test_foreign_and_corrupt_learned_files_are_refused(run: Any, images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04cos\nsystem\n(S'touch /tmp/x'\ntR.")
    status, _, error = run("segment", images[0], "--learned", "pickle.safetensors", "--out", "out", *HERE)
    assert status == 2 and "not a learned target" in error
    status, _, error = run("segment", images[0], "--learned", "gone.safetensors", "--out", "out", *HERE)
    assert status == 2 and "cannot be read as a learned target" in error and not Path("out").exists()


def test_a_corrected_result_is_data_to_learn_from(tmp_path: Path) -> None:
    save(tmp_path / "discs.png", discs(260, 260, lattice(9), background=(225, 170, 200)))
    with Session(tmp_path, tmp_path / "ws") as session:
        base = session.segment("discs.png", "nuclei", **PLAIN)
        fixed = session.segment(
            "discs.png", base_result=base.result.result_id, examples=[{"is": False, "point": [30, 30]}]
        )
        session.library("save", result_id=fixed.result.result_id, format="training", folder="data")
        record = fixed.masks[0]
    (row,) = read_manifest(tmp_path / "data" / "training")
    (annotation,) = read_annotations(row)
    assert (row.kind, row.mpp, annotation.name) == (
        "instance",
        0.5,
        "nuclei",
    ) and "corrected by 1" in row.note
    assert annotation.instances is not None and annotation.instances.max() == 8
    assert np.array_equal(annotation.mask, record.mask)


def test_what_was_taught_is_written_out_with_its_words(tmp_path: Path) -> None:
    two_tissues(tmp_path / "a.png")
    with Session(tmp_path, tmp_path / "ws") as session:
        found = session.segment("a.png", "Where is the necrosis?", **PLAIN, examples=PINK)
        session.export(found, "training", tmp_path / "data")
    (row,) = read_manifest(tmp_path / "data")
    assert (row.kind, row.mask_class) == ("binary", "necrosis")
    assert "words: necrosis; taught by 2 examples; classical-nuclei+examples" in row.note


def test_a_target_that_is_replaced_meanwhile_is_listed_once_and_whole(
    images: list[Path], tmp_path: Path
) -> None:
    """Protects from: a listing that crashed, called it damaged or left it out while it was taught anew."""
    model, both = registry.load("classical-nuclei"), []
    with open_image(images[0], name="a.png") as source:
        for here, there in ((LEFT, RIGHT), (RIGHT, LEFT)):
            shown = [Place(True, box=tuple(here)), Place(False, box=tuple(there))]
            both.append(teach(model, [Shown(source, 0.5, shown)], name="pink"))
    for name in ("targets", "scratch"):
        (tmp_path / name).mkdir()
    (tmp_path / "targets" / f"{'0' * 32}-{'0' * 64}.safetensors").symlink_to(tmp_path / "gone")
    kept = KeptTargets(tmp_path / "targets", tmp_path / "scratch")
    kept.keep(both[0])
    with ThreadPoolExecutor(1) as other:
        teaching = other.submit(lambda: [kept.keep(both[number % 2]) for number in range(200)])
        while not teaching.done():
            assert [(each.problem, each.learned is None) for each in kept.listed()] == [("", False)]
    teaching.result()
