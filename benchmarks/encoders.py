"""The shipped network computed in every way this machine offers: ``python -m benchmarks encoders [DATA]``.

Processor seconds of all threads for one tile, in turns, so that other work on the machine falls on all alike; and with a folder of data
sets the Dice of held-out images, each seen both ways. A way that needs `tissuetalk[openvino]` is left out without it.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.held_out import held_out, is_judged, score
from benchmarks.pathsegmentor_mini import picture
from benchmarks.quantise import converted
from tissuetalk.models.segmentation.pathsegmentor.card import MINI_WEIGHTS
from tissuetalk.models.segmentation.pathsegmentor.mini import load_mini
from tissuetalk.models.segmentation.pathsegmentor.openvino_encoder import OpenvinoEncoder
from tissuetalk.models.segmentation.pathsegmentor.segmenter import Inference, MiniSegmenter, halves_are_fast
from tissuetalk.models.segmenter import Context

ROUNDS = 5
MOST_PIXELS = 600_000
"""Larger held-out images only take longer."""


def ways() -> Iterator[tuple[str, MiniSegmenter]]:
    plain = MiniSegmenter(use="torch")
    plain.inference.autocast = False
    yield "torch, float32", plain
    if halves_are_fast():
        yield "torch, bfloat16", MiniSegmenter(use="torch")
    whole = MiniSegmenter(use="torch")
    float32 = OpenvinoEncoder(converted(MINI_WEIGHTS), "openvino", often_px=whole.tile_px)
    whole.inference = Inference(load_mini(MINI_WEIGHTS), float32)
    yield "OpenVINO, float32", whole
    yield "OpenVINO, int8", MiniSegmenter(use="openvino")


def processor_seconds(model: MiniSegmenter, tile: NDArray[np.uint8]) -> float:
    began = time.process_time()
    model.encode(tile, Context({}))
    return time.process_time() - began


def print_speed(models: dict[str, MiniSegmenter]) -> None:
    print(f"{'way':20} {'side':>6} {'CPU s':>8} {'of float32':>11}   ({torch.get_num_threads()} threads)")
    for side in (1280, 512):
        tile = picture(side)
        taken: dict[str, list[float]] = defaultdict(list)
        for _ in range(ROUNDS + 1):
            for name, model in models.items():
                taken[name].append(processor_seconds(model, tile))
        first = min(taken["torch, float32"][1:])
        for name, each in taken.items():  # the first round plans and warms up
            print(f"{name:20} {side:6} {min(each[1:]):8.3f} {min(each[1:]) / first:11.2f}", flush=True)


def print_dice(models: dict[str, MiniSegmenter], data: Path, most: int) -> None:
    found: dict[str, list[list[float]]] = defaultdict(list)
    for example in held_out(data, most):
        for target, labelled in example.targets.items():
            if is_judged(example, target) and example.image[..., 0].size <= MOST_PIXELS:
                dices = [score(model, example, target, labelled).mask.dice for model in models.values()]
                found[f"{example.dataset}/{target}"].append(dices)
    print(
        f"\n| set / target | images | {' | '.join(models)} |\n| --- | --- | {' | '.join('---' for _ in models)} |"
    )
    for name, rows in found.items():
        print(f"| {name} | {len(rows)} | {' | '.join(f'{dice:.3f}' for dice in np.mean(rows, axis=0))} |")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks encoders", description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="folder with the data sets")
    parser.add_argument("--of-a-set", type=int, default=1, help="at most so many images of a set")
    told = parser.parse_args(argv)
    models = dict(ways())
    print_speed(models)
    if told.data is not None:
        compared = {name: models[name] for name in ("torch, float32", "OpenVINO, int8")}
        print_dice(compared, told.data, told.of_a_set)
