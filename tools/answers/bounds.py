"""What an answer may weigh: a tool's whole result stays under 200 kB, errors within a few lines.

What does not fit is cut, counted, and said with how to get it: ``left_out``, and a line of the text.
"""

from __future__ import annotations

import json
from typing import Any

from tissuetalk.models.errors import TissuetalkError

RESULT_BYTES = 195_000
"""A whole tool result stays under 200 kB; the rest is the protocol's envelope."""
MOST_STRUCTURE_BYTES = 140_000
MOST_TEXT_BYTES = 20_000
MOST_LINKS = 24
LONGEST_STRING = 1_000
LONGEST_ERROR = 1_200
Path = tuple[str, ...]
Cuts = tuple[tuple[Path, str], ...]

_IN_FULL = "read result://{result_id}/result.json"
_PART = "ask with the mask_ids you need"
CUTS: dict[str, Cuts] = {
    "SegmentAnswer": (
        (("masks", "*", "provenance", "examples"), _IN_FULL),
        (("masks", "*", "provenance", "points"), _IN_FULL),
        (("masks", "*", "provenance", "boxes"), _IN_FULL),
        (("read_as",), "pass the report in parts"),
        (("notes",), _IN_FULL),
        (("not_segmented",), _IN_FULL),
        (("masks",), _IN_FULL),
    ),
    "MeasureResult": (
        (("pictures",), "ask for one metric at a time"),
        (("measurements",), f"{_PART}, or for fewer metrics"),
        (("tables",), _PART),
    ),
    "ExplainResult": (
        (("provenance",), "ask 'which model and settings?' about one mask"),
        (("stability",), "ask about one mask"),
        (("meanings",), "ask what one structure means"),
        (("observations",), "ask about one structure"),
        (("evidence",), "ask about one mask"),
    ),
    "LibraryResult": (
        (("images",), "pass their path, or serve fewer folders"),
        (("results",), "delete what is no longer needed, or keep each result_id"),
        (("labels",), "pass organ"),
        (("targets",), "forget those that are no longer needed"),
        (("saved",), "they are all in the folder"),
    ),
    "ViewResult": ((("mask_ids",), _PART),),
}
"""By answer: what is cut first, and how to get the rest. ``*`` is every row; a cut below it takes all rows alike."""
CUTS["SegmentResult"] = CUTS["SegmentAnswer"]


def fitted(kind: str, structure: dict[str, Any]) -> dict[str, Any]:
    """A structured answer that fits, with what was left out. kind: the name of its class.

    >>> fitted("ViewResult", {"mask_ids": ["msk_1"]})
    {'mask_ids': ['msk_1']}
    """
    shown: dict[str, Any] = _shortened(structure)
    left_out: list[str] = []
    if isinstance(inner := shown.get("result"), dict):  # a job's result is an answer of its own
        shown["result"] = fitted("ExplainResult" if "kinds" in inner else "SegmentResult", inner)
        left_out += shown["result"].get("left_out", ())
    for path, how in CUTS.get(kind, ()):
        excess = size_of(shown) - MOST_STRUCTURE_BYTES
        if excess <= 0:
            break
        before, after = _cut(shown, path, excess + 500)
        if after < before:
            where = how.format(result_id=shown.get("result_id"))
            left_out.append(f"{before - after} of {before} {' '.join(p for p in path if p != '*')}: {where}")
    return {**shown, "left_out": left_out} if left_out else shown


def fitted_text(text: str, left_out: list[str]) -> str:
    """The text with what was left out; of a long one the first lines."""
    said = [f"left out of this answer: {each}" for each in left_out]
    lines, room = [], MOST_TEXT_BYTES - len("\n".join(said).encode())
    everything = [_shortened(line) for line in text.split("\n")]
    for line in everything:
        room -= len(line.encode()) + 1
        if room < 0:
            break
        lines.append(line)
    if (more := len(everything) - len(lines)) > 0:
        lines.append(f"… {more} more lines; the fields of the answer have them.")
    return "\n".join([*lines, *said])


def error_text(error: TissuetalkError) -> str:
    """Code and message; of a long one the beginning and the end, which says what to do."""
    return shortened(f"{error.code}: {error}")


def shortened(message: str, most: int = LONGEST_ERROR) -> str:
    if len(message) <= most:
        return message
    return f"{message[: most * 2 // 3]} … {message[-most // 4 :]}"


def size_of(structure: Any) -> int:
    """Bytes as JSON."""
    return len(json.dumps(structure, ensure_ascii=False).encode("utf-8", "replace"))


def _shortened(value: Any) -> Any:
    """The same with every string cut to what somebody reads."""
    if isinstance(value, str):
        more = len(value) - LONGEST_STRING
        return value if more <= 0 else f"{value[:LONGEST_STRING]}… ({more} characters more)"
    if isinstance(value, dict):
        return {name: _shortened(each) for name, each in value.items()}
    return [_shortened(each) for each in value] if isinstance(value, list | tuple) else value


def _cut(structure: dict[str, Any], path: Path, excess: int) -> tuple[int, int]:
    """Shorten the rows at ``path`` by at least so many bytes, from the end. How many there were, and are."""
    holders: list[Any] = [structure]
    for name in path[:-1]:
        holders = [row for each in holders for row in (each if name == "*" else [each[name]])]
    if "*" in path:
        before = sum(len(each[path[-1]]) for each in holders)
        for each in holders:
            each[path[-1]] = []
        return before, 0
    rows = structure.get(path[-1]) or []
    items = list(rows.items()) if isinstance(rows, dict) else list(rows)
    kept = len(items)
    while kept and excess > 0:
        kept -= 1
        excess -= size_of(items[kept]) + 2
    structure[path[-1]] = dict(items[:kept]) if isinstance(rows, dict) else items[:kept]
    return len(items), kept
