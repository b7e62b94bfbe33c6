"""PNG, JPEG, WebP and BMP: decoded as a whole, so that a damaged file is refused when it is opened."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import UnreadableImageError
from tissuetalk.models.images import claims
from tissuetalk.models.images.budget import MIB, Grant
from tissuetalk.models.images.files import DECODER_ERRORS, CheckedFile, Limits, mpp_from_dpi
from tissuetalk.models.images.source import (
    RGB,
    Alpha,
    Box,
    Level,
    OrientedReader,
    PixelReader,
    ReadCost,
    full_scale,
    to_rgb,
)

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

_JPEG_HEADER_BYTES = 8 * MIB
_PILLOW_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
"""Per pixel of a mode in Pillow's memory; every other takes 4, RGB too."""
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By the colour type of a PNG."""
_WEBP_BYTES = 17
"""Per pixel, Pillow's included (measured: 16.1): canvases, frame, and its copy."""
_COEFFICIENT_BYTES = 2
"""Per sample of a JPEG that is decoded in several scans: all coefficients wait for the last."""


def kind_of(head: bytes) -> str | None:
    """The format that a file beginning with these bytes has, or None for none of the four."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    return "BMP" if head.startswith(b"BM") else None


class PlainReader:
    """A decoded picture as its decoder left it; a region becomes 8-bit RGB when it is read."""

    is_slide = False
    whole = True
    cost = ReadCost(per_pixel=3, fixed=0)

    def __init__(self, pixels: Any, *, mpp: float | None, alpha: Alpha = "none", convert: str = "") -> None:
        """pixels: Pillow's image or [H, W, S]. convert: the mode of Pillow to go through."""
        self._pixels = pixels
        self._alpha, self._convert = alpha, convert
        self.mpp = mpp
        # Of all of it, so that a region looks the same wherever it was cut.
        self._white = _white(pixels) if isinstance(pixels, np.ndarray) else None
        height, width = pixels.size[::-1] if self._white is None else pixels.shape[:2]
        self.levels: tuple[Level, ...] = (Level(width, height, (1.0, 1.0)),)

    def read(self, level: int, box: Box) -> RGB:
        if self._white is not None:
            return _deep_to_rgb(self._pixels[box.y0 : box.y1, box.x0 : box.x1], self._white)
        part = self._pixels.crop((box.x0, box.y0, box.x1, box.y1))
        samples = np.asarray(part.convert(self._convert) if self._convert else part)
        return to_rgb(samples if samples.ndim == 3 else samples[..., None], alpha=self._alpha)

    def close(self) -> None:
        self._pixels = None


def open_plain(file: CheckedFile, kind: str, limits: Limits, grant: Grant) -> PixelReader:
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
        if kind == "WebP":  # its class takes memory for the canvas when it is made
            width, height, _ = claims.webp(file.read_at(0, 64)) or (0, 0, 0)
            limits.require_decodable((width, height), file.name)
            grant(width * height * (_WEBP_BYTES + 3) + 2 * file.size_bytes)
        with opener(file.view()) as image:
            limits.require_decodable(image.size, file.name)
            deep = kind == "PNG" and file.read_at(24, 1)[0] == 16  # bits, in IHDR, always the first chunk
            if kind != "WebP":
                grant(_bytes_to_decode(image, kind, file, deep=deep))
            dpi = image.info.get("dpi")
            mpp = mpp_from_dpi(*map(float, dpi)) if isinstance(dpi, tuple) and len(dpi) == 2 else None
        if kind == "PNG":  # loading alone does not check the sums of the pixels
            with file.view() as again:
                opener(again).verify()
            _require_all_passes(file)
        with opener(_stream(file, kind)) as image:
            if not deep:
                image.load()
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
        if deep:
            image.close()
            reader = PlainReader(_deep_png(file), mpp=mpp)
        else:
            reader = _of_pillow(image, mpp)
    except DECODER_ERRORS as error:
        raise damaged from error
    return OrientedReader(reader, orientation) if orientation in range(2, 9) else reader


_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced PNG: first column and row, and their steps."""


def _require_all_passes(file: CheckedFile) -> None:
    """Raise ValueError for an interlaced PNG that ends early: Pillow shows what there is as if it were all."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", file.read_at(16, 13))
    if not interlaced:
        return
    bits, wanted = depth * _PNG_SAMPLES.get(colour, 4), 0
    for left, top, across, down in _PASSES:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        wanted += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
    unpack, at = zlib.decompressobj(), 8
    while wanted > 0 and at + 8 <= file.size_bytes:
        length, kind = struct.unpack(">I4s", file.read_at(at, 8))
        if kind == b"IDAT":
            packed = file.read_at(at + 8, length)
            while packed and wanted > 0:
                wanted -= len(unpack.decompress(packed, MIB))
                packed = unpack.unconsumed_tail
        at += 12 + length
    if wanted > 0:
        raise ValueError("rows are missing")


def _bytes_to_decode(image: Any, kind: str, file: CheckedFile, *, deep: bool) -> int:
    """From the header: the decoder's own memory, and 3 bytes a pixel for what is handed on."""
    pixels: int = image.size[0] * image.size[1]
    each, more = 3 + _PILLOW_BYTES.get(image.mode, 4), 0
    if deep:
        samples = _PNG_SAMPLES.get(file.read_at(25, 1)[0], 4)
        each, more = 3 + max(4, 2 * samples), file.size_bytes
    elif kind == "JPEG":
        more = 2 * file.size_bytes
        if _in_several_scans(file, len(image.getbands())):
            each += _COEFFICIENT_BYTES * len(image.getbands())
    elif kind == "BMP" and image.tile and image.tile[0][0] != "raw":
        each += 2  # run lengths are unpacked in Python first
    return pixels * each + more


def _in_several_scans(file: CheckedFile, bands: int) -> bool:
    content = file.read_at(0, _JPEG_HEADER_BYTES)
    scan = next((at for marker, at in _segments(content) if marker == _START_OF_SCAN), None)
    other = any(marker in _OTHER_JPEG_FRAMES for marker, _ in _segments(content))
    return other or scan is None or content[scan + 4 : scan + 5] != bytes([bands])


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """(marker, where it stands) of a JPEG, up to its first scan."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        yield marker, at
        if marker == _START_OF_SCAN:
            return
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")  # the length counts itself, not the marker


def _stream(file: CheckedFile, kind: str) -> BinaryIO:
    """The file; a baseline JPEG without its end marker.

    At the marker libjpeg paints whatever is missing grey and calls the image complete. Without it, it asks for
    more data, and Pillow reports the truncation. A few zero bytes serve the decoder's look-ahead.
    """
    if kind != "JPEG":
        return file.view()
    content = file.read_at(0, file.size_bytes)
    for marker, at in _segments(content):
        if marker in _OTHER_JPEG_FRAMES:
            break
        if marker == _START_OF_SCAN:
            after = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
            end = _MARKER_AFTER_SCAN.search(content, after)
            if end is not None and end.group() == _END_OF_IMAGE:
                return BytesIO(content[: end.start()] + bytes(16))
    return file.view()


def _of_pillow(image: Any, mpp: float | None) -> PlainReader:
    if image.mode in ("LA", "RGBA"):
        return PlainReader(image, mpp=mpp, alpha="straight")
    # A palette or a grey picture may name one of its colours as glass.
    if "transparency" in image.info or image.mode in ("PA", "La", "RGBa"):
        return PlainReader(image, mpp=mpp, alpha="straight", convert="RGBA")
    if (
        image.mode.startswith("I") or image.mode == "F"
    ):  # none of the four kinds but 16-bit PNG has such samples
        raise ValueError(image.mode)
    return PlainReader(image, mpp=mpp, convert="" if image.mode in ("L", "RGB") else "RGB")


def _deep_png(file: CheckedFile) -> NDArray[Any]:
    """16-bit PNG through its own codec: Pillow would keep only the upper byte of colours."""
    from imagecodecs import png_decode

    samples: NDArray[Any] = png_decode(file.read_at(0, file.size_bytes))
    return samples if samples.ndim == 3 else samples[..., None]


def _white(samples: NDArray[Any]) -> float:
    """The value that means white in all of [H, W, S]; opacity always runs to 65535, whatever the colours reach."""
    colours = samples if samples.shape[2] in (1, 3) else samples[..., :-1]
    return full_scale(samples.dtype, float(colours.max()))


def _deep_to_rgb(samples: NDArray[Any], white: float) -> RGB:
    if samples.shape[2] in (1, 3):
        return to_rgb(samples, white=white)
    eight_bit = np.empty(samples.shape, np.uint8)
    scaled = samples[..., :-1].astype(np.float32) * np.float32(255.0 / white)
    eight_bit[..., :-1] = np.rint(scaled).astype(np.uint8)
    eight_bit[..., -1] = np.rint(samples[..., -1] * np.float32(255.0 / 65535.0)).astype(np.uint8)
    return to_rgb(eight_bit, alpha="straight")
