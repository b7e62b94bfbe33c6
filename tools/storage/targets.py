"""Learned targets of a workspace: one small file each, named by what it is called and by its content.

A name is kept once: the newest file of it counts, and an older one is removed behind it. A kill between the two leaves
both, and the newest still counts.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tissuetalk.models.by_example import Learned
from tissuetalk.models.errors import InvalidArgumentError, shown
from tissuetalk.models.reading import content_of
from tissuetalk.models.writing import disk_errors, fsync_folder, remove, whole_file
from tissuetalk.tools.storage.mirror import TARGET, Mirror

MOST_TARGETS_KEPT = 200
MOST_LEARNED_BYTES = 8 * 2**20


@dataclass(frozen=True)
class KeptTarget:
    """learned: None where the file is damaged; problem says how."""

    path: Path
    sha256: str
    created_at: datetime
    learned: Learned | None
    problem: str = ""


class KeptTargets:
    """The folder of them. scratch: where files are made, on the same disk, cleared when its owner dies.

    mirror: of a bucket that has them, too, and says which there are.
    """

    def __init__(self, folder: Path, scratch: Path, mirror: Mirror | None = None) -> None:
        self.folder, self._scratch, self._mirror = folder, scratch, mirror

    def keep(self, learned: Learned) -> None:
        """Under its own name, in place of what was called so. Raises InvalidArgumentError when there are too many."""
        key = key_of(learned.name)
        files = self._files()
        mine = [path for path in files if path.name.startswith(key)]
        if not mine and len({path.name[:32] for path in files}) >= MOST_TARGETS_KEPT:
            raise InvalidArgumentError(
                f"{MOST_TARGETS_KEPT} taught targets are kept already; library(action='forget', name=…) lets one go."
            )
        path = self.folder / f"{key}-{learned.sha256}.safetensors"
        with disk_errors(self.folder.parent):
            with whole_file(path, durable=True, scratch=self._scratch) as partial:
                partial.write_bytes(learned.to_bytes())
                if self._mirror is not None:
                    self._mirror.objects.put({f"targets/{path.name}": partial})
            for older in mine:
                if older != path:
                    self._remove(older)

    def forget(self, name: str) -> None:
        """Raises InvalidArgumentError where nothing is called so."""
        found = [path for path in self._files() if path.name.startswith(key_of(name))]
        if not found:
            raise InvalidArgumentError(
                f"no taught target is called {shown(name)}; library(action='targets') lists them."
            )
        with disk_errors(self.folder.parent):
            for path in found:
                self._remove(path)
            fsync_folder(self.folder)

    def listed(self) -> list[KeptTarget]:
        """The newest of every name, newest first."""
        while True:
            with suppress(FileNotFoundError):
                return self._listed()

    def _listed(self) -> list[KeptTarget]:
        found: dict[str, KeptTarget] = {}
        files = [path for path in self._files() if path.exists() or not path.is_symlink()]
        stamped = [(path.stat().st_mtime_ns, path) for path in files]
        for stamp, path in sorted(stamped, reverse=True):
            if path.name[:32] not in found:
                created = datetime.fromtimestamp(stamp / 1e9, UTC)
                found[path.name[:32]] = _kept(path, created)
        return list(found.values())

    def by_sha256(self, sha256: str) -> Learned | None:
        """One that is kept under any name."""
        for path in self._files():
            if path.name.endswith(f"-{sha256}.safetensors"):
                with suppress(FileNotFoundError):
                    return _kept(path, datetime.now(UTC)).learned
        return None

    def _remove(self, path: Path) -> None:
        if self._mirror is not None:
            self._mirror.objects.remove(f"targets/{path.name}")
        remove(path)

    def _files(self) -> list[Path]:
        if self._mirror is not None:
            self._mirror.fetch_targets()
        return [path for path in sorted(self.folder.iterdir()) if TARGET.fullmatch(path.name)]


def key_of(name: str) -> str:
    """The same for names that differ in case and blanks alone."""
    return hashlib.sha256(" ".join(name.casefold().split()).encode()).hexdigest()[:32]


def read_learned(path: Path) -> Learned:
    """A learned target out of a file of somebody else. Raises InvalidArgumentError; nothing in it is executed."""
    try:
        return Learned.from_bytes(content_of(path, MOST_LEARNED_BYTES))
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(
            f"{path.name} cannot be read as a learned target ({error}); name a file that `tissuetalk teach` wrote."
        ) from error


def problem_of(path: Path) -> str:
    """What is wrong with a kept file; empty where it is what its name says."""
    try:
        return _kept(path, datetime.now(UTC)).problem
    except FileNotFoundError as error:
        return str(error)


def _kept(path: Path, created_at: datetime) -> KeptTarget:
    """Raises FileNotFoundError where it was replaced or forgotten meanwhile."""
    named = TARGET.fullmatch(path.name)
    assert named is not None, "only our own files are listed"
    sha256 = named["sha256"]
    try:
        learned = Learned.from_bytes(content_of(path, MOST_LEARNED_BYTES))
        if (learned.sha256, key_of(learned.name)) != (sha256, named["key"]):
            return KeptTarget(path, sha256, created_at, None, "its content is not what its name says")
        return KeptTarget(path, sha256, created_at, learned)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, InvalidArgumentError) as error:
        return KeptTarget(path, sha256, created_at, None, str(error))
