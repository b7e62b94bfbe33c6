"""A slide in a real archive (Debian's Orthanc): segmented by its address through a server with accounts, and what was found sent back to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from conftest import Place
from conversation import call, segmented, text_of
from drawn_dicom import draw_dicom
from drawn_slides import Drawing
from http_server import http_server
from issuer import issuing
from services import Orthanc, orthanc
from test_tenants import Shared, accounts_of

from tissuetalk.models.errors import UnreadableImageError
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


@pytest.fixture(scope="module")
def slide(archive: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> pydicom.Dataset:
    """Header of the largest level of somebody's slide, which the archive has."""
    drawing = Drawing(side_px=1100, fragment_mm2=0.2, mpp=0.5, smallest_px=600)
    largest = draw_dicom(drawing, tmp_path_factory.mktemp("drawn") / "slide")
    for path in largest.parent.glob("*.dcm"):
        level = pydicom.dcmread(path)
        level.PatientName, level.PatientID = "Muster^Erika", "PID-77"
        client_of(archive).store_instances([level])
    return pydicom.dcmread(largest, stop_before_pixels=True)


@pytest.fixture(scope="module")
def shared(archive: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A server with accounts, of which one tenant may ask the archive."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "root").mkdir()
    credentials = folder / "credentials"
    credentials.write_text(f"{archive.user}:{archive.password}")
    known = {"north": {"archives": {"lab": {"url": archive.url, "credentials": str(credentials)}}}}
    with issuing() as issuer:
        accounts = accounts_of(folder, issuer, known, north=folder / "root", south=folder / "root")
        place = Place(folder / "root", folder / "work")
        with http_server(place, "--accounts", str(accounts), "--log-format", "json") as server:
            yield Shared(server, issuer)


async def test_a_slide_of_an_archive_is_segmented_and_the_objects_go_back(
    archive: Orthanc, slide: pydicom.Dataset, shared: Shared
) -> None:
    async with shared.client("north") as client:
        listed = await call(client, "library", action="images")
        (image,) = listed.structured_content["images"]
        assert image["path"].endswith(f"/series/{slide.SeriesInstanceUID}") and image["size_bytes"] is None
        assert "Muster" not in listed.model_dump_json() and "PID-77" not in listed.model_dump_json()
        asked = {"image": image["path"], "words": "nuclei", "model": "classical-nuclei", "region": REGION}
        found = await segmented(client, **asked)
        assert found["masks"][0]["count"] > 10
        numbers = await call(client, "measure", result_id=found["result_id"])
        uids = {}
        for format in ("dicom-seg", "dicom-ann", "dicom-sr"):
            back = {"result_id": found["result_id"], "format": format, "folder": "dicomweb:lab"}
            saved = await call(client, "library", action="save", **back)
            (uids[format],) = saved.structured_content["saved"]
    async with shared.client("south") as other:
        refused = await other.call_tool("segment", asked)
        assert refused.is_error and text_of(refused).startswith("outside_roots: "), text_of(refused)
        assert (await call(other, "library", action="images")).structured_content["images"] == []
    objects = {format: stored_in(archive, slide, uid) for format, uid in uids.items()}
    for each in objects.values():
        assert (each.PatientName, each.PatientID) == ("Muster^Erika", "PID-77")
        assert each.StudyInstanceUID == slide.StudyInstanceUID
        assert slide.SOPInstanceUID in str(each) and slide.SeriesInstanceUID in str(each)
    assert len(client_of(archive).search_for_studies()) == 1
    holds_what_was_found(objects, found["masks"][0], numbers.structured_content["measurements"])
    # nothing of the patient stays here
    for path in shared.server.place.workspace.parent.rglob("*"):
        if path.is_file() and path.name != "credentials":
            content = path.read_bytes()
            assert not any(name in content for name in (b"Muster", b"PID-77", b"sesame")), path


def holds_what_was_found(
    objects: dict[str, pydicom.Dataset], mask: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    read = highdicom.seg.Segmentation.from_dataset(objects["dicom-seg"])
    assert int(np.count_nonzero(read.pixel_array)) == mask["area_px"]
    annotations = highdicom.ann.MicroscopyBulkSimpleAnnotations.from_dataset(objects["dicom-ann"])
    (group,) = annotations.get_annotation_groups()
    assert group.number_of_annotations >= mask["count"]
    report = highdicom.sr.ComprehensiveSR.from_dataset(objects["dicom-sr"])
    (measured,) = report.content.get_image_measurement_groups()
    assert measured.tracking_identifier == mask["mask_id"]
    told = {each.name.meaning: each.value for each in measured.get_measurements()}
    assert told == {
        row["metric"]: pytest.approx(row["value"], rel=1e-6) for row in rows if row["value"] is not None
    }


def test_wrong_credentials_are_said_without_saying_them(
    archive: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TISSUETALK_ARCHIVE_LAB", f"{archive.user}:wrong")
    with pytest.raises(UnreadableImageError, match="does not let this server in") as caught:
        Archive.at("lab", archive.url).slides(10)
    assert "wrong" not in str(caught.value)
