"""From places to a learned target: what is read, what is fitted, and how good it is on examples it was not shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.by_example.features import colour_maps, deep_maps, gathered
from tissuetalk.models.by_example.head import LinearHead, fit
from tissuetalk.models.by_example.learned import Card, Kind, Learned, named
from tissuetalk.models.by_example.places import MOST_PLACES, Glimpse, Place, Shown, as_list, glimpses
from tissuetalk.models.control import Control
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.segmenter import Prompt, Segmenter

Floats = NDArray[np.float32]

WORKING_MPP = 0.5
MOST_PER_PLACE = 400
PENALTY = 0.03


@dataclass(frozen=True)
class Samples:
    """Pixels of the examples: features [n, D], positive [n], place [n] by its number over all images."""

    features: Floats
    positive: NDArray[np.bool_]
    place: NDArray[np.int64]

    def without(self, place: int) -> Samples:
        kept = self.place != place
        return Samples(self.features[kept], self.positive[kept], self.place[kept])

    def only(self, place: int) -> Floats:
        return self.features[self.place == place]

    @property
    def importance(self) -> NDArray[np.float64]:
        """[n]: every place counts the same, and both classes together 1/2 each."""
        weights = 1.0 / np.bincount(self.place)[self.place]
        for which in (self.positive, ~self.positive):
            weights[which] /= 2 * weights[which].sum()
        return np.asarray(weights, np.float64)


def teach(
    model: Segmenter,
    shown: Sequence[Shown],
    *,
    name: str,
    kind: Kind | None = None,
    like: Prompt | None = None,
    control: Control = Control(),
) -> Learned:
    """Learn what was shown.

    like: what the words mean to the model, when it knows that.
    Raises InvalidArgumentError for examples that cannot be learned from: outside, one-sided, contradicting, too many.
    """
    name = named(name)
    _require_both([place for each in shown for place in each.places])
    densities: list[Floats] = []
    samples: list[Samples] = []
    for glimpse in glimpses(shown, WORKING_MPP):
        control.check()
        samples.append(_sampled(model, glimpse))
        densities.append(_densities(glimpse))
    together = Samples(
        np.concatenate([each.features for each in samples]),
        np.concatenate([each.positive for each in samples]),
        np.concatenate([each.place for each in samples]),
    )
    head = fit(together.features, together.positive, together.importance, PENALTY)
    expected, interval = _left_out(together, control)
    seen = np.concatenate(densities)
    positive = sum(place.is_positive for each in shown for place in each.places)
    card = Card(
        positive=positive,
        negative=sum(len(each.places) for each in shown) - positive,
        images=len(shown),
        expected_dice=expected,
        interval=interval,
        taught_at_mpp=tuple(float(each.mpp) for each in shown),
        stain_mean=tuple(as_list(seen.mean(0))),
        stain_spread=tuple(as_list(seen.std(0))),
    )
    arrays = {"weights": head.weights, "bias": np.array([head.bias], np.float32)}
    rules = {"smallest_px": 60.0, "hole_px": 60.0}
    return Learned(
        name, kind or "region", model.card.name, model.weights_sha256, WORKING_MPP, None, arrays, rules, card
    )


def _require_both(places: Sequence[Place]) -> None:
    if len(places) > MOST_PLACES:
        raise InvalidArgumentError(
            f"{len(places)} examples; {MOST_PLACES} are enough to learn any target from."
        )
    if not any(place.is_positive for place in places):
        raise InvalidArgumentError("every example says where it is not; add at least one with is: true.")
    if all(place.is_positive for place in places):
        raise InvalidArgumentError(
            "every example says where it is; add at least one with is: false, beside it or between."
        )


def _sampled(model: Segmenter, glimpse: Glimpse) -> Samples:
    _, maps = deep_maps(model, glimpse.pixels, model.prepare(glimpse.pixels))
    maps += colour_maps(glimpse.pixels)
    xs, ys, positive, place = [], [], [], []
    taken = np.zeros((glimpse.view.height, glimpse.view.width), np.int8)
    for number, is_positive, marked in glimpse.marks:
        sign = 1 if is_positive else -1
        if (taken[marked] == -sign).any():
            raise InvalidArgumentError(
                "two examples contradict each other: a place that is shown as the target overlaps one that is shown as not."
            )
        taken[marked] = sign
        rows, columns = np.nonzero(marked)
        every = max(1, int(np.ceil(len(rows) / MOST_PER_PLACE)))
        ys.append(rows[::every].astype(np.float64))
        xs.append(columns[::every].astype(np.float64))
        positive.append(np.full(len(ys[-1]), is_positive))
        place.append(np.full(len(ys[-1]), number))
    features = gathered(maps, np.concatenate(xs), np.concatenate(ys))
    return Samples(features, np.concatenate(positive), np.concatenate(place))


def _densities(glimpse: Glimpse) -> Floats:
    """[n, 3] optical densities of the stained pixels of a piece."""
    pixels = glimpse.pixels[::4, ::4].reshape(-1, 3).astype(np.float32)
    density = -np.log10((pixels + 1) / 256)
    stained = density[density.mean(1) > 0.06]
    return np.asarray(stained if len(stained) > 16 else density, np.float32)


def _left_out(samples: Samples, control: Control) -> tuple[float | None, tuple[float, float] | None]:
    """Dice over examples left out one by one, each counting the same, and a bootstrap interval over the examples."""
    places = np.unique(samples.place)
    positive = np.array([bool(samples.positive[samples.place == each][0]) for each in places])
    if positive.sum() < 2 or (~positive).sum() < 2:
        return None, None
    chosen = places[:: max(1, len(places) // 12)]
    share, sign = [], []
    for each in chosen:
        control.check()
        rest = samples.without(each)
        if rest.positive.all() or not rest.positive.any():
            continue
        head: LinearHead = fit(rest.features, rest.positive, rest.importance, PENALTY)
        share.append(float((head.logits(samples.only(each)) > 0).mean()))
        sign.append(bool(positive[places == each][0]))
    hit, yes = np.array(share), np.array(sign)
    if yes.all() or not yes.any():
        return None, None

    def dice(hit: NDArray[np.float64], yes: NDArray[np.bool_]) -> float:
        inside, outside = hit[yes].mean(), hit[~yes].mean()
        return float(2 * inside / (1 + inside + outside))

    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(200):
        ins, outs = (rng.choice(np.flatnonzero(which), which.sum()) for which in (yes, ~yes))
        at = np.concatenate([ins, outs])
        drawn.append(dice(hit[at], yes[at]))
    low, high = np.quantile(drawn, [0.05, 0.95])
    return round(dice(hit, yes), 4), (round(float(low), 4), round(float(high), 4))
