"""Where exports may be written, what they refuse, and how server and command line reach them."""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import subprocess
import sys
from contextlib import ExitStack
from importlib import resources
from pathlib import Path

import highdicom
import pydicom
import pytest
from drawn import discs, save
from exported import exported, result
from pydicom.uid import ExplicitVRLittleEndian

from tissuetalk.models.errors import (
    InvalidArgumentError,
    ModelUnavailableError,
    UnknownImageError,
    WorkspaceFullError,
)
from tissuetalk.models.images import CheckedFile
from tissuetalk.models.writing import library
from tissuetalk.tools.answers.results import TargetArgument
from tissuetalk.tools.export import FORMATS, dicom, export, geojson
from tissuetalk.tools.masks.stored import open_masks
from tissuetalk.tools.segment.request import SegmentArguments
from tissuetalk.tools.session import Session


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_ever_overwritten(tmp_path: Path, format: str) -> None:
    folder, opener = result(tmp_path)
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(InvalidArgumentError, match="exists; choose a new name"):
        export(folder, format, taken, opener)
    assert taken.read_text() == "mine"


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    assert exported(tmp_path, "csv", "new/deeper/objects.csv").is_file()


def test_a_file_where_a_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgumentError, match=r"choose a name in a folder"):
        exported(tmp_path, "geojson", "file/objects.geojson")


def test_an_unknown_format_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidArgumentError, match="geojson, csv, parquet, ome-zarr, dicom-seg, dicom-ann, training, coco"
    ):
        exported(tmp_path, "xlsx", "objects.xlsx")


@pytest.mark.parametrize("format", ["ome-zarr", "dicom-seg", "dicom-ann", "parquet", "csv"])
def test_an_export_that_fails_half_way_leaves_nothing(tmp_path: Path, format: str) -> None:
    folder, _ = result(tmp_path)
    before = set(tmp_path.iterdir())
    (tmp_path / "picture.png").rename(tmp_path / "elsewhere.png")
    with Session() as session, pytest.raises(UnknownImageError, match="put it back"):
        session.export(folder.path, format, tmp_path / "out")
    (tmp_path / "elsewhere.png").rename(tmp_path / "picture.png")
    assert set(tmp_path.iterdir()) == before


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder, opener = result(tmp_path)
    monkeypatch.setattr(geojson, "write_features", full)
    with pytest.raises(WorkspaceFullError, match="make room"):
        export(folder, "geojson", tmp_path / "objects.geojson", opener)
    assert not [path for path in tmp_path.iterdir() if ".geojson" in path.name]


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ModelUnavailableError, match=r"highdicom.*pip install 'tissuetalk\[export\]'"):
        library("highdicom")


def test_listing_the_formats_imports_none_of_their_libraries() -> None:
    heavy = ["highdicom", "pyarrow", "zarr", "ome_zarr", "pycocotools", "dask"]
    code = f"import sys, tissuetalk.tools.export; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_dicom_slide_is_referred_to_by_its_own_identity(tmp_path: Path) -> None:
    folder, opener = result(tmp_path)
    own = dicom.slide_of(open_masks(folder, opener))
    own.PatientID, own.SOPInstanceUID = "P-17", highdicom.UID()
    own.file_meta = pydicom.dataset.FileMetaDataset()
    own.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    overview = copy.deepcopy(own)
    overview.SOPInstanceUID, overview.TotalPixelMatrixColumns = highdicom.UID(), 50
    own.save_as(tmp_path / "level0.dcm", enforce_file_format=True)
    overview.save_as(tmp_path / "level1.dcm", enforce_file_format=True)
    size = folder.result().image.width, folder.result().image.height
    with ExitStack() as stack:
        paths = (tmp_path / "level0.dcm", tmp_path / "level1.dcm", tmp_path / "picture.png")
        levels = [stack.enter_context(CheckedFile(path.open("rb"), name=path.name)) for path in paths]
        for opened in (levels[:2], levels[1::-1]):
            header = dicom.own_header(opened, *size)
            assert header is not None and (header.SOPInstanceUID, header.PatientID) == (
                own.SOPInstanceUID,
                "P-17",
            )
        assert dicom.own_header(levels[:1], 3, 3) is None
        assert dicom.own_header(levels[2:], *size) is None


def test_save_writes_any_format_into_a_folder_of_the_user(tmp_path: Path) -> None:
    root = tmp_path / "images"
    save(root / "discs.png", discs(120, 120, [(40, 40), (80, 80)]))
    session = Session(root, tmp_path / "workspace")
    with contextlib.closing(session):
        nuclei = (TargetArgument(words="nuclei"),)
        asked = SegmentArguments(image="discs.png", targets=nuclei, mpp=0.5, model="classical-nuclei")
        result_id = session.segment_request(session.understand(asked)).result.result_id
        for format in ("geojson", "coco"):
            session.library("save", result_id=result_id, format=format, folder=f"kept/{format}")
        with pytest.raises(InvalidArgumentError, match="choose from: folder, geojson"):
            session.library("save", result_id=result_id, format="xlsx", folder="kept/xlsx")
    assert [path.name for path in (root / "kept" / "geojson").iterdir()] == ["objects.geojson"]
    assert len(json.loads((root / "kept" / "coco" / "coco.json").read_text())["annotations"]) == 2


def tissuetalk(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("tissuetalk"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_line_exports_a_real_result(tmp_path: Path) -> None:
    with resources.as_file(resources.files("tissuetalk.models").joinpath("samples", "tnbc.jpg")) as image:
        asked = ("segment", str(image), "nuclei", "--model", "classical-nuclei", "--mpp", "0.25")
        done = tissuetalk(*asked, "--region", "0,0,256,256", "--out", str(tmp_path / "result"))
        assert done.returncode == 0, done.stderr
        made = tissuetalk(
            *("export", str(tmp_path / "result"), "--format", "dicom-seg"),
            "--out",
            str(tmp_path / "seg.dcm"),
            "--json",
        )
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout) == {"format": "dicom-seg", "out": str(tmp_path / "seg.dcm")}
    (mask,) = json.loads((tmp_path / "result" / "result.json").read_text())["masks"]
    segmentation = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert segmentation.get_total_pixel_matrix().sum() == mask["area_px"] > 0
    refused = tissuetalk("export", str(tmp_path / "result"), "--format", "xlsx", "--out", str(tmp_path / "x"))
    assert refused.returncode == 2 and "choose from: geojson" in refused.stderr
