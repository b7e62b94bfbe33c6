"""What is written for a caller lands inside a root, under the name that was asked for, or nowhere: issue 11, class 3."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from drawn import disc_image

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import swapping  # after the project is on the path
from tissuetalk.models import writing
from tissuetalk.models.errors import InvalidArgumentError, OutsideRootsError
from tissuetalk.tools.session import Session


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Session, str]]:
    """A session whose workspace lies inside its root, and a result in it."""
    folder = tmp_path_factory.mktemp("places")
    disc_image(folder / "root" / "discs.png", 4)
    with Session(folder / "root", folder / "root" / "work") as session:
        found = session.segment("discs.png", "nuclei", model="classical-nuclei", mpp=0.5)
        yield session, found.result.result_id


def test_no_file_and_no_folder_escapes_through_a_folder_swapped_for_a_link(tmp_path: Path) -> None:
    escapes, tries, done = swapping.written(tmp_path, 4.0)
    assert escapes == 0
    assert tries > 200 and done > 0, "the race was not run"


@pytest.mark.parametrize("kind", ["geojson", "folder"])
def test_no_saved_result_escapes_through_a_folder_swapped_for_a_link(tmp_path: Path, kind: str) -> None:
    escapes, tries, _ = swapping.saved(tmp_path, kind, 2.0)
    assert escapes == 0 and tries > 3


@pytest.mark.parametrize("kind", ["geojson", "folder", "ome-zarr"])
def test_a_folder_swapped_between_check_and_write_is_refused(
    result: tuple[Session, str], monkeypatch: pytest.MonkeyPatch, kind: str, tmp_path: Path
) -> None:
    session, result_id = result
    root = session.roots.paths[0]
    kept = root / f"kept-{kind}"
    kept.mkdir()
    make = writing.copy_folder if kind == "folder" else writing.whole_folder

    def swap_first(*given: object, **named: object) -> object:
        if not kept.is_symlink():
            kept.rmdir()
            kept.symlink_to(tmp_path)
        return make(*given, **named)  # type: ignore[arg-type]  # whatever it was given

    module = "tissuetalk.tools.storage.results" if kind == "folder" else "tissuetalk.tools.session.library"
    monkeypatch.setattr(f"{module}.{make.__name__}", swap_first)
    with pytest.raises(InvalidArgumentError, match=f"cannot write {kept.name}/here"):
        session.library("save", result_id=result_id, format=kind, folder=f"{kept.name}/here")
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    "name", ["", "   ", ".", "..", "a\0b", "a\nb", "x" * 10_000, "loop", "loop/below", "/", "/elsewhere/new"]
)
@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_a_name_that_leads_nowhere_is_an_error_by_name(
    result: tuple[Session, str], name: str, kind: str
) -> None:
    session, result_id = result
    loop = session.roots.paths[0] / "loop"
    if not loop.is_symlink():
        loop.symlink_to("loop")
    with pytest.raises(InvalidArgumentError) as refused:
        session.library("save", result_id=result_id, format=kind, folder=name)
    assert len(str(refused.value)) < 500 and str(session.roots.paths[0]) not in str(refused.value)


def test_the_python_interface_names_them_too(result: tuple[Session, str], tmp_path: Path) -> None:
    session, result_id = result
    (tmp_path / "loop").symlink_to("loop")
    for out in (
        tmp_path / ("x" * 10_000),
        tmp_path / "loop" / "out.csv",
        tmp_path / "a\0b",
        tmp_path / "loop",
    ):
        with pytest.raises(InvalidArgumentError):
            session.export(result_id, "csv", out)
        with pytest.raises(InvalidArgumentError):
            session.workspace.save(result_id, out)


def test_a_copy_goes_where_its_folder_was_when_the_work_began(
    result: tuple[Session, str], tmp_path: Path
) -> None:
    session, result_id = result
    kept, outside = tmp_path / "kept", tmp_path / "outside"
    kept.mkdir()
    outside.mkdir()
    found = session.result(result_id)
    copy = found.save(kept / "first", within=tmp_path)
    assert {"result.json", "request.json", "objects.geojson", "overlay.png"} <= {
        path.name for path in (kept / "first").iterdir()
    }
    assert copy.session.measure(kept / "first").result.measurements
    kept.rename(tmp_path / "away")
    kept.symlink_to(outside)
    with pytest.raises(InvalidArgumentError, match="cannot write kept/second"):
        found.save(kept / "second", within=tmp_path)
    assert not list(outside.iterdir())


BY_PATH = {
    "models/writing.py",
    *("models/packed.py", "models/training/loop.py"),
    *("models/images/confinement.py", "models/datasets/pathseg/prepare.py"),
    *(
        "tools/export/tables.py",
        "tools/export/coco.py",
        "tools/export/geojson.py",
        "tools/export/training.py",
    ),
    "tools/storage/",
    *("tools/segment/windows.py", "tools/segment/slide.py", "tools/segment/segment.py"),
}
"""They write in the workspace, to a part that is given its name later, or (loop.py, prepare.py) a log and data sets of
the operator's own."""


def test_nothing_else_writes_by_path() -> None:
    project, found = Path(__file__).parents[1], []
    for area in ("models", "prompts", "tools", "server"):
        for file in (project / area).rglob("*.py"):
            name = file.relative_to(project).as_posix()
            writes = re.search(r"\.write_(bytes|text)\(|(?<!part)\.open\(\"[wax]", file.read_text("utf-8"))
            if writes and not any(name.startswith(each) for each in BY_PATH):
                found.append(f"{name}: {writes.group()}")
    assert found == [], "use whole_file, write_whole or copy_folder"


def test_a_workspace_inside_a_root_is_no_part_of_it(result: tuple[Session, str]) -> None:
    session, result_id = result
    inside = f"work/results/{result_id}/overlay.png"
    assert (session.roots.paths[0] / inside).is_file()
    with pytest.raises(OutsideRootsError) as there, session.open(inside):
        pass
    with pytest.raises(OutsideRootsError) as nothing, session.open("work/nothing.png"):
        pass
    assert str(there.value) == str(nothing.value)
    assert [image.path for image in session.library("images").result.images] == ["discs.png"]
    with pytest.raises(InvalidArgumentError, match="allowed folder"):
        session.library("save", result_id=result_id, format="csv", folder="work/results/new")


@pytest.mark.parametrize("root", ["", "images", "results/below"])
def test_a_root_inside_the_workspace_is_refused(tmp_path: Path, root: str) -> None:
    (tmp_path / "work" / root).mkdir(parents=True)
    with pytest.raises(InvalidArgumentError, match="lies in the workspace"):
        Session(tmp_path / "work" / root, tmp_path / "work")


def test_an_unfinished_file_beside_another_never_lies_there_by_a_guessable_name(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), writing.whole_file(tmp_path / "new.csv", within=tmp_path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
