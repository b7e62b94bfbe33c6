"""Broken and hostile files: each is refused with its code, quickly, and nothing is written."""

from __future__ import annotations

import gc
import os
import socket
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tissuetalk.models import worker
from tissuetalk.models.errors import TissuetalkError
from tissuetalk.models.images import Box, Limits
from tissuetalk.tools.storage.roots import Roots

DATA = Path(__file__).parent / "data" / "images"
JPEG = (DATA / "OSCC_400x_401.jpg").read_bytes()
PNG = (DATA / "skin_crop_256x160.png").read_bytes()
SVS = (DATA / "CMU-1-Small-Region.svs").read_bytes()
OME = (DATA / "HE_example.ome.tif").read_bytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, *, depth: int = 8, colour: int = 2, data: bytes = b"", more: bytes = b""
) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int, int, int], after: bytes = b"", next_directory: int = 0) -> bytes:
    """A little-endian TIFF with one directory of (tag, type, count, value) and raw bytes after it."""
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", next_directory) + after


def flat_tiff(
    width: int, height: int, *, offset: int = 8, count: int = 100, rows: int | None = None, **more: int
) -> bytes:
    tags = {
        256: width,
        257: height,
        258: 8,
        259: 1,
        262: 1,
        273: offset,
        277: 1,
        278: rows or height,
        279: count,
    }
    tags |= {int(tag[1:]): value for tag, value in more.items()}
    return tiff(*[(tag, 4, 1, value) for tag, value in sorted(tags.items())], after=bytes(200))


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def jpeg_of_size(width: int, height: int) -> bytes:
    """The real JPEG, its frame header claiming another size."""
    at = next(i for i in range(len(JPEG)) if JPEG[i : i + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return JPEG[: at + 5] + struct.pack(">HH", height, width) + JPEG[at + 9 :]


def saved_tiff(folder: Path, pixels: np.ndarray, **options: object) -> bytes:
    path = folder / ".made.tif"
    tifffile.imwrite(path, pixels, **options)
    content = path.read_bytes()
    path.unlink()
    return content


def corrupted(content: bytes, at: float, length: int = 64) -> bytes:
    start = int(len(content) * at)
    return (
        content[:start] + bytes(b ^ 0xA5 for b in content[start : start + length]) + content[start + length :]
    )


def dicom(sop_class: bytes) -> bytes:
    """An explicit-VR DICOM file that ends after its class and identity."""

    def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HH2sH", group, number, kind, len(value)) + value

    meta = (
        element(2, 2, b"UI", sop_class)
        + element(2, 3, b"UI", b"1.2.3")
        + element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1")
    )
    body = (
        element(8, 0x16, b"UI", sop_class)
        + element(8, 0x18, b"UI", b"1.2.3")
        + element(0x20, 0xE, b"UI", b"1.2")
    )
    return bytes(128) + b"DICM" + element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta + body


FILES: dict[str, tuple[str, bytes]] = {
    "empty": ("unreadable_image", b""),
    "one byte": ("unreadable_image", b"\xff"),
    "text": ("unreadable_image", b"this is a report, not an image" * 20),
    "html with an image's name": ("unreadable_image", b"<html><body>404</body></html>"),
    "svg": (
        "unreadable_image",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    ),
    "postscript": (
        "unreadable_image",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file",
    ),
    "pdf": ("unreadable_image", b"%PDF-1.7\n" + bytes(500)),
    "gif": ("unreadable_image", b"GIF89a" + bytes(500)),
    "zip": ("unreadable_image", b"PK\3\4" + bytes(500)),
    "random bytes": ("unreadable_image", np.random.default_rng(0).bytes(5000)),
    "png signature only": ("unreadable_image", PNG[:8]),
    "png cut in its header": ("unreadable_image", PNG[:20]),
    "png cut in the middle": ("unreadable_image", PNG[: len(PNG) // 2]),
    "png without its last bytes": ("unreadable_image", PNG[:-20]),
    "png with flipped bits": ("unreadable_image", corrupted(PNG, 0.5)),
    "png without data": ("unreadable_image", png(100, 100)),
    "png of zero width": ("unreadable_image", png(0, 100)),
    "png bomb by header": ("image_too_large", png(2**31 - 1, 2**31 - 1)),
    "png bomb of one row": ("image_too_large", png(2**30, 1)),
    "png bomb that inflates": ("image_too_large", png(60_000, 60_000, data=bytes(10_000_000))),
    "png bomb of 16 bits": ("image_too_large", png(30_000, 30_000, depth=16)),
    "png with a text bomb": (
        "unreadable_image",
        png(4, 4, data=bytes(52), more=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))),
    ),
    "png of 16 bits cut": ("unreadable_image", png(64, 64, depth=16, data=bytes(100))),
    "png of an unknown colour type": ("unreadable_image", png(4, 4, colour=5, data=bytes(52))),
    "jpeg start only": ("unreadable_image", JPEG[:3]),
    "jpeg cut in its header": ("unreadable_image", JPEG[:200]),
    "jpeg cut in the middle": ("unreadable_image", JPEG[: len(JPEG) // 2]),
    "jpeg cut near the end": ("unreadable_image", JPEG[: len(JPEG) - 5000]),
    "jpeg cut and closed again": ("unreadable_image", JPEG[: len(JPEG) // 2] + b"\xff\xd9"),
    "jpeg that claims more than it has": ("unreadable_image", jpeg_of_size(12_000, 9_000)),
    "jpeg of absurd size": ("image_too_large", jpeg_of_size(65_000, 65_000)),
    "jpeg of zero width": ("unreadable_image", jpeg_of_size(0, 500)),
    "webp header only": ("unreadable_image", b"RIFF\x64\0\0\0WEBPVP8 " + bytes(100)),
    "bmp header only": ("unreadable_image", bmp(50, 50)),
    "bmp of absurd size": ("image_too_large", bmp(200_000, 200_000)),
    "bmp of negative width": ("image_too_large", bmp(-50, 50)),
    "tiff header only": ("unreadable_image", b"II*\0\x08\0\0\0"),
    "tiff directory far away": ("unreadable_image", b"II*\0\xff\xff\xff\x7f" + bytes(100)),
    "tiff directory that points to itself": (
        "unreadable_image",
        tiff((256, 4, 1, 5), (257, 4, 1, 5), next_directory=8),
    ),
    "tiff without tags": ("unreadable_image", tiff()),
    "tiff of zero width": ("unreadable_image", flat_tiff(0, 10)),
    "tiff of absurd size": ("image_too_large", flat_tiff(2**31 - 1, 2**31 - 1)),
    "tiff of one absurd row": ("image_too_large", flat_tiff(2**30, 1)),
    "tiff whose strip lies past the end": ("unreadable_image", flat_tiff(10, 10, offset=10**6)),
    "tiff whose strip is too short": ("unreadable_image", flat_tiff(100, 100, count=10)),
    "tiff with strips missing": ("unreadable_image", flat_tiff(10, 1000, rows=1)),
    "tiff of an unknown compression": ("unreadable_image", flat_tiff(10, 10, t259=60_000)),
    "tiff of 64-bit samples": ("unreadable_image", flat_tiff(10, 1, t258=64)),
    "tiff of Lab colours": ("unreadable_image", flat_tiff(10, 3, t262=8)),
    "tiff with tiles of 2^30": (
        "image_too_large",
        flat_tiff(10, 10, t322=2**30, t323=2**30, t324=8, t325=100),
    ),
    "ome-tiff cut in the middle": ("unreadable_image", OME[: len(OME) // 2]),
    "svs cut in the middle": ("unreadable_image", SVS[: len(SVS) // 2]),
    "svs with one byte left": ("unreadable_image", SVS[:1]),
    "dicom that is a CT": ("unreadable_image", dicom(b"1.2.840.10008.5.1.4.1.1.2")),
    "dicom slide without pixels": ("unreadable_image", dicom(b"1.2.840.10008.5.1.4.1.1.77.1.6")),
    "dicom preamble only": ("unreadable_image", bytes(128) + b"DICM"),
    "mrxs that is only its preview": ("unreadable_image", JPEG),
}
SUFFIXES = {
    "png": ".png",
    "jpeg": ".jpg",
    "webp": ".webp",
    "bmp": ".bmp",
    "tiff": ".tif",
    "ome-tiff": ".ome.tif",
}
SUFFIXES |= {"svs": ".svs", "dicom": ".dcm", "mrxs": ".mrxs"}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder of images that must be as it was when the test is over."""
    worker.start()  # its own descriptors stay
    folder = tmp_path / "images"
    folder.mkdir()
    yield folder


def listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(p), p.lstat().st_size) for p in folder.rglob("*"))


def open_descriptors() -> int:
    """How many files this process has open; 0 where the system does not say."""
    folder = Path("/proc/self/fd")
    return sum(1 for _ in folder.iterdir()) if folder.exists() else 0


def refusal(root: Path, name: str, limits: Limits | None = None) -> TissuetalkError:
    """Open and read the image; it must be refused, nothing written, no descriptor left open."""
    gc.collect()  # what earlier tests left is closed now, and not meanwhile
    before, open_files = listing(root.parent), open_descriptors()
    with pytest.raises(TissuetalkError) as caught, Roots([root], limits=limits).open(name) as image:
        image.read_region(image.box, width=64, height=64)
    assert listing(root.parent) == before
    assert open_descriptors() == open_files
    message = str(caught.value)
    assert len(message) < 400 and str(root) not in message and not message.startswith(caught.value.code)
    return caught.value


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_refused_with_its_code(root: Path, name: str) -> None:
    code, content = FILES[name]
    path = root / f"image{SUFFIXES.get(name.split()[0], '.png')}"
    path.write_bytes(content)
    tracemalloc.start()
    error = refusal(root, path.name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.code == code
    assert peak < 600 * 2**20


def make_folder(path: Path) -> None:
    path.mkdir()


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name may have 100 bytes only
    try:
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(path.name)
    finally:
        os.chdir(here)


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def broken_link(path: Path) -> None:
    path.symlink_to("nothing_here.png")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (make_folder, "unreadable_image"),
        (os.mkfifo, "unreadable_image"),
        (make_socket, "unreadable_image"),
        (link_to_device, "outside_roots"),
        (link_to_itself, "outside_roots"),
        (broken_link, "unknown_image"),
    ],
    ids=["folder", "pipe", "socket", "link to a device", "link to itself", "broken link"],
)
def test_what_is_no_regular_file_is_refused_without_waiting(
    root: Path, make: Callable[[Path], None], code: str
) -> None:
    make(root / "image.png")
    assert refusal(root, "image.png").code == code


def test_a_stack_and_a_channel_image_are_refused_instead_of_showing_one_plane(root: Path) -> None:
    for name, pixels in {
        "stack.tif": np.zeros((5, 32, 32), np.uint8),
        "deep.tif": np.zeros((4, 16, 32, 3), np.uint8),
    }.items():
        (root / name).write_bytes(saved_tiff(root.parent, pixels))
        assert refusal(root, name).code == "unreadable_image"
    channels = saved_tiff(
        root.parent, np.zeros((32, 32, 7), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    (root / "channels.tif").write_bytes(channels)
    assert refusal(root, "channels.tif").code == "unreadable_image"


def test_values_that_cannot_be_brightness_are_refused(root: Path) -> None:
    pixels = np.full((16, 16), 1e9, np.float32)
    (root / "depth.tif").write_bytes(saved_tiff(root.parent, pixels, photometric="minisblack"))
    assert refusal(root, "depth.tif").code == "unreadable_image"


def test_an_ome_tiff_never_opens_the_file_it_names(root: Path) -> None:
    secret = root.parent / "secret.tif"
    tifffile.imwrite(secret, np.full((64, 64), 200, np.uint8), photometric="minisblack")
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="64" SizeY="64" '
        'SizeC="1" SizeZ="1" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        '<TiffData IFD="0" PlaneCount="1"><UUID FileName="../secret.tif">urn:uuid:2</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    own = np.full((64, 64), 10, np.uint8)
    tifffile.imwrite(root / "lure.ome.tif", own, photometric="minisblack", description=xml, metadata=None)
    with Roots([root]).open("lure.ome.tif") as image:
        assert (image.overview() == 10).all()


def test_a_deflate_bomb_in_a_tile_does_not_fill_the_memory(root: Path) -> None:
    bomb = zlib.compress(bytes(300_000_000), 9)
    content = flat_tiff(64, 64, offset=0, count=len(bomb), t259=8)
    offset = len(content)
    content = flat_tiff(64, 64, offset=offset, count=len(bomb), t259=8) + bomb
    (root / "bomb.tif").write_bytes(content)
    tracemalloc.start()
    try:
        with Roots([root]).open("bomb.tif") as image:
            image.overview()
    except TissuetalkError as error:
        assert error.code == "unreadable_image"
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 50 * 2**20


def mirax(root: Path, index: str) -> None:
    (root / "slide.mrxs").write_bytes(JPEG)
    (root / "slide").mkdir()
    (root / "slide" / "Slidedat.ini").write_text(index, encoding="utf-8")


def test_a_slide_index_cannot_name_files_elsewhere(root: Path) -> None:
    mirax(root, "[DATAFILE]\nFILE_COUNT = 1\nFILE_0 = ../../secret.dat\n")
    assert refusal(root, "slide.mrxs").code == "outside_roots"


def test_a_slide_folder_cannot_hold_links(root: Path) -> None:
    mirax(root, "[DATAFILE]\nFILE_COUNT = 1\nFILE_0 = Data0000.dat\n")
    (root / "slide" / "Data0000.dat").symlink_to("/etc/passwd")
    assert refusal(root, "slide.mrxs").code == "outside_roots"


def test_a_slide_folder_cannot_itself_be_a_link(root: Path) -> None:
    mirax(root, "[DATAFILE]\nFILE_0 = Data0000.dat\n")
    (root / "slide").rename(root.parent / "elsewhere")
    (root / "slide").symlink_to(root.parent / "elsewhere")
    assert refusal(root, "slide.mrxs").code == "outside_roots"


def test_a_slide_folder_with_nonsense_is_unreadable(root: Path) -> None:
    mirax(root, "[GENERAL]\nSLIDE_ID = none\n")
    assert refusal(root, "slide.mrxs").code == "unreadable_image"


def test_a_dicom_folder_with_a_link_to_elsewhere_is_refused(root: Path) -> None:
    (root / "slide.dcm").write_bytes(dicom(b"1.2.840.10008.5.1.4.1.1.77.1.6"))
    (root / "level2.dcm").symlink_to(root.parent / "other" / "level2.dcm")
    assert refusal(root, "slide.dcm").code == "outside_roots"


def test_limits_on_bytes_and_pixels_are_the_operators_choice(root: Path) -> None:
    (root / "image.png").write_bytes(PNG)
    assert refusal(root, "image.png", Limits(file_bytes=1000)).code == "image_too_large"
    assert refusal(root, "image.png", Limits(decoded_pixels=1000)).code == "image_too_large"
    (root / "slide.svs").write_bytes(SVS)
    assert refusal(root, "slide.svs", Limits(slide_side=2000)).code == "image_too_large"
    assert refusal(root, "slide.svs", Limits(decoded_pixels=2000)).code == "image_too_large"


def test_random_damage_is_a_refusal_or_an_image_never_a_crash(root: Path) -> None:
    rng = np.random.default_rng(11)
    small = Image.fromarray(rng.integers(0, 255, (40, 40, 3)).astype(np.uint8))
    contents = {"svs": SVS}
    for kind in ("png", "jpg", "webp", "bmp", "tif"):
        small.save(root / f"small.{kind}")
        contents[kind] = (root / f"small.{kind}").read_bytes()
    for round_ in range(120):
        kind = list(contents)[round_ % len(contents)]
        damaged = bytearray(contents[kind])
        for at in rng.integers(0, min(len(damaged), 20_000), 6):
            damaged[at] = rng.integers(0, 256)
        (root / f"damaged.{kind}").write_bytes(damaged)
        try:
            with Roots([root]).open(f"damaged.{kind}") as image:
                part = Box(0, 0, 500, 400).clipped_to(image.width, image.height)
                assert image.read_region(part, width=32, height=32).shape == (32, 32, 3)
        except TissuetalkError as error:
            assert error.code in {"unreadable_image", "image_too_large"}
