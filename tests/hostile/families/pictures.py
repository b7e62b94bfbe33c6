"""PNG, JPEG, WebP and BMP: structure, bombs, and headers that claim what is not there."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache

from hostile.bytes_of import (
    END,
    PIECE,
    SIGNATURE,
    changed,
    chunk,
    frame_at,
    ihdr,
    jpeg,
    png,
    rows,
    segment,
    segments,
    sized,
    tissue,
    with_segment,
    without_segment,
    zeros,
)
from hostile.case import PATIENT, Case, Content, image_case

LARGE, EITHER = "image_too_large", "ok|image_too_large"
"""EITHER: a bomb may be decoded when the budgets allow it; then its memory and time are what is checked."""
SLOW_S = 20.0


def png_cases() -> Iterator[tuple[str, Content, str]]:
    """Header and pixels."""
    plain = png()
    body = plain[len(SIGNATURE) :]
    yield "empty", b"", "unreadable_image"
    yield "signature only", SIGNATURE, "unreadable_image"
    yield "signature with line ends converted", b"\x89PNG\n\x1a\n" + body, "unreadable_image"
    yield "no header chunk", SIGNATURE + chunk(b"IDAT", zeros(3630)) + END, "unreadable_image"
    yield (
        "header chunk last",
        SIGNATURE + chunk(b"IDAT", zeros(3630)) + ihdr(40, 30) + END,
        "unreadable_image",
    )
    yield "header of 12 bytes", SIGNATURE + chunk(b"IHDR", bytes(12)) + END, "unreadable_image"
    yield "header of 4 GB", SIGNATURE + b"\xff\xff\xff\xffIHDR" + bytes(100), "unreadable_image"
    yield "zero wide", png(0, 30), "unreadable_image"
    yield "zero high", png(40, 0), "unreadable_image"
    yield "2^31-1 a side", png(2**31 - 1, 2**31 - 1, packed=zeros(100)), LARGE
    yield "one row of 2^30", png(2**30, 1, packed=zeros(100)), LARGE
    yield "60,000 a side with 10 MB of rows", png(60_000, 60_000, packed=zeros(10_000_000)), LARGE
    yield "depth 3", png(depth=3, packed=zeros(9000)), "unreadable_image"
    yield "colour type 5", png(colour=5, packed=zeros(9000)), "unreadable_image"
    yield "compression method 9", png()[:26] + b"\x09" + png()[27:], "unreadable_image"
    yield "header with a wrong sum", changed(plain, 29, b"\0\0\0\0"), "unreadable_image"
    yield "no pixels", SIGNATURE + ihdr(40, 30) + END, "unreadable_image"
    yield (
        "pixels with a wrong sum",
        png(packed=b"", after=chunk(b"IDAT", zeros(3630), crc=1)),
        "unreadable_image",
    )
    yield "pixels that are no zlib", png(packed=b"\x78\xda" + bytes(range(200))), "unreadable_image"
    yield "pixels cut", png(packed=zeros(1800)), "unreadable_image"
    yield "too many pixels", png(packed=zeros(200_000_000)), "ok|unreadable_image"
    yield "pixels in 5,000 chunks", _in_pieces(5000), "ok"
    yield "pixels in 60,000 empty chunks", _with_empty(60_000), "ok|unreadable_image"


def png_extras() -> Iterator[tuple[str, Content, str]]:
    """Chunks around the pixels."""
    plain = png()
    exif = b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 274, 3, 1, 9) + bytes(4)
    bomb = zlib.compress(bytes(80_000_000), 9)
    yield "a chunk longer than the file", plain[:-12] + b"\x7f\xff\xff\xffIDAT", "unreadable_image"
    yield "an unknown critical chunk", png(before=chunk(b"ABCD", b"x")), "ok|unreadable_image"
    yield "a text that inflates to 80 MB", png(before=chunk(b"zTXt", b"a\0\0" + bomb)), "ok|unreadable_image"
    yield (
        "many texts that inflate",
        png(before=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000))) * 100),
        ("ok|unreadable_image"),
    )
    yield (
        "an international text that inflates",
        png(before=chunk(b"iTXt", b"a\0\1\0\0\0" + bomb)),
        ("ok|unreadable_image"),
    )
    yield "a colour profile that inflates", png(before=chunk(b"iCCP", b"a\0\0" + bomb)), "ok|unreadable_image"
    yield (
        "20,000 texts",
        png(before=chunk(b"tEXt", b"Patient\0" + PATIENT.encode()) * 20_000),
        ("ok|unreadable_image"),
    )
    yield "a palette of 257 colours", png(colour=3, before=chunk(b"PLTE", bytes(771))), "ok|unreadable_image"
    yield "a palette of 7 bytes", png(colour=3, before=chunk(b"PLTE", bytes(7))), "ok|unreadable_image"
    yield "no palette", png(colour=3), "ok|unreadable_image"
    yield "an index beyond its palette", _beyond_palette(), "ok|unreadable_image"
    yield "transparency of a wrong size", png(before=chunk(b"tRNS", b"x")), "unreadable_image"
    yield "resolution of a wrong size", png(before=chunk(b"pHYs", b"x")), "unreadable_image"
    yield "EXIF with orientation 9", png(before=chunk(b"eXIf", exif)), "ok"
    yield "EXIF that is noise", png(before=chunk(b"eXIf", bytes(range(250)))), "ok|unreadable_image"
    yield "no end", plain[:-12], "unreadable_image"
    yield "another picture behind the end", plain + png(2**31 - 1, 5), "ok"
    yield "animated with 2^31 frames", _animated(), "ok|unreadable_image"
    yield "interlaced and cut", png(64, 64, packed=zeros(200), interlace=1), "unreadable_image"


def png_bombs() -> Iterator[tuple[str, Content, str]]:
    yield "8,000 a side of 16 bits", lambda: png(8000, 8000, 16), EITHER
    yield "19,000 a side of 16 bits", lambda: png(19_000, 19_000, 16), LARGE
    yield "12,000 a side of 16 bits with opacity", lambda: png(12_000, 12_000, 16, 6), LARGE
    yield "11,000 a side of 16 bits grey, interlaced", lambda: _interlaced(11_000, 16, 0), EITHER
    yield "19,999 a side of 1 bit", lambda: png(19_999, 19_999, 1, 0), EITHER
    yield "19,999 a side with opacity", lambda: png(19_999, 19_999, 8, 6), EITHER
    yield (
        "19,999 a side of a palette",
        lambda: png(19_999, 19_999, 8, 3, before=chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", bytes(256))),
        EITHER,
    )
    yield "499,999 wide", lambda: png(499_999, 700), EITHER


def png_family() -> Iterator[Case]:
    for number, (name, content, expected) in enumerate((*png_cases(), *png_extras())):
        yield image_case("PNG", name, content, expected, ending="png", sample=number in (9, 20, 27))
    for name, content, expected in png_bombs():
        yield image_case("PNG", name, content, expected, ending="png", seconds=SLOW_S)


def _in_pieces(count: int) -> bytes:
    whole = zlib.compress(bytes(rows(400, 300)), 0)
    step = max(1, len(whole) // count)
    pieces = b"".join(chunk(b"IDAT", whole[at : at + step]) for at in range(0, len(whole), step))
    return SIGNATURE + ihdr(400, 300) + pieces + END


def _with_empty(count: int) -> bytes:
    return SIGNATURE + ihdr(40, 30) + chunk(b"IDAT", b"") * count + chunk(b"IDAT", zeros(rows(40, 30))) + END


def _beyond_palette() -> bytes:
    filled = b"".join(b"\0" + bytes([200]) * 40 for _ in range(30))
    return png(colour=3, packed=zlib.compress(filled), before=chunk(b"PLTE", bytes(6)))


def _animated() -> bytes:
    frame = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 40, 30, 2**30, 2**30, 1, 1, 0, 0))
    return png(before=chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + frame)


def _interlaced(side: int, depth: int, colour: int) -> bytes:
    passes = ((8, 8), (8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2))
    size = sum(rows(-(-side // x), -(-side // y), depth, colour) for x, y in passes)
    return png(side, side, depth, colour, packed=zeros(size + PIECE), interlace=1)


def jpeg_cases() -> Iterator[tuple[str, Content, str]]:
    """Frame, scan and tables."""
    plain = jpeg()
    frame = frame_at(plain)
    scan = next(start for marker, start, _ in segments(plain) if marker == 0xDA)
    yield "start only", plain[:3], "unreadable_image"
    yield "cut in a table", plain[: scan - 40], "unreadable_image"
    yield "cut before its scan", plain[:scan], "unreadable_image"
    yield "cut in its scan", plain[: scan + (len(plain) - scan) // 2], "unreadable_image"
    yield (
        "cut in its scan and closed",
        plain[: scan + (len(plain) - scan) // 2] + b"\xff\xd9",
        "unreadable_image",
    )
    yield "zero wide", sized(plain, 0, 80), "unreadable_image"
    yield "zero high", sized(plain, 96, 0), "unreadable_image"
    yield "65,500 a side", sized(plain, 65_500, 65_500), LARGE
    yield "19,900 a side of 3 kB", sized(plain, 19_900, 19_900), "unreadable_image|image_too_large"
    yield "no frame", without_segment(plain, 0xC0), "unreadable_image"
    yield (
        "two frames",
        with_segment(plain, sized(plain, 2000, 2000)[frame : frame + 19], 0xC0),
        "unreadable_image",
    )
    yield "12 bits a sample", changed(plain, frame + 4, b"\x0c"), "unreadable_image"
    yield "2 bits a sample", changed(plain, frame + 4, b"\x02"), "unreadable_image"
    yield "no components", changed(plain, frame + 9, b"\x00"), "unreadable_image"
    yield "255 components", changed(plain, frame + 9, b"\xff"), "unreadable_image"
    yield "sampling of 0", changed(plain, frame + 11, b"\x00"), "unreadable_image"
    yield "sampling of 15", changed(plain, frame + 11, b"\xff"), "unreadable_image"
    yield "a table that is not there", changed(plain, frame + 12, b"\x09"), "unreadable_image"
    yield "no quantisation", without_segment(plain, 0xDB), "unreadable_image"
    yield "no codes", without_segment(plain, 0xC4), "ok|unreadable_image"
    yield (
        "codes that overflow",
        with_segment(plain, segment(0xC4, b"\0" + b"\xff" * 16 + bytes(50)), 0xC4),
        ("unreadable_image"),
    )


def jpeg_extras() -> Iterator[tuple[str, Content, str]]:
    """Markers around the picture, and other ways of coding it."""
    plain = jpeg()
    frame = frame_at(plain)
    icc = segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(60_000))
    yield "a marker of length 0", with_segment(plain, b"\xff\xe1\0\0"), "ok|unreadable_image"
    yield "a marker longer than the file", with_segment(plain, b"\xff\xe9\xff\xff"), "unreadable_image"
    yield (
        "a restart interval that is never kept",
        with_segment(plain, segment(0xDD, b"\0\1")),
        "unreadable_image",
    )
    yield "3,000 comments", with_segment(plain, segment(0xFE, PATIENT.encode()) * 3000), "ok"
    yield (
        "3,000 application markers of 60 kB",
        lambda: with_segment(plain, segment(0xED, b"Photoshop 3.0\0" + bytes(60_000)) * 1000),
        "ok|unreadable_image",
    )
    yield "a profile of 255 parts, one there", with_segment(plain, icc), "ok"
    yield "1 MB of fill bytes", plain[:2] + b"\xff" * 2**20 + plain[2:], "ok|unreadable_image"
    yield "EXIF that is noise", with_segment(plain, segment(0xE1, b"Exif\0\0" + bytes(range(250)))), "ok"
    yield (
        "EXIF that points to itself",
        with_segment(plain, segment(0xE1, b"Exif\0\0" + _circular_exif())),
        "ok",
    )
    yield "EXIF with orientation 9", jpeg(exif=_oriented(9)), "ok"
    yield "Adobe's marker cut", with_segment(plain, segment(0xEE, b"Adobe")), "ok|unreadable_image"
    yield "a second picture behind it", plain + jpeg(), "ok"
    yield "arithmetic coding claimed", changed(plain, frame + 1, b"\xc9"), "ok|unreadable_image"
    yield "lossless coding claimed", changed(plain, frame + 1, b"\xc3"), "unreadable_image"
    yield "hierarchical coding claimed", changed(plain, frame + 1, b"\xc5"), "unreadable_image"
    yield "progressive and cut", jpeg(progressive=True)[:-500], "unreadable_image"
    yield "density of 0", jpeg(dpi=(0, 0)), "ok"


def _oriented(number: int) -> bytes:
    return b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 274, 3, 1, number) + bytes(4)


def _circular_exif() -> bytes:
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    return b"II*\0\x08\0\0\0\1\0" + entry + struct.pack("<I", 8)


def _many_scans(side: int, count: int) -> bytes:
    """Progressive, the first scan over and over: every scan is a walk over all blocks of a large picture."""
    content = sized(jpeg(progressive=True), side, side)
    start = content.index(b"\xff\xda")
    end = content.index(b"\xff", start + 14)
    while content[end + 1] in (0, *range(0xD0, 0xD8)):
        end = content.index(b"\xff", end + 1)
    return content[:start] + content[start:end] * count + b"\xff\xd9"


def jpeg_family() -> Iterator[Case]:
    for number, (name, content, expected) in enumerate((*jpeg_cases(), *jpeg_extras())):
        yield image_case("JPEG", name, content, expected, ending="jpg", sample=number == 28)
    refused = "unreadable_image|image_too_large"
    for name, made in {
        "progressive of 4,000 a side with 400 scans": lambda: _many_scans(4000, 400),
        "progressive of 19,900 a side with 60 scans": lambda: _many_scans(19_900, 60),
    }.items():
        yield image_case("JPEG", name, made, f"ok|{refused}", ending="jpg", seconds=2 * SLOW_S)


@cache
def _webp(lossless: bool = False, width: int = 96, height: int = 80) -> bytes:
    stream = io.BytesIO()
    tissue(width, height).save(stream, "WEBP", lossless=lossless, exif=b"Exif\0\0" + PATIENT.encode())
    return stream.getvalue()


@cache
def _one_colour(width: int, height: int) -> bytes:
    """Lossless and one colour: no bits for a pixel, so that the size in the header is all that is needed."""
    stream = io.BytesIO()
    from PIL import Image

    Image.new("RGB", (16, 16), (90, 30, 120)).save(stream, "WEBP", lossless=True)
    content = stream.getvalue()
    at = content.index(b"VP8L") + 9
    bits = int.from_bytes(content[at : at + 4], "little")
    bits = bits & ~((1 << 28) - 1) | (width - 1) | ((height - 1) << 14)
    return changed(content, at, bits.to_bytes(4, "little"))


def webp_cases() -> Iterator[tuple[str, Content, str]]:
    lossy, lossless = _webp(), _webp(True)
    extended = lossy.index(b"VP8X") + 8
    yield "header only", b"RIFF\x64\0\0\0WEBPVP8 " + bytes(100), "unreadable_image"
    yield "RIFF alone", b"RIFF\x04\0\0\0WEBP", "unreadable_image"
    yield "RIFF longer than the file", changed(lossy, 4, b"\xff\xff\xff\x7f"), "unreadable_image"
    yield "RIFF of length 0", changed(lossy, 4, bytes(4)), "unreadable_image"
    yield "cut in the middle", lossy[: len(lossy) // 2], "unreadable_image"
    yield "lossless cut in the middle", lossless[: len(lossless) // 2], "unreadable_image"
    yield "lossless without its last bytes", lossless[:-30], "unreadable_image"
    yield "a canvas of 2^24", changed(lossy, extended + 4, b"\xff" * 6), "unreadable_image|image_too_large"
    yield "a canvas of another size", changed(lossy, extended + 4, b"\x05\0\0\x05\0\0"), "unreadable_image"
    yield "a chunk of 4 GB", changed(lossy, extended - 4, b"\xff\xff\xff\xff"), "unreadable_image"
    yield "an animation without frames", changed(lossy, extended, b"\x02"), "unreadable_image"
    yield "a profile that is not there", changed(lossy, extended, b"\x2f"), "ok|unreadable_image"
    yield "frame of zero size", _frame_sized(lossy, 0, 0), "unreadable_image"
    yield "frame of 16,383 a side", _frame_sized(lossy, 16_383, 16_383), "unreadable_image|image_too_large"
    yield "lossless version 7", changed(lossless, lossless.index(b"VP8L") + 12, b"\xff"), "unreadable_image"
    yield "16,383 a side of 40 bytes", lambda: _one_colour(16_383, 16_383), EITHER
    yield "16,383 by 9,000 of 40 bytes", lambda: _one_colour(16_383, 9_000), EITHER


def _frame_sized(content: bytes, width: int, height: int) -> bytes:
    at = content.index(b"\x9d\x01\x2a") + 3
    return changed(content, at, struct.pack("<HH", width, height))


def bmp(
    width: int = 20,
    height: int = 20,
    bits: int = 24,
    *,
    packing: int = 0,
    colours: int = 0,
    header: int = 40,
    data_at: int = 54,
    data: bytes = bytes(1200),
) -> bytes:
    return (
        struct.pack("<2sIHHI", b"BM", 54 + len(data), 0, 0, data_at)
        + struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, packing, 0, 0, 0, colours, 0)
        + data
    )


def bmp_cases() -> Iterator[tuple[str, Content, str]]:
    yield "two letters", b"BM", "unreadable_image"
    yield "header only", bmp(50, 50, data=b""), "unreadable_image"
    yield "zero wide", bmp(0, 20), "unreadable_image"
    yield "negative wide", bmp(-50, 50), "unreadable_image|image_too_large"
    yield "negative high", bmp(20, -20), "ok"
    yield "2^31-1 a side", bmp(2**31 - 1, 2**31 - 1), LARGE
    yield "-2^31 high", bmp(20, -(2**31)), "unreadable_image|image_too_large"
    yield "0 bits", bmp(bits=0), "unreadable_image"
    yield "3 bits", bmp(bits=3), "unreadable_image"
    yield "64 bits", bmp(bits=64), "unreadable_image"
    yield "4 billion colours", bmp(bits=8, colours=2**32 - 1), "unreadable_image"
    yield "300 colours", bmp(bits=8, colours=300), "unreadable_image"
    yield "a header of 0", bmp(header=0), "unreadable_image"
    yield "a header of 2 GB", bmp(header=2**31 - 1), "unreadable_image"
    yield "data behind the end", bmp(data_at=10**6), "unreadable_image"
    yield "data at 0", bmp(data_at=0), "ok|unreadable_image"
    yield "packing 9", bmp(packing=9), "unreadable_image"
    yield "a JPEG inside", bmp(packing=4, data=jpeg()), "unreadable_image"
    yield (
        "runs beyond the edge",
        bmp(bits=8, packing=1, data_at=1078, data=bytes(1024) + b"\xff\1" * 500),
        ("ok|unreadable_image"),
    )
    yield (
        "runs of 19,000 a side that jump",
        bmp(19_000, 19_000, 8, packing=1, data_at=1078, data=bytes(1024) + b"\0\2\xff\xff" * 50 + b"\0\1"),
        "ok|unreadable_image|image_too_large",
    )


def webp_and_bmp_family() -> Iterator[Case]:
    for name, content, expected in webp_cases():
        slow = SLOW_S if expected == EITHER else 5.0
        yield image_case("WebP and BMP", f"webp: {name}", content, expected, ending="webp", seconds=slow)
    for number, (name, content, expected) in enumerate(bmp_cases()):
        slow = SLOW_S if number == 19 else 5.0
        yield image_case("WebP and BMP", f"bmp: {name}", content, expected, ending="bmp", seconds=slow)
