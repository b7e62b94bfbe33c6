"""Images that were opened, so that their URI works later, and files that were uploaded."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tissuetalk.models.errors import ImageTooLargeError, InvalidArgumentError, UnknownImageError
from tissuetalk.tools.storage.files import disk_errors, flush, fsync_folder, remove
from tissuetalk.tools.storage.workspace.database import ImageTable, UploadTable, shown
from tissuetalk.tools.storage.workspace.room import Entry, Room

_SUFFIX = re.compile(r"(\.[A-Za-z0-9]{1,8}){1,2}")
_UPLOAD = re.compile(r"[0-9a-f]{64}(\.[a-z0-9]{1,8}){1,2}")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class KnownImage:
    """Where an image was last opened and what it was then."""

    image_id: str
    path: Path
    sha256: str
    width: int
    height: int
    mpp: float | None
    mpp_source: str


class Images(Room):
    """The ``images/`` folder of uploads, and the tables of uploads and of all images that were opened."""

    @property
    def uploads_folder(self) -> Path:
        return self.folder / "images"

    def remember_image(
        self,
        image_id: str,
        *,
        path: Path,
        sha256: str,
        width: int,
        height: int,
        mpp: float | None = None,
        mpp_source: str = "unknown",
    ) -> None:
        """Note where an image lies, so that its id can be used instead of its path, also after a restart.

        The same content opened elsewhere replaces the older place.
        """
        with self.database.write() as db:
            ImageTable.insert(
                image_id=image_id,
                path=str(path.absolute()),
                sha256=sha256,
                width=width,
                height=height,
                mpp=mpp,
                mpp_source=mpp_source,
                last_used=self.clock(),
            ).on_conflict_replace().execute(db)

    def image(self, image_id: str) -> KnownImage:
        """What is known of an image; an upload becomes the most recently used. Raises UnknownImageError."""
        with self.database.write() as db:
            row = ImageTable.select().where(ImageTable.image_id == image_id).bind(db).first()
            if row is None:
                raise UnknownImageError(
                    f"there is no image {shown(image_id)} (an upload may have been removed to make room); "
                    "list the images with library, give a path inside an allowed root, or upload it again"
                )
            path = Path(row.path)
            if path.parent == self.uploads_folder:
                UploadTable.update(last_used=self.clock()).where(UploadTable.name == path.name).execute(db)
        return KnownImage(image_id, path, row.sha256, row.width, row.height, row.mpp, row.mpp_source)

    def image_path(self, image_id: str) -> Path | None:
        """Where an image was last opened, or None."""
        try:
            return self.image(image_id).path
        except UnknownImageError:
            return None

    def store_upload(self, stream: BinaryIO, suffix: str, max_bytes: int) -> Path:
        """Keep an upload as ``<sha256><suffix>``; the same content twice is one file.

        Raises ImageTooLargeError beyond ``max_bytes``, WorkspaceFullError; both leave nothing behind.
        """
        if not _SUFFIX.fullmatch(suffix):
            raise InvalidArgumentError(
                f"{shown(suffix)} is no file ending; use one such as .png or .ome.tiff"
            )
        part = self.owners.folder / f"upload_{secrets.token_hex(8)}"
        try:
            with disk_errors(self.folder):
                sha256, size_bytes = _receive(stream, part, max_bytes)
                return self._publish(part, f"{sha256}{suffix.lower()}", size_bytes)
        finally:
            remove(part)

    def _publish(self, part: Path, name: str, size_bytes: int) -> Path:
        path = self.uploads_folder / name
        with self.database.write() as db:
            stored = UploadTable.update(last_used=self.clock()).where(UploadTable.name == name).execute(db)
            if stored and path.is_file():
                return path
            UploadTable.delete().where(UploadTable.name == name).execute(db)
            trash = self._make_room(db, size_bytes)
            part.rename(path)
            UploadTable.insert(name=name, size_bytes=size_bytes, last_used=self.clock()).execute(db)
        fsync_folder(self.uploads_folder)
        for old in trash:
            remove(old)
        return path

    def discard_upload(self, path: Path) -> None:
        """Remove an upload that turned out not to be an image. Anything else is left alone."""
        if path.parent != self.uploads_folder or not is_upload_name(path.name):
            return
        with disk_errors(self.folder), self.database.write() as db:
            trash = self._take_away(db, Entry("images", path.name))
        remove(trash)


def is_upload_name(name: str) -> bool:
    """Whether a file in ``images/`` was put there by ``store_upload``; anything else is left alone."""
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
