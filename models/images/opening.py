"""From a file to an image: the content decides the format.

PNG, JPEG, WebP and BMP are decoded as a whole when opened, so that a damaged file is refused at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import ImageTooLargeError, UnreadableImageError
from tissuetalk.models.images.files import DECODER_ERRORS, CheckedFile, Limits, mpp_from_dpi, open_regular
from tissuetalk.models.images.parts import gather_parts
from tissuetalk.models.images.source import (
    RGB,
    Box,
    ImageSource,
    Level,
    PixelReader,
    full_scale,
    orient,
    to_rgb,
)

FORMATS = "PNG, JPEG, WebP, BMP, TIFF, OME-TIFF, SVS, NDPI, MRXS, SCN and DICOM slides"
_HEAD_BYTES = 132  # DICOM says so only after a preamble of 128 bytes
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DICOM_AT_128 = b"DICM"
_PLUGINS = {
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "WebP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
}
_EXIF_ORIENTATION = 274
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, b"\xff\xd9"
_OTHER_JPEG_FRAMES = frozenset({0xC2, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)})
"""Progressive, lossless and arithmetic JPEG: their decoders need the end marker."""
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def open_image(
    file: BinaryIO | Path | CheckedFile,
    *,
    name: str,
    path: Path | None = None,
    limits: Limits | None = None,
    alone: bool = False,
) -> ImageSource:
    """Open an image by path, or one that is already open and checked.

    file: an open file is taken over: closed with the image, or at once when it is refused.
    name: what messages call it. path: where an open file lies, needed only by slides of several files.
    alone: what lies beside the file is somebody else's and never part of it.

    Raises UnknownImageError, UnreadableImageError, ImageTooLargeError, ImageChangedError, or OutsideRootsError for a slide of
    several files that leads elsewhere.
    """
    limits = limits or Limits()
    if isinstance(file, Path):
        checked = open_regular(file, name=name)
    else:
        checked = file if isinstance(file, CheckedFile) else CheckedFile(file, name=name, path=path)
    checked.alone |= alone
    try:
        gather_parts(checked)
        return ImageSource(reader=_reader_for(checked, limits), file=checked, limits=limits)
    except BaseException:
        checked.close()
        raise


def _reader_for(file: CheckedFile, limits: Limits) -> PixelReader:
    if file.size_bytes == 0:
        raise UnreadableImageError(f"{file.name} is empty (0 bytes); get a fresh copy")
    if file.size_bytes > limits.file_bytes:
        raise ImageTooLargeError(
            f"{file.name} has {file.size_bytes} bytes; the limit is {limits.file_bytes}: crop it"
        )
    head = file.read_at(0, _HEAD_BYTES)  # names lie: only the first bytes say what a file is
    if (file.path or Path(file.name)).suffix.lower() == ".mrxs":
        # Its own content is only a JPEG preview, which may show the slide's label.
        from tissuetalk.models.images.slide import open_mirax

        return open_mirax(file, limits)
    if head.startswith(_TIFF_STARTS):
        from tissuetalk.models.images.slide import open_tiff_slide
        from tissuetalk.models.images.tiff import open_tiff

        return open_tiff_slide(file, limits) or open_tiff(file, limits)
    if head[128:] == _DICOM_AT_128:
        from tissuetalk.models.images.slide import open_dicom

        return open_dicom(file, limits)
    kind = _plain_kind(head)
    if kind is None:
        raise UnreadableImageError(f"{file.name} is not an image that can be read; give {FORMATS}")
    return open_plain(file, kind, limits)


def _plain_kind(head: bytes) -> str | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    return "BMP" if head.startswith(b"BM") else None


class PlainReader:
    """Decoded pixels in memory."""

    is_slide = False

    def __init__(self, pixels: RGB, mpp: float | None) -> None:
        self._pixels = pixels
        self.mpp = mpp
        height, width = pixels.shape[:2]
        self.levels: tuple[Level, ...] = (Level(width, height, (1.0, 1.0)),)

    def read(self, level: int, box: Box) -> RGB:
        return self._pixels[box.y0 : box.y1, box.x0 : box.x1]

    def close(self) -> None:
        self._pixels = self._pixels[:0]


def open_plain(file: CheckedFile, kind: str, limits: Limits) -> PlainReader:
    """Decode one image of the format ``kind``.

    The format's own class is used, not ``Image.open``: its size guard is a process-wide setting that only warns.
    Raises ImageTooLargeError before anything is decoded, UnreadableImageError for truncated or damaged files.
    """
    module, name = _PLUGINS[kind]
    opener: Callable[..., Any] = getattr(import_module(module), name)
    damaged = UnreadableImageError(
        f"{file.name} is a damaged or truncated {kind} file; get a fresh copy or save it again"
    )
    try:
        with _stream(file, kind) as stream, opener(stream) as image:
            limits.require_decodable(image.size, file.name)
            if kind == "PNG":  # loading alone does not check the sums of the pixels
                with file.view() as again:
                    opener(again).verify()
            dpi = image.info.get("dpi")
            mpp = mpp_from_dpi(*map(float, dpi)) if isinstance(dpi, tuple) and len(dpi) == 2 else None
            deep = kind == "PNG" and file.read_at(24, 1)[0] == 16  # bits, in IHDR, always the first chunk
            pixels = _decode_deep_png(file) if deep else _decode(image)
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except DECODER_ERRORS as error:
        raise damaged from error
    return PlainReader(np.ascontiguousarray(orient(pixels, orientation)), mpp)


def _stream(file: CheckedFile, kind: str) -> BinaryIO:
    """The file; a baseline JPEG without its end marker.

    At the marker libjpeg paints whatever is missing grey and calls the image complete. Without it, it asks for
    more data, and Pillow reports the truncation. A few zero bytes serve the decoder's look-ahead.
    """
    if kind != "JPEG":
        return file.view()
    content = file.read_at(0, file.size_bytes)
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _OTHER_JPEG_FRAMES:
            return file.view()
        at += 2 + length  # the length counts itself, not the marker
        if marker == _START_OF_SCAN:
            end = _MARKER_AFTER_SCAN.search(content, at)
            if end is not None and end.group() == _END_OF_IMAGE:
                return BytesIO(content[: end.start()] + bytes(16))
            break
    return file.view()


def _decode(image: Any) -> RGB:
    image.load()
    mode = image.mode
    if mode.startswith("I") or mode == "F":  # 16 and 32 bit grey: Pillow would clip it at 255
        samples = np.asarray(image)[..., None]
        return to_rgb(samples, white=full_scale(samples.dtype, float(samples.max())))
    if mode in ("LA", "RGBA"):
        return to_rgb(np.asarray(image), alpha="straight")
    # A palette or a grey picture may name one of its colours as glass.
    if "transparency" in image.info or mode in ("PA", "La", "RGBa"):
        return to_rgb(np.asarray(image.convert("RGBA")), alpha="straight")
    if mode not in ("L", "RGB"):
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return to_rgb(pixels if pixels.ndim == 3 else pixels[..., None])


def _decode_deep_png(file: CheckedFile) -> RGB:
    """16-bit PNG through its own codec: Pillow would keep only the upper byte of colours."""
    from imagecodecs import png_decode

    samples: NDArray[Any] = png_decode(file.read_at(0, file.size_bytes))
    samples = samples if samples.ndim == 3 else samples[..., None]
    if samples.shape[2] in (1, 3):
        return to_rgb(samples, white=full_scale(samples.dtype, float(samples.max())))
    # Opacity always runs to 65535, whatever the colours reach.
    white = full_scale(samples.dtype, float(samples[..., :-1].max()))
    eight_bit = np.empty(samples.shape, np.uint8)
    scaled = samples[..., :-1].astype(np.float32) * np.float32(255.0 / white)
    eight_bit[..., :-1] = np.rint(scaled).astype(np.uint8)
    eight_bit[..., -1] = np.rint(samples[..., -1] * np.float32(255.0 / 65535.0)).astype(np.uint8)
    return to_rgb(eight_bit, alpha="straight")
