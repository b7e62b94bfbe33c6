"""`python -m benchmarks taught_patches --data DIR`: could targets taught from labelled patches be shipped? Judged on patients not shown.

Patches of colorectal tissue (CC-BY-4.0), one patient each, seven of a kind. In turn two or three patients of every kind are
left out: the target is taught on a mosaic of the others' patches and looked for in mosaics of theirs, once with patches that show it and once
without any. It would be shipped at Dice >= 0.80 and at most 5 % of the area wrongly covered where there is none.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.by_example import MOSAICS, dice, found, learn
from benchmarks.by_example_sets import Mask, Teachable
from tissuetalk.models import registry
from tissuetalk.models.by_example import Place, prompt_for, with_examples
from tissuetalk.models.datasets.manifest import read_manifest, read_rgb
from tissuetalk.models.segmenter import RGB, Segmenter

FOLDS = ((0, 1), (2, 3), (4, 5, 6))
MPP, SIDE_PX, MARGIN_PX, ACROSS = 0.5, 224, 16, 7
LEAST_DICE, MOST_FALSE = 0.80, 0.05
Cell = tuple[RGB, str]


def patches_of(data: Path) -> dict[str, list[RGB]]:
    """Of every kind, in the order of the manifest: a patient each."""
    found: dict[str, list[RGB]] = {}
    for record in read_manifest(data / "patch-classes"):
        if "crc-val" in record.image.name:
            kind = record.image.name.split("_")[1].upper()
            found.setdefault(kind, []).append(read_rgb(record.image))
    return found


def mosaic(cells: Sequence[Cell], wanted: str) -> Teachable:
    """Row by row; what does not fill a row is left out."""
    rows = [cells[at : at + ACROSS] for at in range(0, len(cells) // ACROSS * ACROSS, ACROSS)]
    pixels = np.concatenate([np.concatenate([patch for patch, _ in row], axis=1) for row in rows])
    shown = [np.repeat([kind == wanted for _, kind in row], SIDE_PX) for row in rows]
    gold: Mask = np.repeat(np.stack(shown), SIDE_PX, axis=0)
    return Teachable("mosaic", pixels, gold, np.ones(gold.shape, bool), MPP, None)


def places_on(cells: Sequence[Cell], wanted: str) -> list[Place]:
    corners = [(number % ACROSS * SIDE_PX, number // ACROSS * SIDE_PX) for number in range(len(cells))]
    end = SIDE_PX - MARGIN_PX
    return [
        Place(kind == wanted, box=(x + MARGIN_PX, y + MARGIN_PX, x + end, y + end))
        for (x, y), (_, kind) in zip(corners, cells, strict=True)
    ]


def judged(model: Segmenter, patches: dict[str, list[RGB]], wanted: str) -> tuple[float, float]:
    """Dice over all held-out mosaics, and the share of those without the target that was covered."""
    rng = np.random.default_rng(0)
    masks: list[Mask] = []
    golds: list[Mask] = []
    covered: list[float] = []
    for held in FOLDS:
        kept = [at for at in range(ACROSS) if at not in held]
        cells = [
            (patches[kind][at], kind)
            for at in kept
            for kind in (sorted(patches)[number] for number in rng.permutation(len(patches)))
        ]
        learned = learn(model, mosaic(cells, wanted), places_on(cells, wanted), None)
        knows, prompt = with_examples(model, [learned]), prompt_for(learned)
        others = [(patches[kind][at], kind) for kind in sorted(patches) for at in held]
        others = [others[number] for number in rng.permutation(len(others))]
        shown = mosaic(others, wanted)
        without = mosaic([cell for cell in others if cell[1] != wanted], wanted)
        for image in (shown, without):
            mask = found(knows, prompt, image)
            assert mask is not None, "it was just taught"
            if image is shown:
                masks.append(mask.ravel())
                golds.append(image.gold.ravel())
            else:
                covered.append(float(mask.mean()))
    return dice(np.concatenate(masks), np.concatenate(golds)), float(np.mean(covered))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks taught_patches", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    patches, model = patches_of(parser.parse_args(arguments).data), registry.load()
    print("| target | Dice on held-out patients | covered where there is none | holds |")
    print("| --- | --- | --- | --- |", flush=True)
    for kind, name in MOSAICS.items():
        score, false = judged(model, patches, kind)
        holds = "yes" if score >= LEAST_DICE and false <= MOST_FALSE else "no"
        print(f"| {name} | {score:.2f} | {100 * false:.1f} % | {holds} |", flush=True)
