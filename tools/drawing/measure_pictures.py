"""Drawn measures as files of a result, and together on one sheet."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.tools.drawing import drawing

FOLDER = "pictures"
MOST_ON_SHEET = 4
_NAME = re.compile(r"(?:hotspot|heatmap|histogram)_msk_[a-z0-9]+\.png")


def keep(path: Path, metric: str, mask_id: str, picture: Image.Image) -> str:
    """Write a picture into a result's folder, whole or not at all; its relative address."""
    folder = path / FOLDER
    folder.mkdir(exist_ok=True)
    name = f"{metric}_{mask_id}.png"
    part = folder / f"{name}.{uuid.uuid4().hex}.part"  # two may draw the same picture at once
    part.write_bytes(drawing.as_png(picture))
    part.replace(folder / name)
    return f"{FOLDER}/{name}"


def read(path: Path, name: str) -> bytes:
    """A picture that was drawn before. Raises InvalidArgumentError."""
    if _NAME.fullmatch(name) is None or not (path / FOLDER / name).is_file():
        raise InvalidArgumentError(
            f"there is no picture {name[:80]!r} yet; measure with metrics hotspot, heatmap or histogram draws it."
        )
    return (path / FOLDER / name).read_bytes()


def sheet(path: Path, names: Sequence[str]) -> Image.Image | None:
    """The first few pictures, two in a row; None without any."""
    pictures = []
    for name in names[:MOST_ON_SHEET]:
        with Image.open(path / name) as picture:
            pictures.append(picture.convert("RGB"))
    if len(pictures) < 2:
        return pictures[0] if pictures else None
    rows = [pictures[at : at + 2] for at in range(0, len(pictures), 2)]
    width = max(sum(each.width for each in row) + 12 * (len(row) - 1) for row in rows)
    whole = Image.new(
        "RGB", (width, sum(max(each.height for each in row) + 12 for row in rows)), (255, 255, 255)
    )
    top = 0
    for row in rows:
        left = 0
        for each in row:
            whole.paste(each, (left, top))
            left += each.width + 12
        top += max(each.height for each in row) + 12
    return whole
