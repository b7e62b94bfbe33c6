"""DICOM slides: headers that lie, lengths that do not end, and series whose files do not belong together."""

from __future__ import annotations

import copy
import io
import os
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from hostile.bytes_of import bare_jpeg, changed, sized
from hostile.case import BIRTH_DATE, PATIENT, RECORD_NUMBER, Answer, Case, image_case, look
from hostile.families.tiffs import claimed, j2k
from hostile.ground import Ground

DAMAGED, LARGE, READ = "unreadable_image", "image_too_large", "ok|unreadable_image"
JPEG_2000, DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"


@cache
def _base() -> Any:
    from drawn_dicom import base_level
    from drawn_slides import Drawing

    slide = base_level(Drawing(side_px=512, fragment_mm2=0.005))
    slide.PatientName, slide.PatientID = PATIENT.split()[0], RECORD_NUMBER
    slide.PatientBirthDate, slide.AccessionNumber = BIRTH_DATE, RECORD_NUMBER[:12]
    slide.ReferringPhysicianName = slide.ContainerIdentifier = PATIENT.split()[0]
    return slide


def made(change: Callable[[Any], object] = lambda slide: None) -> bytes:
    slide = copy.deepcopy(_base())
    stream = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # pydicom says what is wrong with it; that is meant
        change(slide)
        slide.file_meta.FileMetaInformationGroupLength = 0  # counted when it is written
        slide.save_as(stream, enforce_file_format=False)
    return stream.getvalue()


def _with(**values: Any) -> Callable[[Any], None]:
    """Set these elements; None takes one away."""

    def change(slide: Any) -> None:
        for name, value in values.items():
            if value is None:
                delattr(slide, name)
            else:
                setattr(slide, name, value)

    return change


def _frames(*frames: bytes, syntax: str | None = None) -> Callable[[Any], None]:
    from pydicom.encaps import encapsulate

    def change(slide: Any) -> None:
        slide.PixelData = encapsulate(list(frames))
        slide["PixelData"].is_undefined_length = True
        if syntax is not None:
            slide.file_meta.TransferSyntaxUID = syntax

    return change


def _elements() -> Iterator[tuple[str, Callable[[Any], object], str]]:
    yield "as it should be", lambda slide: None, "ok"
    for name, values in {
        "a CT": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"},
        "no series": {"SeriesInstanceUID": None},
        "a series of 500 characters": {"SeriesInstanceUID": "1." + "2" * 500},
        "no kind of image": {"ImageType": None},
        "an image of a label": {"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]},
        "16 bits": {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15},
        "0 bits": {"BitsAllocated": 0},
        "1 sample": {"SamplesPerPixel": 1},
        "255 samples": {"SamplesPerPixel": 255},
        "another colour": {"PhotometricInterpretation": "PALETTE COLOR"},
        "tiles of 0": {"Rows": 0, "Columns": 0},
        "tiles of 65,535": {"Rows": 65_535, "Columns": 65_535},
        "tiles of another size": {"Rows": 256, "Columns": 256},
        "no size": {"TotalPixelMatrixRows": None, "TotalPixelMatrixColumns": None},
        "a size of 0": {"TotalPixelMatrixRows": 0, "TotalPixelMatrixColumns": 0},
        "a size of 2^31": {"TotalPixelMatrixRows": 2**31, "TotalPixelMatrixColumns": 2**31},
        "a size of 2^32-1": {"TotalPixelMatrixRows": 2**32 - 1, "TotalPixelMatrixColumns": 2**32 - 1},
        "a size of 400,000": {"TotalPixelMatrixRows": 400_000, "TotalPixelMatrixColumns": 400_000},
        "0 frames": {"NumberOfFrames": 0},
        "-1 frames": {"NumberOfFrames": -1},
        "2^31 frames": {"NumberOfFrames": 2**31 - 1},
        "a million frames": {"NumberOfFrames": 1_000_000},
        "7 focal planes": {"TotalPixelMatrixFocalPlanes": 7},
        "sparse": {"DimensionOrganizationType": "TILED_SPARSE"},
        "no groups": {"SharedFunctionalGroupsSequence": None},
        "no optical path": {"OpticalPathSequence": None},
        "10,000 optical paths": {"NumberOfOpticalPaths": 10_000},
        "no pixels": {"PixelData": None},
    }.items():
        yield (
            name,
            _with(**values),
            f"{READ}|{LARGE}" if "no" in name.split() or "size" in name or "0" in name else READ,
        )
    for name, spacing in {"0": [0, 0], "negative": [-1, -1], "1e300": ["1e300", "1e300"]}.items():
        yield (
            f"spacing of {name}",
            lambda slide, spacing=spacing: setattr(
                slide.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], "PixelSpacing", spacing
            ),
            READ,
        )


def _pixels() -> Iterator[tuple[str, Callable[[], bytes], str]]:
    tile = bare_jpeg(512, 512)
    yield "frame of noise", lambda: made(_frames(bytes(range(256)) * 8)), DAMAGED
    yield "frame cut", lambda: made(_frames(tile[: len(tile) // 2])), READ
    yield "frame of two bytes", lambda: made(_frames(b"\0\0")), READ
    yield "frame that claims 65,000", lambda: made(_frames(sized(tile, 65_000, 65_000))), DAMAGED
    yield "frame of another size", lambda: made(_frames(bare_jpeg(64, 64))), DAMAGED
    yield "1,000 frames of one", lambda: made(_frames(*[b"\xff\xd8\xff\xd9"] * 1000)), READ
    for side in (512, 20_000, 60_000):
        stream = claimed(j2k(512), side, side) if side != 512 else j2k(512)[:2000]
        yield (
            f"JPEG 2000 that {'is cut' if side == 512 else f'claims {side:,}'}",
            (lambda stream=stream: made(_frames(stream, syntax=JPEG_2000))),
            READ,
        )
    yield "JPEG 2000 that is JPEG", lambda: made(_frames(tile, syntax=JPEG_2000)), DAMAGED
    yield "pixels that are not in frames", lambda: made(_raw_pixels), READ
    yield "a syntax nobody knows", _syntax("1.2.3.4"), DAMAGED
    yield "a syntax that is big-endian", _syntax(BIG_ENDIAN), DAMAGED


def _raw_pixels(slide: Any) -> None:
    slide.PixelData = bytes(512 * 512 * 3)
    slide["PixelData"].is_undefined_length = False
    slide.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"


def _syntax(uid: str) -> Callable[[], bytes]:
    """The same file, its syntax renamed: pydicom would not write such a thing."""
    known = b"1.2.840.10008.1.2.4.50"
    return lambda: made().replace(known, uid.encode().ljust(len(known), b"\0"), 1)


def _structure() -> Iterator[tuple[str, Callable[[], bytes], str]]:
    yield "preamble only", lambda: bytes(128) + b"DICM", DAMAGED
    yield "cut in its head", lambda: made()[:400], DAMAGED
    yield "cut in its pixels", lambda: made()[:-1000], READ
    yield (
        "an element of 4 GB",
        lambda: made()[:1000] + b"\x09\0\x10\0OB\0\0\xfe\xff\xff\xff" + bytes(100),
        DAMAGED,
    )
    yield "sequences 5,000 deep", lambda: _deep(5000), DAMAGED
    yield "a million empty items", lambda: _items(1_000_000), f"{DAMAGED}|ok"
    yield "a deflate bomb", _deflated, DAMAGED
    yield "a group length that lies", lambda: changed(made(), 140, b"\xff\xff\xff\x7f"), READ
    yield "zeros after its head", lambda: made()[:600] + bytes(5000), DAMAGED
    yield "a program in its preamble", lambda: b"MZ" + bytes(126) + made()[128:], "ok"


def _head() -> bytes:
    whole = made()
    return whole[: whole.index(b"\x40\x00\x08\x05")] if b"\x40\x00\x08\x05" in whole else whole[:1200]


def _deep(count: int) -> bytes:
    item = b"\x40\x00\x55\x05SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return _head() + item * count


def _items(count: int) -> bytes:
    return _head() + b"\x40\x00\x55\x05SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" * count


def _deflated() -> bytes:
    import zlib

    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    whole = _syntax(DEFLATED)()
    at = whole.index(b"\x08\x00\x05\x00") if b"\x08\x00\x05\x00" in whole else 400
    return whole[:at] + packer.compress(bytes(500_000_000)) + packer.flush()


def _series() -> Iterator[tuple[str, Callable[[Path], object], str]]:
    def both(change: Callable[[Any], object]) -> Callable[[Path], None]:
        def files(folder: Path) -> None:
            (folder / "image.dcm").write_bytes(made())
            (folder / "other.dcm").write_bytes(made(change))

        return files

    def linked(to: str) -> Callable[[Path], None]:
        def files(folder: Path) -> None:
            (folder / "image.dcm").write_bytes(made())
            (folder / "other.dcm").symlink_to(to)

        return files

    def piped(folder: Path) -> None:
        (folder / "image.dcm").write_bytes(made())
        os.mkfifo(folder / "pipe.dcm")

    def crowded(folder: Path) -> None:
        content = made()
        (folder / "image.dcm").write_bytes(content)
        for number in range(1500):
            (folder / f"f{number}.dcm").write_bytes(content[:900])

    both_ok = f"{READ}|image_changed"
    yield "the same level twice", both(lambda slide: None), both_ok
    yield (
        "another patient's level of the same series",
        both(_with(PatientID="another", SOPInstanceUID="1.2.3")),
        both_ok,
    )
    yield (
        "a second level of another shape",
        both(_with(TotalPixelMatrixRows=300, SOPInstanceUID="1.2.4")),
        both_ok,
    )
    yield "a broken file of the same series", both(_with(ImageType=None)), both_ok
    yield "another series beside it", both(_with(SeriesInstanceUID="1.2.5")), "ok"
    yield "a link out", linked("../../outside/secret.png"), "outside_roots|ok"
    yield "a link to a device", linked("/dev/zero"), "outside_roots|ok"
    yield "a link to itself", linked("other.dcm"), "outside_roots|ok"
    yield "a pipe beside it", piped, "ok|unreadable_image"
    yield "1,500 files beside it", crowded, "ok|unreadable_image"


def stranger(ground: Ground) -> Answer:
    """Two uploads of one series are two slides: what one caller sends never shows in another's."""
    first = ground.tool("view", image=ground.relative("one/image.dcm"))
    second = ground.tool("view", image=ground.relative("two/image.dcm"))
    again = ground.tool("view", image=ground.relative("one/image.dcm"))
    if first.code != "ok" or again.code != "ok":
        return first
    same = (
        first.data["image"]["image_id"] == again.data["image"]["image_id"] != second.data["image"]["image_id"]
    )
    return Answer("ok" if same and second.code == "ok" else "mixed", second.text)


def _two_folders(folder: Path) -> None:
    for name, colour in (("one", 60), ("two", 200)):
        (folder / name).mkdir()
        frame = bare_jpeg(512, 512, qtables=None, optimize=colour > 100)
        (folder / name / "image.dcm").write_bytes(made(_frames(frame)))


def dicom_family() -> Iterator[Case]:
    for name, change, expected in _elements():
        yield image_case("DICOM", name, lambda change=change: made(change), expected, ending="dcm")
    for name, content, expected in (*_pixels(), *_structure()):
        yield image_case("DICOM", name, content, expected, ending="dcm", seconds=10)
    for name, files, expected in _series():
        yield Case("DICOM", f"beside a slide: {name}", look("image.dcm"), expected, files, seconds=10)
    yield Case("DICOM", "one series in two folders", stranger, "ok", _two_folders)
