"""Copies of slides from archives, a folder each, within a share of the disk; what was not used for an hour makes room."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path

from tissuetalk.models.control import Control
from tissuetalk.models.errors import BusyError, UnknownImageError, WorkspaceFullError
from tissuetalk.models.writing import disk_errors, remove, tree_bytes, write_whole
from tissuetalk.tools.storage.archives import Archive, Archives, SeriesAddress

_LOOK_EVERY_S = 0.2
IN_USE_S = 3600.0
"""A slide that was opened within this may still be read."""
MOST_AT_ONCE = 4
"""Slides on their way; further ones wait for a place."""
_MANY_PX = 10**12
"""A slide counts as large before anybody knows its size."""


class _Arrival:
    """One slide on its way, for everybody who wants it. said: how far it is. later: somebody was told to ask again, so it goes on."""

    def __init__(self, fetch: Callable[[Control], None]) -> None:
        self.said = "the slide is on its way from its archive"
        self.waiting, self.later = 0, False
        self.error: Exception | None = None
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(fetch,), name="a slide's way", daemon=True)

    @property
    def over(self) -> bool:
        """Of no use to whoever comes now."""
        return self.stopped.is_set() or (self.thread.ident is not None and not self.thread.is_alive())

    def end(self) -> None:
        """Stop it, and wait until what had come is gone."""
        self.stopped.set()
        self.thread.join()

    def _run(self, fetch: Callable[[Control], None]) -> None:
        try:
            fetch(Control(self._tell, self.stopped.is_set))
        except Exception as error:  # noqa: BLE001  # whatever it was is raised where the slide is waited for
            self.error = error

    def _tell(self, done: float, what: str) -> None:
        self.said = f"the slide is on its way from its archive: {done:.0%} of it is here ({what})"


class Copies:
    """folder: its own in the workspace. scratch: where a slide is put together, on the same disk. most_bytes: of all copies."""

    def __init__(self, folder: Path, scratch: Path, archives: Archives, most_bytes: int) -> None:
        self.folder, self.archives, self.most_bytes = folder, archives, most_bytes
        self._scratch = scratch
        self._arrivals: dict[str, _Arrival] = {}
        self._guard = threading.Lock()
        self._publishing = threading.Lock()

    def get(self, text: str, control: Control = Control()) -> Path:
        """The finest level of the slide at an address; fetched where it is not here yet.

        Raises OutsideRootsError for an unknown archive, the errors of ``Archive.fetch``, WorkspaceFullError, and BusyError
        once ``control`` has no more patience: the slide comes all the same.
        """
        address = SeriesAddress.of(text)
        archive = self.archives.named(address.archive)
        place = self.folder / hashlib.sha256(str(address).encode()).hexdigest()[:32]
        if not place.is_dir():
            if control.patience_s is None:
                # it is waited for among other slides, where no small picture stands behind it
                control.covers(_MANY_PX)
            self._wait_for(place, lambda own: self._fetch(archive, address, place, own), control)
        return self._finest(place)

    def close(self) -> None:
        """Stop whatever is on its way."""
        with self._guard:
            arrivals = list(self._arrivals.values())
        for arrival in arrivals:
            arrival.end()

    def _wait_for(self, place: Path, fetch: Callable[[Control], None], control: Control) -> None:
        until = inf if control.patience_s is None else time.monotonic() + control.patience_s
        while (arrival := self._joined(place, fetch)) is None:
            control.check()
            control.report(0.0, "waiting while other slides are on their way")
            if time.monotonic() >= until:
                raise BusyError(
                    f"{MOST_AT_ONCE} slides are on their way from archives; ask again in a minute."
                )
            time.sleep(_LOOK_EVERY_S)
        try:
            arrival.thread.join(_LOOK_EVERY_S)
            while arrival.thread.is_alive():
                control.check()
                control.report(0.0, arrival.said)
                if time.monotonic() >= until:
                    arrival.later = True
                    raise BusyError(
                        f"{arrival.said}; ask again in a minute, or segment it, which waits as a job."
                    )
                arrival.thread.join(_LOOK_EVERY_S)
        finally:
            self._left(arrival)
        if arrival.error is not None:
            raise arrival.error

    def _joined(self, place: Path, fetch: Callable[[Control], None]) -> _Arrival | None:
        """Who wants the same slide waits for the same arrival. None while too many others are on their way."""
        with self._guard:
            self._arrivals = {name: each for name, each in self._arrivals.items() if not each.over}
            arrival = self._arrivals.get(place.name)
            if arrival is None:
                if len(self._arrivals) >= MOST_AT_ONCE:
                    return None
                arrival = self._arrivals[place.name] = _Arrival(fetch)
                arrival.thread.start()
            arrival.waiting += 1
            return arrival

    def _left(self, arrival: _Arrival) -> None:
        """Nobody wants it any more: what had come of it goes."""
        with self._guard:
            arrival.waiting -= 1
            unwanted = arrival.waiting == 0 and not arrival.later
            if unwanted:
                arrival.stopped.set()
        if unwanted:
            arrival.end()

    def _fetch(self, archive: Archive, address: SeriesAddress, place: Path, control: Control) -> None:
        if place.is_dir():  # it came between a look and this
            return
        with disk_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
            write_whole(place.with_suffix(".address"), str(address))
            part = self._scratch / f"archive_{secrets.token_hex(8)}"
            try:
                part.mkdir()
                archive.fetch(address, part, self._room(), control)
                with self._publishing:  # or two would count the same room
                    self._publish(part, place)
            finally:
                remove(part)

    def again(self, path: Path, control: Control = Control()) -> Path:
        """A file of a copy, whose copy is fetched again where it was cleared away; any other path as it is."""
        if path.parent.parent != self.folder or path.is_file():
            return path
        return self.get(str(self.address_of(path)), control)

    def address_of(self, path: Path | None) -> SeriesAddress:
        """Where the slide of a copied file came from. Raises UnknownImageError for what is no copy."""
        try:
            if path is None or path.parent.parent != self.folder:
                raise FileNotFoundError
            return SeriesAddress.of(path.parent.with_suffix(".address").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UnknownImageError(
                "this image does not come from an archive; open it by its dicomweb: address first."
            ) from error

    def _finest(self, place: Path) -> Path:
        """Its largest file; looked at, so that it stays for now."""
        try:
            with suppress(PermissionError):
                os.utime(place)
            return max(place.glob("*.dcm"), key=lambda level: level.stat().st_size)
        except (OSError, ValueError) as error:
            raise UnknownImageError("the copy of this slide was cleared away; open it again.") from error

    def _room(self) -> int:
        """Bytes that a new copy may have, when all that is not in use goes."""
        used = sum(tree_bytes(each) for each in self._copies() if self._in_use(each))
        if used >= self.most_bytes:
            raise self._full()
        return self.most_bytes - used

    def _publish(self, part: Path, place: Path) -> None:
        size = tree_bytes(part)
        for oldest in sorted(self._copies(), key=_used_at):
            if size + sum(tree_bytes(each) for each in self._copies()) <= self.most_bytes:
                break
            if not self._in_use(oldest):
                remove(oldest)
        if size + sum(tree_bytes(each) for each in self._copies()) > self.most_bytes:
            raise self._full()
        try:
            part.rename(place)
        except OSError:
            if not place.is_dir():  # another process was faster
                raise

    def _copies(self) -> list[Path]:
        return [each for each in self.folder.iterdir() if each.is_dir()]

    def _in_use(self, copy: Path) -> bool:
        return time.time() - _used_at(copy) < IN_USE_S

    def _full(self) -> WorkspaceFullError:
        return WorkspaceFullError(
            f"copies of slides from archives may take {self.most_bytes / 1e9:.1f} GB here, and those in use take it all; "
            "try again in an hour, or give the server a larger --quota",
            str(self.folder),
        )


def _used_at(copy: Path) -> float:
    """Unix time at which it was last opened; long ago where somebody has just cleared it away."""
    try:
        return copy.stat().st_mtime
    except FileNotFoundError:
        return 0.0
