"""Explanations kept beside their result: long work is read later, and the full picture is a link.

explanations/<key>.json   the structured answer, links relative to the folder
explanations/<key>.png    its picture, where there is one
explanations/<key>-<mask_id>.png   where the answers about a mask differ, where reliability was asked
The key names what was asked, as it was understood.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tissuetalk.models.errors import UnknownResultError
from tissuetalk.models.writing import write_whole
from tissuetalk.tools.answers.explained import ExplainResult
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.explain.explain import Explained
from tissuetalk.tools.explain.request import ExplainRequest
from tissuetalk.tools.storage.result_folder import ResultFolder

FOLDER = "explanations"


@dataclass(frozen=True)
class StoredExplanation:
    """What was stored; the picture is in memory."""

    result: ExplainResult
    picture: Image.Image | None


def key_of(request: ExplainRequest) -> str:
    return hashlib.sha256(json.dumps(request.model_dump(mode="json")).encode()).hexdigest()[:20]


def store(folder: ResultFolder, request: ExplainRequest, explained: Explained) -> None:
    """Write the answer, replacing an earlier one to the same question. The JSON comes last: it names the pictures."""
    key = key_of(request)
    picture = None if explained.picture is None else _write(folder, f"{key}.png", explained.picture)
    maps = {mask_id: _write(folder, f"{key}-{mask_id}.png", each) for mask_id, each in explained.maps.items()}
    stability = [
        each.model_copy(update={"map": maps.get(each.mask_id)}) for each in explained.result.stability
    ]
    result = explained.result.model_copy(update={"picture": picture, "stability": stability})
    write_whole(_json(folder, request), result.model_dump_json(indent=1))


def _write(folder: ResultFolder, name: str, picture: Image.Image) -> str:
    """The link of the file."""
    write_whole(folder.path / FOLDER / name, drawing.as_png(picture))
    return f"{FOLDER}/{name}"


def stored(folder: ResultFolder, request: ExplainRequest) -> StoredExplanation:
    """Raises UnknownResultError when the question was not answered yet."""
    path = _json(folder, request)
    if not path.is_file():
        raise UnknownResultError("this explanation is gone; call explain with the same question again.")
    result = ExplainResult.model_validate_json(path.read_text("utf-8"))
    if result.picture is None:
        return StoredExplanation(result, None)
    with Image.open(folder.path / result.picture) as picture:
        picture.load()
        return StoredExplanation(result, picture)


def picture_file(folder: ResultFolder, name: str) -> bytes:
    """The PNG of an explanation. Raises UnknownResultError for a name that is none."""
    # the name comes from outside: nothing is read unless it matches in full
    path = folder.path / FOLDER / name
    if re.fullmatch(r"[0-9a-f]{20}(-msk_[a-z0-9]+)?\.png", name) is None or not path.is_file():
        raise UnknownResultError(f"no explanation {name[:40]!r} here; call explain to make one.")
    return path.read_bytes()


def _json(folder: ResultFolder, request: ExplainRequest) -> Path:
    return folder.path / FOLDER / f"{key_of(request)}.json"
