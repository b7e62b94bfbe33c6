"""Does the object map find what was planted? ``python -m benchmarks planted-objects DATA_FOLDER``.

Both classifiers are trained on the same bags, whose label is one planted object: the object-aware one (route B) and the
standard one (route A). On bags of unseen images: does the planted object rank first, does the map point at it, does the answer
change when it is taken away. Repeated with other bags for the spread; prints one block per object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.planted_bags import (
    DrawnBag,
    Patch,
    Sides,
    TissuePair,
    planted_bags,
    planted_tissues,
    without_evidence,
)
from tissuetalk.models.classifiers.activation_maps import (
    ObjectMap,
    mask_at,
    object_map,
    paint_patch,
    patch_map,
)
from tissuetalk.models.classifiers.bags import Mask
from tissuetalk.models.classifiers.encoder import PatchEncoder, load_encoder, to_batch
from tissuetalk.models.classifiers.evaluation import classification_scores, over_seeds
from tissuetalk.models.classifiers.networks import AttentionMIL, ObjectAwareModel
from tissuetalk.models.classifiers.objects import ObjectBag, masks_of, pool_objects, with_other
from tissuetalk.models.classifiers.training import (
    TrainSettings,
    probabilities,
    train_attention,
    train_objects,
)
from tissuetalk.models.errors import InvalidArgumentError

SETTINGS = TrainSettings(
    classes=2, epochs=8, earliest=3, patience=3, learning_rate=1e-3, weight_decay=3e-2, hidden=64
)
"""Of both classifiers: many small bags of few patches learn in few epochs. Tokens see beyond their own place, so with less decay
what lies around an object speaks for it as loudly as the object does."""
VALIDATION_BAGS = 30
PATCHES = 80
"""Of each tissue, kind and side: few enough to encode in a minute, enough not to be learned by heart."""
GRID_PX = 56
"""Maps and evidence are compared at this size of a patch."""


@dataclass(frozen=True)
class ReadPatch:
    """One patch as both classifiers read it. tokens: [h, w, d]. features: [L, d] and coverage: [L] of its objects."""

    tokens: Tensor
    features: NDArray[np.float32]
    coverage: NDArray[np.float32]


@dataclass(frozen=True)
class ReadBag:
    """One bag as both classifiers read it. vectors: [N, d] for the standard one. patches: where its maps come from."""

    bag: DrawnBag
    patches: tuple[ReadPatch, ...]
    vectors: Tensor
    pooled: ObjectBag

    @property
    def tokens(self) -> Tensor:
        """[N, h, w, d]"""
        return torch.stack([patch.tokens for patch in self.patches])


class PatchReader:
    """Encodes each patch once; bags share patches, so most of an experiment is in memory."""

    def __init__(self, encoder: PatchEncoder, objects: Sequence[str]) -> None:
        self.encoder, self.objects = encoder, tuple(objects)
        self._known: dict[int, tuple[Patch, ReadPatch]] = {}

    def read(self, bags: Sequence[DrawnBag]) -> list[ReadBag]:
        return [self._bag(bag) for bag in bags]

    def _bag(self, bag: DrawnBag) -> ReadBag:
        patches = tuple(self._patch(patch, bag.objects) for patch in bag.patches)
        features = np.stack([patch.features for patch in patches])
        coverage = np.stack([patch.coverage for patch in patches])
        vectors = torch.stack([patch.tokens.mean((0, 1)) for patch in patches])
        return ReadBag(bag, patches, vectors, ObjectBag(self.objects, features, coverage))

    def _patch(self, patch: Patch, looked_for: Sequence[str]) -> ReadPatch:
        if id(patch) not in self._known:
            alone = DrawnBag("", (patch,), tuple(looked_for), 0)
            tokens = self.encoder.encode(to_batch([patch.pixels])).tokens
            masks = [masks_of(alone, 0, patch.pixels.shape[:2])]
            pooled = pool_objects(tokens.numpy(), masks, self.objects)
            self._known[id(patch)] = patch, ReadPatch(tokens[0], pooled.features[0], pooled.coverage[0])
        return self._known[id(patch)][1]


@dataclass(frozen=True)
class RouteFigures:
    """One classifier on one draw of bags; shares are of test bags.

    pointing: the map's maximum lies on the planted object, of bags that carry it. pointing_patch: it lies in a patch with it.
    flips_replaced: the answer changes when patches with the object are swapped for others of the tissue, of recognised bags.
    """

    macro_auc: float
    macro_accuracy: float
    macro_f1: float
    pointing: float
    pointing_patch: float
    flips_replaced: float


@dataclass(frozen=True)
class ObjectFigures:
    """One planted object on one draw. bags: test bags that carry it. chance: share of their area that is evidence.

    first: it has the largest activation. fine_pointing: of the map by patch and object. flips_hidden: the answer changes when
    the object-aware classifier is told that the object is nowhere.
    """

    planted: str
    seed: int
    bags: int
    chance: float
    first: float
    fine_pointing: float
    flips_hidden: float
    object_aware: RouteFigures
    standard: RouteFigures
    seconds: float


def parted(pairs: Sequence[TissuePair]) -> tuple[list[TissuePair], list[TissuePair]]:
    """Three patches of four to learn from, the fourth to stop training with; the images of both may be the same."""
    sides: tuple[list[TissuePair], list[TissuePair]] = ([], [])
    for pair in pairs:
        for side, wanted in zip(sides, ((0, 1, 2), (3,)), strict=True):
            with_object = tuple(one for i, one in enumerate(pair.with_object) if i % 4 in wanted)
            without = tuple(one for i, one in enumerate(pair.without) if i % 4 in wanted)
            side.append(TissuePair(pair.object, with_object, without))
    return sides


def measure(
    reader: PatchReader, sides: Sides, planted: str, *, bags: tuple[int, int], seed: int
) -> ObjectFigures:
    """Train both classifiers on ``bags[0]`` bags and test them on ``bags[1]`` bags of unseen images."""
    start = perf_counter()
    learning, stopping = parted(sides.train)
    train = reader.read(planted_bags(learning, planted, count=bags[0], seed=seed, name="train"))
    stop = reader.read(planted_bags(stopping, planted, count=VALIDATION_BAGS, seed=seed, name="stop"))
    test = reader.read(planted_bags(sides.test, planted, count=bags[1], seed=seed + 1, name="test"))
    aware, standard = _both(train, stop, seed)
    carriers = [one for one in test if one.bag.label]
    swapped = reader.read([without_evidence(one.bag, sides.test, seed=i) for i, one in enumerate(carriers)])
    evidence = [_evidence(one.bag, planted) for one in carriers]
    maps = [object_map(aware, one.pooled, 1) for one in carriers]
    return ObjectFigures(
        planted=planted,
        seed=seed,
        bags=len(carriers),
        chance=float(np.mean([each.mean() for each in evidence])),
        first=float(np.mean([found.ranking[0].name == planted for found in maps])),
        fine_pointing=_pointing(
            [_painted(one, found, fine=True) for one, found in zip(carriers, maps, strict=True)], evidence
        ),
        flips_hidden=_flips(
            aware, [one.pooled for one in carriers], [one.pooled.without(planted) for one in carriers]
        ),
        object_aware=RouteFigures(
            *_scores(probabilities(aware, [one.pooled for one in test]), test),
            pointing=_pointing(
                [_painted(one, found, fine=False) for one, found in zip(carriers, maps, strict=True)],
                evidence,
            ),
            pointing_patch=_patch_pointing([found.fine.sum(1) for found in maps], carriers),
            flips_replaced=_flips(aware, [one.pooled for one in carriers], [one.pooled for one in swapped]),
        ),
        standard=RouteFigures(
            *_scores(probabilities(standard, [one.vectors for one in test]), test),
            pointing=_pointing([_enlarged(token_map(standard, one.tokens, 1)) for one in carriers], evidence),
            pointing_patch=_patch_pointing(
                [patch_map(standard, one.vectors, 1).values for one in carriers], carriers
            ),
            flips_replaced=_flips(
                standard, [one.vectors for one in carriers], [one.vectors for one in swapped]
            ),
        ),
        seconds=perf_counter() - start,
    )


def _both(
    train: Sequence[ReadBag], stop: Sequence[ReadBag], seed: int
) -> tuple[ObjectAwareModel, AttentionMIL]:
    labels, settings = [one.bag.label for one in train], replace(SETTINGS, seed=seed)
    aware, _ = train_objects(
        [one.pooled for one in train],
        labels,
        validation=[(one.pooled, one.bag.label) for one in stop],
        settings=settings,
    )
    standard, _ = train_attention(
        [one.vectors for one in train],
        labels,
        validation=[(one.vectors, one.bag.label) for one in stop],
        settings=settings,
    )
    return aware, standard


def _evidence(bag: DrawnBag, planted: str) -> Mask:
    """[N, S, S]: where the planted object is."""
    return np.stack([mask_at(bag, i, planted, (GRID_PX, GRID_PX)) for i in range(len(bag))])


def _painted(one: ReadBag, found: ObjectMap, *, fine: bool) -> NDArray[np.float32]:
    size = (GRID_PX, GRID_PX)
    return np.stack([paint_patch(found, one.bag, i, size, fine=fine) for i in range(len(one.bag))])


@torch.no_grad()
def token_map(model: AttentionMIL, tokens: Tensor, class_index: int) -> NDArray[np.float32]:
    """[N, h, w] vanilla class activation map from [N, h, w, d] tokens: the shares of a patch split among its tokens.

    Raises InvalidArgumentError for a model with a layer before the attention: its shares do not split.
    """
    if model.config.pre_fc:
        raise InvalidArgumentError("a classifier with a pre_fc layer has no token map; ask for its patch map")
    model.eval()
    _, height, width, _ = tokens.shape
    _, attention = model.attend(tokens.mean((1, 2)))
    share = model.project(tokens) @ model.classify.weight[class_index]
    split: NDArray[np.float32] = (attention[:, None, None] * share / (height * width)).numpy()
    return split


def pointing_hit(activation: NDArray[np.float32], evidence: Mask) -> float:
    """Pointing game: whether the map's maximum lies in the evidence; with tied maxima, the share of them that does.

    Both arrays have the same shape; NaN is outside the map.
    """
    peak = activation == np.nanmax(activation)
    return float((peak & evidence).sum() / peak.sum())


def _enlarged(tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, h, w] tokens at the size of the evidence."""
    factor = GRID_PX // tokens.shape[1]
    return tokens.repeat(factor, axis=1).repeat(factor, axis=2)


def _pointing(maps: Sequence[NDArray[np.float32]], evidence: Sequence[Mask]) -> float:
    return float(np.mean([pointing_hit(one, where) for one, where in zip(maps, evidence, strict=True)]))


def _patch_pointing(values: Sequence[NDArray[np.float32]], carriers: Sequence[ReadBag]) -> float:
    return float(
        np.mean([int(each.argmax()) in one.bag.evidence for each, one in zip(values, carriers, strict=True)])
    )


def _flips(
    model: torch.nn.Module, before: Sequence[Tensor | ObjectBag], after: Sequence[Tensor | ObjectBag]
) -> float:
    """Of the bags that were recognised: how many no longer are."""
    known = probabilities(model, before).argmax(1) == 1
    left = probabilities(model, after).argmax(1) == 1
    return float((~left[known]).mean()) if known.any() else float("nan")


def _scores(shares: NDArray[np.float64], test: Sequence[ReadBag]) -> tuple[float, float, float]:
    found = classification_scores(shares, [one.bag.label for one in test], resamples=1)
    return found.macro_auc.value, found.macro_accuracy.value, found.macro_f1.value


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks planted-objects", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the data sets")
    parser.add_argument("--encoder", help="a ViT's folder or hub id; default is our own encoder")
    parser.add_argument("--bags", type=int, nargs=2, default=(600, 60), metavar=("TRAIN", "TEST"))
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 10, 20), help="one draw of bags for each")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    told = parser.parse_args(arguments)
    sides = planted_tissues(told.data, most=PATCHES)
    objects = [pair.object for pair in sides.train]
    reader = PatchReader(load_encoder(told.encoder), with_other(objects))
    table: list[ObjectFigures] = []
    for seed in told.seeds:
        for planted in objects:
            table.append(measure(reader, sides, planted, bags=tuple(told.bags), seed=seed))
            print(line(table[-1]), flush=True)
            if told.out:
                _store(told.out, table)
    for planted in objects:
        print(block([row for row in table if row.planted == planted]))
    print(summary(table))


def _store(path: Path, table: Sequence[ObjectFigures]) -> None:
    path.write_text(json.dumps([asdict(row) for row in table], indent=1) + "\n", encoding="utf-8")


def line(row: ObjectFigures) -> str:
    """What is known as soon as one object and draw is done."""
    return (
        f"{row.planted}, draw {row.seed}: AUC {row.object_aware.macro_auc:.3f} (standard {row.standard.macro_auc:.3f}), "
        f"first {row.first:.0%}, pointing {row.object_aware.pointing:.3f} (standard {row.standard.pointing:.3f}), "
        f"flips {row.object_aware.flips_replaced:.0%}; {row.seconds:.0f} s"
    )


def block(draws: Sequence[ObjectFigures]) -> str:
    """One planted object: mean and standard deviation over draws."""

    def both(name: str) -> str:
        told = []
        for route in ("object_aware", "standard"):
            mean, spread = over_seeds([getattr(getattr(each, route), name) for each in draws])
            told.append(f"{mean:.3f} ± {spread:.3f}")
        return f"{told[0]}    {told[1]}"

    def own(name: str) -> str:
        mean, spread = over_seeds([getattr(each, name) for each in draws])
        return f"{mean:.3f} ± {spread:.3f}"

    names = ("macro_auc", "macro_accuracy", "macro_f1", "pointing", "pointing_patch", "flips_replaced")
    return "\n".join(
        [
            f"{draws[0].planted} ({len(draws)} draws of {draws[0].bags} bags that carry it)",
            f"  {'':18} object-aware     standard",
            *(f"  {name:18} {both(name)}" for name in names),
            *(f"  {name:18} {own(name)}" for name in ("first", "fine_pointing", "flips_hidden", "chance")),
            f"  {sum(each.seconds for each in draws):.0f} s",
        ]
    )


def summary(table: Sequence[ObjectFigures]) -> str:
    """Over all objects and draws, every bag counting once."""
    weights = np.array([row.bags for row in table], np.float64)

    def mean(values: Sequence[float]) -> float:
        return float(np.average(values, weights=weights))

    return (
        f"{weights.sum():.0f} bags: planted object first in {mean([row.first for row in table]):.1%}; pointing game "
        f"{mean([row.object_aware.pointing for row in table]):.3f} object map, "
        f"{mean([row.fine_pointing for row in table]):.3f} by patch and object, "
        f"{mean([row.standard.pointing for row in table]):.3f} vanilla activation map, "
        f"{mean([row.chance for row in table]):.3f} chance"
    )
