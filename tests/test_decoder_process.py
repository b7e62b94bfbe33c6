"""Foreign images are decoded in a process of their own: what one of them does to it is that image's refusal and no more."""

from __future__ import annotations

import gc
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from services import wait_until

from tissuetalk.models.errors import BusyError, ImageTooLargeError, TissuetalkError, UnreadableImageError
from tissuetalk.models.images import Box, ImageSource, decoding, open_image
from tissuetalk.models.images import decoder as decoders
from tissuetalk.models.images.budget import HELD, MIB, PASSING, Budget
from tissuetalk.models.images.confinement import locks
from tissuetalk.models.images.files import Limits, open_regular
from tissuetalk.models.worker import SUPPORTED, WORKER

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="images are read in the same process on this system")

DATA = Path(__file__).parent / "data" / "images"
SLIDE, JPEG = DATA / "CMU-1-Small-Region.svs", DATA / "OSCC_400x_401.jpg"
FILES = sorted(DATA.iterdir())
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them")


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    """Whatever happened, as much of the budget is free afterwards as before; an earlier test may have left an image open."""
    gc.collect()
    before = HELD.free_bytes, PASSING.free_bytes
    yield
    assert HELD.free_bytes >= before[0] and PASSING.free_bytes >= before[1]


def processes() -> list[int]:
    """Those that hold an image open now."""
    assert WORKER.ask({"do": "peak"}), "it runs"
    children = Path(f"/proc/{WORKER.pid}/task/{WORKER.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def fresh_peak() -> Callable[[], int]:
    """Bytes of the largest process for an image since now: the worker is started anew."""
    WORKER.stop()
    return lambda: int(WORKER.ask({"do": "peak"})["bytes"])


def opened_and_read(path: Path) -> None:
    with open_image(path, name=path.name) as image:
        image.read_region(image.box, width=16, height=16)


@pytest.mark.parametrize("path", FILES, ids=[path.suffix for path in FILES])
def test_pixels_are_those_of_the_same_reader_in_this_process(path: Path) -> None:
    with open_regular(path, name=path.name) as file, open_image(path, name=path.name) as image:
        here = decoding.reader_for(file, Limits(), lambda count: None)
        assert image._reader.levels == here.levels and image.mpp == here.mpp
        for box in (image.box, Box(3, 5, 201, 133)):
            assert np.array_equal(image._reader.read(0, box), here.read(0, box))
        here.close()


def turned_jpeg(path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.open(JPEG).save(path, "JPEG", exif=exif)


def palette_with_glass(path: Path) -> None:
    picture = Image.open(JPEG).convert("P")
    picture.save(path, "PNG", transparency=3)


def deep_with_alpha(path: Path) -> None:
    samples = np.random.default_rng(0).integers(0, 4000, (300, 200, 4), dtype=np.uint16)
    path.write_bytes(imagecodecs.png_encode(samples))


def one_large_strip(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 60_000, (1500, 1200, 3), dtype=np.uint16)
    tifffile.imwrite(path, pixels, photometric="rgb", byteorder=">")


def planes_in_one_strip(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 2500, 1900), dtype=np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", planarconfig="separate")


MADE = {
    ".jpg": (turned_jpeg, lambda p: np.asarray(Image.open(p).transpose(Image.Transpose.ROTATE_270))),
    ".tif": (one_large_strip, lambda p: np.rint(tifffile.imread(p) * np.float32(255 / 65535))),
    ".tiff": (planes_in_one_strip, lambda p: tifffile.imread(p).transpose(1, 2, 0)),
}


@pytest.mark.parametrize("suffix", MADE)
def test_turned_and_large_pictures_read_alike_in_pieces_and_whole(tmp_path: Path, suffix: str) -> None:
    make, truth = MADE[suffix]
    path = tmp_path / f"picture{suffix}"
    make(path)
    expected = truth(path)
    with open_image(path, name=path.name) as image:
        whole = image.read_region(image.box, width=image.width, height=image.height)
        assert np.abs(whole.astype(int) - expected).max() <= (1 if suffix == ".tif" else 0)
        part = Box(101, 203, 411, 977).clipped_to(image.width, image.height)
        rows, columns = part.inside(image.box)
        read = image.read_region(part, width=part.width, height=part.height)
        assert np.array_equal(read, whole[rows, columns])


@pytest.mark.parametrize("make", [palette_with_glass, deep_with_alpha])
def test_glass_and_depth_read_as_in_this_process(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "picture.png"
    make(path)
    test_pixels_are_those_of_the_same_reader_in_this_process(path)


def test_threads_read_one_slide_at_once_and_get_what_they_asked_for() -> None:
    boxes = [Box(x, y, x + 200, y + 150) for x in range(0, 2000, 250) for y in range(0, 2700, 300)]
    with open_image(SLIDE, name="slide.svs") as image, ThreadPoolExecutor(6) as pool:
        whole = image.read_region(image.box, width=image.width, height=image.height)
        for box, part in zip(
            boxes, pool.map(lambda b: image.read_region(b, width=200, height=150), boxes), strict=True
        ):
            rows, columns = box.inside(image.box)
            assert np.array_equal(part, whole[rows, columns])


def test_threads_that_begin_together_each_get_a_line_of_their_own() -> None:
    """Protects from: two asked for a line at once, their messages mixed, and the slide was called damaged."""
    together = threading.Barrier(12)

    def first_look(image: ImageSource) -> np.ndarray:
        together.wait()
        return image.read_region(Box(0, 0, 8, 8), width=8, height=8)

    with ThreadPoolExecutor(12) as pool:
        for _ in range(8):
            with open_image(SLIDE, name="slide.svs") as image:
                looks = list(pool.map(first_look, [image] * 12))
            assert all(np.array_equal(each, looks[0]) for each in looks)


@linux
def test_nothing_stays_open_after_many_images() -> None:
    opened_and_read(JPEG)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        opened_and_read(JPEG)
        opened_and_read(SLIDE)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before and processes() == []


def jpeg_2000_bomb(path: Path) -> None:
    """A codestream of 16 pixels in a tile of 256 whose header claims 20,000 a side."""
    stream = bytearray(imagecodecs.jpeg2k_encode(np.zeros((16, 16), np.uint8), codecformat="j2k"))
    at = stream.index(b"\xff\x51")
    struct.pack_into(">IIII", stream, at + 6, 20_000, 20_000, 0, 0)
    struct.pack_into(">II", stream, at + 22, 20_000, 20_000)
    tags = {256: 256, 257: 256, 258: 8, 259: 34712, 262: 1, 277: 1, 322: 256, 323: 256}
    tags |= {324: 8 + 2 + 12 * 10 + 4, 325: len(stream)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + stream)


def deep_png(path: Path) -> None:
    path.write_bytes(imagecodecs.png_encode(np.zeros((3000, 3000, 3), np.uint16)))


def float_tiff(path: Path) -> None:
    tifffile.imwrite(
        path, np.zeros((1500, 1500, 3)), photometric="rgb", compression="zlib", rowsperstrip=1500
    )


def webp(path: Path) -> None:
    Image.new("RGB", (4000, 4000)).save(path, "WebP")


@linux
@pytest.mark.parametrize(
    ("make", "most_mib"), [(jpeg_2000_bomb, 120), (deep_png, 210), (float_tiff, 260), (webp, 380)]
)
def test_a_small_file_does_not_take_gigabytes(
    tmp_path: Path, make: Callable[[Path], None], most_mib: int
) -> None:
    path = tmp_path / "image.tif"
    make(path)
    assert path.stat().st_size < 2_000_000
    peak = fresh_peak()
    try:
        opened_and_read(path)
    except TissuetalkError as error:
        assert error.code in ("unreadable_image", "image_too_large")
    assert peak() < most_mib * MIB


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP", "TIFF"])
def test_what_takes_more_than_there_is_is_too_large_before_it_is_decoded(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (3000, 3000)).save(tmp_path / "image", kind)
    monkeypatch.setattr(decoders, "HELD", Budget(40 * MIB, 0.1))
    monkeypatch.setattr("tissuetalk.models.images.remote.OPENING_BYTES", 16 * MIB)
    with pytest.raises(ImageTooLargeError, match=r"takes \d+ MiB to decode"):
        opened_and_read(tmp_path / "image")


def test_who_finds_no_room_waits_his_turn_and_then_hears_busy() -> None:
    budget = Budget(100, wait_s=0.2)
    budget.take(80, "a")
    with pytest.raises(BusyError):
        budget.take(30, "b")
    order: list[str] = []
    patient = Budget(100, wait_s=120)
    patient.take(80, "a")

    def wait(name: str, count: int) -> None:
        patient.take(count, name)
        order.append(name)

    threads: list[threading.Thread] = []
    for name, count in (("large", 100), ("small", 10)):
        threads.append(threading.Thread(target=wait, args=(name, count)))
        threads[-1].start()
        wait_until(lambda: len(patient._waiting) == len(threads))
    assert order == []  # the small one would fit, but it came later
    patient.give(80)
    threads[0].join()
    patient.give(100)
    threads[1].join()
    assert order == ["large", "small"]


def test_many_large_pictures_at_once_stay_within_the_budget(tmp_path: Path) -> None:
    Image.new("RGB", (6000, 5000)).save(tmp_path / "large.png")  # 210 MB each to decode
    with ThreadPoolExecutor(8) as pool:
        least = HELD.total_bytes
        work = [pool.submit(opened_and_read, tmp_path / "large.png") for _ in range(8)]
        while not all(each.done() for each in work):
            least = min(least, HELD.free_bytes)
            time.sleep(0.002)
    assert 0 <= least < HELD.total_bytes
    said = {type(each.exception()) for each in work}
    assert said <= {type(None), BusyError} and type(None) in said


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_decoder_that_dies_is_a_refusal_of_its_image_only(number: int) -> None:
    with open_image(SLIDE, name="victim.svs") as victim:
        (pid,) = processes()
        with open_image(SLIDE, name="other.svs") as other:
            os.kill(pid, number)
            with pytest.raises(UnreadableImageError, match=r"victim\.svs"):
                victim.read_region(victim.box, width=32, height=32)
            assert other.read_region(other.box, width=32, height=32).any()
    opened_and_read(JPEG)


@linux
def test_a_decoder_that_does_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_image(SLIDE, name="slide.svs") as image:
        (pid,) = processes()
        monkeypatch.setattr(decoders, "WALL_S", 0.6)  # a slow machine may take longer to open it
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(UnreadableImageError, match="fresh copy"):
            image.read_region(image.box, width=32, height=32)
    assert processes() == []


def test_a_decoder_that_works_for_ever_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # runs of one pixel, unpacked in Python: many seconds for what is hundreds of kilobytes
    header = struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54 + 1024, 40, 9000, 9000, 1, 8, 1, 0, 0, 0, 0, 0)
    (tmp_path / "slow.bmp").write_bytes(b"BM" + header + bytes(1024) + b"\1\1" * 9_000_000)
    monkeypatch.setattr(decoders, "OPENING_CPU_S", 0.3)
    monkeypatch.setattr(decoders, "CPU_S_PER_BYTE", 0.0)
    with pytest.raises(UnreadableImageError, match="had to be stopped"):
        opened_and_read(tmp_path / "slow.bmp")


@linux
def test_the_worker_is_started_again_when_it_is_killed() -> None:
    opened_and_read(JPEG)
    assert WORKER.pid is not None and WORKER._process is not None
    os.kill(WORKER.pid, signal.SIGKILL)
    WORKER._process.wait()
    opened_and_read(JPEG)


@linux
def test_an_image_in_memory_and_a_picture_that_is_forgotten_leave_nothing() -> None:
    image = open_image(BytesIO(JPEG.read_bytes()), name="memory.jpg")
    assert image.overview(64).any()
    image._file.close()
    del image


@linux
def test_the_server_ends_and_takes_all_of_them_along(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from tissuetalk.models.images import open_image\n"
        "from tissuetalk.models.worker import WORKER\n"
        "image = open_image(Path(sys.argv[1]), name='slide.svs'); print(WORKER.pid, flush=True)\n"
        "time.sleep(600)"
    )
    server = subprocess.Popen([sys.executable, "-c", program, str(SLIDE)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    warm = int(server.stdout.readline())
    below = Path(f"/proc/{warm}/task/{warm}/children").read_text().split()
    assert len(below) == 1
    server.kill()
    server.wait()
    server.stdout.close()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (warm, *below)))


ESCAPES = {
    "another file": "open(sys.argv[2], 'rb').read()",
    "a folder": "os.listdir(str(Path(sys.argv[2]).parent))",
    "a new file": "open(sys.argv[2] + '.new', 'wb').write(b'x')",
    "a socket": "socket.create_connection(('127.0.0.1', 9), 1)",
    "a local socket": "socket.socket(socket.AF_UNIX)",
    "a process": "os.fork()",
    "a program": "os.execv('/bin/true', ['true'])",
    "a signal": "os.kill(os.getppid(), 0)",
    "memory of another process": "open(f'/proc/{os.getppid()}/mem', 'rb')",
    "more memory": "resource.setrlimit(resource.RLIMIT_DATA, (2**40, 2**40))",
}


@linux
@pytest.mark.skipif(len(locks()) < 3, reason="this system has not all locks")
def test_a_confined_process_reaches_nothing_but_its_files(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("own")
    (tmp_path / "secret.txt").write_text("secret")
    tries = "\n".join(f"attempt({name!r}, lambda: {code})" for name, code in ESCAPES.items())
    program = f"""
import os, resource, socket, sys, threading
from pathlib import Path
from tissuetalk.models.images.confinement import confine
own = os.open(sys.argv[1], os.O_RDONLY)
confine(files=[own], folders=[], private=None, most_files=64)
def attempt(name, work):
    try:
        work()
    except (OSError, ValueError):
        return
    print("escaped:", name)
{tries}
assert os.pread(own, 3, 0) == open(f"/proc/self/fd/{{own}}", "rb").read() == b"own"
thread = threading.Thread(target=lambda: print("threads work", flush=True))
thread.start(); thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "own.txt"), str(tmp_path / "secret.txt")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "threads work\n", done.stdout + done.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["own.txt", "secret.txt"]


@linux
def test_the_process_of_an_image_has_neither_our_environment_nor_our_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    WORKER.stop()
    monkeypatch.setenv("TISSUETALK_LLM_KEY", "secret-of-the-server")
    with open_image(SLIDE, name="slide.svs"):
        (pid,) = processes()
        assert b"secret-of-the-server" not in Path(f"/proc/{pid}/environ").read_bytes()
        files = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
        assert [file for file in files if file.endswith(".svs")]
        regular = [file for file in files if Path(file).is_file() and not file.endswith(".svs")]
        assert regular == []
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
    WORKER.stop()
