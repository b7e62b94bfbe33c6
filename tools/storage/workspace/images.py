"""Images that were seen, so that their URI works later, and files that were uploaded."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tissuetalk.models.errors import ImageTooLargeError, InvalidArgumentError
from tissuetalk.tools.storage.workspace.database import Database, ImageRow, PinRow, UploadRow
from tissuetalk.tools.storage.workspace.disk import disk_errors, flush, fsync_folder, remove
from tissuetalk.tools.storage.workspace.errors import no_image
from tissuetalk.tools.storage.workspace.ids import shown
from tissuetalk.tools.storage.workspace.owner import Owners
from tissuetalk.tools.storage.workspace.quota import Kept, Room

_SUFFIX = re.compile(r"(\.[A-Za-z0-9]{1,8}){1,2}")
_UPLOAD = re.compile(r"[0-9a-f]{64}(\.[a-z0-9]{1,8}){1,2}")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class SeenImage:
    """Where an image was last seen and what it was then. details: JSON values of the caller's choice."""

    image_id: str
    path: Path
    sha256: str
    width: int
    height: int
    mpp: float | None
    mpp_source: str
    details: Mapping[str, Any]


class Images:
    """The ``images/`` folder of uploads, and the tables of uploads and of all images seen."""

    def __init__(
        self,
        root: Path,
        database: Database,
        owners: Owners,
        room: Room,
        clock: Callable[[], float],
    ) -> None:
        self._root = root
        self.folder = root / "images"
        self._database = database
        self._owners = owners
        self._room = room
        self._clock = clock

    def remember(self, seen: SeenImage) -> None:
        """Note where an image lies; the same content seen elsewhere replaces the older place."""
        row = {
            "image_id": seen.image_id,
            "path": str(seen.path),
            "sha256": seen.sha256,
            "width": seen.width,
            "height": seen.height,
            "mpp": seen.mpp,
            "mpp_source": seen.mpp_source,
            "details": json.dumps(dict(seen.details)),
            "last_used": self._clock(),
        }
        with self._database.write() as db:
            ImageRow.insert(row).on_conflict_replace().execute(db)

    def get(self, image_id: str) -> SeenImage:
        """What is known of an image; an upload becomes the most recently used. Raises UnknownImageError."""
        with self._database.write() as db:
            row = ImageRow.select().where(ImageRow.image_id == image_id).bind(db).first()
            if row is None:
                raise no_image(image_id)
            path = Path(row.path)
            if path.parent == self.folder:
                UploadRow.update(last_used=self._clock()).where(UploadRow.name == path.name).execute(db)
        return SeenImage(
            row.image_id,
            path,
            row.sha256,
            row.width,
            row.height,
            row.mpp,
            row.mpp_source,
            json.loads(row.details),
        )

    def store(self, stream: BinaryIO, suffix: str, max_bytes: int) -> Path:
        """Keep an upload as ``<sha256><suffix>``; the same content twice is one file.

        Raises ImageTooLargeError beyond ``max_bytes``, WorkspaceFullError; both leave nothing behind.
        """
        if not _SUFFIX.fullmatch(suffix):
            raise InvalidArgumentError(
                f"{shown(suffix)} is no file ending; use one such as .png or .ome.tiff"
            )
        part = self._owners.folder / f"upload_{secrets.token_hex(8)}"
        try:
            with disk_errors(self._root):
                sha256, size_bytes = _receive(stream, part, max_bytes)
                return self._publish(part, f"{sha256}{suffix.lower()}", size_bytes)
        finally:
            remove(part)

    def _publish(self, part: Path, name: str, size_bytes: int) -> Path:
        path = self.folder / name
        with self._database.write() as db:
            if UploadRow.select().where(UploadRow.name == name).exists(db) and path.is_file():
                UploadRow.update(last_used=self._clock()).where(UploadRow.name == name).execute(db)
                return path
            UploadRow.delete().where(UploadRow.name == name).execute(db)
            trash = self._room.make(db, size_bytes)
            part.rename(path)
            UploadRow.insert(name=name, size_bytes=size_bytes, last_used=self._clock()).execute(db)
        fsync_folder(self.folder)
        for old in trash:
            remove(old)
        return path

    def discard_upload(self, path: Path) -> None:
        """Remove an upload that turned out not to be an image. Anything else is left alone."""
        if path.parent != self.folder or not is_upload_name(path.name):
            return
        with disk_errors(self._root), self._database.write() as db:
            trash = self._room.take_away(db, Kept("images", path.name))
        remove(trash)

    @contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """Keep an upload where it is while the block runs; for a file outside the workspace nothing is needed."""
        if path.parent != self.folder:
            yield
            return
        with self._database.write() as db:
            pin_id = PinRow.insert(name=path.name, owner=self._owners.token).execute(db)
        try:
            yield
        finally:
            with self._database.write() as db:
                PinRow.delete().where(PinRow.pin_id == pin_id).execute(db)


def is_upload_name(name: str) -> bool:
    """Whether a file in ``images/`` was put there by ``store``; anything else is left alone."""
    return _UPLOAD.fullmatch(name) is not None


def _receive(stream: BinaryIO, part: Path, max_bytes: int) -> tuple[str, int]:
    """Copy a stream to a flushed file; returns its SHA-256 and size in bytes."""
    digest = hashlib.sha256()
    size_bytes = 0
    with part.open("wb") as file:
        while chunk := stream.read(_CHUNK_BYTES):
            size_bytes += len(chunk)
            if size_bytes > max_bytes:
                raise ImageTooLargeError(
                    f"an upload may have {max_bytes / 1e6:.0f} MB; send a smaller image, "
                    "or put the file into an allowed root and name its path"
                )
            digest.update(chunk)
            file.write(chunk)
        flush(file)
    return digest.hexdigest(), size_bytes
