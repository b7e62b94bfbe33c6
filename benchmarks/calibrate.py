"""Fit and check what reliability is read from: ``python -m benchmarks calibrate DATA [MODEL]``.

Held-out annotated images are asked for what is annotated on them, as they are and once in a worse state, so that the
formula knows bad masks as well. It is logistic in the signal and the presence, never falling in either, with an offset
for each target: a tumour mask of a new patient is wrong more often than it looks. How well it holds is measured by
leaving out whole groups (patients, slides), and on sets that nothing here was fitted to.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import spearmanr

from benchmarks.held_out import EVALUATION_ONLY, SAME_CASE, held_out, is_judged
from tissuetalk.models import registry
from tissuetalk.models.datasets.example import FOREGROUND, UNKNOWN, Example
from tissuetalk.models.datasets.wordings import rephrasings
from tissuetalk.models.images import Box, open_image
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.segmenter import RGB, Context, Segmenter
from tissuetalk.models.training.ablation import ask
from tissuetalk.tools.answers import reliability
from tissuetalk.tools.answers.reliability import ReliabilityFormula, Signal
from tissuetalk.tools.explain import perturbations, windows
from tissuetalk.tools.explain.stability import StabilityCheck
from tissuetalk.tools.segment.field import FieldOfView, Scale

OUT = Path(reliability.__file__).with_name("reliability.json")
MOST_OF_A_SET = 12
SIDE_PX = 640
"""Side of the part that is compared, in pixels at the model's scale."""
SIGNALS: tuple[Signal, ...] = ("explain", "segment")
FOLDS = 5
RESTRAINT = 3e-3
"""Penalty on steep formulas and on offsets far from the common one."""
SAME_CASE_WEIGHT = 0.25
"""Of sets whose held-out parts share the case with training: they look better than a new patient will."""
NEEDLESS = 0.05
"""Of acceptable masks, the share that may be warned about."""
RELIABLE, GOOD, ACCEPTABLE = 0.8, 0.8, 0.7
"""Reliability that is acted on, the Dice that should get it, and the Dice that it promises."""


def _noisy(rgb: RGB) -> RGB:
    noise = np.random.default_rng(0).normal(0, 22, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


WORSE: dict[str, Callable[[RGB], RGB]] = {
    "out of focus": lambda rgb: perturbations.blurred(rgb, 2.2),
    "faded": lambda rgb: perturbations.restained(rgb, 0.5, 0.6),
    "too pink": lambda rgb: perturbations.restained(rgb, 0.7, 1.6),
    "noisy": _noisy,
}
WRONG_SCALE = {"scale off by 1.6": 1.6, "scale off by 0.6": 0.6}


@dataclass(frozen=True)
class ScoredMask:
    """One mask with its signals and its true Dice."""

    dataset: str
    group: str
    target: str
    condition: str
    explain: float
    segment: float
    presence: float
    dice: float

    @property
    def is_fitted(self) -> bool:
        """Whether a formula may be fitted to it."""
        return self.dataset not in EVALUATION_ONLY


def observe(model: Segmenter, example: Example, target: str, condition: str) -> ScoredMask | None:
    """Ask as ``explain`` does. None when nothing was found: an empty mask has no reliability."""
    labelled = example.targets[target]
    worse = WORSE.get(condition)
    image = example.image if worse is None else worse(example.image)
    mpp = example.mpp * WRONG_SCALE.get(condition, 1.0)
    data = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    said = ask(target)
    capability = model.capability(said)
    assert capability is not None, f"{target} is offered"
    with open_image(io.BytesIO(data), name=example.name) as source:
        region = Box.whole(source.width, source.height)
        truth, known = labelled.label == FOREGROUND, labelled.label != UNKNOWN
        side = round(SIDE_PX * capability.mpp / mpp)
        window = windows.busiest(windows.edges(truth), region, side, side)
        field = FieldOfView(source, model, region, Scale(mpp, "given"))
        looks = StabilityCheck(field, context=Context({})).looks(
            said, capability, rephrasings(target), window
        )
    if not looks.stored.any():
        return None
    part = windows.inside(window, region, truth.shape)
    score = dice(looks.stored & known[part], truth[part] & known[part])
    return ScoredMask(
        example.dataset,
        example.group,
        target,
        condition,
        looks.signal,
        looks.expected_dice,
        looks.presence,
        float(score),
    )


def observe_all(model: Segmenter, root: Path, most: int = MOST_OF_A_SET) -> Iterator[ScoredMask]:
    """Held-out images, at most ``most`` of a set, as they are and in one worse state."""
    states = [*WORSE, *WRONG_SCALE]
    for number, example in enumerate(held_out(root, most)):
        for target in example.targets:
            if not is_judged(example, target):
                continue
            for condition in ("as it is", states[number % len(states)]):
                if (seen := observe(model, example, target, condition)) is not None:
                    yield seen


def fit(seen: Sequence[ScoredMask], signal: Signal) -> ReliabilityFormula:
    """Every set and target weighs the same, however many images it has; offsets are drawn to the common one."""
    targets = sorted({each.target for each in seen})
    counts = Counter((each.dataset, each.target) for each in seen)
    share: NDArray[np.float64] = np.array(
        [
            (SAME_CASE_WEIGHT if each.dataset in SAME_CASE else 1.0) / counts[each.dataset, each.target]
            for each in seen
        ]
    )
    share /= share.sum()
    true = np.array([each.dice for each in seen])
    which = np.array([targets.index(each.target) for each in seen])
    features = np.array([_features(each, signal) for each in seen])

    def cost(values: NDArray[np.float64]) -> float:
        steep, common, own = values[:2], values[2], values[3:]
        logit = features @ steep + common + own[which]
        # Cross-entropy with the Dice as the share of successes: its minimum is the mean Dice.
        loss = float((share * (np.logaddexp(0, logit) - true * logit)).sum())
        return loss + RESTRAINT * float((steep**2).sum() + (own**2).sum())

    bounds = [(0, None), (0, None)] + [(None, None)] * (1 + len(targets))
    found = minimize(cost, np.zeros(3 + len(targets)), bounds=bounds).x
    signal_weight, presence_weight, common, *own = (round(float(value), 4) for value in found)
    offsets = {target: round(common + value, 4) for target, value in zip(targets, own, strict=True)}
    return ReliabilityFormula(signal_weight, presence_weight, offsets, common)


def _features(each: ScoredMask, signal: Signal) -> tuple[float, float]:
    return reliability.log_odds(getattr(each, signal)), reliability.log_odds(each.presence)


FormulaOf = Callable[[ScoredMask], ReliabilityFormula]


def stated_by(formula_of: FormulaOf, seen: Sequence[ScoredMask], signal: Signal) -> NDArray[np.float64]:
    return np.array(
        [formula_of(each).value(getattr(each, signal), each.presence, each.target) for each in seen]
    )


def warning_from(formula_of: FormulaOf, seen: Sequence[ScoredMask], signal: Signal) -> float:
    """The reliability below which NEEDLESS of the acceptable masks lie, in hundredths.

    A stated Dice is a mean: of masks a little above the limit a third is below it. So warnings start higher, where they cost little.
    """
    held = [each for each in seen if each.dice >= ACCEPTABLE]
    return math.floor(100 * float(np.quantile(stated_by(formula_of, held, signal), NEEDLESS))) / 100


def check(formula_of: FormulaOf, seen: Sequence[ScoredMask], signal: Signal, below: float) -> dict[str, Any]:
    """How far the stated reliability is from the true Dice, and whether it can be acted on. below: what is warned about."""
    if not seen:
        return {"masks": 0}
    stated, true = stated_by(formula_of, seen, signal), np.array([each.dice for each in seen])
    trusted, good = stated >= RELIABLE, true >= GOOD
    return {
        "masks": len(seen),
        "mean_absolute_error": round(float(np.mean(np.abs(stated - true))), 3),
        "mean_stated": round(float(np.mean(stated)), 3),
        "mean_dice": round(float(np.mean(true)), 3),
        "rank_correlation": round(float(spearmanr(stated, true)[0]), 3),
        "acceptable_of_reliable": _share((true >= ACCEPTABLE)[trusted]),
        "reliable_of_good": _share(trusted[good]),
        "warned_of_bad": _share((stated < below)[true < ACCEPTABLE]),
        "warned_of_acceptable": _share((stated < below)[true >= ACCEPTABLE]),
    }


def _share(there: NDArray[np.bool_]) -> float | None:
    return round(float(there.mean()), 3) if there.size else None


def calibrate(seen: Sequence[ScoredMask], signal: Signal) -> dict[str, Any]:
    """The formula over all sets that may be used, and how it does on groups and sets it never saw."""
    ours = [each for each in seen if each.is_fitted]
    others = [each for each in seen if not each.is_fitted]
    fold_of = folds(ours)
    parts = [
        fit([each for each in ours if fold_of[each.dataset, each.group] != k], signal) for k in range(FOLDS)
    ]
    whole = fit(ours, signal)

    def left_out(each: ScoredMask) -> ReliabilityFormula:
        return parts[fold_of[each.dataset, each.group]] if each.is_fitted else whole

    below = warning_from(left_out, ours, signal)
    untouched = [each for each in seen if each.condition == "as it is"]
    return {
        "formula": whole.told(),
        "warned_below": below,
        "left_out_groups": check(left_out, ours, signal, below),
        "never_fitted_sets": check(left_out, others, signal, below),
        "as_they_are": check(left_out, untouched, signal, below),
        "by_target": {
            target: check(left_out, some, signal, below)
            for target, some in by_target(seen).items()
            if len(some) > 2
        },
    }


def folds(seen: Sequence[ScoredMask]) -> Mapping[tuple[str, str], int]:
    """Groups dealt out set by set, so that a set with one group is left out as a whole."""
    groups = sorted({(each.dataset, each.group) for each in seen})
    return {group: number % FOLDS for number, group in enumerate(groups)}


def by_target(seen: Sequence[ScoredMask]) -> Mapping[str, list[ScoredMask]]:
    found: dict[str, list[ScoredMask]] = defaultdict(list)
    for each in seen:
        found[each.target].append(each)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Adds or replaces the formulas of one model's weights."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks calibrate", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the data sets")
    parser.add_argument("model", nargs="?", help="default: the default model")
    told = parser.parse_args(arguments)
    model = registry.load(told.model)
    entry = entry_of(model, list(observe_all(model, told.data)))
    store(model.weights_sha256, entry)
    print(json.dumps(entry, indent=1))


def entry_of(model: Segmenter, seen: Sequence[ScoredMask]) -> dict[str, Any]:
    """Both formulas with what they rest on and how well they hold."""
    ours = [each for each in seen if each.is_fitted]
    return {
        "model": model.card.name,
        "made_by": "python -m benchmarks calibrate",
        "fitted_on": dict(Counter(f"{each.dataset}/{each.target}" for each in ours)),
        "states": dict(Counter(each.condition for each in ours)),
        **{str(signal): calibrate(seen, signal) for signal in SIGNALS},
    }


def store(weights_sha256: str, entry: dict[str, Any]) -> None:
    """Write the entry of some weights into the data file; of a model's weights only the last are kept there."""
    content = json.loads(OUT.read_text("utf-8"))
    kept = {key: other for key, other in content["models"].items() if other["model"] != entry["model"]}
    content["models"] = kept | {weights_sha256: entry}
    OUT.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
