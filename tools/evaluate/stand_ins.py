"""Specialised models on an external set: for each object type the best of those whose class may stand in for it (A24)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.metrics.aggregate import CONSEP_STAND_INS, best_stand_in
from tissuetalk.tools.evaluate.scores_file import Pair, ScoreRow, read_scores

SPECIALISED: Final = "specialised"


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
