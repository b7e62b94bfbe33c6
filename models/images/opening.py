"""From a file to an image. What reads the file's content is another process, where the system has one to give."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from tissuetalk.models.images.files import CheckedFile, Limits, open_regular
from tissuetalk.models.images.parts import gather_parts
from tissuetalk.models.images.remote import reader_for
from tissuetalk.models.images.source import ImageSource


def open_image(
    file: BinaryIO | Path | CheckedFile,
    *,
    name: str,
    path: Path | None = None,
    limits: Limits | None = None,
    alone: bool = False,
) -> ImageSource:
    """Open an image by path, or one that is already open and checked.

    file: an open file is taken over: closed with the image, or at once when it is refused.
    name: what messages call it. path: where an open file lies, needed only by slides of several files.
    alone: what lies beside the file is somebody else's and never part of it.

    Raises UnknownImageError, UnreadableImageError, ImageTooLargeError, ImageChangedError, BusyError when other images take the
    memory, or OutsideRootsError for a slide of several files that leads elsewhere.
    """
    limits = limits or Limits()
    if isinstance(file, Path):
        checked = open_regular(file, name=name)
    else:
        checked = file if isinstance(file, CheckedFile) else CheckedFile(file, name=name, path=path)
    checked.alone |= alone
    try:
        gather_parts(checked)
        return ImageSource(reader=reader_for(checked, limits), file=checked, limits=limits)
    except BaseException:
        checked.close()
        raise
