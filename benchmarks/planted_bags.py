"""Slides drawn from real labelled tissue with evidence planted in them, so that the right explanation is known.

A bag mixes patches of several tissues. Each tissue comes as a pair from the same images: patches with its object, whose mask is
known, and patches without. Which tissues a bag shows has nothing to do with its label; only the planted object decides it:
every bag of class 1 has patches with that object, no bag of class 0 has one. Objects that are not planted come and go at random.
Scales and sizes of the real tissues are chosen so that a patch can hold an object and still show what surrounds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from tissuetalk.models.classifiers.bags import Mask
from tissuetalk.models.classifiers.patches import PATCH_UM, stained
from tissuetalk.models.datasets.manifest import Record, read_manifest, read_mask, read_rgb
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.segmenter import RGB

LEAST_TISSUE = 0.5
"""Share of a patch that has to be tissue."""


@dataclass(frozen=True)
class Patch:
    """One patch in memory. pixels: [S, S, 3]. masks: object name to [S, S] bool; an object that is not there has no entry.

    group: patient, slide or field it comes from. width_um: what one side of it spans.
    """

    pixels: RGB
    masks: Mapping[str, Mask] = field(default_factory=dict)
    group: str = ""
    name: str = ""
    width_um: float = PATCH_UM


@dataclass(frozen=True)
class DrawnBag:
    """Patches in memory with a known label. evidence: indices of the patches that carry it; planted: the object that does."""

    name: str
    patches: tuple[Patch, ...]
    objects: tuple[str, ...]
    label: int
    planted: str | None = None
    evidence: tuple[int, ...] = ()

    @property
    def groups(self) -> frozenset[str]:
        return frozenset(patch.group for patch in self.patches)

    def __len__(self) -> int:
        return len(self.patches)

    def pixels(self, index: int) -> RGB:
        return self.patches[index].pixels

    def mask(self, index: int, name: str) -> Mask | None:
        found = self.patches[index].masks.get(name)
        return found if found is not None and found.any() else None

    def width_um(self, index: int) -> float:
        return self.patches[index].width_um


@dataclass(frozen=True)
class TissuePair:
    """Patches of one tissue. with_object: the object covers part of each; without: the object is in none of them."""

    object: str
    with_object: tuple[Patch, ...]
    without: tuple[Patch, ...]


def planted_bags(
    pairs: Sequence[TissuePair],
    planted: str,
    *,
    count: int,
    patches_per_tissue: int = 4,
    evidence: tuple[int, int] = (1, 3),
    seed: int = 0,
    name: str = "bag",
) -> list[DrawnBag]:
    """``count`` bags, half of either class.

    evidence: least and most patches with the planted object in a bag of class 1; other objects have none to as many, by chance.
    Raises InvalidArgumentError when no tissue carries the planted object, or one lacks patches of a kind.
    """
    objects = tuple(pair.object for pair in pairs)
    if planted not in objects:
        raise InvalidArgumentError(f"no tissue carries {planted!r}; choose from: {', '.join(objects)}.")
    for pair in pairs:
        if not pair.with_object or not pair.without:
            raise InvalidArgumentError(
                f"there are no patches with, or none without, {pair.object}; take more images."
            )
    random = np.random.default_rng([seed, objects.index(planted)])
    return [
        _bag(pairs, planted, number % 2, patches_per_tissue, evidence, random, f"{name}-{planted}-{number}")
        for number in range(count)
    ]


def _bag(
    pairs: Sequence[TissuePair],
    planted: str,
    label: int,
    size: int,
    evidence: tuple[int, int],
    random: np.random.Generator,
    name: str,
) -> DrawnBag:
    chosen: list[tuple[Patch, bool]] = []
    for pair in pairs:
        some = int(random.integers(evidence[0], evidence[1] + 1))
        shown = some if (label if pair.object == planted else random.integers(2)) else 0
        chosen += [(patch, pair.object == planted) for patch in _draw(pair.with_object, shown, random)]
        chosen += [(patch, False) for patch in _draw(pair.without, size - shown, random)]
    order = [chosen[i] for i in random.permutation(len(chosen))]
    return DrawnBag(
        name=name,
        patches=tuple(patch for patch, _ in order),
        objects=tuple(pair.object for pair in pairs),
        label=label,
        planted=planted if label else None,
        evidence=tuple(i for i, (_, is_evidence) in enumerate(order) if is_evidence),
    )


def _draw(patches: Sequence[Patch], count: int, random: np.random.Generator) -> list[Patch]:
    """Without repeats while there are enough."""
    picked = random.choice(len(patches), size=count, replace=count > len(patches))
    return [patches[int(i)] for i in picked]


def without_evidence(bag: DrawnBag, pairs: Sequence[TissuePair], *, seed: int = 0) -> DrawnBag:
    """The same bag with each evidence patch replaced by one of the same tissue without the object."""
    replacement: Mapping[str, TissuePair] = {pair.object: pair for pair in pairs}
    random = np.random.default_rng(seed)
    patches = list(bag.patches)
    for index in bag.evidence:
        patches[index] = _draw(replacement[bag.planted or ""].without, 1, random)[0]
    return DrawnBag(f"{bag.name}-without", tuple(patches), bag.objects, bag.label)


@dataclass(frozen=True)
class PlantedTissue:
    """Where an object comes from.

    scale: reduction before cutting. side_px, mpp: of a patch after it, µm per pixel as given or estimated. covered: share of a patch that the object covers, least and
    most; a patch without the object has none of it. test: which images are for testing. note: what the split really separates.
    """

    object: str
    dataset: str
    scale: float
    side_px: int
    mpp: float
    covered: tuple[float, float]
    test: Callable[[Record], bool]
    note: str


def _patients(record: Record) -> bool:
    """A fixed third of the patients, by the sum of the letters of their names."""
    return sum(record.group.encode()) % 3 == 0


TISSUES = (
    PlantedTissue(
        "metastasis", "camelyon-node-tumour", 1.0, 128, 1.0, (0.6, 1.0), lambda r: r.image.stem >= "10690",
        "one slide: other places of it",
    ),
    PlantedTissue(
        "glomerulus", "glomeruli-pas", 0.4375, 224, 1.14, (0.2, 0.9), lambda r: r.group == "AIDPATH block 100",
        "other tissue blocks",
    ),
    PlantedTissue("gland", "ebhi-seg-glands", 1.0, 64, 1.2, (0.3, 0.9), _patients, "other patients"),
    PlantedTissue("nuclei", "tnbc-nuclei", 1.0, 96, 0.25, (0.2, 0.8), lambda r: r.group in ("P04", "P11"), "other patients"),
)  # fmt: skip
"""Carcinoma of the oral cavity (one case) and the breast (two) have too few patches without tumour."""


@dataclass(frozen=True)
class Sides:
    """Patches to train on and to test on; no image gives patches to both."""

    train: tuple[TissuePair, ...]
    test: tuple[TissuePair, ...]


def planted_tissues(
    data_root: Path, *, most: int = 40, seed: int = 0, tissues: tuple[PlantedTissue, ...] = TISSUES
) -> Sides:
    """Every tissue, at most ``most`` patches of a kind and side, drawn evenly over images."""
    return Sides(
        train=tuple(_pair(data_root, tissue, False, most, seed) for tissue in tissues),
        test=tuple(_pair(data_root, tissue, True, most, seed) for tissue in tissues),
    )


def _pair(data_root: Path, tissue: PlantedTissue, test: bool, most: int, seed: int) -> TissuePair:
    found: list[Patch] = []
    for record in read_manifest(data_root / tissue.dataset):
        if tissue.test(record) == test:
            found += _patches(record, tissue)
    random = np.random.default_rng(seed)
    with_object = [patch for patch in found if patch.masks]
    without = [patch for patch in found if not patch.masks]
    return TissuePair(tissue.object, _evenly(with_object, most, random), _evenly(without, most, random))


def _patches(record: Record, tissue: PlantedTissue) -> Iterator[Patch]:
    """Overlapping patches that either hold the object in part or not at all."""
    image, mask = read_rgb(record.image), (read_mask(record) > 0).astype(np.uint8)
    size = (round(image.shape[1] * tissue.scale), round(image.shape[0] * tissue.scale))
    if tissue.scale != 1:
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    tissue_mask, side = stained(image), tissue.side_px
    for top in range(0, size[1] - side + 1, side // 4):
        for left in range(0, size[0] - side + 1, side // 4):
            part = np.s_[top : top + side, left : left + side]
            covered = float(mask[part].mean())
            if tissue_mask[part].mean() < LEAST_TISSUE or not (
                covered == 0 or tissue.covered[0] <= covered <= tissue.covered[1]
            ):
                continue
            masks = {tissue.object: mask[part] > 0} if covered else {}
            yield Patch(
                image[part], masks, record.group, f"{record.image.stem}_{left}_{top}", side * tissue.mpp
            )


def _evenly(patches: list[Patch], most: int, random: np.random.Generator) -> tuple[Patch, ...]:
    """At most so many, in random order, one image after the other."""
    images: dict[str, list[Patch]] = {}
    for i in random.permutation(len(patches)):
        images.setdefault(patches[i].name.split("_")[0], []).append(patches[i])
    ordered = [held[rank] for rank in range(len(patches)) for held in images.values() if rank < len(held)]
    return tuple(ordered[:most])
