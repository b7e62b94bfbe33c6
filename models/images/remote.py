"""A reader on this side for an image that another process decodes: pixels come through shared memory."""

from __future__ import annotations

import mmap
import os
import shutil
import socket
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from tissuetalk.models import wire, worker
from tissuetalk.models.errors import TissuetalkError
from tissuetalk.models.folders import through
from tissuetalk.models.images import decoding
from tissuetalk.models.images.budget import MIB, PASSING
from tissuetalk.models.images.decoder import CPU_S_PER_BYTE, Decoder, Lease
from tissuetalk.models.images.files import CheckedFile, Limits, plausible_mpp
from tissuetalk.models.images.parts import is_dicom, is_mirax
from tissuetalk.models.images.source import RGB, Box, Level, PixelReader, ReadCost
from tissuetalk.models.worker import DecoderDiedError

OPENING_BYTES = 64 * MIB
_READING_CPU_S, _CPU_S_PER_PIXEL = 5.0, 1e-6
_KEPT_SLOT_BYTES = 16 * MIB
_MOST_LEVELS = 256


def reader_for(file: CheckedFile, limits: Limits) -> PixelReader:
    """A reader whose decoder runs in a process of its own, where the system can do that.

    Raises UnreadableImageError, ImageTooLargeError or BusyError.
    """
    if not worker.SUPPORTED:
        return reader_here(file, limits)
    real = file.path or Path(file.name)
    about = {
        # The suffix alone says something; libraries get the rest where they cannot open by descriptor.
        "path": f"image{real.suffix}" if through(0) else str(real),
        "roles": [role for role, _ in file.parts],
        "links": is_mirax(file) or is_dicom(file),  # read from a folder of links, also when it is alone
        "limits": asdict(limits),
    }

    def opened(lease: Lease) -> PixelReader:
        with _descriptors(file) as descriptors:
            decoder = Decoder(file.name, about, descriptors)
        return _opened(decoder, lease, limits)

    return _leased(file, opened)


def reader_here(file: CheckedFile, limits: Limits) -> PixelReader:
    """The same within this process."""
    return _leased(
        file, lambda lease: decoding.reader_for(file, limits, lambda needs: lease.grow_to(needs, file.name))
    )


def _leased(file: CheckedFile, opened: Callable[[Lease], PixelReader]) -> PixelReader:
    lease = Lease()
    try:
        lease.grow_to(OPENING_BYTES, file.name)
        return _LeasedReader(opened(lease), lease)
    except BaseException:
        lease.end()
        raise


def _opened(decoder: Decoder, lease: Lease, limits: Limits) -> PixelReader:
    try:
        about = decoder.opened(lease)
        reader = DecoderReader(decoder, about, limits)
        return _Picture(reader, lease) if about["whole"] else reader
    except BaseException as error:
        decoder.end()
        if isinstance(
            error, DecoderDiedError | LookupError | TypeError | ValueError
        ):  # or it answers nonsense
            raise decoder.stopped("opened") from error
        raise


@contextmanager
def _descriptors(file: CheckedFile) -> Iterator[list[int]]:
    """Those of all files of an image; one that lives in memory is put into a file that nobody can name."""
    opened = [each.descriptor for each in (file, *(part for _, part in file.parts))]
    if None not in opened:
        yield [each for each in opened if each is not None]
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file.view(), copy)
        copy.flush()
        yield [copy.fileno()]


class _Slot:
    """A line to a decoder and the memory its pixels come through. For one thread at a time."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self._shared = mmap.mmap(-1, 1)

    def read(self, decoder: Decoder, level: int, box: Box, allowed_cpu_s: float) -> NDArray[np.uint8]:
        """[h * w * 3] of a region, a view of the shared memory."""
        size = box.width * box.height * 3
        request: dict[str, Any] = {"level": level, "box": box.as_list()}
        if size <= len(self._shared):
            wire.send(self.channel, request)
        else:
            room = -(-size // MIB) * MIB
            with _shared_memory(room) as memory:
                self._shared = mmap.mmap(memory.fileno(), room)
                wire.send(self.channel, {**request, "bytes": room}, [memory.fileno()])
        decoder.answer(self.channel, allowed_cpu_s)
        return np.frombuffer(self._shared, np.uint8, size)

    @property
    def is_large(self) -> bool:
        return len(self._shared) > _KEPT_SLOT_BYTES

    def close(self) -> None:
        self.channel.close()
        with suppress(BufferError):  # an array still looks at it; it goes with that
            self._shared.close()


class _Slots:
    """Those of one image that nobody uses at the moment."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._idle: list[_Slot] = []
        self._closed = False

    def take(self) -> _Slot:
        try:
            return self._idle.pop()
        except IndexError:
            return _Slot(self._decoder.channel())

    def give(self, slot: _Slot) -> None:
        if self._closed or slot.is_large:
            slot.close()
        else:
            self._idle.append(slot)

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()


def _shared_memory(size: int) -> BinaryIO:
    """Memory with a descriptor, whose size the other side cannot change."""
    if not hasattr(os, "memfd_create"):
        file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
        file.truncate(size)
        return file
    file = os.fdopen(os.memfd_create("tissuetalk", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "r+b")
    file.truncate(size)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return file


class DecoderReader:
    """Asks the process of an image for regions; any number of threads at once, each on a line of its own."""

    whole = False

    def __init__(self, decoder: Decoder, about: dict[str, Any], limits: Limits) -> None:
        self.levels = tuple(_level(each, limits) for each in about["levels"][:_MOST_LEVELS])
        self.mpp = plausible_mpp(None if about["mpp"] is None else float(about["mpp"]))
        self.is_slide = bool(about["is_slide"])
        per_pixel, fixed = about["cost"]
        self.cost = ReadCost(int(per_pixel), int(fixed))
        self._decoder = decoder
        self._slots = _Slots(decoder)
        self._end = weakref.finalize(self, _end, decoder, self._slots)

    def read(self, level: int, box: Box) -> RGB:
        takes = self.cost.per_pixel * box.width * box.height + self.cost.fixed
        return self.shared(level, box, min(takes, PASSING.total_bytes))

    def shared(self, level: int, box: Box, takes: int) -> RGB:
        """[h, w, 3] in memory that is used again when nobody holds the array any more. takes: bytes of the budget."""
        PASSING.take(takes, self._decoder.name)
        allowed_s = _READING_CPU_S + box.width * box.height * _CPU_S_PER_PIXEL
        allowed_s += self.cost.fixed * CPU_S_PER_BYTE
        slot = None
        try:
            slot = self._slots.take()
            owner = slot.read(self._decoder, level, box, allowed_s)
        except TissuetalkError:
            PASSING.give(takes)
            if slot is not None:
                self._slots.give(slot)
            raise
        except (DecoderDiedError, OSError) as error:
            PASSING.give(takes)
            if slot is not None:
                slot.close()
            raise self._decoder.stopped(f"read at {box.as_list()} of level {level}") from error
        weakref.finalize(owner, _read, self._slots, slot, takes).atexit = False
        return owner.reshape(box.height, box.width, 3)

    def close(self) -> None:
        self._end()


def _end(decoder: Decoder, slots: _Slots) -> None:
    slots.close()
    decoder.end()


def _read(slots: _Slots, slot: _Slot, takes: int) -> None:
    slots.give(slot)
    PASSING.give(takes)


class _Picture:
    """All pixels of a picture, taken at once; its decoder is gone."""

    whole = True

    def __init__(self, reader: DecoderReader, lease: Lease) -> None:
        self.levels, self.mpp, self.cost = reader.levels, reader.mpp, reader.cost
        self.is_slide = reader.is_slide
        full = self.levels[0]
        # Opening it has taken these bytes already.
        self._pixels = reader.shared(0, Box.whole(full.width, full.height), takes=0)
        reader.close()
        lease.keep(self._pixels.nbytes)

    def read(self, level: int, box: Box) -> RGB:
        return self._pixels[box.y0 : box.y1, box.x0 : box.x1]

    def close(self) -> None:
        self._pixels = np.empty((0, 0, 3), np.uint8)


class _LeasedReader:
    """A reader whose share of the budget is given back when it is closed, or forgotten."""

    def __init__(self, reader: PixelReader, lease: Lease) -> None:
        self._reader = reader
        self.levels, self.mpp, self.is_slide = reader.levels, reader.mpp, reader.is_slide
        self.whole, self.cost = reader.whole, reader.cost
        self._end = weakref.finalize(self, lease.end)

    def read(self, level: int, box: Box) -> RGB:
        return self._reader.read(level, box)

    def close(self) -> None:
        self._reader.close()
        self._end()


def _level(told: Any, limits: Limits) -> Level:
    """Checked, for it was told by a process that has read a foreign file. Raises ValueError."""
    width, height, across, down = told
    sizes = all(isinstance(each, int) and 1 <= each <= limits.slide_side for each in (width, height))
    if not sizes or not all(isfinite(each) and 0 < each <= limits.slide_side for each in (across, down)):
        raise ValueError("a level cannot have this size")
    return Level(width, height, (float(across), float(down)))
