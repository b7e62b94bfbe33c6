"""From places to a learned target: what is read, what is fitted, and how good it is on examples it was not shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.by_example.head import PENALTY, REGION_PENALTY, Axes, LinearHead, Scaling, head_of
from tissuetalk.models.by_example.learned import Card, Kind, Learned, named
from tissuetalk.models.by_example.objects import (
    NUCLEI,
    REDUCTIONS,
    ObjectRows,
    are_nuclei,
    fit_sorter,
    object_rows,
)
from tissuetalk.models.by_example.places import MOST_PLACES, Place, Shown, as_list, glimpses
from tissuetalk.models.by_example.prior import Corrections, Ground
from tissuetalk.models.by_example.sampling import Samples, is_unstained, samples_of
from tissuetalk.models.control import Control
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.segmenter import Prompt, Segmenter

Floats = NDArray[np.float32]

REGION_MPP: Final = 1.0
UNSTAINED_MPP: Final = 0.5
"""Walls of fat cells are 1 to 3 µm thick."""
MOST_LEFT_OUT: Final = 16
"""Examples that are left out one by one; of more, every other, every third and so on."""
ALIKE: Final = 0.55
"""Share of examples told apart, below which both kinds look the same."""
SMALLEST_UM2: Final = 60.0
"""Parts and holes of a region below this are dropped, unless the examples are as small."""
DOUBT: Final = 0.5
"""How far below zero, in spreads over the images, what is read around something white may lie before it is another white."""
NOT_WHITE: Final = 1.25
"""Times the optical density of white examples from which a pixel is not white."""
LEAST_NOT_WHITE: Final = 20
MOST_NUCLEUS_UM: Final = 20.0
"""Longest side of a place that may be about one nucleus."""


@dataclass(frozen=True)
class LearningPlan:
    """What is read. mpp: µm per working pixel. reductions: how much smaller the encoder sees it, too.

    like: what the model answers by itself and examples correct, at the scale it was made for.
    """

    mpp: float
    reductions: tuple[int, ...]
    is_unstained: bool = False
    like: Prompt | None = None

    @property
    def finest(self) -> int:
        """Octave of colour and texture from which on it is read: of stained tissue, every second pixel says as much."""
        return 0 if self.is_unstained else 1

    @classmethod
    def of(cls, model: Segmenter, shown: Sequence[Shown], like: Prompt | None) -> list[LearningPlan]:
        """Best first; the last one always goes."""
        if is_unstained(shown, UNSTAINED_MPP):
            return [cls(UNSTAINED_MPP, (2, 4), True)]
        known = None if like is None else model.capability(like)
        if known is None:
            return [cls(REGION_MPP, (1,))]
        return [cls(known.mpp, (1,), like=like), cls(REGION_MPP, (1,))]


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

    like: what the words mean to the model, when it knows that; its answer is then corrected, if it has to do with what was
    shown. Without a negative example, what is least like the positive ones stands for what is not meant.
    Raises InvalidArgumentError for examples that cannot be learned from: outside, contradicting, too many, only negative.
    """
    name = named(name)
    _require_some([place for each in shown for place in each.places])
    if _is_about_nuclei(model, shown, kind):
        return _teach_objects(model, shown, name, control)
    plan, samples, ground = _looked_at(model, shown, like, control.part(0, 0.7))
    scaling = Scaling.of(samples.unlabelled, samples.share)
    axes = Axes.of(scaling(samples.features))
    fits: Fits
    if ground is not None:
        fits = Corrections.of(samples, scaling, axes, ground)
    else:
        fits = PlainFits(axes, samples, PENALTY if plan.is_unstained else REGION_PENALTY)
    everything = np.ones(len(samples.positive), bool)
    fitted = fits.fit(everything)
    _require_difference(fits.logits(fitted, everything) > 0, samples)
    head = head_of(axes, fitted, scaling)
    expected, interval = left_out(fits, samples.positive, samples.place, control.part(0.7, 1))
    arrays = head.arrays("head")
    rules = {
        "reductions": float(sum(plan.reductions)),
        "finest_octave": float(plan.finest),
        **_sizes(shown, plan.mpp),
    }
    if plan.is_unstained:
        arrays |= _fine_head(samples).arrays("fine")
        rules["reject_below"] = _doubt(head, samples)
    if ground is not None:
        rules |= ground.rules() | {"answer_present": float(samples.is_present)}
    known = None if like is None else model.capability(like)
    is_object = plan.is_unstained or (known is not None and known.objects)
    return Learned(
        name=name,
        kind=kind or ("object" if is_object else "region"),
        base=model.card.name,
        base_sha256=model.weights_sha256,
        mpp=plan.mpp,
        objects_of=None,
        arrays=arrays,
        rules=rules,
        card=card_of(shown, samples.stained, expected, interval),
        like=None if ground is None else plan.like,
    )


def _looked_at(
    model: Segmenter, shown: Sequence[Shown], like: Prompt | None, control: Control
) -> tuple[LearningPlan, Samples, Ground | None]:
    """The first plan that suits the examples, what it reads of them, and how far the model's own answer is followed."""
    plans = LearningPlan.of(model, shown, like)
    for number, plan in enumerate(plans):
        part = control.part(number / len(plans), (number + 1) / len(plans))
        samples = samples_of(model, shown, plan.mpp, plan.reductions, plan.finest, part, plan.like)
        if samples.positive.all():
            samples = _with_unlike(samples, Scaling.of(samples.unlabelled, samples.share))
        if plan.like is None:
            break
        if (ground := Ground.of(samples)) is not None:
            return plan, samples, ground
    return plan, samples, None


class Fits(Protocol):
    """How a target is fitted to some of its examples."""

    def fit(self, rows: NDArray[np.bool_]) -> NDArray[np.float64]: ...

    def logits(self, fitted: NDArray[np.float64], rows: NDArray[np.bool_]) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class PlainFits:
    """To the examples and nothing else."""

    axes: Axes
    samples: Samples | ObjectRows
    penalty: float = PENALTY

    def fit(self, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        return self.axes.fit(self.samples.positive, self.samples.place, rows, self.penalty)

    def logits(self, fitted: NDArray[np.float64], rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        return self.axes.logits(fitted, rows)


def _is_about_nuclei(model: Segmenter, shown: Sequence[Shown], kind: Kind | None) -> bool:
    """Small places that lie on one nucleus each, or any that somebody says are objects, unless they are white."""
    able = model.capability(NUCLEI)
    if able is None or not able.objects or kind == "region" or is_unstained(shown, UNSTAINED_MPP):
        return False
    sides = [
        max(box.width, box.height) * each.mpp
        for each in shown
        for place in each.places
        for box in (place.extent(each.mpp),)
    ]
    if max(sides) > MOST_NUCLEUS_UM:
        return kind == "object" and min(sides) <= MOST_NUCLEUS_UM
    return kind == "object" or are_nuclei(model, list(glimpses(shown, able.mpp)))


def _teach_objects(model: Segmenter, shown: Sequence[Shown], name: str, control: Control) -> Learned:
    """Which of the nuclei. Raises InvalidArgumentError where the examples of one kind hit none."""
    able = model.capability(NUCLEI)
    assert able is not None, "asked before"
    scaling: Scaling | None = None
    parts: list[ObjectRows] = []
    for piece in glimpses(shown, able.mpp):
        control.check()
        rows, scaling = object_rows(model, piece, scaling)
        parts.append(rows)
    names = ("inside", "around", "shape", "positive", "place", "stained")
    rows = ObjectRows(*(np.concatenate([getattr(each, part) for each in parts]) for part in names))
    if rows.positive.all() or not rows.positive.any() or scaling is None:
        raise InvalidArgumentError(
            "the model finds no nucleus at the examples of one kind; point at nuclei of both kinds, or say kind: region."
        )
    arrays, axes = fit_sorter(rows, scaling)
    fits = PlainFits(axes, rows)
    expected, interval = left_out(fits, rows.positive, rows.place, control.part(0.7, 1))
    return Learned(
        name=name,
        kind="object",
        base=model.card.name,
        base_sha256=model.weights_sha256,
        mpp=able.mpp,
        objects_of=able.target,
        arrays=arrays,
        rules={"reductions": float(sum(REDUCTIONS)), "smallest_px": 0.0, "hole_px": 0.0},
        card=card_of(shown, rows.stained, expected, interval),
    )


def card_of(
    shown: Sequence[Shown], stained: Floats, expected: float | None, interval: tuple[float, float] | None
) -> Card:
    positive = sum(place.is_positive for each in shown for place in each.places)
    return Card(
        positive=positive,
        negative=sum(len(each.places) for each in shown) - positive,
        images=len(shown),
        expected_dice=expected,
        interval=interval,
        taught_at_mpp=tuple(float(each.mpp) for each in shown),
        stain_mean=tuple(as_list(stained.mean(0))),
        stain_spread=tuple(as_list(stained.std(0))),
    )


def _require_some(places: Sequence[Place]) -> None:
    if len(places) > MOST_PLACES:
        raise InvalidArgumentError(
            f"{len(places)} examples; {MOST_PLACES} are enough to learn any target from."
        )
    if not any(place.is_positive for place in places):
        raise InvalidArgumentError("every example says where it is not; add at least one with is: true.")


def _with_unlike(samples: Samples, scaling: Scaling) -> Samples:
    """The half of the unlabelled pixels that is least like the examples, as one more place: weak negatives."""
    middle = scaling(samples.features).mean(0)
    apart = np.linalg.norm(scaling(samples.unlabelled) - middle, axis=1)
    at = np.flatnonzero(apart > np.median(apart))
    at = at[:: max(1, len(at) // len(samples.positive))]
    unlike = samples.unlabelled[at]
    if not len(unlike):
        raise InvalidArgumentError(
            "there is nothing beside the examples to tell them from; add one with is: false."
        )
    number = int(samples.place.max()) + 1
    return replace(
        samples,
        features=np.concatenate([samples.features, unlike]),
        positive=np.concatenate([samples.positive, np.zeros(len(unlike), bool)]),
        place=np.concatenate([samples.place, np.full(len(unlike), number)]),
        fine=np.concatenate([samples.fine, samples.unlabelled_fine[at]]),
        answer=np.concatenate([samples.answer, samples.unlabelled_answer[at]]),
    )


def _require_difference(said: NDArray[np.bool_], samples: Samples) -> None:
    told = (said[samples.positive].mean() + (~said[~samples.positive]).mean()) / 2
    if told < ALIKE:
        raise InvalidArgumentError(
            "the examples contradict each other: places shown as the target look the same as places shown as not; "
            "show others, or draw them more exactly."
        )


def _sizes(shown: Sequence[Shown], mpp: float) -> dict[str, float]:
    """Smallest part and hole, in working pixels: never more than a quarter of the smallest example."""
    extents = [
        (place.is_positive, place.extent(each.mpp), each.mpp) for each in shown for place in each.places
    ]
    areas = {
        wanted: [
            box.width * box.height * scale**2 / mpp**2
            for is_positive, box, scale in extents
            if is_positive == wanted
        ]
        for wanted in (True, False)
    }
    usual = SMALLEST_UM2 / mpp**2
    part, hole = (min([usual, *(area / 4 for area in areas[wanted])]) for wanted in (True, False))
    return {"smallest_px": max(1.0, round(part, 1)), "hole_px": max(1.0, round(hole, 1))}


def _fine_head(samples: Samples) -> LinearHead:
    """White against what is not: another white thing that was shown as not the target is told by its surroundings, not here."""

    def density(fine: Floats) -> Floats:
        return np.asarray(fine[:, :3].mean(1), np.float32)

    white = NOT_WHITE * float(np.quantile(density(samples.fine[samples.positive]), 0.8))
    rows = samples.positive | (density(samples.fine) > white)
    fine, positive, place = samples.fine[rows], samples.positive[rows], samples.place[rows]
    if (~positive).sum() < LEAST_NOT_WHITE:
        usual = samples.unlabelled_fine[density(samples.unlabelled_fine) > white][: len(positive)]
        fine = np.concatenate([fine, usual])
        place = np.concatenate([place, np.full(len(usual), samples.place.max() + 1)])
        positive = np.concatenate([positive, np.zeros(len(usual), bool)])
    if positive.all():
        raise InvalidArgumentError(
            "all of the image is as white as the examples; show some where it ends, with is: false."
        )
    scaling = Scaling(fine.mean(0), fine.std(0) + 0.02, np.ones(fine.shape[1], np.float32))
    axes = Axes.of(scaling(fine))
    return head_of(axes, axes.fit(positive, place, np.ones(len(positive), bool)), scaling)


def _doubt(head: LinearHead, samples: Samples) -> float:
    """Mean logit below which something white is not the target; every positive example is above."""
    logits, spread = head.logits(samples.features), float(head.logits(samples.unlabelled).std())
    shown = [
        float(logits[samples.place == each].mean()) for each in np.unique(samples.place[samples.positive])
    ]
    return round(min(-DOUBT * spread, *shown, 0.0), 4)


def left_out(
    fits: Fits, positive: NDArray[np.bool_], place: NDArray[np.int64], control: Control
) -> tuple[float | None, tuple[float, float] | None]:
    """Dice over examples left out one by one, each counting the same, and its 90 % interval over examples drawn again.

    None where there are not two of each kind: leaving one out would leave nothing.
    """
    places = np.unique(place)
    sign = np.array([bool(positive[place == each][0]) for each in places])
    if sign.sum() < 2 or (~sign).sum() < 2:
        return None, None
    every = max(1, -(-len(places) // MOST_LEFT_OUT))
    chosen = np.concatenate([places[sign][::every], places[~sign][::every]])
    yes = np.concatenate(
        [np.ones(len(places[sign][::every]), bool), np.zeros(len(places[~sign][::every]), bool)]
    )
    share = np.empty(len(chosen))
    for number, each in enumerate(chosen):
        control.check()
        rows = place != each
        share[number] = (fits.logits(fits.fit(rows), ~rows) > 0).mean()

    def dice(drawn: NDArray[np.int64]) -> float:
        inside, outside = share[drawn][yes[drawn]].mean(), share[drawn][~yes[drawn]].mean()
        return float(2 * inside / (1 + inside + outside))

    rng = np.random.default_rng(0)
    kinds = [np.flatnonzero(yes), np.flatnonzero(~yes)]
    drawn = [dice(np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])) for _ in range(400)]
    low, high = np.quantile(drawn, [0.05, 0.95])
    return round(dice(np.arange(len(chosen))), 4), (round(float(low), 4), round(float(high), 4))
