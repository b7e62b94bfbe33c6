"""Many texts at once, from one file to another: what `tissuetalk translate` runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tissuetalk.models.errors import InvalidArgumentError, NoTargetInWordsError
from tissuetalk.models.writing import write_whole
from tissuetalk.prompts.target import Reader, Request, Target


def translate_items(in_path: Path, out_path: Path, reader: Reader) -> int:
    """Write one prediction line per item line and return their number.

    In: `{"id", "text", "organ"?}` a line. Out: `{"id", "targets", "relation", "points", "boxes", "measures"}`; an item
    that names nothing gets empty fields. Nothing is written when any line cannot be read (InvalidArgumentError).
    """
    lines = [json.dumps(_answer(item, reader), ensure_ascii=False) for item in _items(in_path)]
    try:
        write_whole(out_path, "".join(line + "\n" for line in lines))
    except OSError as error:
        raise InvalidArgumentError(
            f"cannot write {out_path.name}: {error.strerror}; give --out a file in a folder you may write to."
        ) from error
    return len(lines)


def _items(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(
            f"cannot read {path.name} as UTF-8 text; check the path given to --in."
        ) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidArgumentError(
                f"{path.name}, line {number}: not JSON; write one object a line."
            ) from error
        organ = item.get("organ") if isinstance(item, dict) else None
        if not isinstance(item, dict) or "id" not in item or not isinstance(item.get("text"), str):
            raise InvalidArgumentError(
                f'{path.name}, line {number}: an item needs "id" and "text" (a string).'
            )
        if organ is not None and not isinstance(organ, str):
            raise InvalidArgumentError(
                f'{path.name}, line {number}: "organ" is a word such as "colon", or left out.'
            )
        yield item


def _answer(item: dict[str, Any], reader: Reader) -> dict[str, Any]:
    try:
        request = reader.translate(item["text"], organ=item.get("organ"))
    except NoTargetInWordsError:
        request = Request("request")
    return {"id": item["id"], **as_prediction(request)}


def as_prediction(request: Request) -> dict[str, Any]:
    """A request in the words of the language data: targets, one relation, points, boxes, measures."""
    carrier = next((target for target in request.targets if target.relation is not None), None)
    relation = None
    if carrier is not None and carrier.relation is not None:
        relation = {
            "op": carrier.relation.op,
            "subject": _name(carrier),
            "reference": carrier.relation.reference,
        }
    return {
        "targets": [_entry(target) for target in request.targets],
        "relation": relation,
        "points": [list(point) for point in request.points],
        "boxes": [list(box) for box in request.boxes],
        "measures": list(request.measures),
    }


def _name(target: Target) -> str:
    return target.label or target.words


def _entry(target: Target) -> dict[str, str]:
    key = "label" if target.label else "free_form"
    return {key: _name(target), "assertion": target.assertion, "evidence": target.evidence}
