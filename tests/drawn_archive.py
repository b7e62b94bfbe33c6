"""A DICOMweb archive of one slide as a real HTTP server, which can be told to be slow, to lie or to lead elsewhere."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pydicom

Misdeed = Callable[[BaseHTTPRequestHandler], bool]
"""True when it has answered itself."""


@dataclass
class DrawnArchive:
    """asked: every path. misdeed: does something else than answering, where it likes to."""

    folder: Path
    url: str = ""
    study: str = ""
    series: str = ""
    asked: list[str] = field(default_factory=list)
    authorizations: set[str | None] = field(default_factory=set)
    misdeed: Misdeed | None = None

    @property
    def address(self) -> str:
        return f"dicomweb:lab/studies/{self.study}/series/{self.series}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        self.authorizations.add(request.headers.get("Authorization"))
        if self.misdeed is not None and self.misdeed(request):
            return
        path = request.path.partition("?")[0]
        instances = {name.stem: name for name in self.folder.glob("*.dcm")}
        whole = f"/dicom-web/studies/{self.study}/series/{self.series}/instances"
        if path == "/dicom-web/series":
            reply(request, [_row(StudyInstanceUID=self.study, SeriesInstanceUID=self.series)])
        elif path == whole:
            headers = [pydicom.dcmread(each, stop_before_pixels=True) for each in instances.values()]
            names = ("SOPClassUID", "SOPInstanceUID", "ImageType")
            reply(request, [_row(**{name: each.get(name) for name in names}) for each in headers])
        elif path.startswith(f"{whole}/") and path.rsplit("/", 1)[1] in instances:
            dicom(request, instances[path.rsplit("/", 1)[1]].read_bytes())
        else:
            reply(request, [], 404)


def reply(request: BaseHTTPRequestHandler, content: Any, status: int = 200, **headers: str) -> None:
    body = json.dumps(content).encode()
    request.send_response(status)
    sent = {"Content-Type": "application/dicom+json", "Content-Length": str(len(body))}
    for name, value in (sent | {name.replace("_", "-"): value for name, value in headers.items()}).items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


def dicom(request: BaseHTTPRequestHandler, content: bytes, kind: str | None = None, end: bool = True) -> None:
    """One file as archives send it: alone in a multipart body."""
    body = (
        b"--mark\r\nContent-Type: application/dicom\r\n\r\n" + content + (b"\r\n--mark--\r\n" if end else b"")
    )
    request.send_response(200)
    request.send_header("Content-Type", kind or 'multipart/related; type="application/dicom"; boundary=mark')
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def _row(**values: Any) -> dict[str, Any]:
    row = pydicom.Dataset()
    for name, value in values.items():
        setattr(row, name, value)
    return row.to_json_dict()


@contextmanager
def drawn_archive(folder: Path) -> Iterator[DrawnArchive]:
    """folder: of one series, a file per instance, each called by its UID."""
    header = pydicom.dcmread(next(folder.glob("*.dcm")), stop_before_pixels=True)
    archive = DrawnArchive(folder, study=header.StudyInstanceUID, series=header.SeriesInstanceUID)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(OSError):  # whoever asked has gone
                archive.answer(self)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        archive.url = f"http://127.0.0.1:{server.server_port}/dicom-web"
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield archive
        finally:
            server.shutdown()
            thread.join()


def trickle(request: BaseHTTPRequestHandler, seconds: float, *, head: bool) -> bool:
    """A byte now and then, in the headers or in the body."""
    if not head:
        request.send_response(200)
        request.send_header("Content-Type", "application/dicom")
        request.send_header("Content-Length", "1000000")
        request.end_headers()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        request.wfile.write(b"x")
        request.wfile.flush()
        time.sleep(0.2)
    return True
