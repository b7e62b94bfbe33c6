"""What the tools share: the folders images may come from, the workspace, the reader of words, the models."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tissuetalk.models import registry
from tissuetalk.models.errors import InvalidArgumentError, TissuetalkError
from tissuetalk.models.images import ImageSource, open_image
from tissuetalk.models.segmenter import Segmenter
from tissuetalk.prompts.readers import make_reader
from tissuetalk.prompts.target import Reader
from tissuetalk.tools.segment.settings import SlideSettings
from tissuetalk.tools.storage.features import FeatureCache
from tissuetalk.tools.storage.roots import Roots
from tissuetalk.tools.storage.workspace import Workspace

if TYPE_CHECKING:
    from tissuetalk.tools.segment.runners import MakeRunner

MAX_UPLOAD_BYTES = 512 * 2**20
LONGEST_FOLDER_BYTES = 250
"""One name of a path may have 255 on any file system in use."""


class Workbench:
    """One per process. Holds no state about any image beyond what the workspace keeps on disk."""

    def __init__(
        self,
        roots: Roots,
        workspace: Workspace,
        *,
        reader: str = "rules",
        slides: SlideSettings | None = None,
        runner: MakeRunner | None = None,
    ) -> None:
        self.roots = roots
        self.slides = slides or SlideSettings()
        self.runner = runner
        self.workspace = workspace
        self.features = FeatureCache(workspace.cache)
        self._reader_name = reader

    @classmethod
    def at(
        cls,
        roots: Sequence[Path],
        workspace: Path,
        *,
        reader: str = "rules",
        roots_named: bool = False,
        slides: SlideSettings | None = None,
        runner: MakeRunner | None = None,
    ) -> Workbench:
        """A workbench over folders; the workspace is made when it is missing. roots_named: the user typed the roots.

        slides: when and how regions are worked on block by block. runner: who does the blocks, threads here by default.
        """
        space = Workspace(workspace)
        allowed = Roots(roots, explicit=roots_named, private=[space.uploads_folder], lookup=space.image_path)
        return cls(allowed, space, reader=reader, slides=slides, runner=runner)

    @cached_property
    def reader(self) -> Reader:
        return make_reader(self._reader_name)

    def model(self, name: str | None) -> Segmenter:
        return registry.load(name)

    def open(self, image: str) -> ImageSource:
        """An image by path inside a root, or by image:// URI; it is remembered, so that its URI works later."""
        source = self.roots.open(image)
        try:
            self._remember(source)
        except TissuetalkError:
            source.close()
            raise
        return source

    def _remember(self, source: ImageSource) -> None:
        self.roots.register(source)
        if source.path is not None:
            self.workspace.remember_image(
                source.image_id,
                path=source.path,
                sha256=source.sha256,
                width=source.width,
                height=source.height,
                mpp=source.mpp,
                mpp_source="unknown" if source.mpp is None else "file",
            )

    def upload(self, content: bytes) -> ImageSource:
        """Keep an uploaded image. Raises the reader's errors, and then keeps nothing."""
        path = self.workspace.store_upload(io.BytesIO(content), ".img", MAX_UPLOAD_BYTES)
        try:
            source = open_image(path, name="upload")
        except TissuetalkError:
            self.workspace.discard_upload(path)
            raise
        self._remember(source)
        return source

    def new_folder(self, name: str) -> Path:
        """A folder that is missing or empty, inside a root. Raises InvalidArgumentError for any other place."""
        if not name.isprintable() or len(name.encode()) > LONGEST_FOLDER_BYTES:
            raise InvalidArgumentError("the folder's name is too long or not plain text; give a short one.")
        asked = (self.roots.paths[0] / name).resolve()
        if not any(asked.is_relative_to(root) and asked != root for root in self.roots.paths):
            raise InvalidArgumentError(
                f"{name[:200]!r} is not inside an allowed folder; give a new folder below one."
            )
        if asked.exists() and (not asked.is_dir() or any(asked.iterdir())):
            raise InvalidArgumentError(f"{name!r} is in use; nothing is overwritten, give a new folder.")
        return asked

    def close(self) -> None:
        self.workspace.close()
