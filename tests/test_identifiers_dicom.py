"""DICOM objects made of a DICOM slide name nobody unless they are asked to, and still belong together."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import planted
import pydicom
import pytest
from drawn import stored

from tissuetalk.models.images import ImageSource, open_image
from tissuetalk.tools.export import export
from tissuetalk.tools.storage.result_folder import ResultFolder

Result = tuple[ResultFolder, Callable[[], ImageSource]]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("planted")
    slide = planted.dicom(folder / planted.FILE_NAME)
    labels = np.zeros((1100, 1100), np.int32)
    labels[100:150, 100:150] = 1
    kept = stored(folder / "result", {"nuclei": (labels > 0, labels)})
    kept.write_request({"image": str(slide)})
    return kept, lambda: open_image(slide, name="slide")


def test_the_corpus_names_the_patient_everywhere(result: Result) -> None:
    folder, _ = result
    assert planted.found_in(Path(folder.request()["image"]).read_bytes()) == set(planted.IDENTIFIERS)


@pytest.mark.parametrize("format", ["dicom-seg", "dicom-ann"])
def test_identifiers_are_removed_and_the_export_says_so(format: str, result: Result, tmp_path: Path) -> None:
    out = export(result[0], format, tmp_path / "out.dcm", result[1])
    assert planted.found_in(out.read_bytes(), planted.FILE_NAME) == set()
    header = pydicom.dcmread(out)
    assert header.PatientIdentityRemoved == "YES"
    (method,) = header.DeidentificationMethodCodeSequence
    assert (method.CodeValue, method.CodingSchemeDesignator) == ("113100", "DCM")
    empty = "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyID AccessionNumber"
    assert not any(header[name].value for name in empty.split())
    assert '"identifiers": "removed"' in str(_told(header))


def test_all_exports_of_a_slide_refer_to_one_new_series(result: Result, tmp_path: Path) -> None:
    made = [
        pydicom.dcmread(export(result[0], format, tmp_path / f"{number}.dcm", result[1]))
        for number, format in enumerate(["dicom-seg", "dicom-ann", "dicom-seg"])
    ]
    assert len({header.StudyInstanceUID for header in made}) == 1
    assert len({header.ReferencedSeriesSequence[0].SeriesInstanceUID for header in made}) == 1
    seg, ann, again = made
    referred = seg.SourceImageSequence[0].ReferencedSOPInstanceUID
    assert referred == ann.ReferencedImageSequence[0].ReferencedSOPInstanceUID
    assert referred == again.SourceImageSequence[0].ReferencedSOPInstanceUID
    assert len({header.SeriesInstanceUID for header in made}) == 3
    assert seg.TotalPixelMatrixColumns == 1100 and seg.ImageOrientationSlide == [0, -1, 0, -1, 0, 0]
    assert seg.SpecimenDescriptionSequence[0].SpecimenUID.startswith("2.25.")


def test_identifiers_are_kept_when_asked_for_and_the_export_says_so(result: Result, tmp_path: Path) -> None:
    folder, opener = result
    own = pydicom.dcmread(Path(folder.request()["image"]))
    for format in ("dicom-seg", "dicom-ann"):
        header = pydicom.dcmread(
            export(folder, format, tmp_path / f"{format}.dcm", opener, keep_identifiers=True)
        )
        assert header.PatientName == own.PatientName and header.StudyInstanceUID == own.StudyInstanceUID
        assert '"identifiers": "kept' in str(_told(header))


def test_the_command_line_has_the_option(result: Result, tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("tissuetalk"), "export", result[0].path, "--format", "coco"]
    out = tmp_path / "coco.json"
    done = subprocess.run(
        [*command, "--out", out, "--keep-identifiers"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(out.read_text())
    assert told["images"][0]["file_name"].startswith(planted.FILE_NAME)
    assert told["info"]["identifiers"].startswith("kept")


def _told(header: pydicom.Dataset) -> str:
    if "ImageComments" in header:
        return header.ImageComments
    return header.AnnotationGroupSequence[0].AnnotationGroupDescription
