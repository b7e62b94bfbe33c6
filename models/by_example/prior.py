"""What the model itself answers to the words, as the ground that examples correct.

The answer becomes logit = scale * answer + shift + what the examples add. What they add is held to nothing wherever nobody
pointed, so that three boxes cannot spoil what the model knows of the rest of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.by_example.head import PENALTY, Axes, Scaling, importance_of, logistic
from tissuetalk.models.by_example.sampling import Samples
from tissuetalk.models.segmenter import Decoded

MOVED: Final = 0.1
"""More of the examples that must be right with another scale and shift before an answer that is often wrong is taken with them."""
OFTEN_WRONG, LEAST_RIGHT = 0.8, 0.7
"""Share of the examples that the answer must have right to be taken as it is, and at all."""
TRUST: Final = 10.0
"""What all unlabelled pixels together weigh, beside 1 of the examples: with less, examples of what it has wrong spoil the next image."""
SCALE_PENALTY, SHIFT_PENALTY, BIAS_PENALTY = 0.1, 0.02, 0.01
MOST_SCALE: Final = 2.0
MOST_UNLABELLED: Final = 1000


@dataclass(frozen=True)
class Ground:
    """How the model's answer is taken."""

    scale: float
    shift: float

    @classmethod
    def of(cls, samples: Samples) -> Ground | None:
        """None where the model's answer has too little to do with what was shown."""
        answer, positive = samples.answer.astype(np.float64), samples.positive
        importance = importance_of(positive, samples.place)
        right = float(importance @ ((answer > 0) == positive))
        scale, shift = 1.0, 0.0
        spread = max(float(answer.std()), 1e-6)
        # around scale 1 and shift 0, in the answer's own size
        moved = logistic(
            answer[:, None],
            positive.astype(np.float64),
            importance,
            np.array([SCALE_PENALTY, SHIFT_PENALTY]),
            answer,
        )
        other = float(np.clip(1 + moved[0], 0.0, MOST_SCALE)), float(moved[1])
        right_then = float(importance @ ((other[0] * answer + other[1] > 0) == positive))
        if right < OFTEN_WRONG and right_then - right >= MOVED and other[0] * spread > 1e-3:
            (scale, shift), right = other, right_then
        return cls(scale, shift) if right >= LEAST_RIGHT else None

    def logits(self, answer: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(self.scale * answer + self.shift, np.float32)

    def rules(self) -> dict[str, float]:
        return {"answer_scale": round(self.scale, 6), "answer_shift": round(self.shift, 6)}


@dataclass(frozen=True)
class Corrections:
    """What examples add to the model's answer, for fits of parts of them."""

    axes: Axes
    ground: Ground
    samples: Samples
    unlabelled: NDArray[np.float64]
    unlabelled_answer: NDArray[np.float64]

    @classmethod
    def of(cls, samples: Samples, scaling: Scaling, axes: Axes, ground: Ground) -> Corrections:
        every = max(1, -(-len(samples.unlabelled) // MOST_UNLABELLED))
        answer = ground.logits(samples.unlabelled_answer[::every]).astype(np.float64)
        return cls(axes, ground, samples, scaling(samples.unlabelled[::every]) @ axes.basis, answer)

    def fit(self, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        """As ``Axes.fit``: from some of the examples, and from the unlabelled pixels what the model says of them."""
        positive, place = self.samples.positive[rows], self.samples.place[rows]
        count = len(self.unlabelled)
        penalty = np.array([*[PENALTY] * self.unlabelled.shape[1], BIAS_PENALTY])
        return logistic(
            np.concatenate([self.axes.at[rows], self.unlabelled]),
            np.concatenate(
                [positive.astype(np.float64), 1 / (1 + np.exp(-np.clip(self.unlabelled_answer, -50, 50)))]
            ),
            np.concatenate([importance_of(positive, place), np.full(count, TRUST / max(count, 1))]),
            penalty,
            np.concatenate([self._answer(rows), self.unlabelled_answer]),
        )

    def logits(self, fitted: NDArray[np.float64], rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        return self.axes.logits(fitted, rows) + self._answer(rows)

    def _answer(self, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        return self.ground.logits(self.samples.answer[rows]).astype(np.float64)


def grounded(answer: Decoded, rules: Mapping[str, float], added: NDArray[np.float32]) -> Decoded:
    """The model's answer to its own words on a tile, with what examples add."""
    logits = np.float32(rules["answer_scale"]) * answer.logits + np.float32(rules["answer_shift"]) + added
    return Decoded(np.asarray(logits, np.float32), answer.presence, answer.object_maps)
