"""Choose cuts, calibrate presence and write a weight file's scores beside it: ``python -m benchmarks report WEIGHTS DATA OUT``."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from scipy.optimize import minimize

from benchmarks.held_out import (
    EVALUATION_ONLY,
    LEAST_KNOWN,
    held_out,
    looked_at_once,
    of_weights,
    spread,
    summary,
    validate,
)
from benchmarks.model_card import draw_failures
from tissuetalk.models.datasets.augment import blank_pictures
from tissuetalk.models.datasets.example import FOREGROUND, UNKNOWN, Example
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.segmentation.pathsegmentor.card import OFFERED_TARGETS
from tissuetalk.models.segmentation.pathsegmentor.mini import Calibration, Calibrations, load_mini, save_mini
from tissuetalk.models.segmentation.pathsegmentor.segmenter import (
    ANY,
    Evidence,
    MiniSegmenter,
    evidence_of,
    probability,
    tidy,
)
from tissuetalk.models.segmenter import Context
from tissuetalk.models.training.ablation import Viewer, ask
from tissuetalk.models.writing import write_whole

SPREAD_SETS = {
    "ebhi-seg-glands": "gland",
    "dsb2018-histology": "nuclei",
    "tnbc-nuclei": "nuclei",
    "ocdc-oral-tumour": "tumour",
}
SPREAD_IMAGES = 8
GRID = np.arange(-1.5, 1.51, 0.25)
"""Mask logits that a target's outline may run at."""
USUAL_CUTS = {"nuclei": -0.5}
"""Of the last release; 0 for others. Images that differ by chance alone do not move them."""
NOT_HE = frozenset({"dsb2018-histology"})
"""Mostly purple-stained fields, by their own notes no measure of an H&E model: they have no say."""
BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


RESTRAINT = 1e-3
"""Penalty on steep curves of presence."""


@dataclass(frozen=True)
class Sighting:
    """One image asked for one target whose presence is known. evidence: uncalibrated; painted: any mask at all."""

    target: str
    present: bool
    evidence: Evidence
    painted: bool


def sightings(model: MiniSegmenter, examples: list[Example]) -> list[Sighting]:
    """Every held-out image asked for everything that is known to be in it or not."""
    seen = []
    for example in examples:
        asked = dict.fromkeys(example.absent, False)
        for target, labelled in example.targets.items():
            share = float((labelled.label == FOREGROUND).mean())
            if labelled.present is not None or share > 0.005 or not (labelled.label == UNKNOWN).any():
                asked[target] = bool(labelled.present) or share > 0
        for target, present in asked.items():
            if target not in OFFERED_TARGETS:
                continue
            viewer = Viewer(model, example, target)
            decoded = viewer.decoded(ask(target))
            painted = bool(tidy(decoded.logits > 0, target).any())
            seen.append(Sighting(target, present, evidence_of(decoded), painted))
    return seen


def calibrate(evidence: Sequence[Evidence], there: Sequence[bool]) -> Calibration:
    """The curve through the pairs, present and absent weighing the same; more evidence never speaks against."""
    seen: NDArray[np.float64] = np.array(evidence, np.float64)
    present = np.array(there)
    share = np.where(present, 0.5 / max(1, present.sum()), 0.5 / max(1, (~present).sum()))

    def cost(curve: NDArray[np.float64]) -> float:
        margin = (seen @ curve[:2] + curve[2]) * np.where(present, 1, -1)
        return float((share * np.logaddexp(0, -margin)).sum() + RESTRAINT * (curve[:2] ** 2).sum())

    # Bounds keep the curve honest: more evidence never speaks against the target.
    fitted = minimize(cost, np.zeros(3), bounds=[(0, None), (0, None), (None, None)])
    return Calibration(*(round(float(value), 4) for value in fitted.x))


def _calibrations(model: MiniSegmenter, seen: list[Sighting]) -> dict[str, Calibration]:
    """One curve for all targets. Nuclei get their own: no tissue lacks them, so blank pictures stand for their absence."""
    curves = {ANY: calibrate([entry.evidence for entry in seen], [entry.present for entry in seen])}
    pairs = [(entry.evidence, entry.present) for entry in seen if entry.target == "nuclei"]
    for blank in blank_pictures():
        tile = model.encode(blank, Context({}))
        pairs.append((evidence_of(model.decode(tile, [ask("nuclei")])[0]), False))
    curves["nuclei"] = calibrate([evidence for evidence, _ in pairs], [present for _, present in pairs])
    return curves


def choose_cuts(model: MiniSegmenter, examples: Sequence[Example]) -> dict[str, float]:
    """The best logit of each target on held-out H&E (PAS for glomeruli) images; the usual one unless another gains at least
    0.002 of mean Dice.

    Annotators differ in how generously they outline, and a network trained on all of them sits between them.
    """
    by_set: dict[str, dict[str, list[NDArray[np.float64]]]] = defaultdict(lambda: defaultdict(list))
    for example in examples:
        for target, labelled in example.targets.items() if example.dataset not in NOT_HE else ():
            known = labelled.label != UNKNOWN
            if target not in OFFERED_TARGETS or labelled.present is not None or known.mean() < LEAST_KNOWN:
                continue
            viewer = Viewer(model, example, target)
            logits = viewer.smoothly(viewer.decoded(ask(target)).logits)
            truth = (labelled.label == FOREGROUND) & known
            by_set[target][example.dataset].append(
                np.array([dice((logits > cut) & known, truth) for cut in GRID])
            )
    cuts = {}
    for target, sets in by_set.items():
        mean = np.mean([np.mean(values, axis=0) for values in sets.values()], axis=0)
        usual = USUAL_CUTS.get(target, 0.0)
        best, before = int(mean.argmax()), int(np.abs(GRID - usual).argmin())
        cuts[target] = float(GRID[best]) if mean[best] >= mean[before] + 0.002 else usual
    return cuts


def curve(seen: list[Sighting], curves: Calibrations) -> dict[str, Any]:
    """Reliability of presence: how often the target was there, for each range of the stated probability."""
    stated = np.array([probability(curves, entry.target, entry.evidence) for entry in seen])
    there: NDArray[np.bool_] = np.array([entry.present for entry in seen])
    painted = np.array([entry.painted for entry in seen]) & (stated >= 0.5)
    by_target = {
        target: np.array([entry.target == target for entry in seen])
        for target in sorted({entry.target for entry in seen})
    }
    rows = []
    for low, high in pairwise(BINS):
        inside = (stated >= low) & ((stated < high) | (high == 1.0))
        rows.append(
            {
                "stated": [low, high],
                "images": int(inside.sum()),
                "there": round(float(there[inside].mean()), 3) if inside.any() else None,
            }
        )
    return {
        "calibration": {target: asdict(one) for target, one in curves.items()},
        "pairs": len(seen),
        "false_masks_when_absent": round(float(painted[~there].mean()), 4),
        "missed_when_present": round(float((stated[there] < 0.5).mean()), 4),
        "by_target": {
            target: {
                "absent": int((asked & ~there).sum()),
                "false_masks": int((asked & ~there & painted).sum()),
                "present": int((asked & there).sum()),
                "missed": int((asked & there & (stated < 0.5)).sum()),
            }
            for target, asked in by_target.items()
        },
        "reliability": rows,
    }


def report(
    weights: Path, root: Path, folder: Path, *, name: str = "tissuetalk-mini", most: int | None = None
) -> dict[str, Any]:
    """Scores, wording spread and calibration of a weight file; writes calibrated weights and ``NAME.json`` to ``folder``.

    most: images of a set; None for all.
    """
    model = MiniSegmenter(weights)
    examples = list(held_out(root, most))
    own = [example for example in examples if example.dataset not in EVALUATION_ONLY]
    model.cuts = choose_cuts(model, own)
    seen = sightings(model, own)
    model.presence_calibration = _calibrations(model, seen)
    scores = [score for example in track(examples, "scoring") for score in validate(model, [example])]
    table = summary(scores)
    by_set: dict[str, list[Example]] = defaultdict(list)
    for example in own:
        if SPREAD_SETS.get(example.dataset) in example.targets:
            by_set[example.dataset].append(example)
    wording = {
        f"{dataset}/{SPREAD_SETS[dataset]}": spread(model, found[:SPREAD_IMAGES], SPREAD_SETS[dataset])
        for dataset, found in by_set.items()
    }
    result = {
        "sightings": [
            [entry.target, entry.present, *(round(value, 3) for value in entry.evidence), entry.painted]
            for entry in seen
        ],
        "command": "python -m benchmarks report WEIGHTS DATA models/weights",
        "summary": {key: f"Dice {row['dice']:.3f} (n={row['images']})" for key, row in table.items()},
        "held_out": table,
        "wording": wording,
        "looks": looked_at_once(model, scores, examples),
        "cuts": model.cuts,
        "presence": curve(seen, model.presence_calibration),
    }
    folder.mkdir(parents=True, exist_ok=True)
    network = load_mini(weights)
    network.presence_calibration, network.cuts = model.presence_calibration, model.cuts
    save_mini(network, folder / f"{name}.safetensors", note={"recipe": "mini.yaml"})
    draw_failures(model, examples, scores, folder / f"{name}-failures.jpg")
    write_whole(folder / f"{name}.json", json.dumps(result, indent=1) + "\n")
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints what it writes."""
    parser = of_weights("report", __doc__)
    parser.add_argument("out", type=Path, help="folder for the calibrated weights, their scores and pictures")
    told = parser.parse_args(arguments)
    print(json.dumps(report(told.weights, told.data, told.out), indent=1))
