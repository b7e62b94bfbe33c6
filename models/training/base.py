"""Train the full-size PathSegmentor: ``tissuetalk train`` on a recipe with ``preset: base``. A killed run goes on.

Matching and losses follow pathsegmentor.md, section 6. There is one sentence a tile, so the Hungarian assignment is the
cheapest query.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from tissuetalk.models.control import Control
from tissuetalk.models.segmentation.layers import soft_dice
from tissuetalk.models.segmentation.pathsegmentor.base import build_base, cosine
from tissuetalk.models.segmentation.pathsegmentor.base_segmenter import (
    WEIGHT_FILE,
    byte_pairs,
    load_weights,
    save_base,
    word_pieces,
)
from tissuetalk.models.segmentation.pathsegmentor.joint import QueryAnswers
from tissuetalk.models.segmentation.pathsegmentor.text_tower import MINILM
from tissuetalk.models.segmentation.pretrained import device
from tissuetalk.models.training.loop import TrainingRun, adamw, draw_curves, prepare_torch
from tissuetalk.models.training.recipes import BaseRecipe
from tissuetalk.models.training.several import share
from tissuetalk.models.training.triples import TripleBatch, TripleSampler, triples

BCE_COST: Final = 5.0
DICE_COST: Final = 5.0
SIMILARITY_COST: Final = 2.0
OVERSAMPLE: Final = 3
UNCERTAIN_SHARE: Final = 0.75
LARGEST_SCALE: Final = 100.0


def bce(logits: Tensor, truth: Tensor) -> Tensor:
    """[...] mean cross-entropy over the points of [..., P]."""
    return functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(-1)


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """[...] one minus soft Dice over the points of [..., P], smoothed by 1."""
    return soft_dice(logits.sigmoid()[..., None], truth[..., None])


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """[B, N, P] values of maps [B, N, H, W] at points [B, P, 2] (x, y in 0..1), bilinear."""
    grid = 2 * points[:, None] - 1
    read = functional.grid_sample(maps, grid, mode="bilinear", align_corners=False, padding_mode="border")
    return read[:, :, 0]


def uncertain_points(logits: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[B, count, 2]: three quarters where masks [B, H, W] are least sure among three times as many, the rest anywhere."""
    batch = logits.shape[0]
    drawn = torch.rand(batch, OVERSAMPLE * count, 2, generator=generator).to(logits.device)
    doubt = -at_points(logits[:, None], drawn)[:, 0].abs()
    kept = doubt.topk(round(UNCERTAIN_SHARE * count), dim=1).indices
    chosen = drawn.gather(1, kept[..., None].expand(-1, -1, 2))
    anywhere = torch.rand(batch, count - kept.shape[1], 2, generator=generator).to(logits.device)
    return torch.cat([chosen, anywhere], dim=1)


def best_query(answers: QueryAnswers, similarity: Tensor, truth: Tensor, points: Tensor) -> Tensor:
    """[B] the query each sentence's mask is assigned to. similarity: [B, N] scaled logits; truth: [B, H, W]."""
    with torch.no_grad():
        found = at_points(answers.masks.float(), points)
        wanted = at_points(truth[:, None], points).expand_as(found)
        cost = BCE_COST * bce(found, wanted) + DICE_COST * dice_loss(found, wanted)
        return (cost - SIMILARITY_COST * similarity.softmax(-1)).argmin(-1)


def supervised(
    steps: Sequence[QueryAnswers],
    sentence: Tensor,
    logit_scale: Tensor,
    batch: TripleBatch,
    recipe: BaseRecipe,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """Loss over every prediction step with equal weight, and its parts.

    sentence: [B, d]. Where a tile shows the target, its mask is assigned to a query, which is to be like the sentence;
    elsewhere the query most like the sentence must paint nothing.
    """
    truth, shown, counts = (part.to(sentence.device) for part in (batch.truth, batch.shown, batch.counts))
    rows = torch.arange(len(sentence), device=sentence.device)
    weight = counts / counts.sum().clamp(min=1)
    totals = torch.zeros(3, device=sentence.device)
    for answers in steps:
        scale = logit_scale.exp().clamp(max=LARGEST_SCALE)
        similarity = scale * cosine(answers.classes.float(), sentence.float())
        points = torch.rand(len(sentence), recipe.points, 2, generator=generator).to(truth.device)
        matched = best_query(answers, similarity, truth, points)
        chosen = torch.where(shown > 0, matched, similarity.argmax(-1))
        masks = answers.masks[rows, chosen].float()
        logits, wanted = _compared(masks, truth, recipe, generator)
        named = shown * functional.cross_entropy(similarity, chosen, reduction="none")
        parts = (bce(logits, wanted), dice_loss(logits, wanted), named)
        totals = totals + torch.stack([(part * weight).sum() for part in parts])
    weights = totals.new_tensor([recipe.bce_weight, recipe.dice_weight, recipe.similarity_weight])
    told = totals.detach() / len(steps)
    named_parts = dict(zip(("bce", "dice", "similarity"), (float(value) for value in told), strict=True))
    return (weights * totals).sum(), named_parts


def _compared(
    masks: Tensor, truth: Tensor, recipe: BaseRecipe, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """[B, P] logits and truth, on points or on every pixel of the mask's own size."""
    if recipe.full_image_loss:
        small = functional.interpolate(truth[:, None], size=masks.shape[-2:], mode="area")[:, 0]
        return masks.flatten(1), small.flatten(1)
    with torch.no_grad():
        points = uncertain_points(masks, recipe.points, generator)
        wanted = at_points(truth[:, None], points)[:, 0]
    return at_points(masks[:, None], points)[:, 0], wanted


def train_base(recipe: BaseRecipe, out: Path, control: Control = Control()) -> Path:
    """Train a recipe to the end and return the weight file, whose folder ``segment --model pathsegmentor`` can use.

    out: run folder; holds ``checkpoint.pt``, ``log.csv``, ``curves.png`` and ``weights/``. A run
    folder with a checkpoint is continued. Raises InvalidArgumentError when the loss is no longer a number.
    """
    prepare_torch(recipe)
    vocabulary = recipe.vocabulary or MINILM.find().with_name("vocab.txt")
    found = triples(recipe)
    read = byte_pairs if recipe.config.text_tower == "clip" else word_pieces
    run = BaseRun(recipe, TripleSampler(found, recipe, read(vocabulary, recipe.config.context)), out)
    run.go(recipe.name, control)
    if not share().first:
        return out / "weights" / WEIGHT_FILE
    labels = sorted({triple.name for triple in found})
    weights = save_base(
        run.model,
        recipe.config,
        out / "weights",
        labels=labels,
        vocabulary=vocabulary,
        shown_at_px=recipe.side_px,
    )
    draw_curves(out / "log.csv", out / "curves.png")
    return weights


class BaseRun(TrainingRun[TripleBatch]):
    """A run of the full-size network."""

    divides_batches = True

    def __init__(self, recipe: BaseRecipe, sampler: TripleSampler, out: Path) -> None:
        self.recipe, self.sampler = recipe, sampler
        self.model = build_base(recipe.config)
        if recipe.start_from is not None:
            report = load_weights(self.model, recipe.start_from)
            print(
                f"{recipe.start_from.name}: {len(report.loaded)} weights loaded, {len(report.missing)} missing, "
                f"{len(report.unexpected)} unexpected, {len(report.mismatched)} of another shape",
                file=sys.stderr,
            )
        self.model.to(device())
        super().__init__(recipe, self.model, out, adamw(self.model, recipe), clip_norm=recipe.clip_norm)

    def batch(self, step: int) -> TripleBatch:
        return self.sampler.batch(step)

    def done(self) -> float:
        return min(1.0, self.step / self.sampler.steps)

    def update(self, batch: TripleBatch) -> dict[str, float]:
        rate = self.recipe.learning_rate * schedule(self.step, self.sampler.steps, self.recipe)
        self.model.train()
        # Points are drawn anew each step, the same ones when the step is repeated after a kill.
        points = torch.Generator().manual_seed(self.recipe.seed + 7919 * self.step)
        told: dict[str, float] = {}
        self.descend(self._losses(batch, points, told), rate)
        return {"loss": told.pop("loss", 0.0), "rate": rate, **told}

    def _losses(
        self, batch: TripleBatch, points: torch.Generator, told: dict[str, float]
    ) -> Iterator[Tensor]:
        """The loss of this process's share of a batch, part by part. told: gets the sums of what goes into the log."""
        rank, count = share()
        size = len(batch.tiles)
        parts = [batch.rows(rows) for rows in torch.arange(size).tensor_split(count * self.recipe.accumulate)]
        known = float(batch.counts.sum().clamp(min=1))
        for part in parts[rank::count]:
            if not len(part.tiles):
                continue
            half = (
                torch.autocast("cuda", dtype=torch.bfloat16) if self.place.type == "cuda" else nullcontext()
            )
            with half:
                features = self.model.encode_image(part.tiles.to(self.place))
                ids, padding = part.ids.to(self.place), part.padding.to(self.place)
                steps, sentence = self.model.answers(features, ids, padding)
            loss, values = supervised(steps, sentence, self.model.logit_scale, part, self.recipe, points)
            # each part is a mean over what is known in it; together they are the mean over the batch
            weight = float(part.counts.sum()) / known * count
            for name, value in {"loss": float(loss.detach()), **values}.items():
                told[name] = told.get(name, 0.0) + weight * value
            yield weight * loss


def schedule(step: int, steps: int, recipe: BaseRecipe) -> float:
    """Factor on the learning rate: a linear warm-up, then a tenth after each drop."""
    warm = min(1.0, (step + 1) / max(1, recipe.warm_up_steps))
    return warm * 0.1 ** sum(step >= share * steps for share in recipe.drops)
