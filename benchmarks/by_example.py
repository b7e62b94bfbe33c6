"""`python -m benchmarks by_example --data DIR`: how well targets are found after 1, 3, 5 and 10 examples of each kind.

The examples are boxes drawn at random inside and outside real masks, the same for every method. Dice on what was not shown:
in the same image, in another image of the same patient or slide, and in one of another. Against: a random forest
over scikit-image's multi-scale features (what pixel classifiers do), and the zero-shot answer of the default model.
Then nuclei of one type, boxes around whole objects, and what learning and answering take (``--parts``).
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import by_example_objects, by_example_speed
from benchmarks.by_example_sets import TASKS, Mask, Task, Teachable, clicks, images_of, mosaics, scored
from benchmarks.figure import RESULTS, table
from tissuetalk.models import registry
from tissuetalk.models.by_example import Learned, Place, Shown, prompt_for, teach, with_examples
from tissuetalk.models.by_example.learned import Kind
from tissuetalk.models.images import open_image
from tissuetalk.models.looks import answer_from
from tissuetalk.models.segmentation.pretrained import resized
from tissuetalk.models.segmenter import Prompt, Segmenter

COUNTS = (1, 3, 5, 10)
MOSAICS = {
    "ADI": "fat",
    "LYM": "lymphocytes",
    "MUC": "mucus",
    "MUS": "smooth muscle",
    "STR": "stroma",
    "TUM": "tumour",
}
PARTS = ("regions", "types", "boxes", "speed")
WHERE = ("same image", "same patient", "another patient")


@dataclass
class Score:
    """Dice by (count, where) of every method."""

    taught: dict[tuple[int, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    forest: dict[tuple[int, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    zero: dict[tuple[int, str], list[float]] = field(default_factory=lambda: defaultdict(list))


def dice(mask: Mask, gold: Mask) -> float:
    total = int(mask.sum()) + int(gold.sum())
    return 1.0 if total == 0 else float(2 * (mask & gold).sum() / total)


def found(model: Segmenter, prompt: Prompt, image: Teachable) -> Mask | None:
    """[H, W] of an image; None where the model does not know what it is asked for."""
    able = model.capability(prompt)
    if able is None:
        return None
    height, width = image.gold.shape
    scale = image.mpp / able.mpp
    size = max(32, round(width * scale)), max(32, round(height * scale))
    tile = resized(image.pixels, *size)
    context = model.prepare(image.pixels)
    decoded = answer_from(model, tile, context, prompt, able.looks)
    done = model.finish(decoded, prompt, context)
    if done.presence < able.present_from:
        return np.zeros((height, width), bool)
    # outlines as the engine draws them: where the enlarged logits cross zero, and what the model filled
    near, filled = (
        cv2.resize(each.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
        for each in (
            cv2.dilate(done.mask.astype(np.uint8), np.ones((3, 3), np.uint8)),
            done.mask & (decoded.logits <= 0),
        )
    )
    smooth = cv2.resize(decoded.logits, (width, height), interpolation=cv2.INTER_LINEAR) > 0
    return np.asarray(near & smooth | filled, bool)


class Forest:
    """Multi-scale intensity, edges and texture of scikit-image, and 50 trees: its own example of a trainable segmentation."""

    def __init__(self) -> None:
        self._features: dict[str, NDArray[np.float32]] = {}

    def features(self, image: Teachable) -> NDArray[np.float32]:
        from skimage.feature import multiscale_basic_features

        if image.name not in self._features:
            made = multiscale_basic_features(image.pixels, sigma_max=16, channel_axis=-1)
            self._features = {image.name: made.astype(np.float32)}
        return self._features[image.name]

    def taught(self, image: Teachable, places: Sequence[Place]) -> Callable[[Teachable], Mask]:
        from sklearn.ensemble import RandomForestClassifier

        features, marked = self.features(image), np.zeros(image.gold.shape, np.int8)
        for place in places:
            x0, y0, x1, y1 = (int(each) for each in place.box or (0, 0, 0, 0))
            marked[y0:y1, x0:x1] = 1 if place.is_positive else -1
        at = marked != 0
        trees = RandomForestClassifier(
            50, max_depth=10, max_samples=0.05, n_jobs=1, random_state=0, class_weight="balanced"
        )
        trees.fit(features[at], marked[at] > 0)

        def found(other: Teachable) -> Mask:
            seen = self.features(other)[::4, ::4]
            said = trees.predict(seen.reshape(-1, seen.shape[-1])).reshape(seen.shape[:2]).astype(np.uint8)
            size = other.gold.shape[1], other.gold.shape[0]
            return np.asarray(cv2.resize(said, size, interpolation=cv2.INTER_NEAREST) > 0)

        return found


def others_of(image: Teachable, images: Sequence[Teachable]) -> Iterator[tuple[str, Teachable]]:
    """The image itself, the next of the same patient and the next of another, where the set can say."""
    yield WHERE[0], image
    at = next(number for number, each in enumerate(images) if each is image)
    turned = [*images[at + 1 :], *images[:at]]
    if image.group is not None:
        same = [each for each in turned if each.group == image.group]
        apart = [each for each in turned if each.group != image.group]
        yield from zip(WHERE[1:2], same, strict=False)
        yield from zip(WHERE[2:], apart, strict=False)


def learn(
    model: Segmenter,
    image: Teachable,
    places: Sequence[Place],
    like: Prompt | None,
    kind: Kind | None = None,
) -> Learned:
    with TemporaryDirectory() as folder:
        Image.fromarray(image.pixels).save(Path(folder) / "shown.png")
        with open_image(Path(folder) / "shown.png", name="shown.png") as source:
            return teach(model, [Shown(source, image.mpp, places)], name="shown", kind=kind, like=like)


def run(
    model: Segmenter,
    task: Task,
    images: Sequence[Teachable],
    options: argparse.Namespace,
) -> Score:
    score, forest = Score(), None if options.no_forest else Forest()
    zero: dict[str, Mask | None] = {}
    for image in images[:: max(1, len(images) // options.images)][: options.images]:
        for count in options.counts:
            for seed in range(options.seeds):
                places = clicks(image, count, seed)
                learned = learn(model, image, places, task.like)
                knows = with_examples(model, [learned])
                trees = None if forest is None else forest.taught(image, places)
                for where, other in others_of(image, images):
                    judged = scored(other, places if other is image else ())
                    gold, key = other.gold[judged], (count, where)
                    mask = found(knows, prompt_for(learned), other)
                    assert mask is not None, "it was just taught"
                    score.taught[key].append(dice(mask[judged], gold))
                    if trees is not None:
                        score.forest[key].append(dice(trees(other)[judged], gold))
                    if task.like is not None and other.name not in zero:
                        zero[other.name] = found(model, task.like, other)
                    if (said := zero.get(other.name)) is not None:
                        score.zero[key].append(dice(said[judged], gold))
    return score


def cell(values: Sequence[float]) -> str:
    return f"{np.mean(values):.2f}" if values else ""


def row(title: str, where: str, score: Score, counts: Sequence[int]) -> str:
    """Taught / forest after each count, then zero-shot."""
    if not any(score.taught[count, where] for count in counts):
        return f"| {title} | {where} |" + " unknown |" * (len(counts) + 1)
    cells = [f"{cell(score.taught[count, where])} / {cell(score.forest[count, where])}" for count in counts]
    zero = cell([each for count in counts for each in score.zero[count, where]]) or "refused"
    return f"| {title} | {where} | " + " | ".join([*cells, zero]) + " |"


def regions(model: Segmenter, options: argparse.Namespace) -> None:
    """The table of Dice."""

    def assumed(pixels: NDArray[np.uint8]) -> float:
        return model.assume_mpp(pixels)

    jobs = [(task, lambda task=task: list(images_of(task, options.data, assumed))) for task in TASKS]
    for wanted, name in MOSAICS.items():
        task = Task(f"colon mosaic, {name}", "patch-classes", lambda m: m > 0, 0.5)
        jobs.append((task, lambda wanted=wanted: list(mosaics(options.data, wanted))))
    heading("zero-shot", options.counts)
    for task, images in jobs:
        if options.only and not any(word in task.title for word in options.only):
            continue
        show(task.title, run(model, task, images(), options), options)


def types(model: Segmenter, options: argparse.Namespace) -> None:
    """The table of F1 over detected nuclei."""
    heading("zero-shot", options.counts)
    for task in by_example_objects.TYPED_TASKS:
        if options.only and not any(word in task.title for word in options.only):
            continue
        score, forest = Score(), None if options.no_forest else Forest()
        typed = {each.image.name: each for each in by_example_objects.typed_images(task, options.data)}
        images = [each.image for each in typed.values()]
        for image in images[:: max(1, len(images) // options.images)][: options.images]:
            shown = [
                (count, by_example_objects.shown_nuclei(typed[image.name], count, seed))
                for count in options.counts
                for seed in range(options.seeds)
            ]
            places = [by_example_objects.boxes_of(typed[image.name], chosen) for _, chosen in shown]
            learned = [learn(model, image, each, None, "object") for each in places]
            trees = None if forest is None else [forest.taught(image, each) for each in places]
            for where, other in others_of(image, images):
                labels, masks = by_example_objects.looked_at(model, other, learned)
                detected = by_example_objects.Detected.of(labels, typed[other.name].nuclei)
                for number, (count, chosen) in enumerate(shown):
                    kept_back = chosen if other is image else chosen[:0]
                    judged = typed[other.name], kept_back
                    score.taught[count, where].append(detected.f1(masks[number], *judged))
                    if trees is not None:
                        score.forest[count, where].append(detected.f1(trees[number](other), *judged))
        show(task.title, score, options)


def boxes(model: Segmenter, options: argparse.Namespace) -> None:
    """What LiteMedSAM draws in boxes around whole objects: in the boxes / of all objects of the image."""
    from tissuetalk.models.segmentation.litemedsam import load

    sam, wanted = load(options.litemedsam), ("glomeruli", "fat")
    heading("", options.counts)
    for task in TASKS:
        if not any(word in task.title for word in options.only or wanted):
            continue
        cells: dict[int, list[tuple[float, float]]] = defaultdict(list)
        images = [
            image
            for image in images_of(task, options.data, model.assume_mpp)
            if by_example_objects.objects_in(image.gold)
        ]
        for image in images[:: max(1, len(images) // options.images)][: options.images]:
            objects = by_example_objects.objects_in(image.gold)
            for count in options.counts:
                for seed in range(options.seeds):
                    order = np.random.default_rng(seed).permutation(len(objects))[:count]
                    chosen = [objects[at] for at in order]
                    drawn = by_example_objects.outlined(sam, image, [box for box, _ in chosen])
                    meant = np.zeros_like(image.gold)
                    for box, part in chosen:
                        meant[box.y0 : box.y1, box.x0 : box.x1] |= part
                    cells[count].append((dice(drawn, meant), dice(drawn, image.gold)))
        means = [np.mean(cells[count], axis=0) for count in options.counts]
        texts = [f"{inside:.2f} / {everywhere:.2f}" for inside, everywhere in means]
        print(f"| {task.title} | LiteMedSAM | " + " | ".join(texts) + " | |", flush=True)


def speed(model: Segmenter, options: argparse.Namespace) -> None:
    for figures in by_example_speed.measure(options.data):
        print(table(figures), flush=True)


def heading(last: str, counts: Sequence[int]) -> None:
    print("| target | where | " + " | ".join(f"{count} + {count}" for count in counts) + f" | {last} |")
    print("| --- | --- |" + " --- |" * (len(counts) + 1), flush=True)


def show(title: str, score: Score, options: argparse.Namespace) -> None:
    """Print the rows of one target and keep them: the sets can be run one by one, or without the forest, which is slow."""
    for where in WHERE:
        print(row(title, where, score, options.counts), flush=True)
    file = RESULTS / "by_example.json"
    kept: dict[str, dict[str, list[float]]] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    for method in ("taught", "forest", "zero"):
        if method == "forest" and options.no_forest:
            continue
        kept[f"{title}, {method}"] = {
            f"{count} {where}": [round(each, 4) for each in values]
            for (count, where), values in getattr(score, method).items()
        }
    RESULTS.mkdir(exist_ok=True)
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks by_example", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--images", type=int, default=2, help="how many images of each set are taught on")
    parser.add_argument("--seeds", type=int, default=2, help="how often the examples are drawn anew")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--no-forest", action="store_true", help="leave the slow one out")
    parser.add_argument("--only", nargs="*", default=[], help="words of the titles of sets")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--litemedsam", type=Path, help="lite_medsam.pth, where its package is not installed")
    options = parser.parse_args(arguments)
    model, started = registry.load(), time.monotonic()
    for part, measure in zip(PARTS, (regions, types, boxes, speed), strict=True):
        if part in options.parts:
            measure(model, options)
    print(f"{time.monotonic() - started:.0f} s")
