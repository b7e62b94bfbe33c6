"""The files that one slide of several files is made of: each opened once, from the folder its main file was opened in.

They are found by what the slide says of itself, never outside that folder and never through a link, and all belong to one user.
Readers get the open files alone.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from tissuetalk.models.errors import (
    BusyError,
    OutsideRootsError,
    UnreadableImageError,
)
from tissuetalk.models.folders import Folder
from tissuetalk.models.images.files import DECODER_ERRORS, CheckedFile, cannot_open, open_in

INDEX = "Slidedat.ini"
DICOM_AT_128 = b"DICM"
_NAMING_KEY = re.compile(rb"FILE_\d{1,9}|INDEXFILE", re.IGNORECASE)
_INDEX_BYTES = 4 * 2**20
_HEAD_BYTES = 256 * 2**10
"""Of a DICOM file: the series stands before anything large."""
_SERIES = 0x0020000E
_MOST_PARTS = 600
_MOST_ENTRIES = 5000


def gather_parts(file: CheckedFile) -> None:
    """Open the other files of a slide of several and keep them as ``file.parts``; other formats have none.

    Raises UnreadableImageError where one is missing, OutsideRootsError for links and names that lead elsewhere, BusyError when
    this process may open no more files.
    """
    found: list[tuple[str, CheckedFile]] = []
    try:
        if is_mirax(file):
            with _folder(file) as folder:
                _fill(found, _mirax_parts(file, folder), file)
        elif file.path is not None and not file.alone and is_dicom(file):
            with _folder(file) as folder:
                _fill(found, _dicom_parts(file, folder), file)
    except BaseException:
        for _, part in found:
            part.close()
        raise
    finally:
        if file.folder is not None:
            file.folder.close()
            file.folder = None
    file.parts = tuple(found)


def is_mirax(file: CheckedFile) -> bool:
    return (file.path or Path(file.name)).suffix.lower() == ".mrxs"


def is_dicom(file: CheckedFile) -> bool:
    return file.read_at(128, len(DICOM_AT_128)) == DICOM_AT_128


def series_of(path: Path) -> str | None:
    """What all files of one DICOM slide have in common; None for a file that is no DICOM."""
    with path.open("rb") as stream:
        return series_in(stream.read(_HEAD_BYTES))


def series_in(head: bytes) -> str | None:
    """The SeriesInstanceUID that the beginning of a DICOM file names."""
    from pydicom.errors import BytesLengthException, InvalidDicomError
    from pydicom.filereader import read_partial
    from pydicom.tag import BaseTag

    try:
        found = read_partial(
            BytesIO(head),
            stop_when=lambda tag, vr, length: int(tag) > _SERIES,
            specific_tags=[BaseTag(_SERIES)],
        )
        return str(found.SeriesInstanceUID) or None
    except DECODER_ERRORS:  # a header that cannot be read belongs to nothing
        return None
    except (BytesLengthException, InvalidDicomError):
        return None


def names_in(index: bytes, name: str) -> list[str]:
    """The data files that a Slidedat.ini names. Raises OutsideRootsError for a name that is a path."""
    names = set()
    # lines as GLib splits them, which reads the file later; no expression runs over more than a key
    for line in index.split(b"\n"):
        key, equals, value = line.partition(b"=")
        if equals and _NAMING_KEY.fullmatch(key.strip()):
            value = value.strip()
            if any(sign in value for sign in (b"/", b"\\", b"\0", b"\r")) or value in (b"", b".", b".."):
                raise OutsideRootsError(
                    f"{name} names data files outside its own folder; get the slide as it was scanned"
                )
            names.add(os.fsdecode(value))
    return sorted(names - {INDEX})


def _folder(file: CheckedFile) -> Folder:
    """The folder the file lies in: open already where it was reached through a root."""
    if file.path is None or file.alone:
        raise UnreadableImageError(
            f"{file.name} is a slide of several files; put all of them inside a root and give the path"
        )
    if file.folder is not None:
        return file.folder.below()
    return Folder.at(file.path.parent)


def _fill(
    found: list[tuple[str, CheckedFile]], parts: Iterator[tuple[str, CheckedFile]], file: CheckedFile
) -> None:
    try:
        for role, part in parts:
            found.append((role, part))
            if len(found) > _MOST_PARTS:
                raise UnreadableImageError(
                    f"{file.name} is made of over {_MOST_PARTS} files; save it as one file (pyramidal TIFF)"
                )
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise BusyError(
                f"{file.name} has more files than may be open now; try again, or raise the limit of open files"
            ) from error
        raise cannot_open(file.name, error) from error


def _mirax_parts(file: CheckedFile, folder: Folder) -> Iterator[tuple[str, CheckedFile]]:
    """Of ``name.mrxs``, which has its data in the folder ``name`` beside it."""
    assert file.path is not None, "it lies in the folder"
    data = file.path.stem
    try:
        with folder.below(data) as below:
            index = _part(below, INDEX, file)
            yield INDEX, index
            content = index.read_at(0, _INDEX_BYTES + 1)
            if len(content) > _INDEX_BYTES:
                raise UnreadableImageError(
                    f"{file.name} has an absurdly large {INDEX}; get a fresh copy of the slide"
                )
            for name in names_in(content, file.name):
                yield name, _part(below, name, file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnreadableImageError(
            f"{file.name} needs the whole of its data folder, called as it is without .mrxs, beside it; copy all of that too"
        ) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OutsideRootsError(
                f"{file.name} has links for its data; copy the files themselves"
            ) from error
        raise


def _part(folder: Folder, name: str, file: CheckedFile) -> CheckedFile:
    part = open_in(folder.below(), name, name=f"a part of {file.name}")
    if not _same_owner(part, file):
        part.close()
        raise UnreadableImageError(
            f"the files of {file.name} belong to different users; copy all of them as one"
        )
    return part


def _same_owner(one: CheckedFile, other: CheckedFile) -> bool:
    assert one.descriptor is not None and other.descriptor is not None, "they lie on a disk"
    return os.fstat(one.descriptor).st_uid == os.fstat(other.descriptor).st_uid


def _dicom_parts(file: CheckedFile, folder: Folder) -> Iterator[tuple[str, CheckedFile]]:
    """The other files of its series; those of other users are not part of it. Their names mean nothing."""
    assert file.path is not None, "it lies in the folder"
    series, names = series_in(file.read_at(0, _HEAD_BYTES)), folder.names()
    if len(names) > _MOST_ENTRIES:
        raise UnreadableImageError(
            f"{file.name} lies among over {_MOST_ENTRIES} files; put each slide into a folder of its own"
        )
    for name in names:
        if name == file.path.name:
            continue
        try:
            part = open_in(folder.below(), name, name=f"a part of {file.name}")
        except (FileNotFoundError, PermissionError, UnreadableImageError):
            continue  # a folder, a pipe, gone, or not ours to read
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            _require_link_inside(folder.path / name, file)
            continue
        same = (
            is_dicom(part) and _same_owner(part, file) and series_in(part.read_at(0, _HEAD_BYTES)) == series
        )
        if same and series is not None:
            yield "", part
        else:
            part.close()


def _require_link_inside(link: Path, file: CheckedFile) -> None:
    """A link within the folder is a second name of a file that is looked at anyway."""
    if Path(os.path.realpath(link)).parent != Path(os.path.realpath(link.parent)):
        raise OutsideRootsError(
            f"the folder of {file.name} holds links to other folders; a DICOM slide needs its files as such"
        )
