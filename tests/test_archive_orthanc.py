"""A slide in a real archive (Debian's Orthanc): segmented over MCP by its address, and what was found sent back to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from conversation import call, segmented
from drawn_dicom import draw_dicom
from drawn_slides import Drawing
from mcp import Client
from services import Orthanc, orthanc

from tissuetalk.models.errors import UnreadableImageError
from tissuetalk.server.app import build_server
from tissuetalk.server.service import Service, Settings
from tissuetalk.tools.storage.archives import Archive

pytestmark = [pytest.mark.anyio, pytest.mark.service]
REGION = [400, 400, 700, 700]


@pytest.fixture(scope="module")
def archive() -> Iterator[Orthanc]:
    with orthanc() as running:
        yield running


def client_of(archive: Orthanc) -> Any:
    import requests
    from dicomweb_client.api import DICOMwebClient

    line = requests.Session()
    line.auth = (archive.user, archive.password)
    return DICOMwebClient(archive.url, session=line)


def stored_in(archive: Orthanc, series: pydicom.Dataset, uid: str) -> pydicom.Dataset:
    """One object of the slide's study, read back."""
    client = client_of(archive)
    rows = client.search_for_instances(series.StudyInstanceUID)
    (of,) = [row["0020000E"]["Value"][0] for row in rows if row["00080018"]["Value"][0] == uid]
    found: pydicom.Dataset = client.retrieve_instance(series.StudyInstanceUID, of, uid)
    return found


async def test_a_slide_of_an_archive_is_segmented_and_the_objects_go_back(
    archive: Orthanc, tmp_path: Path
) -> None:
    largest = draw_dicom(
        Drawing(side_px=1100, fragment_mm2=0.2, mpp=0.5, smallest_px=600), tmp_path / "slide"
    )
    for path in largest.parent.glob("*.dcm"):
        level = pydicom.dcmread(path)
        level.PatientName, level.PatientID = "Muster^Erika", "PID-77"
        client_of(archive).store_instances([level])
    own = pydicom.dcmread(largest, stop_before_pixels=True)
    credentials = tmp_path / "credentials"
    credentials.write_text(f"{archive.user}:{archive.password}")
    (tmp_path / "root").mkdir()
    known = Archive.at("lab", archive.url, credentials)
    settings = Settings((tmp_path / "root",), tmp_path / "work", archives=(known,))
    async with Client(build_server(Service(settings))) as client:
        listed = await call(client, "library", action="images")
        (image,) = listed.structured_content["images"]
        assert image["path"].endswith(f"/series/{own.SeriesInstanceUID}") and image["size_bytes"] is None
        assert "Muster" not in listed.model_dump_json() and "PID-77" not in listed.model_dump_json()
        found = await segmented(
            client, image=image["path"], words="nuclei", model="classical-nuclei", region=REGION
        )
        assert found["masks"][0]["count"] > 10
        numbers = await call(client, "measure", result_id=found["result_id"])
        uids = {}
        for format in ("dicom-seg", "dicom-ann", "dicom-sr"):
            saved = await call(
                client,
                "library",
                action="save",
                result_id=found["result_id"],
                format=format,
                folder="dicomweb:lab",
            )
            (uids[format],) = saved.structured_content["saved"]
    objects = {format: stored_in(archive, own, uid) for format, uid in uids.items()}
    for each in objects.values():
        assert (each.PatientName, each.PatientID) == ("Muster^Erika", "PID-77")
        assert each.StudyInstanceUID == own.StudyInstanceUID
        assert own.SOPInstanceUID in str(each) and own.SeriesInstanceUID in str(each)
    assert len(client_of(archive).search_for_studies()) == 1

    mask = found["masks"][0]
    read = highdicom.seg.Segmentation.from_dataset(objects["dicom-seg"])
    assert int(np.count_nonzero(read.pixel_array)) == mask["area_px"]
    (group,) = highdicom.ann.MicroscopyBulkSimpleAnnotations.from_dataset(
        objects["dicom-ann"]
    ).get_annotation_groups()
    assert group.number_of_annotations >= mask["count"]
    report = highdicom.sr.ComprehensiveSR.from_dataset(objects["dicom-sr"])
    (measured,) = report.content.get_image_measurement_groups()
    assert measured.tracking_identifier == mask["mask_id"]
    told = {each.name.meaning: each.value for each in measured.get_measurements()}
    rows = numbers.structured_content["measurements"]
    assert told == {
        row["metric"]: pytest.approx(row["value"], rel=1e-6) for row in rows if row["value"] is not None
    }
    # nothing of the patient stays here
    for path in (tmp_path / "work").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(name in content for name in (b"Muster", b"PID-77", b"sesame")), path


def test_wrong_credentials_are_said_without_saying_them(
    archive: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TISSUETALK_ARCHIVE_LAB", f"{archive.user}:wrong")
    with pytest.raises(UnreadableImageError, match="does not let this server in") as caught:
        Archive.at("lab", archive.url).slides(10)
    assert "wrong" not in str(caught.value)
