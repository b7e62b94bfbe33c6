"""Does object importance find what was planted? ``python -m benchmarks planted DATA_FOLDER``.

For each object in turn: train a slide classifier on bags whose label is that object, then ask on bags of unseen images which
object it relied on. Prints one line per object; nothing is stored unless ``--out`` says where.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from benchmarks.planted_bags import (
    DrawnBag,
    Sides,
    TissuePair,
    planted_bags,
    planted_tissues,
    without_evidence,
)
from benchmarks.planted_objects import parted
from tissuetalk.models.classifiers.card import ClassifierCard
from tissuetalk.models.classifiers.classifier import Classifier, predict_bag
from tissuetalk.models.classifiers.encoder import (
    Feature,
    PatchEncoder,
    PatchFeatures,
    encode_bag,
    load_encoder,
)
from tissuetalk.models.classifiers.evaluation import Scores, classification_scores
from tissuetalk.models.classifiers.importance import (
    SIGMA_PX,
    ObjectImportance,
    RandomBlur,
    bag_importance,
    control_of,
)
from tissuetalk.models.classifiers.training import TrainSettings, probabilities, train_attention

CLASSES = ("without", "with")
SETTINGS = TrainSettings(
    classes=2, epochs=10, earliest=4, patience=4, learning_rate=1e-3, weight_decay=1e-2, hidden=64
)
"""Many bags of few patches: few epochs, and decay, so that patches are not learned by heart."""


class RememberingEncoder:
    """Encodes a patch it has seen before from memory. Bags share patches, so most of an experiment is in memory."""

    def __init__(self, encoder: PatchEncoder) -> None:
        self.name, self.weights_sha256 = encoder.name, encoder.weights_sha256
        self.passes = 0
        self._encoder = encoder
        self._known: dict[bytes, tuple[Tensor, Tensor]] = {}

    def encode(self, patches: Tensor) -> PatchFeatures:
        keys = [hashlib.blake2b(patch.numpy().tobytes()).digest() for patch in patches]
        new = [i for i, key in enumerate(keys) if key not in self._known]
        if new:
            features = self._encoder.encode(patches[new])
            self.passes += len(new)
            for row, i in enumerate(new):
                self._known[keys[i]] = features.tokens[row], features.pooled[row]
        tokens, pooled = zip(*(self._known[key] for key in keys), strict=True)
        return PatchFeatures(torch.stack(tokens), torch.stack(pooled))


@dataclass(frozen=True)
class Figures:
    """One planted object. Shares are of the ``bags`` test bags that carry it, whatever the classifier said about them.

    first: it is the most important object. above_control: more important than the same blur anywhere in the tissue, and
    above_near_control: in the very same patches. both: first and above_control, the figure to quote.
    flips_blurred, flips_replaced: the prediction changes when the object is blurred, or its patches are swapped for others
    without it; of the bags that were ``recognised``.
    """

    planted: str
    scores: Scores
    bags: int
    first: float
    above_control: float
    above_near_control: float
    both: float
    recognised: int
    flips_blurred: float
    flips_replaced: float
    median_importance: float
    median_others: float
    median_control: float


def train_planted(
    encoder: PatchEncoder, sides: Sides, planted: str, *, feature: Feature, bags: tuple[int, int], seed: int
) -> tuple[Classifier, list[DrawnBag]]:
    """A classifier for one planted object, and test bags of unseen images.

    bags: how many to train with and to test on. A quarter of the training patches is kept back to stop the training.
    """
    learning, stopping = parted(sides.train)
    train = planted_bags(learning, planted, count=bags[0], seed=seed, name="train")
    stop = planted_bags(stopping, planted, count=bags[1], seed=seed + 2, name="stop")
    model, _ = train_attention(
        [encode_bag(encoder, bag, feature) for bag in train],
        [bag.label for bag in train],
        validation=[(encode_bag(encoder, bag, feature), bag.label) for bag in stop],
        settings=replace(SETTINGS, seed=seed),
    )
    card = ClassifierCard(
        name=f"planted-{planted}",
        kind="attention",
        classes=CLASSES,
        encoder=encoder.name,
        encoder_sha256=encoder.weights_sha256,
        feature=feature,
        sizes=asdict(model.config),
    )
    test = planted_bags(sides.test, planted, count=bags[1], seed=seed + 1, name="test")
    return Classifier(card, model, encoder), test


def figures(
    classifier: Classifier,
    pairs: Sequence[TissuePair],
    test: Sequence[DrawnBag],
    *,
    planted: str,
    sigma_px: float = SIGMA_PX,
) -> Figures:
    """Everything that is reported about one planted object. pairs: the tissue the test bags were drawn from."""
    shares = probabilities(
        classifier.model, [encode_bag(classifier.encoder, bag, classifier.card.feature) for bag in test]
    )
    bags = [
        _explain(classifier, bag, pairs, planted, sigma_px, number)
        for number, bag in enumerate(test)
        if bag.label
    ]
    known = [bag for bag in bags if bag.recognised]
    return Figures(
        planted=planted,
        scores=classification_scores(shares, [bag.label for bag in test]),
        bags=len(bags),
        first=_share(bag.first for bag in bags),
        above_control=_share(bag.own.loss_after > bag.far.loss_after for bag in bags),
        above_near_control=_share(bag.own.loss_after > bag.near.loss_after for bag in bags),
        both=_share(bag.first and bag.own.loss_after > bag.far.loss_after for bag in bags),
        recognised=len(known),
        flips_blurred=_share(bag.own.flips for bag in known),
        flips_replaced=_share(bag.flips_replaced for bag in known),
        median_importance=float(np.median([bag.own.importance for bag in bags])),
        median_others=float(np.median([each.importance for bag in bags for each in bag.others])),
        median_control=float(np.median([bag.far.importance for bag in bags])),
    )


@dataclass(frozen=True)
class _Explained:
    """One test bag that carries the evidence. far, near: its two random blurs."""

    own: ObjectImportance
    others: tuple[ObjectImportance, ...]
    far: RandomBlur
    near: RandomBlur
    recognised: bool
    flips_replaced: bool

    @property
    def first(self) -> bool:
        return all(self.own.loss_after > other.loss_after for other in self.others)


def _explain(
    classifier: Classifier,
    bag: DrawnBag,
    pairs: Sequence[TissuePair],
    planted: str,
    sigma_px: float,
    seed: int,
) -> _Explained:
    found = bag_importance(classifier, bag, label=1, sigma_px=sigma_px, draws=0)
    far, near = (
        control_of(classifier, bag, found, planted, place=place, seed=seed)
        for place in ("any patch", "same patches")
    )
    assert far is not None and near is not None, "a bag of class 1 carries the planted object"
    own = next(each for each in found.objects if each.name == planted)
    return _Explained(
        own=own,
        others=tuple(each for each in found.objects if each is not own),
        far=far,
        near=near,
        recognised=found.prediction.label == 1,
        flips_replaced=predict_bag(classifier, without_evidence(bag, pairs, seed=seed)).label == 0,
    )


def _share(answers: Iterable[bool]) -> float:
    """nan of nothing."""
    values = list(answers)
    return sum(values) / len(values) if values else float("nan")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks planted", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the data sets")
    parser.add_argument("--planted", nargs="*", help="only these objects; default is each in turn")
    parser.add_argument("--encoder", help="a ViT's folder or hub id; default is our own encoder")
    parser.add_argument("--feature", choices=("pooled", "tokens"), default="pooled")
    parser.add_argument("--bags", type=int, nargs=2, default=(300, 60), metavar=("TRAIN", "TEST"))
    parser.add_argument("--sigma", type=float, default=SIGMA_PX, help="of the blur, at 1024 px")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    told = parser.parse_args(arguments)
    start = perf_counter()
    encoder = RememberingEncoder(load_encoder(told.encoder))
    sides = planted_tissues(told.data)
    table = []
    for pair in sides.train:
        if told.planted and pair.object not in told.planted:
            continue
        classifier, test = train_planted(
            encoder, sides, pair.object, feature=told.feature, bags=tuple(told.bags), seed=told.seed
        )
        table.append(figures(classifier, sides.test, test, planted=pair.object, sigma_px=told.sigma))
        print(line(table[-1]), flush=True)
    hits = sum(row.both * row.bags for row in table) / sum(row.bags for row in table)
    print(f"first and above its control in {hits:.1%} of {sum(row.bags for row in table)} bags")
    print(f"{encoder.passes} patches encoded by {encoder.name}, {perf_counter() - start:.0f} s")
    if told.out:
        told.out.write_text(json.dumps([asdict(row) for row in table], indent=1) + "\n", encoding="utf-8")


def line(row: Figures) -> str:
    return (
        f"{row.planted}: AUC {row.scores.macro_auc}, {row.bags} bags: first {row.first:.0%}, above control "
        f"{row.above_control:.0%} (same patches {row.above_near_control:.0%}), both {row.both:.0%}; flips when blurred "
        f"{row.flips_blurred:.0%}, when replaced {row.flips_replaced:.0%}; importance {row.median_importance:.3g}, others "
        f"{row.median_others:.3g}, control {row.median_control:.3g}"
    )
