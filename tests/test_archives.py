"""Slides in a DICOMweb archive: fetched within bounds, without identifiers; whatever the archive does, a named error."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from drawn_archive import DrawnArchive, dicom, drawn_archive, reply, trickle
from drawn_dicom import base_level, draw_dicom
from drawn_slides import Drawing
from services import wait_until

from tissuetalk.models.errors import (
    BusyError,
    InvalidArgumentError,
    OutsideRootsError,
    TissuetalkError,
    WorkspaceFullError,
)
from tissuetalk.models.images import open_image
from tissuetalk.models.writing import remove
from tissuetalk.tools.jobs import Jobs, SegmentJob
from tissuetalk.tools.lanes import Lanes
from tissuetalk.tools.segment.request import SegmentArguments
from tissuetalk.tools.session import Session
from tissuetalk.tools.storage.archives import Archive, ArchiveLimits, Archives
from tissuetalk.tools.storage.copies import Copies
from tissuetalk.tools.storage.jobs import JobStore

pytest.importorskip("dicomweb_client", reason="needs tissuetalk[service]")

PATIENT = ArchiveLimits(answer_bytes=100_000, stalled_s=200.0, search_s=200.0)
QUICK = ArchiveLimits(stalled_s=1.0, search_s=3.0, series_s=3.0)
"""For archives that are slow themselves; a busy machine is not to be taken for one."""
FOR_EVER_S = 600.0
"""Longer than a test may take."""


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A series of somebody's, with a label; a file per instance."""
    largest = draw_dicom(
        Drawing(side_px=1100, fragment_mm2=0.05, mpp=0.5, smallest_px=600), tmp_path_factory.mktemp("a") / "s"
    )
    for path in list(largest.parent.glob("*.dcm")):
        header = pydicom.dcmread(path)
        header.PatientName, header.PatientID, header.AccessionNumber = "Muster^Erika", "PID-77", "ACC-5"
        header.save_as(path)
    header.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    header.save_as(largest.parent / f"{header.SOPInstanceUID}.dcm")
    another_slide()
    return largest.parent


@pytest.fixture(scope="module")
def served(slide: Path) -> Iterator[DrawnArchive]:
    with drawn_archive(slide) as archive:
        yield archive


@pytest.fixture
def archive(served: DrawnArchive) -> DrawnArchive:
    served.misdeed = None
    served.asked.clear()
    served.authorizations.clear()
    return served


@pytest.fixture(scope="module")
def opened(served: DrawnArchive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("archives")
    (folder / "root").mkdir()
    with Session(folder / "root", folder / "work", archives=[Archive.at("lab", served.url)]) as opened:
        yield opened


@pytest.fixture
def session(opened: Session, archive: DrawnArchive) -> Session:
    """One that has no copies, and asks the archive patiently."""
    remove(opened.workspace.folder / "archive")
    asks(opened, archive, PATIENT)
    return opened


def asks(session: Session, archive: DrawnArchive, limits: ArchiveLimits) -> None:
    assert session.roots.copies is not None
    session.roots.copies.archives = Archives([replace(Archive.at("lab", archive.url), limits=limits)])


def copied(session: Session) -> list[Path]:
    return sorted(session.workspace.folder.glob("archive/*/*"))


def test_a_slide_is_read_where_it_is_and_copied_without_identifiers(
    session: Session, archive: DrawnArchive, slide: Path
) -> None:
    largest = max(slide.glob("*.dcm"), key=lambda path: path.stat().st_size)
    with session.open(archive.address) as opened, open_image(largest, name="own") as own:
        assert (opened.width, opened.mpp, len(opened.files)) == (1100, 0.5, 3)
        assert np.array_equal(opened.overview(), own.overview())
        image = f"image://{opened.image_id}"
    asked = len(archive.asked)
    assert not any("LABEL" in str(pydicom.dcmread(path).ImageType) for path in copied(session))
    for path in copied(session):
        content = path.read_bytes()
        assert not any(name in content for name in (b"Muster", b"PID-77", b"ACC-5"))
    # the second time from the copy; its copy gone, from the archive again
    with session.open(archive.address), session.open(image):
        assert len(archive.asked) == asked
    for path in copied(session):
        path.unlink()
    copied_folder = next(path for path in session.workspace.folder.glob("archive/*") if path.is_dir())
    copied_folder.rmdir()
    with session.open(image) as again:
        assert f"image://{again.image_id}" == image and len(archive.asked) > asked


def test_a_listing_names_slides_and_says_when_an_archive_is_silent(
    session: Session, archive: DrawnArchive
) -> None:
    listed = session.library("images")
    assert [(image.path, image.size_bytes) for image in listed.result.images] == [(archive.address, None)]
    archive.misdeed = lambda request: reply(request, {}, 503) is None
    listed = session.library("images")
    assert listed.result.images == [] and "archive lab cannot answer now" in listed.text


def lies_about_its_uid(request: BaseHTTPRequestHandler) -> bool:
    served = Path(__file__).parent / "data" / "images" / "OSCC_400x_401.jpg"
    dicom(request, served.read_bytes())
    return True


@cache
def another_slide() -> bytes:
    other = BytesIO()
    base_level(Drawing(side_px=512, fragment_mm2=0.01)).save_as(other, enforce_file_format=True)
    return other.getvalue()


def claims_much(request: BaseHTTPRequestHandler) -> bool:
    request.send_response(200)
    request.send_header("Content-Type", "application/dicom")
    request.send_header("Content-Length", str(10**15))
    request.end_headers()
    return True


def never_ends(request: BaseHTTPRequestHandler) -> bool:
    request.send_response(200)
    request.send_header("Content-Type", "application/dicom")
    request.end_headers()
    while True:
        request.wfile.write(bytes(2**20))


def redirects(request: BaseHTTPRequestHandler) -> bool:
    reply(request, {}, 302, Location="http://127.0.0.1:1/secret")
    return True


def cut_off(request: BaseHTTPRequestHandler) -> bool:
    dicom(request, b"\0" * 128 + b"DICM", end=False)
    return True


MISDEEDS: dict[str, tuple[Callable[[BaseHTTPRequestHandler], bool], str, bool]] = {
    "redirects": (redirects, "unreadable_image: .*leads to another address", False),
    "redirects files": (redirects, "unreadable_image: .*leads to another address", True),
    "refuses": (lambda request: reply(request, {}, 401) is None, "unreadable_image: .*not let", False),
    "has nothing": (
        lambda request: reply(request, []) is None,
        "unknown_image: there is no dicomweb:lab",
        False,
    ),
    "is overloaded": (lambda request: reply(request, {}, 503) is None, "busy: .*cannot answer now", True),
    "is silent": (
        lambda request: not threading.Event().wait(FOR_EVER_S),
        "busy: .*(too long|broke off)",
        True,
    ),
    "trickles heads": (
        lambda request: trickle(request, FOR_EVER_S, head=True),
        "busy: .*(too long|broke off)",
        True,
    ),
    "trickles bodies": (
        lambda request: trickle(request, FOR_EVER_S, head=False),
        "busy: .*(too long|broke off)",
        True,
    ),
    "trickles answers": (
        lambda request: trickle(request, FOR_EVER_S, head=True),
        "busy: .*(too long|broke off)",
        False,
    ),
    "sends a page": (
        lambda request: reply(request, "<html>", Content_Type="text/html") is None,
        "unreadable_image: .*something else than DICOM JSON",
        False,
    ),
    "sends no DICOM": (
        lambda request: dicom(request, b"x", "text/html") is None,
        "unreadable_image: .*something else than a DICOM",
        True,
    ),
    "sends a picture": (lies_about_its_uid, "unreadable_image: .*is no DICOM file", True),
    "sends another slide": (
        lambda request: dicom(request, another_slide()) is None,
        "unreadable_image: .*another slide",
        True,
    ),
    "claims much": (claims_much, "image_too_large", True),
    "never ends": (never_ends, "busy: .*(too long|broke off)", True),
    "cuts off": (cut_off, "unreadable_image: .*no whole file", True),
    "answers nonsense": (
        lambda request: reply(request, [[1], "x"]) is None,
        "unreadable_image: .*no sense",
        False,
    ),
    "answers with other UIDs": (
        lambda request: reply(request, [{"00080018": {"vr": "UI", "Value": ["../../x"]}}]) is None,
        "unreadable_image: .*no sense",
        False,
    ),
    "answers without end": (
        lambda request: reply(request, ["x" * 200_000]) is None,
        "image_too_large",
        False,
    ),
    "has too many files": (
        lambda request: reply(request, [{"00080018": {"vr": "UI", "Value": ["1.2"]}}] * 201) is None,
        "image_too_large: .*more than 200 files",
        False,
    ),
}


@pytest.mark.parametrize("name", MISDEEDS)
def test_a_bad_archive_is_a_named_error_within_its_clock(
    name: str, session: Session, archive: DrawnArchive
) -> None:
    does, error, with_files = MISDEEDS[name]
    archive.misdeed = lambda request: ("/instances/" in request.path) == with_files and does(request)
    if error.startswith("busy: .*(too long|"):
        asks(session, archive, QUICK)
    with pytest.raises(TissuetalkError) as caught:
        session.open(archive.address)
    said = f"{caught.value.code}: {caught.value}"
    assert re.match(error, said), said
    assert archive.url not in said and "127.0.0.1" not in said
    assert copied(session) == [] and list(session.workspace.owners.folder.iterdir()) == []
    # and when it behaves again, all is well
    if name == "cuts off":
        archive.misdeed = None
        session.open(archive.address).close()


def test_a_job_that_is_cancelled_stops_its_download(session: Session, archive: DrawnArchive) -> None:
    def begun() -> bool:
        return any("/instances/" in path for path in archive.asked)

    archive.misdeed = lambda request: (
        "/instances/" in request.path and trickle(request, FOR_EVER_S, head=False)
    )
    asked = session.understand(SegmentArguments.of(archive.address, "nuclei", model="classical-nuclei"))
    job_id = JobStore(session.workspace).create("segment", SegmentJob(asked).as_json(), "somebody")
    lanes = Lanes()
    jobs = Jobs(session, lanes)
    assert jobs.resume() == [job_id]
    wait_until(begun)
    jobs.cancel(job_id)
    wait_until(lambda: jobs.status(job_id).result.state == "cancelled")
    jobs.close()
    lanes.close()
    assert copied(session) == [] and list(session.workspace.owners.folder.iterdir()) == []


@pytest.fixture
def gate(archive: DrawnArchive) -> Iterator[threading.Event]:
    """The archive has the files of the slide wait for it."""
    opened = threading.Event()
    archive.misdeed = lambda request: "/instances/" in request.path and not opened.wait(100)
    yield opened
    opened.set()


def test_a_question_about_a_slide_on_its_way_says_how_far_it_is(
    archive: DrawnArchive, gate: threading.Event, tmp_path: Path
) -> None:
    lab = replace(Archive.at("lab", archive.url), limits=PATIENT)
    (tmp_path / "root").mkdir()
    with Session(tmp_path / "root", tmp_path / "w", archives=(lab,), patience_s=0.5) as session:
        for _ in range(2):
            with pytest.raises(BusyError, match=r"on its way from its archive.*ask again"):
                session.view(image=archive.address)
        gate.set()  # it comes though nobody waits
        wait_until(lambda: copied(session))
        assert session.view(image=archive.address).result.image.width > 1000
        assert len(archive.asked) == len(set(archive.asked)), "it came once"


def test_work_on_a_slide_on_its_way_is_a_job_that_no_small_picture_waits_behind(
    session: Session, archive: DrawnArchive, gate: threading.Event
) -> None:
    asked = session.understand(SegmentArguments.of(archive.address, "nuclei", model="classical-nuclei"))
    lanes = Lanes(workers=1)
    jobs = Jobs(session, lanes)
    task = jobs.start(SegmentJob(asked))
    wait_until(lambda: any("/instances/" in path for path in archive.asked))
    assert task.lane is lanes.large and lanes.small.lengths() == (0, 0)
    pending = jobs.hand_over(task).result
    assert pending.image is None and "on its way from its archive" in pending.notes[0]
    wait_until(lambda: "on its way from its archive" in jobs.status(pending.job_id).text)
    gate.set()
    wait_until(lambda: jobs.status(pending.job_id).result.state == "done")
    assert jobs.status(pending.job_id).result.result.image.width > 1000
    jobs.close()
    lanes.close()


def test_nothing_else_on_the_network_is_reached(session: Session, archive: DrawnArchive) -> None:
    uids = archive.address.partition("/")[2]
    for address, error in (
        (f"dicomweb:other/{uids}", OutsideRootsError),
        (f"dicomweb:lab@127.0.0.1/{uids}", InvalidArgumentError),
        (f"dicomweb:lab/{uids}/../../x", InvalidArgumentError),
        ("dicomweb:lab/studies/../series/1", InvalidArgumentError),
        (f"dicomweb:lab/{uids}?x=http://127.0.0.1", InvalidArgumentError),
        (f"{archive.url}/{uids}", InvalidArgumentError),
        (f"dicomweb:{archive.url}/{uids}", InvalidArgumentError),
    ):
        with pytest.raises(error):
            session.open(address)
    assert archive.asked == []


def test_no_archive_is_asked_that_nobody_named(archive: DrawnArchive, tmp_path: Path) -> None:
    with Session(tmp_path, tmp_path / "work") as session, pytest.raises(OutsideRootsError, match="--archive"):
        session.open(archive.address)


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/dicom-web",
        "file:///etc/passwd",
        "http://archive.example.org/dicom-web",
        "https://reader:secret@archive.example.org/dicom-web",
        "https://archive.example.org/dicom-web?token=secret",
        "https:///dicom-web",
        "https://[::1/dicom-web",
    ],
)
def test_an_address_that_is_not_safe_is_refused_at_the_start(address: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Archive.at("lab", address)
    assert "secret" not in str(caught.value)


def test_credentials_come_from_a_file_or_the_environment_and_are_never_shown(
    archive: DrawnArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    file.write_text("reader:sesame\n")
    monkeypatch.setenv("TISSUETALK_ARCHIVE_LAB_2", "Bearer sesame")
    for asked in (Archive.at("lab", archive.url, file), Archive.at("lab-2", archive.url)):
        assert "sesame" not in repr(asked) and archive.url not in repr(asked)
        assert len(asked.slides(10)) == 1
    assert archive.authorizations == {"Basic cmVhZGVyOnNlc2FtZQ==", "Bearer sesame"}
    file.write_text("sesame")
    with pytest.raises(InvalidArgumentError) as caught:
        Archive.at("lab", archive.url, file)
    assert "sesame" not in str(caught.value)


def test_copies_keep_to_their_share(archive: DrawnArchive, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    asked = Archive.at("lab", archive.url)
    with Session(tmp_path / "root", tmp_path / "work", archives=[asked], quota_bytes=40_000) as session:
        with pytest.raises(TissuetalkError, match="quota"):
            session.open(archive.address)
        assert copied(session) == []


def test_copies_that_another_server_clears_away_meanwhile_trouble_nobody(tmp_path: Path) -> None:
    """Protects from: a slide that had come was a crash, because an old copy went while it was looked at."""
    folder, scratch = tmp_path / "archive", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()

    def serve(server: int) -> None:
        copies = Copies(folder, scratch, Archives([]), most_bytes=10_000)
        for number in range(150):
            part = scratch / f"{server}-{number}"
            part.mkdir()
            (part / "level.dcm").write_bytes(bytes(900))
            os.utime(part, (0, 0))  # not used for long
            with suppress(WorkspaceFullError):  # the others were faster
                copies._room()
                copies._publish(part, folder / part.name)

    with ThreadPoolExecutor(3) as servers:
        list(servers.map(serve, range(3)))
