"""Fit and check the reliability curves: ``python -m benchmarks calibrate DATA [MODEL]``.

Every held-out annotated image is asked for what is annotated on it, as it is and once in a worse state, so that the
curves know bad masks as well. A curve is the mean Dice of eight equally full bins of a signal, made monotone, from (0, 0) to (1, 1). How well it
holds is measured by leaving out whole groups (patients, slides), and on sets that nothing here was fitted to.
"""

from __future__ import annotations

import argparse
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.held_out import EVALUATION_ONLY, held_out
from tissuetalk.models import registry
from tissuetalk.models.datasets.example import FOREGROUND, UNKNOWN, Example
from tissuetalk.models.datasets.wordings import rephrasings
from tissuetalk.models.images import Box, open_image
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.segmentation.pathsegmentor.card import OFFERED_TARGETS
from tissuetalk.models.segmenter import RGB, Context, Segmenter
from tissuetalk.models.training.ablation import ask
from tissuetalk.tools.answers import results
from tissuetalk.tools.answers.results import Signal
from tissuetalk.tools.explain import perturbations, windows
from tissuetalk.tools.explain.stability import StabilityCheck
from tissuetalk.tools.segment.field import FieldOfView, Scale

OUT = Path(results.__file__).with_name("reliability.json")
MOST_OF_A_SET = 24
SIDE_PX = 640
"""Side of the part that is compared, in pixels at the model's scale."""
BINS = 8
SIGNALS: tuple[Signal, ...] = ("explain", "segment")
Curve = list[tuple[float, float]]


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
    dice: float


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
    score = dice(looks.stored & known[part], truth[part])
    return ScoredMask(
        example.dataset,
        example.group,
        target,
        condition,
        looks.signal,
        looks.expected_dice,
        float(score),
    )


def observe_all(model: Segmenter, root: Path) -> Iterator[ScoredMask]:
    """Held-out images, at most MOST_OF_A_SET of a set, and the sets for evaluation only as they are."""
    counted: Counter[str] = Counter()
    states = [*WORSE, *WRONG_SCALE]
    for number, example in enumerate(held_out(root)):
        counted[example.dataset] += 1
        if counted[example.dataset] > MOST_OF_A_SET:
            continue
        checked_only = example.dataset in EVALUATION_ONLY
        for target, labelled in example.targets.items():
            known = labelled.label != UNKNOWN
            if (
                target not in OFFERED_TARGETS
                or known.mean() < 0.9
                or not (labelled.label == FOREGROUND).any()
            ):
                continue
            for condition in ("as it is",) if checked_only else ("as it is", states[number % len(states)]):
                if (seen := observe(model, example, target, condition)) is not None:
                    yield seen


def fit(signal: Sequence[float], truth: Sequence[float]) -> Curve:
    """Bin means over equally full bins, pooled until they never fall (pool adjacent violators)."""
    order = np.argsort(signal)
    bins = np.array_split(order, min(BINS, len(order)))
    blocks = [[np.mean(np.take(signal, each)), np.mean(np.take(truth, each)), len(each)] for each in bins]
    pooled: list[list[float]] = []
    for block in blocks:
        pooled.append([float(value) for value in block])
        while len(pooled) > 1 and pooled[-2][1] > pooled[-1][1]:
            x1, y1, n1 = pooled.pop()
            x0, y0, n0 = pooled.pop()
            total = n0 + n1
            pooled.append([(x0 * n0 + x1 * n1) / total, (y0 * n0 + y1 * n1) / total, total])
    inner = [(round(x, 4), round(y, 4)) for x, y, _ in pooled]
    return [(0.0, 0.0), *inner, (1.0, 1.0)]


def read(curve: Curve, signal: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(np.interp(signal, [x for x, _ in curve], [y for _, y in curve]), np.float64)


def check(
    curve_of: Callable[[ScoredMask], Curve], seen: Sequence[ScoredMask], signal: Signal
) -> dict[str, float]:
    """How far the stated reliability is from the true Dice."""
    stated = [float(read(curve_of(each), [getattr(each, signal)])[0]) for each in seen]
    true = [each.dice for each in seen]
    return {
        "masks": len(seen),
        "mean_absolute_error": round(float(np.mean(np.abs(np.subtract(stated, true)))), 3),
        "mean_stated": round(float(np.mean(stated)), 3),
        "mean_dice": round(float(np.mean(true)), 3),
        "rank_correlation": round(float(spearmanr(stated, true)[0]), 3),
    }


def calibrate(seen: Sequence[ScoredMask], signal: Signal) -> dict[str, Any]:
    """The curve over all sets that may be used, and how it does on groups and sets it never saw."""
    ours = [each for each in seen if each.dataset not in EVALUATION_ONLY]
    others = [each for each in seen if each.dataset in EVALUATION_ONLY]
    groups = sorted({(each.dataset, each.group) for each in ours})
    folds = {group: number % 5 for number, group in enumerate(groups)}

    def curve_without(fold: int | None) -> Curve:
        used = [each for each in ours if folds[each.dataset, each.group] != fold]
        return fit([getattr(each, signal) for each in used], [each.dice for each in used])

    curves = [curve_without(fold) for fold in range(5)]
    whole = curve_without(None)
    return {
        "curve": whole,
        "left_out_groups": check(lambda each: curves[folds[each.dataset, each.group]], ours, signal),
        "never_fitted_sets": check(lambda each: whole, others, signal),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Adds or replaces the curves of one model's weights."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks calibrate", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the data sets")
    parser.add_argument("model", nargs="?", help="default: the default model")
    told = parser.parse_args(arguments)
    model = registry.load(told.model)
    store(model, list(observe_all(model, told.data)))


def store(model: Segmenter, seen: Sequence[ScoredMask]) -> None:
    """Fit both curves and write them, with what they rest on, into the data file."""
    content = json.loads(OUT.read_text("utf-8"))
    ours = [each for each in seen if each.dataset not in EVALUATION_ONLY]
    entry: dict[str, Any] = {
        "model": model.card.name,
        "made_by": "python -m benchmarks calibrate",
        "fitted_on": dict(Counter(f"{each.dataset}/{each.target}" for each in ours)),
        "states": dict(Counter(each.condition for each in ours)),
        **{str(signal): calibrate(seen, signal) for signal in SIGNALS},
    }
    content["models"][model.weights_sha256] = entry
    OUT.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
