"""The public Python API: what a notebook user relies on, and that the example runs."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn import disc_image

from tissuetalk.models.errors import InvalidArgumentError, OutsideRootsError, UnknownResultError
from tissuetalk.tools import Session

EXAMPLE = Path(__file__).parents[1] / "examples" / "quickstart.py"
ASKED = {"mpp": 0.5, "model": "classical-nuclei"}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    disc_image(tmp_path / "images" / "nuclei.png", 8)
    return tmp_path / "images"


def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = runpy.run_path(str(EXAMPLE))
    assert ran["overlay"].mode == "RGB"
    assert "invasive carcinoma -> absent" in capsys.readouterr().out
    assert (tmp_path / "quickstart-result" / "result.json").is_file()
    assert json.loads((tmp_path / "quickstart.geojson").read_text())["features"]


def test_importing_the_tools_is_cheap() -> None:
    program = (
        "import sys, tissuetalk.tools\n"
        "print([name for name in ('numpy', 'pydantic', 'torch', 'PIL', 'tissuetalk.models.registry') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_masks_are_arrays_and_objects_are_tables(images: Path) -> None:
    with Session(images) as session:
        found = session.segment("nuclei.png", "please outline all nuclei", **ASKED)
        (mask,) = found.masks
        assert mask.name == "nuclei" and mask.record.count == 8
        assert mask.mask.dtype == bool and mask.mask.sum() == mask.record.area_px
        assert mask.instances is not None and mask.instances.max() == 8
        assert ((mask.instances > 0) == mask.mask).all()
        assert len(mask.objects) == 8 and mask.objects["area_px"].sum() == mask.record.area_px
        assert set(found.objects["mask"]) == {"nuclei"}
        assert found.overlay.mode == mask.overlay.mode == "RGB"
        assert json.loads(mask.to_json())["mask_id"] == mask.record.mask_id
        assert json.loads(found.to_json())["masks"][0]["count"] == 8
        assert found.image is not None and found._repr_jpeg_() is not None


def test_every_verb_takes_what_segment_gave(images: Path, tmp_path: Path) -> None:
    with Session(images) as session:
        found = session.segment("nuclei.png", targets=[{"words": "nuclei"}], **ASKED)
        (row,) = session.measure(found, ["count"]).result.measurements
        assert row.value == 8
        assert session.explain(found, "which words?").result.evidence
        assert session.view(result_id=found.result.result_id).image is not None
        assert session.library("results").result.results[0].result_id == found.result.result_id
        saved = found.save(tmp_path / "saved")
        (again,) = session.measure(tmp_path / "saved", ["count"]).result.measurements
        assert again.value == 8
        assert np.array_equal(saved.masks[0].mask, found.masks[0].mask)
        assert session.export(saved, "csv", tmp_path / "objects.csv").stat().st_size > 0
        with session.open("nuclei.png") as source:
            assert [0, 0, source.width, source.height] == found.result.image.region


def test_a_temporary_workspace_goes_with_its_session_and_a_named_one_stays(
    images: Path, tmp_path: Path
) -> None:
    with Session(images) as session:
        folder = session.workspace.folder
        assert folder.is_dir()
    assert not folder.exists()
    with Session(images, tmp_path / "kept") as session:
        result_id = session.segment("nuclei.png", "nuclei", **ASKED).result.result_id
    with Session(images, tmp_path / "kept") as session:
        assert session.result(result_id).masks[0].record.count == 8
    with Session(images) as session, pytest.raises(UnknownResultError):
        session.result(result_id)


def test_roots_are_a_fence_and_ids_are_never_paths(images: Path, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    with Session(images) as session:
        with pytest.raises(OutsideRootsError):
            session.segment("../other.png", "nuclei")
        with pytest.raises(UnknownResultError):
            session.measure(str(tmp_path / "saved"))
        with pytest.raises(InvalidArgumentError):
            session.segment("nuclei.png")


def test_an_option_nobody_knows_is_refused(images: Path) -> None:
    with Session(images) as session, pytest.raises(TypeError, match="magnification"):
        session.segment("nuclei.png", "nuclei", magnification=40)
