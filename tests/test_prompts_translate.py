"""Item files: one prediction line per item, in the vocabulary of the language data, and our own items score as measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.prompts.readers import rule_reader
from tissuetalk.prompts.translate import translate_items
from tissuetalk.prompts.words import phrase

OWN_ITEMS = Path(__file__).parent / "data" / "language" / "own.jsonl"


def run(tmp_path: Path, *items: dict[str, Any]) -> list[dict[str, Any]]:
    source, target = tmp_path / "items.jsonl", tmp_path / "predictions.jsonl"
    source.write_text("\n".join(json.dumps(item) for item in items), encoding="utf-8")
    assert translate_items(source, target, rule_reader()) == len(items)
    return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]


def test_a_prediction_has_all_fields(tmp_path: Path) -> None:
    (line,) = run(
        tmp_path, {"id": "a", "text": "count lymphocytes outside the glands at (3, 4)", "organ": "colon"}
    )
    assert line["id"] == "a"
    assert line["relation"] == {
        "op": "outside",
        "subject": "colon-nuclei-lymphocyte",
        "reference": "colon-tissue-gland",
    }
    assert (line["points"], line["boxes"], line["measures"]) == ([[3.0, 4.0]], [], ["count"])
    assert line["targets"][0] == {
        "label": "colon-nuclei-lymphocyte",
        "assertion": "present",
        "evidence": "lymphocytes",
    }


def test_an_item_that_names_nothing_has_empty_fields(tmp_path: Path) -> None:
    (line,) = run(tmp_path, {"id": 7, "text": "hello there"})
    assert line == {"id": 7, "targets": [], "relation": None, "points": [], "boxes": [], "measures": []}


@pytest.mark.parametrize("line", ["not json", "[]", '{"id": "a"}', '{"id": "a", "text": "x", "organ": 3}'])
def test_a_bad_line_is_named_and_nothing_is_written(tmp_path: Path, line: str) -> None:
    source, target = tmp_path / "items.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"id": "ok", "text": "glands"}\n' + line, encoding="utf-8")
    with pytest.raises(InvalidArgumentError, match="line 2"):
        translate_items(source, target, rule_reader())
    assert not target.exists()


def names(target: dict[str, Any]) -> set[str]:
    said = (
        {target["label"], *target["alternatives"]}
        if "label" in target
        else {target["text"], *target.get("alternatives", ())}
    )
    return said | set(target.get("free_form_ok", ()))


def matches(guess: dict[str, Any], gold: dict[str, Any]) -> bool:
    """The label is accepted, or the last and all other content words of an accepted name are in the guess."""
    if "label" in guess:
        return guess["label"] in names(gold)
    said = phrase(guess["free_form"])
    return any(
        set(phrase(name)) <= set(said) and phrase(name)[-1] == said[-1]
        for name in names(gold)
        if "-" not in name
    )


def test_our_own_items_score_as_measured(tmp_path: Path) -> None:
    """Measured with the full scorer: present-F1 0.995, 1 negation error, relations 1.0, measures 1.0 (158 items)."""
    golds = [json.loads(line) for line in OWN_ITEMS.read_text(encoding="utf-8").splitlines()]
    lines = run(tmp_path, *({"id": gold["id"], "text": gold["text"]} for gold in golds))
    found = wanted = denied = relations = measures = 0
    for gold, line in zip(golds, lines, strict=True):
        entries = [entry for entry in gold["targets"] if entry["label"] != "*"]
        entries += [entry for entry in gold["free_form"] if entry["required"]]
        present = [guess for guess in line["targets"] if guess["assertion"] == "present"]
        for entry in entries:
            hit = any(matches(guess, entry) for guess in present)
            if entry["assertion"] == "present":
                wanted += 1
                found += hit
            elif entry["assertion"] in ("absent", "historical"):
                rivals = [
                    other for other in entries if other is not entry and other["assertion"] == "present"
                ]
                denied += any(matches(g, entry) and not any(matches(g, r) for r in rivals) for g in present)
        relations += bool(line["relation"]) == bool(gold["relation"]) or "relation_alternatives" in gold
        measures += set(line["measures"]) == set(gold["measures"])
    assert found / wanted >= 0.97
    assert denied <= 3
    assert relations >= 157 and measures >= 157
