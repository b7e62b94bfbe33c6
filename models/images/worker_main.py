"""The program of the worker: a warm process that starts a fresh, confined one for every image that is opened.

The warm process imports what decoders need, never looks at an image, and has one thread, so that it may fork. What it
starts reads one image and ends with it: nothing of one image can reach the next.
"""

from __future__ import annotations

import gc
import logging
import mmap
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from tissuetalk.models import wire
from tissuetalk.models.errors import ImageTooLargeError, TissuetalkError, UnreadableImageError
from tissuetalk.models.images import confinement
from tissuetalk.models.images.budget import MIB
from tissuetalk.models.images.decoding import reader_for
from tissuetalk.models.images.files import CheckedFile, Limits
from tissuetalk.models.images.source import Box, PixelReader

OPENING_BYTES = 64 * MIB
"""For the headers of a file, before it has said what its pixels take."""
_SPARE_BYTES = 64 * MIB
"""What a process may have beyond what was asked for: freed pieces, and stacks of threads."""
_SPARE_FILES = 64
_STACK_BYTES = 2 * MIB
_BAND_PIXELS = 500_000  # so that memory is used again
_WHEN_IDLE = (
    *("PIL.PngImagePlugin", "PIL.JpegImagePlugin", "tifffile", "tissuetalk.models.images.tiff"),
    *("openslide", "tissuetalk.models.images.slide", "cv2", "imagecodecs._jpeg8", "imagecodecs._png"),
    *("imagecodecs._zlib", "imagecodecs._deflate", "imagecodecs._imcd", "imagecodecs._jpeg2k"),
    *("PIL.WebPImagePlugin", "PIL.BmpImagePlugin", "PIL.ImageCms", "imagecodecs._zstd", "imagecodecs._webp"),
)
"""Imported while nobody asks; an image that comes earlier imports what it needs itself."""


def main(control_descriptor: int) -> None:
    """Answer one request at a time until the other side is gone."""
    control = socket.socket(fileno=control_descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server's to answer
    warnings.simplefilter("ignore")  # of decoders, about foreign files
    logging.disable()  # they repeat what stands in headers
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    warm = _Warm(control)
    to_import = list(_WHEN_IDLE)
    while True:
        ready, _, _ = select.select([control.fileno(), woken], [], [], 0 if to_import else None)
        if woken in ready:
            os.read(woken, 4096)
            warm.reap()
        if control.fileno() in ready and not warm.answer():
            break
        if not ready:
            with suppress(ImportError):
                import_module(to_import.pop(0))
            if not to_import:
                gc.collect()
    warm.end()


class _Warm:
    """The processes for images, by the number the server gave them."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._code = _code_folders()
        self._running: dict[int, int] = {}
        self._folders: dict[int, Path] = {}
        self._peak_kib = 0

    def answer(self) -> bool:
        """One request; False when the server is gone."""
        try:
            got = wire.receive_with_files(self._control)
            if got is None:
                return False
            request, descriptors = got
            wire.send(self._control, self._answered(request, descriptors))
        except OSError:
            return False
        return True

    def _answered(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        if request["do"] == "peak":  # of the largest that has ended, for tests and measurements
            return {"bytes": self._peak_kib * 1024}
        number = request["number"]
        if request["do"] == "open":
            return self._fork(number, request, descriptors)
        pid = self._running.get(number)
        if pid is None:
            return {"gone": True}
        if request["do"] == "kill":
            os.kill(pid, signal.SIGKILL)
            self._reap(number, 0)
            return {}
        elif request["do"] == "limit":
            confinement.limit_memory(pid, request["bytes"] + _SPARE_BYTES)
        return {"cpu_s": _cpu_seconds(pid)}

    def _fork(self, number: int, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        folder = Path(tempfile.mkdtemp(prefix="tissuetalk-slide-")) if request["links"] else None
        try:
            pid = os.fork()
        except OSError as error:
            return {"failed": str(error.strerror)}
        if pid == 0:
            _serve_and_exit(request, descriptors, folder, self._code)
        for descriptor in descriptors:
            os.close(descriptor)
        self._running[number] = pid
        if folder is not None:
            self._folders[number] = folder
        return {"pid": pid}

    def reap(self) -> None:
        """Those that ended on their own."""
        for number in list(self._running):
            self._reap(number, os.WNOHANG)

    def _reap(self, number: int, options: int) -> None:
        ended, _, used = os.wait4(self._running[number], options)
        if ended:
            del self._running[number]
            self._peak_kib = max(self._peak_kib, used.ru_maxrss)
            if (folder := self._folders.pop(number, None)) is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def end(self) -> None:
        for pid in self._running.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for folder in self._folders.values():
            shutil.rmtree(folder, ignore_errors=True)


def _cpu_seconds(pid: int) -> float | None:
    """All that a process has used, or None where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serve_and_exit(
    request: dict[str, Any], descriptors: list[int], folder: Path | None, code: list[int]
) -> NoReturn:
    status = 1
    try:
        gc.freeze()  # what came with the fork stays shared: the collector would write to all of it
        signal.set_wakeup_fd(-1)
        _keep_only([*descriptors, *code])
        confinement.die_first()
        if folder is not None:
            tempfile.tempdir = str(folder)
        confinement.limit_memory(os.getpid(), OPENING_BYTES + _SPARE_BYTES)
        confinement.confine(
            files=descriptors[1:],
            folders=code,
            private=folder,
            most_files=2 * len(descriptors) + len(code) + _SPARE_FILES,
        )
        _serve(socket.socket(fileno=descriptors[0]), request, descriptors[1:])
        status = 0
    finally:
        os._exit(status)


def _keep_only(descriptors: list[int]) -> None:
    """Close all others; nothing is said on the server's streams."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    kept = sorted({0, 1, 2, *descriptors})
    for below, above in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(below + 1, above)


def _code_folders() -> list[int]:
    """Open descriptors of where libraries lie, which a decoder may load late."""
    system = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
    ours = Path(__file__).resolve().parents[1]
    paths = {
        ours,
        *(Path(each).resolve() for each in (*system, sys.prefix, sys.base_prefix, *sys.path) if each),
    }
    # A folder inside another is covered by it.
    outer = [path for path in paths if path.is_dir() and not paths.intersection(path.parents)]
    return [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in outer]


def _serve(front: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
    """Open the image, say what it is, then read for whoever comes."""
    name = request["name"]
    main, *parts = [os.fdopen(each, "rb", buffering=0) for each in descriptors]
    others = [CheckedFile(each, name=name) for each in parts]
    image = CheckedFile(
        main,
        name=name,
        path=Path(request["path"]),
        parts=tuple(zip(request["roles"], others, strict=True)),
    )

    def grant(count: int) -> None:
        wire.send(front, {"needs": count})
        if wire.receive(front) is None:
            os._exit(0)

    reader = _answer_to(front, lambda: reader_for(image, Limits(**request["limits"]), grant), name)
    if reader is None:
        return
    levels = [[level.width, level.height, *level.downsample] for level in reader.levels]
    about = {"levels": levels, "mpp": reader.mpp, "is_slide": reader.is_slide}
    cost = [reader.cost.per_pixel, reader.cost.fixed]
    wire.send(front, {"whole": reader.whole, "cost": cost, **about})
    threading.stack_size(_STACK_BYTES)
    while (got := wire.receive_with_files(front)) is not None:
        channel = socket.socket(fileno=got[1][0])
        threading.Thread(target=_read_for, args=(channel, reader, name), daemon=True).start()


def _read_for(channel: socket.socket, reader: PixelReader, name: str) -> None:
    """Regions for one thread of the server, into memory that both sides see."""
    shared = mmap.mmap(-1, 1)
    with suppress(OSError):
        while (got := wire.receive_with_files(channel)) is not None:
            request, descriptors = got
            if descriptors:
                shared = mmap.mmap(descriptors[0], request["bytes"])
                os.close(descriptors[0])
            box = Box(*request["box"])
            out = np.frombuffer(shared, np.uint8, box.width * box.height * 3)
            target = out.reshape(box.height, box.width, 3)
            level = request["level"]
            if _answer_to(channel, lambda: _filled(target, reader, level, box), name):  # noqa: B023
                wire.send(channel, {"done": True})
            del out, target


def _filled(target: Any, reader: PixelReader, level: int, box: Box) -> bool:
    rows = max(1, _BAND_PIXELS // box.width) if reader.cost.in_bands else box.height
    for top in range(0, box.height, rows):
        bottom = min(top + rows, box.height)
        target[top:bottom] = reader.read(level, Box(box.x0, box.y0 + top, box.x1, box.y0 + bottom))
    return True


def _answer_to(channel: socket.socket, work: Callable[[], Any], name: str) -> Any:
    """What the work gives, or None when it failed and the other side was told why."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001  # whatever a decoder raises is about this image
        said = error
        if _is_out_of_memory(error):
            said = ImageTooLargeError(
                f"{name} takes more memory to decode than its header says; save it as a tiled TIFF of 8-bit RGB"
            )
        elif not isinstance(error, TissuetalkError):
            said = UnreadableImageError(
                f"{name} cannot be decoded ({type(error).__name__}); get a fresh copy or save it as 8-bit RGB"
            )
        wire.send(channel, {"error": getattr(said, "code", ""), "message": str(said)})
        return None


def _is_out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False
