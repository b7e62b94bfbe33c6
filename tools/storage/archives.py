"""DICOMweb archives that the operator named: which slides they have, fetching one within bounds, sending objects back.

A slide is called ``dicomweb:NAME/studies/UID/series/UID``. Only the operator says where NAME is and how to get in; nothing that a
caller, or an archive, says leads to another address.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tissuetalk.models.control import Control
from tissuetalk.models.errors import (
    ImageTooLargeError,
    InvalidArgumentError,
    OutsideRootsError,
    UnknownImageError,
    UnreadableImageError,
    shown,
)
from tissuetalk.models.images.headers import SLIDE_CLASS, copy_pixels, header_of
from tissuetalk.models.reading import content_of
from tissuetalk.models.writing import library

if TYPE_CHECKING:
    from tissuetalk.tools.storage.archive_line import Line

_UID = r"(?=[0-9.]{1,64}(?:/|$))[0-9]+(?:\.[0-9]+)*"
_ADDRESS = re.compile(rf"dicomweb:([A-Za-z0-9_-]{{1,40}})(?:/studies/({_UID})/series/({_UID}))?/?")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_LONGEST_CREDENTIALS = 8192
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class SeriesAddress:
    """archive: its name."""

    archive: str
    study: str
    series: str

    def __str__(self) -> str:
        return f"dicomweb:{self.archive}/studies/{self.study}/series/{self.series}"

    @classmethod
    def of(cls, text: str) -> SeriesAddress:
        """Raises InvalidArgumentError for what is no address of a series."""
        match = _ADDRESS.fullmatch(text)
        if match is None or match[2] is None:
            raise InvalidArgumentError(
                "a slide in an archive is called dicomweb:NAME/studies/UID/series/UID; library(action='images') lists them"
            )
        return cls(match[1], match[2], match[3])


def in_archive(text: str) -> bool:
    """Whether a text means an archive, or something in one."""
    return text.startswith("dicomweb:")


def archive_named(text: str) -> str:
    """The name in ``dicomweb:NAME``, whatever follows. Raises InvalidArgumentError."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise InvalidArgumentError(f"{shown(text)} names no archive; write dicomweb:NAME.")
    return match[1]


@dataclass(frozen=True)
class ArchiveLimits:
    """instances: files of one series. stalled_s: between two packets. search_s, answer_bytes: a small answer. series_s: a slide."""

    instances: int = 200
    stalled_s: float = 20.0
    search_s: float = 30.0
    series_s: float = 900.0
    answer_bytes: int = 32 * 2**20


@dataclass(frozen=True)
class Archive:
    """url: of its DICOMweb service. authorization: the header's value, never shown."""

    name: str
    url: str = field(repr=False)
    authorization: str | None = field(default=None, repr=False)
    limits: ArchiveLimits = ArchiveLimits()

    @classmethod
    def at(cls, name: str, url: str, credentials: Path | None = None) -> Archive:
        """credentials: a file with ``user:password`` or ``Bearer TOKEN``; else TISSUETALK_ARCHIVE_NAME holds that, or nothing.

        Raises InvalidArgumentError for an address that is not safe to use.
        """
        if not _NAME.fullmatch(name):
            raise InvalidArgumentError("an archive's name has up to 40 letters, digits, - and _.")
        try:
            parts = urlsplit(url)
            plain = parts.scheme == "http" and parts.hostname in _LOOPBACK
            inside = parts.username or parts.password or parts.query or parts.fragment
        except ValueError as error:
            raise InvalidArgumentError(f"the archive {name} has no address that can be read.") from error
        if not parts.hostname or inside or not (parts.scheme == "https" or plain):
            raise InvalidArgumentError(
                f"the archive {name} needs an address as https://HOST/dicom-web (http:// on this machine only), without "
                "user, password or query; credentials are given in a file."
            )
        return cls(name, url.rstrip("/"), _authorization(name, credentials))

    @classmethod
    def from_text(cls, text: str, credentials: Mapping[str, Path] | None = None) -> Archive:
        """Of ``NAME=https://HOST/dicom-web``. Raises InvalidArgumentError."""
        name, equals, url = text.partition("=")
        if not equals:
            raise InvalidArgumentError("an archive is given as NAME=https://HOST/dicom-web.")
        return cls.at(name, url, (credentials or {}).get(name))

    def slides(self, limit: int) -> list[SeriesAddress]:
        """Series of slides, as many as asked for, without anything about whose they are."""
        with self._client() as client:
            found = _rows(client.search_for_series(search_filters={"Modality": "SM"}, limit=limit))
        known = [(_text(each, "0020000D"), _text(each, "0020000E")) for each in found]
        valid = [pair for pair in known if all(re.fullmatch(_UID, uid) for uid in pair)]
        return [SeriesAddress(self.name, *pair) for pair in valid[:limit]]

    def fetch(
        self, address: SeriesAddress, folder: Path, most_bytes: int, control: Control = Control()
    ) -> None:
        """The levels of a slide as files in an empty folder, without identifiers; labels and overviews stay where they are.

        Raises UnknownImageError, UnreadableImageError for what is no such slide, ImageTooLargeError, BusyError, CancelledError.
        """
        until = time.monotonic() + self.limits.series_s
        with self._client() as client:
            found = _rows(
                client.search_for_instances(
                    address.study, address.series, fields=["ImageType"], limit=self.limits.instances + 1
                )
            )
        uids, here = self._levels(found, address), 0
        with self._line() as line:
            for number, uid in enumerate(uids):
                control.check()
                one = control.part(number / len(uids), (number + 1) / len(uids))
                level = folder / f"{number:04d}.dcm"
                here += self._fetch_one(line, address, uid, level, most_bytes - here, until, one)
        if not any(folder.iterdir()):
            raise UnreadableImageError(f"{address} has no whole-slide image; give a series of one.")

    def header(self, address: SeriesAddress, sop_uid: str) -> Any:
        """What the archive says of one of its files, with whose it is; for an object that goes back there."""
        with self._client() as client:
            found = client.retrieve_instance_metadata(address.study, address.series, sop_uid)
        try:
            header = library("pydicom").Dataset.from_json(found)
            same = (header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise self._makes_no_sense() from error
        if same != (address.study, address.series, sop_uid):
            raise self._other()
        return header

    def store(self, file: Path, address: SeriesAddress) -> str:
        """Send an object of ours to the study of a slide. Returns its UID. Raises UnreadableImageError where it is refused."""
        sent = library("pydicom").dcmread(file)
        with self._client() as client:
            answer = client.store_instances([sent], address.study)
        stored = [
            str(item.get("ReferencedSOPInstanceUID")) for item in answer.get("ReferencedSOPSequence", ())
        ]
        if str(sent.SOPInstanceUID) not in stored:
            raise UnreadableImageError(
                f"the archive {self.name} did not take the object; ask whoever runs it whether this server may store."
            )
        return str(sent.SOPInstanceUID)

    def _levels(self, rows: Sequence[dict[str, Any]], address: SeriesAddress) -> list[str]:
        if not rows:
            raise UnknownImageError(
                f"there is no {address}, or this server may not see it; library(action='images') lists slides."
            )
        if len(rows) > self.limits.instances:
            raise ImageTooLargeError(
                f"{address} has more than {self.limits.instances} files; give a series of one slide."
            )
        of_slides = [row for row in rows if _text(row, "00080016") in ("", SLIDE_CLASS)]
        uids = sorted({_text(row, "00080018") for row in of_slides if _may_be_level(row)})
        if not all(re.fullmatch(_UID, uid) for uid in uids):
            raise self._makes_no_sense()
        return uids

    def _fetch_one(
        self,
        line: Line,
        address: SeriesAddress,
        uid: str,
        level: Path,
        most_bytes: int,
        until: float,
        control: Control,
    ) -> int:
        """Returns how many bytes it takes."""
        url = f"{self.url}/studies/{address.study}/series/{address.series}/instances/{uid}"
        fetched, name = level.with_name(".fetched"), str(address)
        try:
            with fetched.open("w+b") as file:
                line.download(url, file, most_bytes, max(0.1, until - time.monotonic()), control)
                file.seek(0)
                header, at = header_of(file, name)
                asked = (SLIDE_CLASS, address.study, address.series, uid)
                of = ("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
                if tuple(str(header.get(each)) for each in of) != asked:
                    raise self._other()
                if "VOLUME" not in [str(each) for each in header.get("ImageType") or ()]:
                    return 0
                with level.open("wb") as out:
                    copy_pixels(file, header, at, out, name)
            return level.stat().st_size
        finally:
            fetched.unlink(missing_ok=True)

    def _other(self) -> UnreadableImageError:
        return UnreadableImageError(
            f"the archive {self.name} gave another slide than it was asked for; tell whoever runs it."
        )

    def _makes_no_sense(self) -> UnreadableImageError:
        return UnreadableImageError(
            f"the archive {self.name} gave an answer that makes no sense; tell whoever runs it."
        )

    def _line(self) -> Line:
        from tissuetalk.tools.storage.archive_line import Line

        library("requests", "service")
        limits = self.limits
        return Line(
            self.name,
            self.authorization,
            stalled_s=limits.stalled_s,
            search_s=limits.search_s,
            answer_bytes=limits.answer_bytes,
        )

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """dicomweb-client on a line that keeps to its bounds; what the library makes of a bad answer is said in words."""
        api = library("dicomweb_client.api", "service")
        with self._line() as line:
            client = api.DICOMwebClient(self.url, session=line, timeout=self.limits.stalled_s)
            client.set_http_retry_params(retry=False)
            try:
                yield client
            except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
                raise self._makes_no_sense() from error


def _authorization(name: str, credentials: Path | None) -> str | None:
    import base64

    if credentials is not None:
        try:
            said = content_of(credentials, _LONGEST_CREDENTIALS).decode().strip()
        except (OSError, ValueError) as error:
            raise InvalidArgumentError(
                f"the credentials of the archive {name} cannot be read from {credentials}."
            ) from error
    else:
        said = os.environ.get(f"TISSUETALK_ARCHIVE_{name.upper().replace('-', '_')}", "").strip()
    if not said:
        return None
    if not said.isprintable():
        raise InvalidArgumentError(f"the credentials of the archive {name} must be one line of text.")
    if said.startswith("Bearer "):
        return said
    if ":" not in said:
        raise InvalidArgumentError(
            f"the credentials of the archive {name} must be user:password, or Bearer TOKEN."
        )
    return f"Basic {base64.b64encode(said.encode()).decode()}"


def _rows(found: Any) -> list[dict[str, Any]]:
    """Raises TypeError for an answer that is no list of objects."""
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise TypeError("it is no list of DICOM objects")
    return found


def _values(row: dict[str, Any], tag: str) -> list[str]:
    value = row.get(tag)
    values = value.get("Value") if isinstance(value, dict) else None
    return [str(each) for each in values] if isinstance(values, list) else []


def _text(row: dict[str, Any], tag: str) -> str:
    return next(iter(_values(row, tag)), "")


def _may_be_level(row: dict[str, Any]) -> bool:
    """An archive may leave out what kind of picture it is: then its own header says so."""
    kind = _values(row, "00080008")
    return not kind or "VOLUME" in kind


class Archives:
    """Those a session may ask, by name."""

    def __init__(self, archives: Sequence[Archive] = ()) -> None:
        self._archives = {each.name: each for each in archives}
        if len(self._archives) < len(archives):
            raise InvalidArgumentError("two archives have the same name; give each its own.")

    def __iter__(self) -> Iterator[Archive]:
        return iter(self._archives.values())

    def __bool__(self) -> bool:
        return bool(self._archives)

    def named(self, name: str) -> Archive:
        """Raises OutsideRootsError for one that the operator did not name."""
        if name not in self._archives:
            known = ", ".join(self._archives) or "none"
            raise OutsideRootsError(
                f"this server asks no archive called {shown(name)} (known: {known}); whoever runs it names archives with --archive"
            )
        return self._archives[name]
