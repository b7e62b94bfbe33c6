"""A line to one DICOMweb archive: no redirect is followed, and every answer has a clock, a size and a kind.

A clock per packet does not end an answer that trickles. So each request has one over all of it: when it is up, the connection
is shut, whoever reads from it.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from typing import Any, BinaryIO

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from tissuetalk.models.control import Control, Stop
from tissuetalk.models.errors import (
    BusyError,
    ImageTooLargeError,
    TissuetalkError,
    UnknownImageError,
    UnreadableImageError,
)

_JSON = ("application/dicom+json", "application/json")
_CHUNK_BYTES = 2**18
_HEAD_BYTES = 16 * 2**10
_LOOK_EVERY_S = 0.2


class Line(requests.Session):
    """name: of the archive, all that messages say of it. authorization: the header, or none at all.

    stalled_s: between two packets. search_s, answer_bytes: for what is small, answers to questions.
    """

    def __init__(
        self, name: str, authorization: str | None, *, stalled_s: float, search_s: float, answer_bytes: int
    ) -> None:
        super().__init__()
        self.name = name
        self._stalled_s, self._search_s, self._answer_bytes = stalled_s, search_s, answer_bytes
        self._clocks = _Clocks()
        self.auth = _Authorization(authorization)
        self.headers.update({"Accept": _JSON[0], "Accept-Encoding": "identity"})
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(self._clocks))

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """For whoever asks small things through this session: the whole answer, read within its bounds."""
        with self._answered(request, self._search_s, options) as response:
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            body = io.BytesIO()
            self._read(response, body, self._answer_bytes)
            if body.tell() and kind not in _JSON:
                raise UnreadableImageError(
                    f"the archive {self.name} answers with something else than DICOM JSON; tell whoever runs it."
                )
            body.seek(0)
            whole = requests.Response()
            whole.status_code, whole.headers, whole.request = response.status_code, response.headers, request
            whole.url, whole.raw = response.url, body
            return whole

    def download(self, url: str, out: BinaryIO, most_bytes: int, seconds: float, control: Control) -> None:
        """The DICOM file at an address of the archive. Raises the errors of ``_answered``, ImageTooLargeError, CancelledError."""
        try:
            self._download(url, out, most_bytes, seconds, control)
        except TissuetalkError:
            control.check()  # what was stopped looks as if the archive had broken off
            raise

    def _download(self, url: str, out: BinaryIO, most_bytes: int, seconds: float, control: Control) -> None:
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        request = self.prepare_request(requests.Request("GET", url, headers={"Accept": accept}))
        options = self.merge_environment_settings(url, {}, True, None, None)
        with self._answered(request, seconds, dict(options), control.stop) as response:
            kind = response.headers.get("Content-Type", "")
            if kind.lower().startswith("application/dicom"):
                self._read(response, out, most_bytes, control)
            elif kind.lower().startswith("multipart/related") and (boundary := _boundary(kind)):
                part = _Part(out, boundary)
                try:
                    self._read(response, part, most_bytes + 2 * _HEAD_BYTES, control)
                    part.end()
                except ValueError as error:
                    raise UnreadableImageError(
                        f"the archive {self.name} sent no whole file; try again, or tell whoever runs it."
                    ) from error
            else:
                raise UnreadableImageError(
                    f"the archive {self.name} answers with something else than a DICOM file; tell whoever runs it."
                )

    @contextmanager
    def _answered(
        self,
        request: requests.PreparedRequest,
        seconds: float,
        options: dict[str, Any],
        stop: Stop = lambda: False,
    ) -> Iterator[requests.Response]:
        """Raises BusyError for an archive that does not answer in time, UnknownImageError for what it does not have,
        UnreadableImageError for one that lets nobody in, or leads elsewhere."""
        options |= {"stream": True, "allow_redirects": False, "timeout": self._stalled_s}
        slow = BusyError(f"the archive {self.name} takes too long; try again later, or tell whoever runs it.")
        with self._clocks.running(seconds, stop) as is_up:
            try:
                with super().send(request, **options) as response:
                    self._require_good(response.status_code)
                    yield response
                    if is_up():  # a body without a length seems to end where it was shut
                        raise slow
            except TissuetalkError as error:
                if is_up() and error is not slow:
                    raise slow from error
                raise
            except (requests.Timeout, requests.exceptions.RetryError) as error:
                raise slow from error
            except requests.exceptions.SSLError as error:
                if is_up():
                    raise slow from error
                raise UnreadableImageError(
                    f"the archive {self.name} has no certificate that is known here; tell whoever runs this server."
                ) from error
            except (requests.RequestException, OSError, ValueError, AttributeError) as error:
                if is_up() or "timed out" in str(error).lower():
                    raise slow from error
                if isinstance(error, requests.RequestException):
                    raise BusyError(
                        f"the archive {self.name} cannot be reached, or broke off; try again later, or tell whoever runs it."
                    ) from error
                raise

    def _require_good(self, status: int) -> None:
        if status in (404, 410):
            raise UnknownImageError(
                f"the archive {self.name} has nothing at this address; library(action='images') lists what it has."
            )
        if status == 429 or status >= 500:
            raise BusyError(f"the archive {self.name} cannot answer now (HTTP {status}); try again later.")
        if 300 <= status < 400:
            why = "leads to another address, which is not followed"
        elif status in (401, 403):
            why = "does not let this server in"
        elif status >= 400:
            why = f"refuses this request (HTTP {status})"
        else:
            return
        raise UnreadableImageError(f"the archive {self.name} {why}; tell whoever runs this server.")

    def _read(
        self,
        response: requests.Response,
        out: BinaryIO | _Part,
        most_bytes: int,
        control: Control = Control(),
    ) -> None:
        """control: is told the share that has come, 0 where the archive does not say how much it will be."""
        claimed = response.headers.get("Content-Length", "")
        too_large = ImageTooLargeError(
            f"the archive {self.name} sends more than the {most_bytes:,} bytes that are left for it; "
            "ask whoever runs this server for a larger --quota."
        )
        whole = int(claimed[:20]) if claimed.isdigit() else 0
        if whole > most_bytes:
            raise too_large
        come = 0
        for chunk in response.iter_content(_CHUNK_BYTES):
            come += len(chunk)
            if come > most_bytes:
                raise too_large
            out.write(chunk)
            control.report(min(1.0, come / whole) if whole else 0.0, f"{come / 1e6:.0f} MB of one file")


class _Part:
    """Takes a multipart body with one part as it comes, and leaves that part's content in a file."""

    def __init__(self, out: BinaryIO, boundary: bytes) -> None:
        self._out, self._mark = out, b"--" + boundary
        self._head: bytes | None = b""

    def write(self, chunk: bytes) -> None:
        """Raises ValueError for what has no beginning of a part."""
        if self._head is None:
            self._out.write(chunk)
            return
        self._head += chunk
        before, end, content = self._head.partition(b"\r\n\r\n")
        if not before.lstrip(b"\r\n").startswith(self._mark) or len(before) > _HEAD_BYTES:
            raise ValueError("it does not begin with a part")
        if end:
            self._head = None
            self._out.write(content)

    def end(self) -> None:
        """Raises ValueError where the part has no end."""
        self._out.seek(max(0, self._out.tell() - _HEAD_BYTES))
        start, tail = self._out.tell(), self._out.read()
        at = tail.rfind(b"\r\n" + self._mark)
        if self._head is not None or at < 0:
            raise ValueError("it has no end")
        self._out.truncate(start + at)


def _boundary(kind: str) -> bytes:
    """Of a multipart content type; empty where there is none."""
    message = Message()
    message["Content-Type"] = kind[:1000]
    return str(message.get_param("boundary", "")).encode()


class _Authorization(AuthBase):
    """Given even when there is none: requests would look into .netrc."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value is not None:
            request.headers["Authorization"] = self._value
        return request


class _Adapter(HTTPAdapter):
    """Tells the clocks of every connection that is made."""

    def __init__(self, clocks: _Clocks) -> None:
        self._clocks = clocks
        super().__init__()

    def get_connection_with_tls_context(self, *about: Any, **options: Any) -> Any:
        pool = super().get_connection_with_tls_context(*about, **options)
        if not hasattr(pool.ConnectionCls, "clocks"):
            kind = pool.ConnectionCls
            pool.ConnectionCls = type(kind.__name__, (_Watched, kind), {"clocks": self._clocks})
        return pool


class _Watched:
    """Mixed into urllib3's connections."""

    clocks: _Clocks
    sock: socket.socket

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]  # that of the connection it is mixed into
        self.clocks.opened(self.sock)


class _Clocks:
    """Shuts the connections of a line when the time of its request is up, or somebody wants its end. A line does one thing at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._up = False

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.append(connection)
            if self._up:
                _shut(connection)

    @contextmanager
    def running(self, seconds: float, stop: Stop) -> Iterator[Callable[[], bool]]:
        """Gives whether the time is up."""
        self._up, answered = False, threading.Event()
        threading.Thread(target=self._watch, args=(seconds, stop, answered), daemon=True).start()
        try:
            yield lambda: self._up
        finally:
            answered.set()

    def _watch(self, seconds: float, stop: Stop, answered: threading.Event) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not stop():
            if answered.wait(min(_LOOK_EVERY_S, max(0.0, until - time.monotonic()))):
                return
        with self._lock:
            self._up = True
            for each in self._sockets:
                _shut(each)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # closed already
        # not the method of a TLS connection, which another thread may be reading from
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
