"""Train one recipe for every group size K, consistency weight beta and gradient mode, and see how far wordings move masks (E8).

Also how any annotated image is asked for a target, at the target's own scale, by this and by every script that scores the model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from tissuetalk.models.datasets.example import FOREGROUND, Example
from tissuetalk.models.datasets.sources import load
from tissuetalk.models.datasets.wordings import unseen_sentences
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.looks import brought_back, mean_of, mirrored
from tissuetalk.models.metrics.robustness import SentenceScore, robustness
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.metrics.tables import Series, csv_text, curves_svg, table
from tissuetalk.models.segmentation.pathsegmentor.card import ASKED_AS, CONCEPTS, OFFERED_TARGETS, TARGET_MPP
from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter, MiniTile
from tissuetalk.models.segmenter import RGB, Context, Decoded, Finished, Prompt
from tissuetalk.models.training.mini import train_mini
from tissuetalk.models.training.recipes import GroupGradient, MiniRecipe
from tissuetalk.models.writing import write_whole

PUBLISHED: Final = (
    ("full, K = 3, beta 0.1", 79.42, 62.01),
    ("without group and consistency loss", 78.45, 48.98),
    ("without consistency loss", 77.72, 54.30),
    ("consistency over all pairs", 77.38, 51.97),
    ("beta 0.05", 78.50, 61.36),
    ("beta 0.2", 78.06, 60.86),
    ("K = 2", 78.10, 61.52),
    ("K = 4", 79.92, 61.24),
    ("K = 5", 79.11, 60.75),
    ("K = 6", 78.41, 60.14),
)
"""Dice in percent on PanNuke, all nuclei and one class (arXiv 2603.06384)."""


def ask(target: str, words: str | None = None) -> Prompt:
    """The plainest prompt for a target, or the given words."""
    text = words or ASKED_AS.get(target, target)
    concept = next(concept for concept, trained in CONCEPTS.items() if trained == target)
    return Prompt(None, ASKED_AS.get(target, target), text, verbatim=words is not None, concept=concept)


def shown_at(example: Example, mpp: float) -> RGB:
    """The image at a model's scale."""
    zoom = example.mpp / mpp
    way = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(example.image, None, fx=zoom, fy=zoom, interpolation=way), np.uint8)


def at_size(plane: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """A mask, or object numbers (exact up to 16 million), at another size [height, width]."""
    numbers = plane.astype(np.float32)
    return np.asarray(cv2.resize(numbers, shape[::-1], interpolation=cv2.INTER_NEAREST))


class Viewer:
    """One image at one target's scale, encoded once. looks: from how many sides; default: as the model answers."""

    def __init__(self, model: MiniSegmenter, example: Example, target: str, looks: int | None = None) -> None:
        self.model, self.shape = model, example.image.shape[:2]
        tile = shown_at(example, TARGET_MPP[target])
        self.context = Context({})
        known = model.capability(ask(target))
        looks = looks or (1 if known is None else known.looks)
        self.features: list[MiniTile] = [
            model.encode(mirrored(tile, look), self.context) for look in range(looks)
        ]

    def decoded(self, prompt: Prompt) -> Decoded:
        """The answer of the network, as users get it."""
        seen = enumerate(self.model.decode(features, [prompt])[0] for features in self.features)
        return mean_of([brought_back(answer, look) for look, answer in seen])

    def answer(self, prompt: Prompt) -> Finished:
        return self.model.finish(self.decoded(prompt), prompt, self.context)

    def smoothly(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits at the image's size, as users get them."""
        return np.asarray(cv2.resize(logits, self.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)

    def at_image_size(self, plane: NDArray[Any]) -> NDArray[Any]:
        """A mask, or object numbers, at the image's size."""
        return at_size(plane, self.shape)


@dataclass(frozen=True)
class CellScore:
    """One trained cell. gradient: mode of the group loss; a single sentence has none. dice: mean over everything asked; low to high: per quality level.

    spread: mean over images of the standard deviation over their sentences. n: image-target pairs.
    """

    k: int
    beta: float
    gradient: GroupGradient
    dice: float
    low: float
    medium: float
    high: float
    spread: float
    worst_spread: float
    n: int


def ablate(
    recipe_path: Path,
    out: Path,
    *,
    group_sizes: Sequence[int],
    betas: Sequence[float],
    gradients: Sequence[GroupGradient] = ("weights",),
    images: int = 8,
    each_level: int = 3,
) -> list[CellScore]:
    """Train and score every cell; cells that are done are not done again, a half-trained one is continued.

    images: how many of each set and target to score, held-out ones where there are any. Writes a folder per cell and
    ``ablation.csv``, ``ablation.md`` and two plots. Raises InvalidArgumentError for impossible K, beta or mode.
    """
    if not group_sizes or min(group_sizes) < 1 or not betas or min(betas) < 0:
        raise InvalidArgumentError(
            "give K of at least 1 and beta of at least 0, for example --k 1,2 --beta 0,0.1."
        )
    if wrong := set(gradients) - set(get_args(GroupGradient)):
        raise InvalidArgumentError(
            f"no gradient mode {', '.join(sorted(wrong))}; choose from {', '.join(get_args(GroupGradient))}."
        )
    recipe = MiniRecipe.read(recipe_path)
    asked, held_out = _images(recipe, images)
    scores = []
    for setting in _grid(group_sizes, betas, gradients):
        scores.append(_cell(recipe, out / setting.folder, setting, asked, each_level))
        write(scores, out, recipe.name, held_out=held_out)
    return scores


@dataclass(frozen=True)
class Setting:
    """What one cell changes in the recipe."""

    k: int
    beta: float
    gradient: GroupGradient

    @property
    def folder(self) -> str:
        return f"k{self.k}-beta{self.beta:g}-{self.gradient}"


def _grid(
    group_sizes: Sequence[int], betas: Sequence[float], gradients: Sequence[GroupGradient]
) -> list[Setting]:
    """Every combination; one sentence has nothing to be consistent with, so K = 1 is a single cell."""
    return [
        Setting(k, beta, gradient) if k > 1 else Setting(1, 0.0, "none")
        for k in group_sizes
        for beta in (betas if k > 1 else (0.0,))
        for gradient in (gradients if k > 1 else ("none",))
    ]


def _cell(
    recipe: MiniRecipe, cell: Path, setting: Setting, asked: Sequence[tuple[Example, str]], each_level: int
) -> CellScore:
    """Train and score one cell in its folder, unless that was done."""
    done = cell / "score.json"
    if done.is_file():
        return CellScore(**json.loads(done.read_text(encoding="utf-8")))
    changes = {"group_size": setting.k, "consistency": setting.beta, "group_gradient": setting.gradient}
    recipe = recipe.model_copy(update=changes)
    values = recipe.model_dump(mode="json", exclude_unset=True)
    write_whole(cell / "recipe.yaml", yaml.safe_dump(values, sort_keys=False))
    weights = train_mini(recipe, cell)
    model, said = MiniSegmenter(weights), list[SentenceScore]()
    for example, target in asked:
        viewer, truth = Viewer(model, example, target), example.targets[target].label == FOREGROUND
        for sentence in unseen_sentences(target, each_level):
            mask = viewer.at_image_size(viewer.answer(ask(target, sentence.text)).mask) > 0
            item = f"{example.dataset}/{example.name} {target}"
            said.append(SentenceScore(item, sentence.text, sentence.level, dice(mask, truth)))
    found = robustness(said)
    score = CellScore(
        setting.k,
        setting.beta,
        setting.gradient,
        sum(one.dice for one in said) / len(said),
        found.by_quality["low"].mean,
        found.by_quality["medium"].mean,
        found.by_quality["high"].mean,
        found.spread,
        found.worst_spread,
        len({one.item for one in said}),
    )
    write_whole(done, json.dumps(asdict(score), indent=1) + "\n")
    return score


def _images(recipe: MiniRecipe, most: int) -> tuple[list[tuple[Example, str]], bool]:
    """Up to ``most`` images for each entry of the mix, and whether all of them are held out from training."""
    chosen: list[tuple[Example, str]] = []
    for entry in recipe.mix:
        dataset, _, target = entry.partition("/")
        if target not in OFFERED_TARGETS:
            continue
        annotated = (e for e in load(recipe.data, dataset) if target in e.targets)
        able = [e for e in annotated if (e.targets[target].label == FOREGROUND).any()]
        unseen = [example for example in able if example.held_out]
        chosen += [(example, target) for example in (unseen or able)[:most]]
    if not chosen:
        raise InvalidArgumentError(
            "the recipe's sets show none of the offered targets; nothing could be scored."
        )
    return chosen, all(example.held_out for example, _ in chosen)


def write(scores: Sequence[CellScore], out: Path, name: str, *, held_out: bool) -> None:
    """The table so far, as CSV and Markdown, and Dice and spread over beta as plots."""
    header = list(CellScore.__dataclass_fields__)
    rows = [list(asdict(score).values()) for score in scores]
    write_whole(out / "ablation.csv", csv_text(map(asdict, scores)))
    lines = [[f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    published = [[setting, f"{t1:.2f}", f"{t2:.2f}"] for setting, t1, t2 in PUBLISHED]
    partly = "images that were partly trained on (the sets hold too few groups)"
    where = "held-out images" if held_out else partly
    text = [
        f"# K and beta of {name}",
        f"Dice over sentences never trained on, {where}. spread: standard deviation over the sentences of one image.",
        table(header, lines),
        "![ablation.svg](ablation.svg) ![ablation-spread.svg](ablation-spread.svg)",
        "## Published, Dice in percent on PanNuke (arXiv 2603.06384)",
        table(["setting", "all nuclei", "one class"], published),
    ]
    write_whole(out / "ablation.md", "\n\n".join(text) + "\n")
    write_whole(out / "ablation.svg", _plot(scores, "dice", 1.0))
    widest = max(score.spread for score in scores)
    write_whole(out / "ablation-spread.svg", _plot(scores, "spread", max(0.01, 1.1 * widest)))


def _plot(scores: Sequence[CellScore], what: Literal["dice", "spread"], top_y: float) -> str:
    """One figure over beta, a line for each K and gradient mode."""
    lines: dict[tuple[int, str], list[CellScore]] = {}
    for score in scores:
        lines.setdefault((score.k, score.gradient), []).append(score)
    series = [
        Series(f"K = {k}, {gradient}", [s.beta for s in some], [getattr(s, what) for s in some], dots=True)
        for (k, gradient), some in lines.items()
    ]
    y_label = {"dice": "Dice", "spread": "standard deviation of Dice over sentences"}[what]
    return curves_svg(y_label, "beta", y_label, series, top_y=top_y)
