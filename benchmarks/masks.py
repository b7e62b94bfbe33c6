"""Several ways to the same masks, side by side in one run: ``python -m benchmarks masks DATA``.

On held-out images of every set: the default model, the classical one, LiteMedSAM told a perfect box around every object, a
U-Net of 1.6 million weights trained for one target, and other weights of ours (``--weights``). Dice and PQ (IoU 0.5) are means
over images, seconds are those of one core per megapixel of the image. What is done stays in ``--work`` and is not done again.
``--card`` takes the table into a model's scores and card.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from benchmarks.held_out import TargetScore, held_out, is_judged, judged
from benchmarks.masks_unet import trained
from benchmarks.model_card import card
from tissuetalk.models import registry
from tissuetalk.models.datasets.example import FOREGROUND, Example
from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.images import Box
from tissuetalk.models.looks import answer_from
from tissuetalk.models.metrics.oracles import instance_boxes
from tissuetalk.models.segmentation import litemedsam
from tissuetalk.models.segmentation.pathsegmentor.card import OBJECT_TARGETS, OFFERED_TARGETS, TARGET_MPP
from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter
from tissuetalk.models.segmenter import Finished, PromptableSegmenter, Segmenter
from tissuetalk.models.training.ablation import ask, at_size, shown_at
from tissuetalk.models.writing import write_whole

CELL_PX = 192
"""LiteMedSAM sees boxes with their middle in a square of this side at once, in a crop that holds them all; its own side is 256."""
BESIDE_PX = 32

Method = Callable[[Example, str], Finished | None]
"""What is found on an image, at the image's size; None where the method has no answer to the target."""
Scores = dict[str, float | None]
Table = dict[str, dict[str, Scores | None]]
"""Set and target to method to what it reached."""


def by_words(model: Segmenter) -> Method:
    """A model of ours, asked as ``segment`` does."""

    def found(example: Example, target: str) -> Finished | None:
        prompt = ask(target)
        able = model.capability(prompt)
        if able is None:
            return None
        tile, context = shown_at(example, able.mpp), model.prepare(example.image)
        answer = answer_from(model, tile, context, prompt, able.looks)
        return _at_size(model.finish(answer, prompt, context), example)

    return found


def by_boxes(model: PromptableSegmenter) -> Method:
    """Told the box of every annotated object, or of every connected part of a region."""

    def found(example: Example, target: str) -> Finished:
        labelled = example.targets[target]
        truth = labelled.objects
        if truth is None:
            truth = ndimage.label(labelled.label == FOREGROUND)[0]
        boxes = [Box(*each) for each in instance_boxes(np.asarray(truth, np.int32)).tolist()]
        drawn = np.zeros(truth.shape, np.int32)
        number = 0
        for here in _together(boxes):
            crop = Box(
                min(box.x0 for box in here),
                min(box.y0 for box in here),
                max(box.x1 for box in here),
                max(box.y1 for box in here),
            ).grown(BESIDE_PX)
            crop = crop.clipped_to(truth.shape[1], truth.shape[0])
            pixels = np.ascontiguousarray(example.image[crop.y0 : crop.y1, crop.x0 : crop.x1])
            inside = [
                (box.x0 - crop.x0, box.y0 - crop.y0, box.x1 - crop.x0, box.y1 - crop.y0) for box in here
            ]
            for mask in model.from_boxes(model.encode(pixels), inside):
                number += 1
                drawn[crop.y0 : crop.y1, crop.x0 : crop.x1][mask] = number
        return Finished(drawn > 0, drawn if target in OBJECT_TARGETS else None, 1.0)

    return found


def _together(boxes: Sequence[Box]) -> Iterator[list[Box]]:
    cells: dict[tuple[int, int], list[Box]] = defaultdict(list)
    for box in boxes:
        cells[(box.x0 + box.x1) // 2 // CELL_PX, (box.y0 + box.y1) // 2 // CELL_PX].append(box)
    yield from cells.values()


def by_unets(data: Path, work: Path, minutes: float, threads: int) -> Method:
    """One U-Net for each target, trained when it is first asked."""
    ready: dict[str, Any] = {}

    def found(example: Example, target: str) -> Finished:
        if target not in ready:
            ready[target] = trained(target, data, work / f"unet-{target}-{minutes:g}min", minutes, threads)
        return _at_size(ready[target].found(shown_at(example, TARGET_MPP[target]), target), example)

    return found


def _at_size(finished: Finished, example: Example) -> Finished:
    shape = example.image.shape[:2]
    instances = None if finished.instances is None else at_size(finished.instances, shape)
    return Finished(at_size(finished.mask, shape) > 0, instances, finished.presence)


@dataclass(frozen=True)
class Timed:
    score: TargetScore
    seconds_per_mpx: float


def look(method: Method, example: Example, target: str) -> Timed | None:
    began = time.process_time()
    found = method(example, target)
    taken = time.process_time() - began
    if found is None:
        return None
    score = judged(example, target, example.targets[target], found.mask, found.instances)
    height, width = example.image.shape[:2]
    return Timed(score, taken / (height * width / 1e6))


def mean_scores(seen: Sequence[Timed]) -> Scores:
    qualities = [each.score.pq for each in seen if each.score.pq is not None]
    return {
        "images": len(seen),
        "dice": round(float(np.mean([each.score.mask.dice for each in seen])), 4),
        "pq": round(float(np.mean(qualities)), 4) if qualities else None,
        "seconds_per_mpx": round(float(np.mean([each.seconds_per_mpx for each in seen])), 3),
    }


def measured(
    methods: Mapping[str, Method], examples: Iterable[Example], targets: Sequence[str], kept: Path
) -> Table:
    """Every method on every set and target; what ``kept`` holds is taken from there. examples: set by set."""
    table: Table = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    for dataset, of_set in groupby(examples, lambda example: example.dataset):
        found = list(of_set)
        for target in targets:
            here = [each for each in found if target in each.targets and is_judged(each, target)]
            row = table.setdefault(f"{dataset}/{target}", {}) if here else {}
            for name, method in methods.items() if here else ():
                if name not in row:
                    row[name] = reached(method, here, target)
                    write_whole(kept, json.dumps(table, indent=1) + "\n")
                print(_line(f"{dataset}/{target}", name, row[name]), flush=True)
    return table


def reached(method: Method, examples: Sequence[Example], target: str) -> Scores | None:
    """Of one method on one set; None where it has no answer to the target."""
    if method(examples[0], target) is None:  # what is made once, as a network is trained, is not timed
        return None
    return mean_scores([seen for each in examples if (seen := look(method, each, target)) is not None])


HEAD = "| set / target | method | images | Dice | PQ | s/Mpx |\n| --- | --- | --- | --- | --- | --- |"


def _line(key: str, name: str, scores: Scores | None) -> str:
    if scores is None:
        return f"| {key} | {name} | | | | |"
    quality = "" if scores["pq"] is None else f"{scores['pq']:.3f}"
    return f"| {key} | {name} | {scores['images']:.0f} | {scores['dice']:.3f} | {quality} | {scores['seconds_per_mpx']:.2f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a row as soon as it is known."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks masks", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the data sets")
    parser.add_argument(
        "--weights",
        type=Path,
        nargs="*",
        default=[],
        help="weights of ours to stand beside, as of the last release",
    )
    parser.add_argument(
        "--minutes", type=float, default=15.0, help="of training for each U-Net; 0 leaves it out"
    )
    parser.add_argument("--litemedsam", type=Path, help="lite_medsam.pth, where its package is not installed")
    parser.add_argument("--targets", nargs="*", choices=OFFERED_TARGETS, default=list(OFFERED_TARGETS))
    parser.add_argument("--most", type=int, default=12, help="images of a set")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("runs/masks"))
    parser.add_argument("--card", type=Path, help="scores (NAME.json) beside whose card the table belongs")
    told = parser.parse_args(arguments)
    torch.set_num_threads(told.threads)
    told.work.mkdir(parents=True, exist_ok=True)
    methods = {
        f"{name} ({model.weights_sha256[:8]})": by_words(model)
        for name, model in (
            ("default", registry.load()),
            ("classical", registry.load("classical-nuclei")),
            *((path.stem, MiniSegmenter(path)) for path in told.weights),
        )
    }
    try:
        methods["LiteMedSAM, perfect boxes"] = by_boxes(litemedsam.load(told.litemedsam))
    except ModelUnavailableError as error:
        print(f"without LiteMedSAM: {error}")
    if told.minutes:
        name = f"U-Net, {told.minutes:g} min"
        methods[name] = by_unets(told.data, told.work, told.minutes, told.threads)
    print(HEAD)
    kept = told.work / f"most-{told.most}.json"
    table = measured(methods, held_out(told.data, told.most), told.targets, kept)
    if told.card is not None:
        into_card(told.card, {"most": told.most, "minutes": told.minutes, "rows": table})


def into_card(scores: Path, table: dict[str, Any]) -> None:
    """Replace the table in a model's scores and write its card anew."""
    whole = json.loads(scores.read_text("utf-8")) | {"side_by_side": table}
    write_whole(scores, json.dumps(whole, indent=1) + "\n")
    write_whole(scores.with_suffix(".md"), card(whole, scores.stem))


if __name__ == "__main__":
    main()
