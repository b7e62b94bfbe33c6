"""PNG, JPEG, WebP and BMP: decoded as a whole when opened, so that a damaged file is refused at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import ImageTooLargeError, UnreadableImageError
from tissuetalk.models.images import scale
from tissuetalk.models.images.box import Box
from tissuetalk.models.images.files import CheckedFile
from tissuetalk.models.images.limits import DECODER_ERRORS, Limits
from tissuetalk.models.images.pixels import full_scale, orient, to_rgb
from tissuetalk.models.images.source import Level
from tissuetalk.models.segmenter import RGB

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

    def parts(self) -> str:
        return ""

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
            require_decodable(image.size, file.name, limits)
            if kind == "PNG":
                _verify_checksums(opener, file)
            mpp = _mpp(image)
            pixels = _decode_deep_png(file) if kind == "PNG" and _png_bits(file) == 16 else _decode(image)
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except DECODER_ERRORS as error:
        raise damaged from error
    return PlainReader(np.ascontiguousarray(orient(pixels, orientation)), mpp)


def require_decodable(size: tuple[int, int], name: str, limits: Limits) -> None:
    """Raise for an image without pixels, or with more than may be decoded as a whole."""
    width, height = size
    if width < 1 or height < 1:
        raise UnreadableImageError(f"{name} has no pixels ({width} by {height}); save it again")
    if width * height > limits.decoded_pixels or max(size) > limits.slide_side:
        raise ImageTooLargeError(
            f"{name} has {width} by {height} pixels and must be decoded as a whole; the limit is "
            f"{limits.decoded_pixels} pixels: crop it, or save it as a tiled pyramidal TIFF"
        )


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
        at += 2 + length
        if marker == _START_OF_SCAN:
            end = _MARKER_AFTER_SCAN.search(content, at)
            if end is not None and end.group() == _END_OF_IMAGE:
                return BytesIO(content[: end.start()] + bytes(16))
            break
    return file.view()


def _verify_checksums(opener: Callable[..., Any], file: CheckedFile) -> None:
    with file.view() as stream:
        opener(stream).verify()


def _decode(image: Any) -> RGB:
    image.load()
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        samples = np.asarray(image)[..., None]
        return to_rgb(samples, white=full_scale(samples.dtype, float(samples.max())))
    if mode in ("LA", "RGBA"):
        return to_rgb(np.asarray(image), alpha="straight")
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
    return _deep_alpha(samples)


def _deep_alpha(samples: NDArray[Any]) -> RGB:
    """Opacity always runs to 65535, whatever the colours reach."""
    white = full_scale(samples.dtype, float(samples[..., :-1].max()))
    eight_bit = np.empty(samples.shape, np.uint8)
    scaled = samples[..., :-1].astype(np.float32) * np.float32(255.0 / white)
    eight_bit[..., :-1] = np.rint(scaled).astype(np.uint8)
    eight_bit[..., -1] = np.rint(samples[..., -1] * np.float32(255.0 / 65535.0)).astype(np.uint8)
    return to_rgb(eight_bit, alpha="straight")


def _png_bits(file: CheckedFile) -> int:
    return file.read_at(24, 1)[0]


def _mpp(image: Any) -> float | None:
    dpi = image.info.get("dpi")
    if not isinstance(dpi, tuple) or len(dpi) != 2:
        return None
    return scale.from_dpi(float(dpi[0]), float(dpi[1]))
