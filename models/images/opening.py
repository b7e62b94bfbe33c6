"""From a file to an image: the content decides the format."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from tissuetalk.models.errors import ImageTooLargeError, UnreadableImageError
from tissuetalk.models.images.files import CheckedFile, open_regular
from tissuetalk.models.images.limits import Limits
from tissuetalk.models.images.source import ImageSource, Reader

FORMATS = "PNG, JPEG, WebP, BMP, TIFF, OME-TIFF, SVS, NDPI, MRXS, SCN and DICOM slides"
_HEAD_BYTES = 132
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DICOM_AT_128 = b"DICM"


def open_image(
    file: BinaryIO | Path | CheckedFile, *, name: str, path: Path | None = None, limits: Limits | None = None
) -> ImageSource:
    """Open an image by path, or one that is already open and checked.

    file: an open file is taken over: closed with the image, or at once when it is refused.
    name: what messages call it. path: where an open file lies, needed only by slides of several files.

    Raises UnknownImageError, UnreadableImageError, ImageTooLargeError or ImageChangedError.
    """
    limits = limits or Limits()
    if isinstance(file, Path):
        checked = open_regular(file, name=name)
    else:
        checked = file if isinstance(file, CheckedFile) else CheckedFile(file, name=name, path=path)
    try:
        return ImageSource(reader=_reader_for(checked, limits), file=checked, limits=limits)
    except BaseException:
        checked.close()
        raise


def _reader_for(file: CheckedFile, limits: Limits) -> Reader:
    if file.size_bytes == 0:
        raise UnreadableImageError(f"{file.name} is empty (0 bytes); get a fresh copy")
    if file.size_bytes > limits.file_bytes:
        raise ImageTooLargeError(
            f"{file.name} has {file.size_bytes} bytes; the limit is {limits.file_bytes}: crop it"
        )
    head = file.read_at(0, _HEAD_BYTES)
    if (
        file.path or Path(file.name)
    ).suffix.lower() == ".mrxs":  # its own content is only a preview that may show the label
        from tissuetalk.models.images.slide import open_mirax

        return open_mirax(file, limits)
    if head.startswith(_TIFF_STARTS):
        return _tiff_reader(file, limits)
    if head[128:] == _DICOM_AT_128:
        from tissuetalk.models.images.slide import open_dicom

        return open_dicom(file, limits)
    kind = _plain_kind(head)
    if kind is None:
        raise UnreadableImageError(f"{file.name} is not an image that can be read; give {FORMATS}")
    from tissuetalk.models.images.plain import open_plain

    return open_plain(file, kind, limits)


def _plain_kind(head: bytes) -> str | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    return "BMP" if head.startswith(b"BM") else None


def _tiff_reader(file: CheckedFile, limits: Limits) -> Reader:
    from tissuetalk.models.images.slide import open_tiff_slide
    from tissuetalk.models.images.tiff import open_tiff

    return open_tiff_slide(file, limits) or open_tiff(file, limits)
