"""TIFF and OME-TIFF, flat or pyramidal, read tile by tile from one file only.

tifffile parses directories and decodes segments. Its series are not used: an OME series may name other files,
which would be opened wherever they lie. The image is the largest directory; its levels are its SubIFDs and the
directories marked as reduced that have its proportions, so labels and macros are never levels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile, TiffPage

from tissuetalk.models.errors import ImageTooLargeError, TissuetalkError, UnreadableImageError
from tissuetalk.models.images import claims
from tissuetalk.models.images.budget import MIB, PASSING, Grant
from tissuetalk.models.images.files import (
    DECODER_ERRORS,
    CheckedFile,
    Limits,
    mpp_from_imagej,
    mpp_from_ome,
    mpp_from_tiff,
)
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

_CACHE_BYTES = 64 * MIB
_RAW_STRIP_BYTES = 4 * MIB
_BAND_PIXELS = 4_000_000
_JPEG_COMPRESSIONS = frozenset({6, 7, 34892, 33007})  # old, new, alternative and DNG's lossy JPEG
_REDUCED = 1  # bit of NewSubfileType: a smaller copy of another directory
_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 274, 282, 283, 296
_MIN_IS_WHITE, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 2, 3, 5, 6  # of PhotometricInterpretation
_COLOURS = {_MIN_IS_WHITE: 1, 1: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}


@dataclass(frozen=True)
class _Directory:
    """What is needed to decode any segment (tile or strip) of one directory, from any thread."""

    width: int
    height: int
    segment_width: int
    segment_height: int
    planes: int
    offsets: NDArray[np.int64]
    byte_counts: NDArray[np.int64]
    decode: Callable[..., Any]
    jpeg_tables: bytes | None
    dtype: np.dtype[Any]
    bits: int
    photometric: int
    alpha: Alpha
    colours: int
    palette: NDArray[np.uint8] | None
    compression: int
    predictor: int

    @property
    def segment_bytes(self) -> int:
        """What decoding one segment takes in the worst case: as stored, as samples, as floats, as RGB."""
        pixels = self.segment_width * self.segment_height
        copies = 2 + (self.predictor != 1) + (self.planes > 1)
        stored = self.dtype.itemsize * copies
        if self.compression in claims.OF_TIFF and self.compression not in _JPEG_COMPRESSIONS:
            stored += 8  # codecs of wavelets work on whole numbers of 4 bytes
        samples = (self.colours + 1) * (pixels * stored + min(pixels, _BAND_PIXELS) * 9)
        return samples + 3 * pixels + 2 * int(self.byte_counts.max(initial=0))

    @property
    def across(self) -> int:
        return -(-self.width // self.segment_width)

    @property
    def per_plane(self) -> int:
        return self.across * -(-self.height // self.segment_height)


class TiffReader:
    """Decodes the segments a region touches and keeps the latest of them."""

    whole = False

    def __init__(self, file: CheckedFile, directories: list[_Directory], mpp: float | None) -> None:
        self._file = file
        self._directories = directories
        self._lock = Lock()
        self._cache: OrderedDict[tuple[int, int], RGB] = OrderedDict()
        self._cached_bytes = 0
        self.mpp = mpp
        self.cost = ReadCost(per_pixel=3, fixed=max(each.segment_bytes for each in directories))
        first = directories[0]
        self.is_slide = len(directories) > 1
        self.levels = tuple(Level.of(d.width, d.height, first.width, first.height) for d in directories)
        self._white = self._find_white()

    def read(self, level: int, box: Box) -> RGB:
        directory = self._directories[level]
        out = np.empty((box.height, box.width, 3), np.uint8)
        high, wide = directory.segment_height, directory.segment_width
        for row in range(box.y0 // high, -(-box.y1 // high)):
            for column in range(box.x0 // wide, -(-box.x1 // wide)):
                top, left = row * high, column * wide
                y0, y1 = max(box.y0, top), min(box.y1, top + high)
                x0, x1 = max(box.x0, left), min(box.x1, left + wide)
                segment = self._segment(level, row * directory.across + column)
                part = segment[y0 - top : y1 - top, x0 - left : x1 - left]
                out[y0 - box.y0 : y1 - box.y0, x0 - box.x0 : x1 - box.x0] = part
        return out

    def close(self) -> None:
        with self._lock:
            self._cache.clear()
            self._cached_bytes = 0

    def _segment(self, level: int, index: int) -> RGB:
        key = (level, index)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        directory = self._directories[level]
        # Decoded outside the lock: two threads may decode the same segment, none waits for another.
        pixels = _colours(self._samples(directory, index), directory, self._white)
        with self._lock:
            if key not in self._cache:
                self._cache[key] = pixels
                self._cached_bytes += pixels.nbytes
            # The newest always stays, however large: it is about to be copied from.
            while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return pixels

    def _samples(self, directory: _Directory, index: int) -> NDArray[Any] | None:
        """[h, w, samples] as stored, at the full size of a segment, or None where nothing was written."""
        planes = []
        for plane in range(directory.planes):
            number = index + plane * directory.per_plane
            count = int(directory.byte_counts[number])
            if count == 0:  # scanners leave out tiles of bare glass
                return None
            data = self._file.read_at(int(directory.offsets[number]), count)
            try:
                _require_honest(data, directory)
                tables = directory.jpeg_tables
                samples = directory.decode(data, number, jpegtables=tables, _fullsize=True)[0]
                planes.append(samples[0])
            except DECODER_ERRORS as error:
                raise UnreadableImageError(
                    f"{self._file.name} is damaged (its part {index} cannot be decoded); get a fresh copy"
                ) from error
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)

    def _find_white(self) -> float:
        """The value that means white, from the smallest level, so that it does not depend on the region read."""
        smallest = self._directories[-1]
        if smallest.bits < 8:  # tifffile unpacks 1, 2 or 4 bits into bytes without scaling them
            return float(2**smallest.bits - 1)
        if smallest.dtype == np.uint8 or smallest.palette is not None:
            return 255.0
        largest = 0.0
        for index in range(smallest.per_plane):
            samples = self._samples(smallest, index)
            if samples is not None:
                finite = samples[np.isfinite(samples)]
                largest = max(largest, float(finite.max(initial=0)))
        return full_scale(smallest.dtype, largest)


def _require_honest(data: bytes, directory: _Directory) -> None:
    """Raise ValueError for a segment whose own header claims far more than the directory says it holds."""
    claim = claims.OF_TIFF.get(directory.compression)
    claimed = claim(data) if claim else None
    if claimed is not None:
        width, height, samples = claimed
        room = 4 * directory.segment_width * directory.segment_height + 65_536  # some writers pad
        if width * height > room or samples > directory.colours + 2:
            raise ValueError("a part claims more pixels than it has")


def open_tiff(file: CheckedFile, limits: Limits, grant: Grant) -> PixelReader:
    """Read the directories of a TIFF and check that it can be decoded, without decoding 8-bit images.

    Raises ImageTooLargeError and UnreadableImageError (truncated, several planes, unknown compression).
    """
    try:
        with file.view() as stream, TiffFile(stream, name="image", _multifile=False) as tiff:
            pages = list(islice(tiff.pages, limits.directories + 1))
            return _build(file, [page for page in pages if isinstance(page, TiffPage)], limits, grant)
    except TissuetalkError:
        raise
    except DECODER_ERRORS as error:
        raise UnreadableImageError(
            f"{file.name} is a damaged or unsupported TIFF; get a fresh copy or save it as 8-bit RGB"
        ) from error


def _build(file: CheckedFile, pages: list[TiffPage], limits: Limits, grant: Grant) -> PixelReader:
    if not pages:
        raise UnreadableImageError(f"{file.name} is a TIFF without an image; save it again")
    if len(pages) > limits.directories:
        raise UnreadableImageError(
            f"{file.name} holds over {limits.directories} images; save the one you mean"
        )
    main = max((p for p in pages if not p.subfiletype & _REDUCED), key=_area, default=max(pages, key=_area))
    # Several full-size pages are focus planes, channels or time points; nobody said which one is meant.
    equal = [p for p in pages if p.shape == main.shape and not p.subfiletype & _REDUCED]
    if len(equal) > 1 or main.imagedepth > 1:
        raise UnreadableImageError(
            f"{file.name} is a stack of {max(len(equal), main.imagedepth)} planes; save one plane as RGB"
        )
    levels = [main, *sorted(_reduced_levels(main, pages, limits), key=_area, reverse=True)]
    smallest = levels[-1]
    limits.require_decodable((smallest.imagewidth, smallest.imagelength), file.name)
    limits.require_readable_in_tiles((main.imagewidth, main.imagelength), file.name)
    directories = [_directory(page, file, limits) for page in levels]
    for one in directories:
        if one.segment_bytes > PASSING.total_bytes:
            raise ImageTooLargeError(
                f"{file.name} has parts of {one.segment_width} by {one.segment_height} pixels that take "
                f"{one.segment_bytes // MIB} MiB to decode; save it with tiles of 512"
            )
    largest = max(3 * one.segment_width * one.segment_height for one in directories)
    grant(max(_CACHE_BYTES, largest, directories[-1].segment_bytes if main.dtype != np.uint8 else 0))
    reader = TiffReader(file, directories, _mpp(main))
    orientation = _value(main, _ORIENTATION, 1)
    return OrientedReader(reader, orientation) if orientation in range(2, 9) else reader


def _area(page: TiffPage) -> int:
    return page.imagewidth * page.imagelength


def _reduced_levels(main: TiffPage, pages: list[TiffPage], limits: Limits) -> Iterator[TiffPage]:
    """Smaller copies of the main image: same proportions within 2 %, same kind of pixels."""
    below = [page for page in islice(main.pages or (), limits.directories) if isinstance(page, TiffPage)]
    marked = [page for page in pages if page is not main and page.subfiletype == _REDUCED]
    seen = {_area(main)}  # SubIFDs are often listed among the pages once more
    for page in chain(below, marked):
        if page.imagewidth < 1 or page.imagelength < 1 or _area(page) in seen or _area(page) > _area(main):
            continue
        stretch = (main.imagewidth / page.imagewidth) / (main.imagelength / page.imagelength)
        rounding = 1 / min(page.imagewidth, page.imagelength)
        same_pixels = page.samplesperpixel == main.samplesperpixel and page.dtype == main.dtype
        if abs(stretch - 1) < 0.02 + rounding and same_pixels and page.is_tiled == main.is_tiled:
            seen.add(_area(page))
            yield page


def _directory(page: TiffPage, file: CheckedFile, limits: Limits) -> _Directory:
    colours, alpha = _layout(page, file.name)
    # A file without tiles is read by strips, which may be as high as the image.
    wide, high = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
    high = high if page.is_tiled else min(high, page.imagelength)
    if wide < 1 or high < 1:
        raise UnreadableImageError(f"{file.name} has parts without pixels ({wide} by {high}); save it again")
    if wide * high > max(limits.segment_pixels, 0 if page.is_tiled else _area(page)):
        raise ImageTooLargeError(
            f"{file.name} has tiles of {wide} by {high} pixels; save it with tiles of 512"
        )
    if page.dtype is None:
        raise UnreadableImageError(f"{file.name} has pixels of an unknown type; save it as 8-bit RGB")
    directory = _Directory(
        width=page.imagewidth,
        height=page.imagelength,
        segment_width=wide,
        segment_height=high,
        planes=page.samplesperpixel if page.planarconfig == 2 else 1,
        offsets=np.asarray(page.dataoffsets, np.int64),
        byte_counts=np.asarray(page.databytecounts, np.int64),
        decode=page.decode,
        jpeg_tables=page.jpegtables,
        dtype=page.dtype,
        bits=page.bitspersample,
        photometric=page.photometric,
        alpha=alpha,
        colours=colours,
        palette=(np.asarray(page.colormap, np.uint16) >> 8).astype(np.uint8).T  # from 16-bit entries
        if page.photometric == _PALETTE
        else None,
        compression=int(page.compression),
        predictor=int(page.predictor),
    )
    expected = directory.per_plane * directory.planes
    # Offsets are checked now: a truncated slide would else be noticed after an hour of work.
    both = min(len(directory.offsets), len(directory.byte_counts))
    ends = directory.offsets[:both] + directory.byte_counts[:both]
    if (
        both < expected
        or min(directory.offsets.min(), directory.byte_counts.min()) < 0
        or ends.max() > file.size_bytes
    ):
        raise UnreadableImageError(
            f"{file.name} is truncated: parts of the image are missing; get a fresh copy"
        )
    return _in_short_strips(page, directory)


def _in_short_strips(page: TiffPage, directory: _Directory) -> _Directory:
    """An uncompressed image of one strip, cut into short ones, so that no read holds all of it."""
    row = (
        directory.segment_width
        * (page.samplesperpixel if directory.planes == 1 else 1)
        * directory.dtype.itemsize
    )
    rows = max(1, _RAW_STRIP_BYTES // row)
    plain = page.compression == 1 and page.predictor == 1 and page.fillorder == 1 and not page.is_tiled
    whole = directory.segment_height == directory.height and directory.bits == 8 * directory.dtype.itemsize
    enough = (directory.byte_counts[: directory.planes] >= row * directory.height).all()
    if not (plain and whole and enough and rows < directory.height):
        return directory
    tops = np.arange(0, directory.height, rows)
    return replace(
        directory,
        segment_height=rows,
        offsets=np.concatenate([offset + tops * row for offset in directory.offsets[: directory.planes]]),
        byte_counts=np.tile(np.minimum(rows, directory.height - tops) * row, directory.planes),
        decode=partial(
            _decode_raw,
            dtype=directory.dtype.newbyteorder(page.parent.byteorder),
            width=directory.width,
            samples=page.samplesperpixel if directory.planes == 1 else 1,
        ),
    )


def _decode_raw(
    data: bytes, number: int, *, dtype: np.dtype[Any], width: int, samples: int, **_: object
) -> Any:
    """What tifffile's decoders give: ([1, h, w, samples],)."""
    stored = np.frombuffer(data, dtype)
    return (stored.astype(dtype.newbyteorder("=")).reshape(1, -1, width, samples),)


def _layout(page: TiffPage, name: str) -> tuple[int, Alpha]:
    """How many of the samples are colour, and what one more sample is."""
    colours = _COLOURS.get(page.photometric, 0)
    extra = page.samplesperpixel - colours
    # JPEG decoders turn YCbCr into RGB themselves; stored raw it is subsampled, which is not read here.
    raw_ycbcr = page.photometric == _YCBCR and page.compression not in _JPEG_COMPRESSIONS
    if colours == 0 or extra not in (0, 1) or raw_ycbcr or (page.photometric == _PALETTE and extra):
        raise UnreadableImageError(
            f"{name} has {page.samplesperpixel} channels of an unsupported kind; save it as 8-bit RGB"
        )
    kinds: dict[int, Alpha] = {1: "premultiplied", 2: "straight"}
    return colours, kinds.get(page.extrasamples[0], "none") if extra and page.extrasamples else "none"


def _colours(samples: NDArray[Any] | None, directory: _Directory, white: float) -> RGB:
    """One segment as [h, w, 3] uint8; a segment that was never written is white."""
    if samples is None:
        return np.full((directory.segment_height, directory.segment_width, 3), 255, np.uint8)
    if directory.palette is not None:
        coloured: RGB = directory.palette[samples[..., 0]]
        return coloured
    if directory.alpha == "none":
        samples = samples[..., : directory.colours]
    if directory.photometric == _CMYK:
        ink = np.clip(samples[..., :4].astype(np.float32) / np.float32(white), 0, 1)
        # No colour profile: ink takes its share of light away.
        printed: RGB = np.rint(255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])).astype(np.uint8)
        return printed
    pixels = to_rgb(samples, white=white, alpha=directory.alpha)
    return 255 - pixels if directory.photometric == _MIN_IS_WHITE else pixels


def _mpp(page: TiffPage) -> float | None:
    """From OME, ImageJ or the resolution tags. The description itself goes nowhere else."""
    per_x, per_y = _rational(page, _X_RESOLUTION), _rational(page, _Y_RESOLUTION)
    from_words = mpp_from_ome(page.description, page.imagewidth) or mpp_from_imagej(
        page.description, per_x, per_y
    )
    return from_words or mpp_from_tiff(per_x, per_y, int(_value(page, _RESOLUTION_UNIT, 2)))


def _rational(page: TiffPage, tag: int) -> float:
    value = _value(page, tag, (0, 1))
    return value[0] / value[1] if isinstance(value, tuple) and len(value) == 2 and value[1] else 0.0


def _value(page: TiffPage, tag: int, default: Any) -> Any:
    found = page.tags.get(tag)
    return default if found is None else found.value
