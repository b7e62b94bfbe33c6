"""Several models scored on the same images: who is best, and is that more than chance? (A23)

On an external set, specialised models make one competitor: for each object type the best of those whose class may stand
in for it (A24). On several sets, each model is asked one sentence and nothing is fine-tuned (E10).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.metrics.statistics import Comparison, Interval, against_second_best, bootstrap
from tissuetalk.models.metrics.tables import csv_text, intervals_svg, table, with_limits
from tissuetalk.models.reading import table_of
from tissuetalk.models.writing import write_whole
from tissuetalk.tools.evaluate.scores import Mean, Summary

ScoreRow = Mapping[str, str]
Pair = tuple[str, str, str]
"""source, file, target: what makes two rows the same question."""
GROUPS: Final[Mapping[str, Callable[[ScoreRow], str]]] = {
    "overall": lambda row: "all",
    "source": lambda row: row.get("source", ""),
    "target": lambda row: row["mask_class"],
    "object type": lambda row: row["label"].split("-", 2)[2] if row.get("label") else "",
    "structure": lambda row: row["label"].split("-", 2)[1] if row.get("label") else "",
}
SPECIALISED: Final = "specialised"
CONSEP_STAND_INS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "malignant epithelial": (("WSSS4LUAD", "tumor epithelial tissue"),),
    "healthy epithelial": tuple(
        (source, "epithelial") for source in ("MoNuSAC", "PanNuke", "SegPath", "TNBC")
    ),
    "endothelial": (("SegPath", "endothelial"), ("TNBC", "endothelial")),
    "fibroblast": (("NuCLS", "fibroblast"), ("TNBC", "fibroblast")),
    "inflammatory": (("PanNuke", "inflammatory"),),
    "muscle": (("SegPath", "smooth muscle cells"),),
}
"""Which specialised model (source, its class) may answer for each CoNSeP type; of several the best counts."""


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
    # paired: only what every model was asked
    shared = [pair for pair in scores[first] if all(pair in rows for rows in scores.values())]
    if not shared:
        raise InvalidArgumentError(
            f"{', '.join(scores)} were scored on no image and target in common; evaluate them on one manifest."
        )
    found = _groups(first, shared, scores)
    names = list(scores)
    left_out = {name: len(rows) - len(shared) for name, rows in scores.items()}
    written = {
        "csv": _as_csv(found),
        "json": json.dumps([asdict(one) for one in found], indent=2) + "\n",
        "md": _as_markdown(found, names, left_out),
        "svg": intervals_svg("Dice on the same images", dict(found[0].means)),
    }
    for suffix, text in written.items():
        write_whole(out / f"comparison.{suffix}", text)
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
            for name, pairs in sorted(members.items()):
                dice = {
                    model: [float(rows[pair]["dice"]) for pair in pairs] for model, rows in scores.items()
                }
                means = {model: bootstrap(values) for model, values in dice.items()}
                test = against_second_best(first, dice) if len(pairs) > 1 else None
                found.append(Compared(group, name, len(pairs), means, test))
    return found


def _as_csv(found: Sequence[Compared]) -> str:
    rows = []
    for one in found:
        row: dict[str, object] = {"group": one.group, "name": one.name, "n": one.n}
        for name, mean in one.means.items():
            row |= {f"{name}_dice": mean.mean, f"{name}_low": mean.low, f"{name}_high": mean.high}
        test = one.test
        row |= {"rival": test and test.rival, "mean_gain": test and test.mean_gain}
        rows.append(row | {"p_value": test and _p(test.p_value), "mark": test and test.mark})
    return csv_text(rows)


def _as_markdown(found: Sequence[Compared], names: Sequence[str], left_out: Mapping[str, int]) -> str:
    lines = []
    for one in found:
        test, verdict = one.test, "too few samples"
        if test is not None and test.p_value is None:
            verdict = f"{test.rival} is {-test.mean_gain:.3f} better"
        elif test is not None:
            verdict = f"{test.mean_gain:+.3f} over {test.rival}, p = {_p(test.p_value)} {test.mark}".rstrip()
        lines.append([one.group, one.name, str(one.n), *map(with_limits, one.means.values()), verdict])
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


def _p(value: float | None) -> str | None:
    return None if value is None else f"{value:.2g}"


def read_scores(folder: Path) -> dict[Pair, ScoreRow]:
    """Scored rows that show their target, by question. Raises InvalidArgumentError without a ``scores.csv``."""
    path = folder / "scores.csv" if folder.is_dir() else folder
    if not path.is_file():
        raise InvalidArgumentError(
            f"there is no scores.csv in {folder}; run `tissuetalk evaluate` with --out {folder}."
        )
    _, rows = table_of(path)
    if not rows or not {"file", "mask_class", "dice", "target_present"} <= rows[0].keys():
        raise InvalidArgumentError(
            f"{path} is no scores.csv of `tissuetalk evaluate`; give its --out folder."
        )
    return {
        (row.get("source", ""), row["file"], row["mask_class"]): row
        for row in rows
        if row["dice"] and row["target_present"] == "True"
    }


def specialised(folders: Mapping[str, Path]) -> dict[Pair, ScoreRow]:
    """One set of scores from several: each type's come from the model that does best on it.

    folders: PathSeg source a model was trained on, to its evaluation on CoNSeP.
    Raises InvalidArgumentError for a source that may stand in for no type, or when none of its labels is known.
    """
    able = {source for pairs in CONSEP_STAND_INS.values() for source, _ in pairs}
    if wrong := set(folders) - able:
        raise InvalidArgumentError(
            f"models of {', '.join(sorted(wrong))} stand in for no type; choose from {', '.join(sorted(able))}."
        )
    scores = {source: read_scores(folder) for source, folder in folders.items()}
    found: dict[Pair, ScoreRow] = {}
    for kind, pairs in CONSEP_STAND_INS.items():
        of_kind = {
            (source, name): [pair for pair, row in scores[source].items() if _object_type(row) == kind]
            for source, name in pairs
            if source in scores
        }
        # chosen on the very scores that are compared, which favours the specialised models
        means = {
            key: float(np.mean([float(scores[key[0]][pair]["dice"]) for pair in rows]))
            for key, rows in of_kind.items()
            if rows
        }
        best = best_stand_in(kind, means)
        if best is not None:
            found |= {pair: scores[best[0][0]][pair] for pair in of_kind[best[0]]}
    if not found:
        raise InvalidArgumentError(
            "the stand-ins were scored on no CoNSeP type; evaluate them on a manifest with its labels."
        )
    return found


def _object_type(row: ScoreRow) -> str:
    parts = (row.get("label") or row["mask_class"]).split("-", 2)
    return parts[2] if len(parts) == 3 else parts[0]


def best_stand_in(
    object_type: str, scores: Mapping[tuple[str, str], float]
) -> tuple[tuple[str, str], float] | None:
    """The specialised model that does best for a CoNSeP type, with its score; None when none was run."""
    able = [(pair, scores[pair]) for pair in CONSEP_STAND_INS.get(object_type, ()) if pair in scores]
    return max(able, key=lambda item: item[1]) if able else None


PUBLISHED_SETS: Final = ("Histology", "CPM15", "CPM17", "Kumar-same", "Kumar-diff", "CryoNuSeg")
PUBLISHED: Final = {
    "SAM2 (visual)": (46.91, 43.10, 42.29, 36.29, 40.77, 35.78),
    "SAM3 (text)": (52.46, 56.07, 57.87, 34.53, 53.22, 64.10),
    "SAMPO (visual)": (70.16, 79.28, 81.14, 78.45, 83.19, 77.94),
    "group-aware (text)": (74.61, 79.56, 86.10, 80.50, 84.78, 77.58),
}
"""Dice in percent over all nuclei, trained on a tenth of PanNuke (arXiv 2603.06384)."""

Evaluate = Callable[[Path, Path, str], Summary]
"""Manifest, folder for its scores, model: the summary."""


@dataclass(frozen=True)
class Cell:
    """One model on one set; dice is None where nothing could be scored."""

    model: str
    dataset: str
    dice: Mean | None
    n_errors: int


def zero_shot(
    manifests: Sequence[Path], models: Sequence[str], words: str, out: Path, evaluate: Evaluate
) -> list[Cell]:
    """Score every model on every manifest with the same words; a cell that is there already is not scored again.

    Writes ``zero_shot.csv`` and ``zero_shot.md``, and each cell's own evaluation to ``out/MODEL/SET``.
    """
    names = [_name(manifest) for manifest in manifests]
    if len(set(names)) < len(names):
        raise InvalidArgumentError(f"two sets have one name ({', '.join(names)}); rename a folder.")
    cells, rows = [], list[dict[str, object]]()
    for model in models:
        for manifest, name in zip(manifests, names, strict=True):
            folder = out / model / name
            # scoring a cell takes minutes to hours; asked with other words it is scored again
            summary = _stored(folder, words) or evaluate(manifest, folder, model)
            dice = summary.overall.metrics.get("dice") if summary.overall else None
            cells.append(Cell(model, name, dice, sum(summary.errors.values())))
            row = {"model": model, "set": name, "n": dice.n if dice else 0, "dice": dice and dice.mean}
            row |= {"low": dice and dice.low, "high": dice and dice.high, "errors": cells[-1].n_errors}
            rows.append(row)
    write_whole(out / "zero_shot.csv", csv_text(rows))
    write_whole(out / "zero_shot.md", _sets_markdown(cells, models, names, words))
    return cells


def _name(manifest: Path) -> str:
    folder = manifest if manifest.is_dir() else manifest.parent
    return folder.resolve().name if manifest.is_dir() or manifest.stem == "manifest" else manifest.stem


def _stored(folder: Path, words: str) -> Summary | None:
    path = folder / "summary.json"
    if not path.is_file():
        return None
    summary = Summary.model_validate_json(path.read_text(encoding="utf-8"))
    return summary if summary.words == words else None


def _sets_markdown(cells: Sequence[Cell], models: Sequence[str], names: Sequence[str], words: str) -> str:
    by_place = {(cell.model, cell.dataset): cell for cell in cells}
    lines = [[model, *(_shown(by_place[model, name]) for name in names)] for model in models]
    published = [[method, *(f"{value:.2f}" for value in row)] for method, row in PUBLISHED.items()]
    return "\n\n".join(
        [
            "# Several data sets, one sentence",
            f"Mean Dice in percent [95 %] for {words!r}, nothing fine-tuned.",
            table(["model", *names], lines),
            "Published for all nuclei (arXiv 2603.06384), on its own sets:",
            table(["method", *PUBLISHED_SETS], published) + "\n",
        ]
    )


def _shown(cell: Cell) -> str:
    if cell.dice is None:
        return f"not scored ({cell.n_errors} errors)"
    if cell.dice.low is None or cell.dice.high is None:
        return f"{100 * cell.dice.mean:.2f}"
    return f"{100 * cell.dice.mean:.2f} [{100 * cell.dice.low:.1f}, {100 * cell.dice.high:.1f}]"
