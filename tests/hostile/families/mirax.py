"""Slides of several files after 3DHISTECH: the families of OpenSlide's own bad slides, links, and counts that cost memory."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from drawn_mirax import SIDE, Mirax, jpeg_of, slidedat

from hostile.bytes_of import bare_jpeg, png, sized
from hostile.case import PATIENT, Case, look

DAMAGED, LARGE = "unreadable_image", "image_too_large"
SLOW_S = 20.0
BIG = "2147483647"
SLIDE = "slide.mrxs"
PINK = (200, 80, 160)


def with_key(group: str, key: str, value: str | None) -> Mirax:
    ini = slidedat(PATIENT)
    if value is None:
        del ini[group][key]
    else:
        ini[group][key] = value
    return Mirax(ini)


def _keys() -> Iterator[tuple[str, Mirax, str]]:
    """A key of Slidedat.ini that is missing, negative, huge or nonsense."""
    for group, key, value, expected in (
        ("GENERAL", "SLIDE_ID", None, DAMAGED),
        ("GENERAL", "SLIDE_ID", "another", DAMAGED),
        ("GENERAL", "IMAGENUMBER_X", None, DAMAGED),
        ("GENERAL", "IMAGENUMBER_X", "0", DAMAGED),
        ("GENERAL", "IMAGENUMBER_Y", "-4", DAMAGED),
        ("GENERAL", "IMAGENUMBER_Y", "four", DAMAGED),
        ("GENERAL", "IMAGENUMBER_X", BIG, f"{DAMAGED}|{LARGE}"),
        ("GENERAL", "IMAGENUMBER_X", "60000", f"{DAMAGED}|{LARGE}"),
        ("GENERAL", "CameraImageDivisionsPerSide", "0", DAMAGED),
        ("GENERAL", "CameraImageDivisionsPerSide", "-1", DAMAGED),
        ("GENERAL", "CameraImageDivisionsPerSide", BIG, f"{DAMAGED}|ok"),
        ("GENERAL", "OBJECTIVE_MAGNIFICATION", "twenty", "ok"),
        ("HIERARCHICAL", "HIER_COUNT", None, DAMAGED),
        ("HIERARCHICAL", "HIER_COUNT", "0", DAMAGED),
        ("HIERARCHICAL", "HIER_COUNT", BIG, f"{DAMAGED}|ok"),
        ("HIERARCHICAL", "HIER_0_NAME", None, DAMAGED),
        ("HIERARCHICAL", "HIER_0_NAME", "Something else", DAMAGED),
        ("HIERARCHICAL", "HIER_0_COUNT", "0", DAMAGED),
        ("HIERARCHICAL", "HIER_0_COUNT", "-2", DAMAGED),
        ("HIERARCHICAL", "HIER_0_COUNT", "2147483646", DAMAGED),
        ("HIERARCHICAL", "HIER_0_COUNT", BIG, DAMAGED),
        ("HIERARCHICAL", "HIER_0_VAL_1_SECTION", None, DAMAGED),
        ("HIERARCHICAL", "HIER_0_VAL_1_SECTION", "NOWHERE", DAMAGED),
        ("HIERARCHICAL", "NONHIER_COUNT", "-1", DAMAGED),
        ("HIERARCHICAL", "NONHIER_COUNT", BIG, DAMAGED),
        ("HIERARCHICAL", "INDEXFILE", None, DAMAGED),
        ("HIERARCHICAL", "INDEXFILE", "Missing.dat", DAMAGED),
        ("HIERARCHICAL", "INDEXFILE", "../../outside/secret.txt", "outside_roots"),
        ("HIERARCHICAL", "INDEXFILE", "/etc/passwd", "outside_roots"),
        ("DATAFILE", "FILE_COUNT", None, DAMAGED),
        ("DATAFILE", "FILE_COUNT", "0", DAMAGED),
        ("DATAFILE", "FILE_COUNT", BIG, DAMAGED),
        ("DATAFILE", "FILE_0", None, DAMAGED),
        ("DATAFILE", "FILE_0", "Missing.dat", DAMAGED),
        ("DATAFILE", "FILE_0", "../../../outside/secret.png", "outside_roots"),
        ("DATAFILE", "FILE_0", "/etc/passwd", "outside_roots"),
        ("DATAFILE", "FILE_0", "..\\..\\outside\\secret.png", "outside_roots|unreadable_image"),
        ("DATAFILE", "FILE_0", "..", "outside_roots|unreadable_image"),
        ("LEVEL_0", "IMAGE_FORMAT", None, DAMAGED),
        ("LEVEL_0", "IMAGE_FORMAT", "GIF", DAMAGED),
        ("LEVEL_0", "IMAGE_FORMAT", "PNG", DAMAGED),
        ("LEVEL_0", "DIGITIZER_WIDTH", "0", DAMAGED),
        ("LEVEL_0", "DIGITIZER_HEIGHT", "-64", DAMAGED),
        ("LEVEL_0", "DIGITIZER_WIDTH", BIG, f"{DAMAGED}|{LARGE}"),
        ("LEVEL_0", "OVERLAP_X", None, DAMAGED),
        ("LEVEL_0", "OVERLAP_X", "nan", f"{DAMAGED}|ok"),
        ("LEVEL_0", "OVERLAP_Y", "1e300", f"{DAMAGED}|ok|{LARGE}"),
        ("LEVEL_0", "IMAGE_CONCAT_FACTOR", "-1", DAMAGED),
        ("LEVEL_0", "IMAGE_CONCAT_FACTOR", "31", DAMAGED),
        ("LEVEL_1", "IMAGE_CONCAT_FACTOR", "30", f"{DAMAGED}|ok"),
        ("LEVEL_0", "MICROMETER_PER_PIXEL_X", "inf", "ok"),
    ):
        yield f"{key} {'missing' if value is None else f'is {value}'}", with_key(group, key, value), expected


def _word(number: int, value: int) -> Callable[[bytearray], None]:
    def change(words: bytearray) -> None:
        struct.pack_into("<i", words, 4 * number, value)

    return change


def _index() -> Iterator[tuple[str, Mirax, str]]:
    """Index.dat: its pointers, and what it says about each picture."""
    yield "index of another version", Mirax(version=b"09.99"), DAMAGED
    yield "index cut in its head", Mirax(cut=20), DAMAGED
    yield "index cut in its pages", Mirax(cut=90), DAMAGED
    yield "index root negative", Mirax(change=_word(0, -5)), DAMAGED
    yield "index level pointer behind the end", Mirax(change=_word(2, 10**6)), DAMAGED
    yield "index page pointer negative", Mirax(change=_word(5, -1)), DAMAGED
    yield "index page of 2^31 pictures", Mirax(change=_word(8, 2**31 - 1)), DAMAGED
    yield "index page that leads to itself", Mirax(change=_word(9, 40)), "ok|unreadable_image"
    length = len(jpeg_of(PINK))
    for name, entry, expected in (
        ("picture number negative", (-1, 0, length, 0), DAMAGED),
        ("picture number beyond the slide", (10**6, 0, length, 0), DAMAGED),
        ("offset negative", (0, -1, length, 0), DAMAGED),
        ("offset behind the end", (0, 10**6, length, 0), DAMAGED),
        ("length of 2^31", (0, 0, 2**31 - 1, 0), f"{DAMAGED}|ok"),
        ("file number negative", (0, 0, length, -1), DAMAGED),
        ("file number beyond the list", (0, 0, length, 7), DAMAGED),
    ):
        yield name, Mirax(entries=[[entry], [entry]]), expected
    yield "a thousand times the same picture", Mirax(entries=[[(0, 0, length, 0)] * 1000] * 2), "ok"


def _contents() -> Iterator[tuple[str, Mirax, str]]:
    jpeg = bare_jpeg(SIDE, SIDE)
    yield "pictures of another size", Mirax(data=[bare_jpeg(32, 32)]), DAMAGED
    yield "pictures that claim 65,000", Mirax(data=[sized(jpeg, 65_000, 65_000)]), DAMAGED
    yield "pictures cut", Mirax(data=[jpeg[:300]]), f"{DAMAGED}|ok"
    yield "pictures of noise", Mirax(data=[np.random.default_rng(2).bytes(2000)]), DAMAGED
    yield "pictures that are PNG", Mirax(data=[png(SIDE, SIDE)]), DAMAGED
    yield "40 kB of newlines for an index", Mirax(text=b"\n" * 40_000), DAMAGED
    yield "900 kB of newlines for an index", Mirax(text=b"\n" * 900_000), DAMAGED
    yield (
        "900 kB of spaces after FILE_0",
        Mirax(text=b"[DATAFILE]\nFILE_0 =" + b" " * 900_000 + b"x"),
        DAMAGED,
    )
    yield "30,000 data files", _thirty_thousand(), "ok"
    yield "an index of noise", Mirax(text=bytes(np.random.default_rng(4).bytes(5000))), DAMAGED
    yield "an index of 20 MB", Mirax(text=b"[GENERAL]\n" + b"# nothing\n" * 2_000_000), DAMAGED


def _thirty_thousand() -> Mirax:
    """All of one name."""
    ini = slidedat(PATIENT)
    ini["DATAFILE"] = {
        "FILE_COUNT": "30000",
        **{f"FILE_{number}": "Data0000.dat" for number in range(30_000)},
    }
    return Mirax(ini)


def _bomb() -> Mirax:
    """Many pictures that all lie in the same bytes: one file of kilobytes, a slide of gigapixels."""
    ini = slidedat(PATIENT)
    for axis in "XY":
        ini["GENERAL"][f"IMAGENUMBER_{axis}"] = "2000"
    length = len(jpeg_of(PINK))
    numbers = [(n, 0, length, 0) for n in range(0, 2000 * 2000, 8)]
    return Mirax(ini, entries=[numbers, numbers[::16]])


def _written(slide: Mirax, folder: Path) -> None:
    slide.write(folder / SLIDE)


def _arranged(change: Callable[[Path], None]) -> Callable[[Path], None]:
    def files(folder: Path) -> None:
        change(Mirax().write(folder / SLIDE).with_suffix(""))

    return files


def _links() -> Iterator[tuple[str, Callable[[Path], None], str]]:
    def data_link(slide: Path) -> None:
        (slide / "Data0000.dat").unlink()
        (slide / "Data0000.dat").symlink_to(slide.parents[2] / "outside" / "secret.png")

    def index_link(slide: Path) -> None:
        (slide / "Index.dat").rename(slide.parent / "Index.dat")
        (slide / "Index.dat").symlink_to(slide.parent / "Index.dat")

    def folder_link(slide: Path) -> None:
        slide.rename(slide.parent / "elsewhere")
        slide.symlink_to(slide.parent / "elsewhere")

    def to_itself(slide: Path) -> None:
        (slide / "Data0000.dat").unlink()
        (slide / "Data0000.dat").symlink_to("Data0000.dat")

    def extra_link(slide: Path) -> None:
        (slide / "More.dat").symlink_to("/etc/passwd")

    def pipe(slide: Path) -> None:
        import os

        (slide / "Data0000.dat").unlink()
        os.mkfifo(slide / "Data0000.dat")

    def device(slide: Path) -> None:
        (slide / "Index.dat").unlink()
        (slide / "Index.dat").symlink_to("/dev/zero")

    yield "data file is a link out", data_link, "outside_roots"
    yield "index is a link", index_link, "outside_roots"
    yield "folder is a link", folder_link, "outside_roots"
    yield "data file is a link to itself", to_itself, "outside_roots"
    yield "one more file is a link out", extra_link, "ok|outside_roots"
    yield "data file is a pipe", pipe, "unreadable_image|outside_roots"
    yield "index is a link to a device", device, "outside_roots"
    yield "index is missing", lambda slide: (slide / "Index.dat").unlink(), DAMAGED
    yield "data file is missing", lambda slide: (slide / "Data0000.dat").unlink(), DAMAGED
    yield "data file is empty", lambda slide: (slide / "Data0000.dat").write_bytes(b""), DAMAGED


def mirax_family() -> Iterator[Case]:
    call = look(SLIDE)
    for name, slide, expected in _keys():
        slow = SLOW_S if BIG in name else 5.0
        yield Case(
            "MRXS keys",
            name,
            call,
            expected,
            partial(_written, slide),
            seconds=slow,
            sample="COUNT" in name and BIG in name,
        )
    for name, slide, expected in (*_index(), *_contents()):
        yield Case("MRXS files", name, call, expected, partial(_written, slide), sample="40 kB" in name)
    for name, change, expected in _links():
        yield Case("MRXS files", name, call, expected, _arranged(change))
    yield Case(
        "MRXS files",
        "half a million pictures in the same bytes",
        call,
        "ok|image_too_large|unreadable_image",
        lambda folder: _bomb().write(folder / SLIDE),
        seconds=SLOW_S,
    )
