"""Several models scored on the same images: who is best, and is that more than chance? (A23)"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.metrics.bootstrap import Interval, bootstrap
from tissuetalk.models.metrics.plots import intervals_svg
from tissuetalk.models.metrics.significance import Comparison, against_second_best
from tissuetalk.models.metrics.tables import csv_text, table, with_limits
from tissuetalk.tools.evaluate.scores_file import Pair, ScoreRow, read_scores
from tissuetalk.tools.evaluate.stand_ins import SPECIALISED, specialised

GROUPS: Final[Mapping[str, Callable[[ScoreRow], str]]] = {
    "overall": lambda row: "all",
    "source": lambda row: row.get("source", ""),
    "target": lambda row: row["mask_class"],
    "object type": lambda row: row["label"].split("-", 2)[2] if row.get("label") else "",
    "structure": lambda row: row["label"].split("-", 2)[1] if row.get("label") else "",
}


@dataclass(frozen=True)
class Compared:
    """One group of the same questions to every model. test: None with fewer than two samples."""

    group: str
    name: str
    n: int
    means: Mapping[str, Interval]
    test: Comparison | None


def compare(
    folders: Mapping[str, Path], out: Path, *, stand_ins: Mapping[str, Path] | None = None
) -> list[Compared]:
    """Test the first model against the best of the others, pair by pair, overall and per group.

    stand_ins: specialised models by PathSeg source, together one more competitor on CoNSeP.
    Writes ``comparison.csv``, ``comparison.json``, ``comparison.md`` and ``comparison.svg``.
    Raises InvalidArgumentError for fewer than two models or when they share no scored question.
    """
    scores = {name: read_scores(folder) for name, folder in folders.items()}
    if stand_ins:
        scores[SPECIALISED] = specialised(stand_ins)
    if len(scores) < 2:
        raise InvalidArgumentError("a comparison needs at least two models: NAME=FOLDER NAME=FOLDER.")
    first = next(iter(scores))
    shared = [pair for pair in scores[first] if all(pair in rows for rows in scores.values())]
    if not shared:
        raise InvalidArgumentError(
            f"{', '.join(scores)} were scored on no image and target in common; evaluate them on one manifest."
        )
    found = _groups(first, shared, scores)
    out.mkdir(parents=True, exist_ok=True)
    names = list(scores)
    (out / "comparison.csv").write_text(_as_csv(found, names), encoding="utf-8")
    (out / "comparison.json").write_text(
        json.dumps([asdict(one) for one in found], indent=2) + "\n", encoding="utf-8"
    )
    left_out = {name: len(rows) - len(shared) for name, rows in scores.items()}
    (out / "comparison.md").write_text(_as_markdown(found, names, left_out), encoding="utf-8")
    svg = intervals_svg("Dice on the same images", dict(found[0].means))
    (out / "comparison.svg").write_text(svg, encoding="utf-8")
    return found


def _groups(
    first: str, shared: Sequence[Pair], scores: Mapping[str, Mapping[Pair, ScoreRow]]
) -> list[Compared]:
    found = []
    for group, name_of in GROUPS.items():
        members: dict[str, list[Pair]] = {}
        for pair in shared:
            members.setdefault(name_of(scores[first][pair]), []).append(pair)
        members.pop("", None)
        if group == "overall" or len(members) > 1:
            found += [_compared(first, group, name, members[name], scores) for name in sorted(members)]
    return found


def _compared(
    first: str, group: str, name: str, pairs: Sequence[Pair], scores: Mapping[str, Mapping[Pair, ScoreRow]]
) -> Compared:
    dice = {model: [float(rows[pair]["dice"]) for pair in pairs] for model, rows in scores.items()}
    means = {model: bootstrap(values) for model, values in dice.items()}
    test = against_second_best(first, dice) if len(pairs) > 1 else None
    return Compared(group, name, len(pairs), means, test)


def _as_csv(found: Sequence[Compared], names: Sequence[str]) -> str:
    columns = [f"{name}_{part}" for name in names for part in ("dice", "low", "high")]
    header = ["group", "name", "n", *columns, "rival", "mean_gain", "p_value", "mark"]
    rows: list[list[object]] = []
    for one in found:
        figures = [
            value
            for name in names
            for value in (one.means[name].mean, one.means[name].low, one.means[name].high)
        ]
        test = one.test
        tested = [test.rival, test.mean_gain, _p(test.p_value), test.mark] if test else [None] * 4
        rows.append([one.group, one.name, one.n, *figures, *tested])
    return csv_text(header, rows)


def _as_markdown(found: Sequence[Compared], names: Sequence[str], left_out: Mapping[str, int]) -> str:
    lines = []
    for one in found:
        means = [with_limits(one.means[name]) for name in names]
        verdict = "too few samples" if one.test is None else _verdict(one.test)
        lines.append([one.group, one.name, str(one.n), *means, verdict])
    skipped = ", ".join(f"{name} {count}" for name, count in left_out.items() if count)
    return "\n\n".join(
        [
            f"# {names[0]} against {', '.join(names[1:])}",
            (
                f"Mean Dice with 95 % bootstrap intervals on the same {found[0].n} image-target pairs; one-sided paired "
                f"t-test of {names[0]} against the best of the others, only where its mean is the highest "
                "(** p <= 0.01, * p <= 0.05)."
                + (f" Pairs not scored by all, left out: {skipped}." if skipped else "")
            ),
            table(["group", "name", "n", *names, "test"], lines),
            "![comparison.svg](comparison.svg)\n",
        ]
    )


def _verdict(test: Comparison) -> str:
    if test.p_value is None:
        return f"{test.rival} is {-test.mean_gain:.3f} better"
    return f"{test.mean_gain:+.3f} over {test.rival}, p = {_p(test.p_value)} {test.mark}".rstrip()


def _p(value: float | None) -> str | None:
    return None if value is None else f"{value:.2g}"
