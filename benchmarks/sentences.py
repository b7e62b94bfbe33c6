"""Labelled sentences by construction: findings put into forms whose reading is known, and how the reader does by form.

python -m benchmarks.sentences            the table of docs/words.md
python -m benchmarks.sentences --failing  one failing example of each form that is in sight
python -m benchmarks.sentences --times    how long texts of 37,500, 75,000 and 150,000 characters take
"""

from __future__ import annotations

import argparse
import random
import re
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from tissuetalk.models.errors import NoTargetInWordsError
from tissuetalk.prompts.readers import rule_reader
from tissuetalk.prompts.target import Request, Target

SEED = 20261121
PER_FORM = 12
MEANS = {"+": "present", "-": "absent", "?": "uncertain", "<": "historical"}
SLOT = re.compile(r"\{([+\-?<])([abct])\}")
LOOKED_FOR = ("present", "uncertain")


@dataclass(frozen=True)
class Sentence:
    """A text with (finding, its offset, what is said of it) for every slot. hidden: kept out of sight while mending."""

    kind: str
    group: str
    form: str
    hidden: bool
    text: str
    said: tuple[tuple[str, int, str], ...]


@lru_cache(maxsize=1)
def _forms() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(
        Path(__file__).with_name("sentence_forms.yaml").read_text(encoding="utf-8")
    )
    return found


def sentences(per_form: int = PER_FORM) -> Iterator[Sentence]:
    """`per_form` sentences of every form, always the same."""
    bank = _forms()
    for kind in ("report", "request"):
        for group, forms in bank[kind].items():
            for form in forms:
                chance = random.Random(f"{SEED} {form}")
                for _ in range(per_form):
                    yield _filled(kind, group, form, chance, bank)


def _filled(kind: str, group: str, form: str, chance: random.Random, bank: dict[str, Any]) -> Sentence:
    names = dict(zip("abc", chance.sample(bank["findings"], 3), strict=True), t=chance.choice(bank["tumors"]))
    before = after = ""
    if kind == "report":
        before, after = chance.choice(bank["neighbours"]), chance.choice(bank["neighbours"])
        before = f"Colon, biopsy. {before}".strip() if group != "parts" else before
    text, said, place = f"{before} " if before else "", [], 0
    capitals = form.isupper() or (group == "ocr")
    for slot in SLOT.finditer(form):
        text += form[place : slot.start()]
        name = names[slot.group(2)]
        opens = not text.rstrip(' \n"([') or text.rstrip(' \n"([').endswith((".", "?")) or text.endswith("\n")
        shown = (
            name.upper() if capitals else name[0].upper() + name[1:] if opens and kind == "report" else name
        )
        said.append((shown, len(text), MEANS[slot.group(1)]))
        text, place = text + shown, slot.end()
    text += form[place:]
    return Sentence(
        kind,
        group,
        form,
        group == "later" and is_hidden(form),
        f"{text}{' ' if text.endswith(('.', ')', chr(34))) else chr(10)}{after}".strip(),
        tuple(said),
    )


def forms_in_sight(kind: str) -> Iterator[str]:
    """The forms of a kind that are no secret."""
    for group, forms in _forms()[kind].items():
        yield from (form for form in forms if group != "later" or not is_hidden(form))


def is_hidden(form: str) -> bool:
    """A tenth of the forms written last, drawn by their own text: never shown by --failing, never trained on."""
    return zlib.crc32(f"{SEED} {form}".encode()) % 10 < 1


def reading_of(sentence: Sentence) -> list[str]:
    """What the reader says of each slot, in order; "silent" where it names nothing there."""
    try:
        request = rule_reader().translate(sentence.text)
    except NoTargetInWordsError:
        return ["silent"] * len(sentence.said)
    taken_away = {
        target.relation.reference
        for target in request.targets
        if target.relation is not None and target.relation.op == "outside"
    }
    said = [_said_at(request, shown, offset) for shown, offset, _ in sentence.said]
    return [
        "absent"
        if one is not None and (one.label or one.words) in taken_away
        else one.assertion
        if one
        else "silent"
        for one in said
    ]


def _said_at(request: Request, shown: str, offset: int) -> Target | None:
    """The reading of the slot: of a report its line, of a request its target."""
    targets = request.targets
    for line in request.read_as:
        if line.span[0] <= offset < line.span[1] and _same(line.finding, shown):
            return Target(None, line.finding, line.assertion)
    here = [
        target
        for target in targets
        if (target.start or 0) <= offset + len(shown) - 1 < (target.start or 0) + max(len(target.evidence), 1)
    ]
    for target in here:
        if _same(target.words, shown):
            return target
    for target in sorted(here, key=lambda target: len(target.evidence)):
        if _shares(target, shown):
            return target
    return next((target for target in targets if _shares(target, shown)), None)


def _same(one: str, other: str) -> bool:
    return one.lower() in other.lower() or other.lower() in one.lower()


def _shares(target: Target, shown: str) -> bool:
    words = set(re.findall(r"[a-z]{4,}", f"{target.words} {target.evidence}".lower()))
    return set(re.findall(r"[a-z]{4,}", shown.lower())) <= words


@dataclass
class Score:
    """Of one group of forms: slots, how many were read right, and how many came out inverted."""

    slots: int = 0
    right: int = 0
    inverted: int = 0

    def add(self, want: str, got: str) -> None:
        self.slots += 1
        self.right += want == got
        self.inverted += _is_inverted(want, got)


def _is_inverted(want: str, got: str) -> bool:
    """A denied or past finding that would be painted as present, or a present one called absent or past."""
    if want in ("absent", "historical"):
        return got == "present"
    return want == "present" and got in ("absent", "historical")


def scores(per_form: int = PER_FORM) -> dict[tuple[str, str, bool], Score]:
    """Scores by (kind, group, hidden)."""
    found: dict[tuple[str, str, bool], Score] = {}
    for sentence in sentences(per_form):
        score = found.setdefault((sentence.kind, sentence.group, sentence.hidden), Score())
        for (_, _, want), got in zip(sentence.said, reading_of(sentence), strict=True):
            score.add(want, got)
    return found


def table(found: dict[tuple[str, str, bool], Score]) -> str:
    """Markdown: one row per group, forms in sight and hidden ones apart."""
    groups = list(dict.fromkeys((kind, group) for kind, group, _ in found))
    lines = [
        "| kind | form | slots | right | inverted | hidden slots | right | inverted |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    total = {False: Score(), True: Score()}
    for kind, group in groups:
        pair = [found.get((kind, group, hidden), Score()) for hidden in (False, True)]
        for hidden, score in zip((False, True), pair, strict=True):
            total[hidden].slots += score.slots
            total[hidden].right += score.right
            total[hidden].inverted += score.inverted
        lines.append(f"| {kind} | {group.replace('_', ' ')} | {_cells(pair[0])} | {_cells(pair[1])} |")
    return "\n".join([*lines, f"| all | | {_cells(total[False])} | {_cells(total[True])} |"])


def _cells(score: Score) -> str:
    if not score.slots:
        return "| |"
    return f"{score.slots} | {score.right / score.slots:.3f} | {score.inverted}"


def failing(per_form: int = PER_FORM) -> Iterator[str]:
    """For each form in sight that is ever misread: how often, and one example."""
    wrong: Counter[str] = Counter()
    example: dict[str, str] = {}
    for sentence in sentences(per_form):
        got = reading_of(sentence)
        want = [said for _, _, said in sentence.said]
        if sentence.hidden or got == want:
            continue
        wrong[sentence.form] += 1
        example.setdefault(sentence.form, f"{sentence.text!r}\n      want {want} got {got}")
    for form, count in wrong.items():
        yield f"{count:3d}/{per_form} {form!r}\n      {example[form]}"


REPEATED = ("necrosis: ", "no necrosis, ", "tumour ", "[ai: x] ", "not seen; ", "(necrosis ")
LENGTHS = (37_500, 75_000, 150_000)


def times() -> Iterator[str]:
    """Markdown: processor seconds by text and length."""
    ordinary = " ".join(sentence.text for sentence in sentences(2) if sentence.kind == "report")
    yield f"| text | {' | '.join(f'{length:,}' for length in LENGTHS)} |"
    yield "| --- | ---: | ---: | ---: |"
    for name, text in (("reports", ordinary), *((f"`{one}` again and again", one) for one in REPEATED)):
        seconds = []
        for length in LENGTHS:
            piece = "Colon, biopsy. " + (text * (length // len(text) + 1))[:length]
            start = time.process_time()
            with suppress(NoTargetInWordsError):
                rule_reader().translate(piece)
            seconds.append(f"{time.process_time() - start:.2f}")
        yield f"| {name} | {' | '.join(seconds)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--failing", action="store_true")
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--per-form", type=int, default=PER_FORM)
    arguments = parser.parse_args()
    if arguments.times:
        print("\n".join(times()))
    elif arguments.failing:
        print("\n".join(failing(arguments.per_form)))
    else:
        print(table(scores(arguments.per_form)))


if __name__ == "__main__":
    main()
