"""From bytes to a reader: the content decides the format. This runs in the worker, where there is one."""

from __future__ import annotations

from tissuetalk.models.errors import ImageTooLargeError, UnreadableImageError
from tissuetalk.models.images.budget import Grant
from tissuetalk.models.images.files import CheckedFile, Limits
from tissuetalk.models.images.parts import is_dicom, is_mirax
from tissuetalk.models.images.plain import kind_of, open_plain
from tissuetalk.models.images.source import PixelReader

FORMATS = "PNG, JPEG, WebP, BMP, TIFF, OME-TIFF, SVS, NDPI, MRXS, SCN and DICOM slides"
_HEAD_BYTES = 16
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def reader_for(file: CheckedFile, limits: Limits, grant: Grant) -> PixelReader:
    """Raises UnreadableImageError, ImageTooLargeError, or what ``grant`` raises."""
    if file.size_bytes == 0:
        raise UnreadableImageError(f"{file.name} is empty (0 bytes); get a fresh copy")
    if file.size_bytes > limits.file_bytes:
        raise ImageTooLargeError(
            f"{file.name} has {file.size_bytes} bytes; the limit is {limits.file_bytes}: crop it"
        )
    head = file.read_at(0, _HEAD_BYTES)  # names lie: only the first bytes say what a file is
    if is_mirax(file):
        # Its own content is only a JPEG preview, which may show the slide's label.
        from tissuetalk.models.images.slide import open_mirax

        return open_mirax(file, limits, grant)
    if head.startswith(_TIFF_STARTS):
        from tissuetalk.models.images.slide import open_tiff_slide
        from tissuetalk.models.images.tiff import open_tiff

        return open_tiff_slide(file, limits, grant) or open_tiff(file, limits, grant)
    if is_dicom(file):
        from tissuetalk.models.images.slide import open_dicom

        return open_dicom(file, limits, grant)
    kind = kind_of(head)
    if kind is None:
        raise UnreadableImageError(f"{file.name} is not an image that can be read; give {FORMATS}")
    return open_plain(file, kind, limits, grant)
