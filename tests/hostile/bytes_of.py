"""Small makers of file contents: zlib streams that inflate to any size, PNG chunks, JPEG segments, TIFF directories."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from hostile.case import PATIENT

PIECE = 1 << 20


@cache
def _zero_piece() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(PIECE)) + packer.flush(zlib.Z_FULL_FLUSH)


def zeros(count: int) -> bytes:
    """A zlib stream of so many zero bytes, about a thousandth as long, made at once."""
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    end = rest.compress(bytes(count % PIECE)) + rest.flush(zlib.Z_FINISH)
    return b"\x78\xda" + _zero_piece() * (count // PIECE) + end + struct.pack(">HH", count % 65521, 1)


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)
    )


def ihdr(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


SIGNATURE, END = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")


def rows(width: int, height: int, depth: int = 8, colour: int = 2) -> int:
    """Bytes of the rows of a PNG before they are packed."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    return height * (1 + -(-width * samples * depth // 8))


def png(
    width: int = 40,
    height: int = 30,
    depth: int = 8,
    colour: int = 2,
    *,
    packed: bytes | None = None,
    before: bytes = b"",
    after: bytes = b"",
    interlace: int = 0,
) -> bytes:
    """A black picture with the patient's name in it; ``before`` and ``after`` are chunks around the pixels."""
    pixels = chunk(b"IDAT", zeros(rows(width, height, depth, colour)) if packed is None else packed)
    name = chunk(b"tEXt", b"Comment\0" + PATIENT.encode())
    return SIGNATURE + ihdr(width, height, depth, colour, interlace) + name + before + pixels + after + END


@cache
def tissue(width: int = 96, height: int = 80) -> Image.Image:
    """A picture that is no single colour, so that codecs have something to say."""
    random = np.random.default_rng(5)
    pixels = random.integers(90, 240, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


@cache
def jpeg(width: int = 96, height: int = 80, **options: Any) -> bytes:
    """With the patient's name in EXIF and in a comment."""
    exif = Image.Exif()
    exif[0x010E], exif[0x9C9B], exif[0x013B] = PATIENT, PATIENT.encode("utf-16-le"), PATIENT
    stream = io.BytesIO()
    options = {"quality": 80, "exif": exif, "comment": PATIENT, **options}
    tissue(width, height).save(stream, "JPEG", **options)
    return stream.getvalue()


@cache
def bare_jpeg(width: int, height: int, **options: Any) -> bytes:
    """A JPEG of only what is needed, as lies in tiles."""
    stream = io.BytesIO()
    tissue(width, height).save(stream, "JPEG", quality=80, **options)
    return stream.getvalue()


def segments(content: bytes) -> list[tuple[int, int, int]]:
    """(marker, start, end) of the segments of a JPEG up to the first scan, which runs to the end."""
    found, at = [], 2
    while at < len(content):
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        end = len(content) if marker == 0xDA else at + 2 + length
        found.append((marker, at, end))
        at = end
    return found


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def with_segment(content: bytes, new: bytes, before: int = 0xDB) -> bytes:
    """Put before the first segment of that marker."""
    at = next(start for marker, start, _ in segments(content) if marker == before)
    return content[:at] + new + content[at:]


def without_segment(content: bytes, *markers: int) -> bytes:
    return content[:2] + b"".join(content[a:b] for marker, a, b in segments(content) if marker not in markers)


def changed(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def frame_at(content: bytes) -> int:
    """Where the frame header of a JPEG begins."""
    frames = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
    return next(start for marker, start, _ in segments(content) if marker in frames)


def sized(content: bytes, width: int, height: int) -> bytes:
    """A JPEG that claims another size."""
    return changed(content, frame_at(content) + 5, struct.pack(">HH", height, width))


Value = int | bytes | Sequence[int] | tuple[str, int, bytes | int] | None
"""Of a tag. A number: one LONG; bytes: text; several numbers: LONGs; (type, count, raw): as given. None: no such tag."""
TYPES = {"byte": 1, "ascii": 2, "short": 3, "long": 4, "rational": 5, "sbyte": 6, "undefined": 7, "slong": 9}
TYPES |= {"srational": 10, "float": 11, "double": 12, "ifd": 13, "long8": 16, "slong8": 17, "ifd8": 18}
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def tiff(
    *directories: Mapping[int, Value],
    data: bytes = b"",
    order: str = "<",
    big: bool = False,
    links: Mapping[int, int] | None = None,
    first: int | None = None,
    magic: int | None = None,
) -> bytes:
    """Header, ``data`` (at DATA_AT), directories. links: where a directory says the next one is, if not where it is."""
    word, link = ("Q", 8) if big else ("I", 4)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", magic or (43 if big else 42))
    head += struct.pack(order + "HH", 8, 0) if big else b""
    start = len(head) + link
    body = data + bytes(-(start + len(data)) % 8)
    at, where, parts = start + len(body), [], []
    for tags in directories:
        made = [(tag, *_typed(value, order)) for tag, value in tags.items() if value is not None]
        where.append(at)
        parts.append(_directory(made, at, order, big))
        at += sum(map(len, parts[-1])) + link
    content = b""
    for number, (entries, values) in enumerate(parts):
        following = (links or {}).get(number, where[number + 1] if number + 1 < len(where) else 0)
        content += entries + struct.pack(order + word, following) + values
    return head + struct.pack(order + word, first if first is not None else (*where, 0)[0]) + body + content


def _typed(value: Any, order: str) -> tuple[int, int, bytes | int]:
    if isinstance(value, tuple) and value and isinstance(value[0], str):
        kind, count, raw = value
        return TYPES.get(kind, 0) or int(kind), count, raw
    if isinstance(value, bytes):
        return 2, len(value) + 1, value + b"\0"
    numbers = [value] if isinstance(value, int) else list(value)
    return 4, len(numbers), struct.pack(f"{order}{len(numbers)}I", *numbers)


def _directory(
    made: Sequence[tuple[int, int, int, bytes | int]], at: int, order: str, big: bool
) -> tuple[bytes, bytes]:
    """Entries, and the values that have no room in them; between the two comes the link."""
    word, room = ("Q", 8) if big else ("I", 4)
    entries, values = struct.pack(order + ("Q" if big else "H"), len(made)), b""
    values_at = at + len(entries) + len(made) * (4 + 2 * room) + room
    for tag, kind, count, raw in made:
        entries += struct.pack(order + "HH" + word, tag, kind, count)
        if isinstance(raw, int):  # an offset that is meant to lie
            entries += struct.pack(order + word, raw)
        elif len(raw) <= room:
            entries += raw + bytes(room - len(raw))
        else:
            entries += struct.pack(order + word, values_at + len(values))
            values += raw + bytes(-len(raw) % 8)
    return entries, values


DATA_AT, BIG_DATA_AT = 8, 16


def flat(width: int = 32, height: int = 32, samples: int = 3, **more: Value) -> dict[int, Value]:
    """Tags of an uncompressed picture whose data lie at DATA_AT; ``t259=5`` changes or adds a tag."""
    tags: dict[int, Value] = {
        256: width,
        257: height,
        258: ("short", samples, struct.pack(f"<{samples}H", *[8] * samples)),
        259: 1,
        262: 2 if samples == 3 else 1,
        273: DATA_AT,
        277: samples,
        278: height,
        279: width * height * samples,
    }
    tags |= {number: PATIENT.encode() for number in (270, 315)}
    tags |= {int(name[1:]): value for name, value in more.items()}
    return dict(sorted(tags.items()))


def tiled(width: int, height: int, tile: int, piece: bytes, **more: Value) -> dict[int, Value]:
    """Tags of a picture in JPEG tiles that are all the same ``piece``, which lies at DATA_AT."""
    count = -(-width // tile) * -(-height // tile)
    tags = flat(width, height, t259=7, t262=6, t273=None, t278=None, t279=None)
    tags |= {
        322: tile,
        323: tile,
        324: [DATA_AT] * count,
        325: [len(piece)] * count,
        530: ("short", 2, b"\2\0\2\0"),
    }
    tags |= {int(name[1:]): value for name, value in more.items()}
    return dict(sorted(tags.items()))
