"""Train the mini PathSegmentor: ``tissuetalk train RECIPE.yaml``. A killed run goes on where its last checkpoint left it.

Losses know of pixels without an annotation, and of prompt groups (prompt_groups.md, section 4):
``L = (1/K) sum_i Lseg_i + lambda Lgroup + beta Lcons``, where K sentences of one group share an image and a mask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.control import Control
from tissuetalk.models.datasets.archive import files_of
from tissuetalk.models.datasets.augment import counterexamples
from tissuetalk.models.datasets.example import Example
from tissuetalk.models.datasets.manifest import read_rgb
from tissuetalk.models.datasets.sources import folder_of, load
from tissuetalk.models.datasets.wordings import LEVELS, wordings
from tissuetalk.models.segmentation.layers import soft_dice
from tissuetalk.models.segmentation.pathsegmentor.mini import (
    ConvPyramid,
    MiniConfig,
    MiniPathSegmentor,
    imagenet_weights,
    load_mini,
    save_mini,
)
from tissuetalk.models.segmentation.pathsegmentor.text_tower import MiniLMSentences
from tissuetalk.models.segmentation.pretrained import device
from tissuetalk.models.training.distil import SoftAnswers, soft_answers
from tissuetalk.models.training.group_losses import consistency, group_weights
from tissuetalk.models.training.loop import CHECKPOINT, TrainingRun, adamw, draw_curves, prepare_torch
from tissuetalk.models.training.recipes import MiniRecipe
from tissuetalk.models.training.sampler import Batch, Sampler
from tissuetalk.models.writing import remove

TEACHER, TEACHER_WEIGHTS = "teacher", "teacher.safetensors"
UNLABELLED = 8
"""Images of one source that nobody annotated."""


def train_mini(recipe: MiniRecipe, out: Path, control: Control = Control()) -> Path:
    """Train a recipe to the end and return the weight file.

    out: run folder; holds ``checkpoint.pt``, ``log.csv``, ``curves.png`` and the weights, and those of the teacher's run in
    ``teacher`` while it is needed. A run folder with a checkpoint is continued.
    """
    prepare_torch(recipe)
    datasets = sorted({entry.partition("/")[0] for entry in recipe.mix})
    examples = [example for dataset in datasets for example in load(recipe.data, dataset)]
    chosen = [example for example in examples if recipe.trains_on(example)]
    chosen += counterexamples(recipe.seed)
    sampler = Sampler(chosen, recipe, sentence_vectors(recipe), unlabelled(recipe))
    run = MiniRun(recipe, sampler, out)
    if recipe.distil is not None and run.done() < 1:
        if run.step == 0:
            run.save()  # what another recipe is told apart by, from the first step of the teacher on
        with torch.random.fork_rng([run.place] if run.place.type == "cuda" else []):
            run.teacher = teacher_of(recipe, sampler, out / TEACHER, control).to(run.place)
    run.go(recipe.name, control)
    if recipe.start_from is not None and recipe.start_share:
        blend(run.averaged, load_mini(recipe.start_from), recipe.start_share)
    fit_image_head(run.averaged, run.sampler, batches=recipe.image_batches)
    weights = out / f"{recipe.name}.safetensors"
    save_mini(run.averaged, weights, note={"recipe": f"{recipe.name}.yaml", "steps": str(run.step)})
    (out / TEACHER / TEACHER_WEIGHTS).unlink(missing_ok=True)
    draw_curves(out / "log.csv", out / "curves.png")
    return weights


def teacher_of(recipe: MiniRecipe, sampler: Sampler, folder: Path, control: Control) -> MiniPathSegmentor:
    """Who teaches: the larger network, trained now where that is not done, or the weights that the run starts from.

    sampler: the student's. folder: the teacher's run; its checkpoint goes as soon as its weights are there.
    """
    if recipe.teacher is None:
        assert recipe.start_from is not None, "the recipe was checked"
        return load_mini(recipe.start_from)
    weights, checkpoint = folder / TEACHER_WEIGHTS, folder / CHECKPOINT
    if not weights.is_file():
        if not checkpoint.is_file():
            remove(folder)
        own = recipe.for_teacher(recipe.teacher)
        prepare_torch(own)
        run = MiniRun(own, sampler.told(own), folder)
        run.go(own.name, control)
        save_mini(run.averaged, weights)
        draw_curves(folder / "log.csv", folder / "curves.png")
    checkpoint.unlink(missing_ok=True)
    return load_mini(weights)


def unlabelled(recipe: MiniRecipe) -> list[Example]:
    """Up to UNLABELLED images of each pattern, with the folder's name as their set."""
    found = []
    for file in _unlabelled_files(recipe):
        folder = file.relative_to(recipe.data).parts[0]
        mpp = recipe.unlabelled_mpp.get(folder, 1.0)
        found.append(Example(folder, file.name, file.name, False, read_rgb(file), mpp, scale_known=False))
    return found


def _unlabelled_files(recipe: MiniRecipe) -> Iterator[Path]:
    for pattern in recipe.unlabelled:
        yield from sorted(recipe.data.glob(pattern))[:UNLABELLED]


def data_files(recipe: MiniRecipe) -> Iterator[Path]:
    """What a run of the recipe reads, held-out images too: which they are is drawn from whole manifests."""
    for dataset in {entry.partition("/")[0] for entry in recipe.mix}:
        yield from files_of(folder_of(recipe.data, dataset))
    for file in _unlabelled_files(recipe):
        yield file
        manifest = recipe.data / file.relative_to(recipe.data).parts[0] / "manifest.csv"  # has its licence
        if manifest.is_file():
            yield manifest


def blend(model: MiniPathSegmentor, other: MiniPathSegmentor, share: float) -> None:
    """Take ``share`` of another network's weights into ``model``, in place; both have the same sizes."""
    with torch.no_grad():
        theirs = other.state_dict()
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.lerp_(theirs[name].to(value), share)


def sentence_vectors(recipe: MiniRecipe) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Target to level to [N, 384] sentence vectors of the training bank."""
    tower, rng = MiniLMSentences(), np.random.default_rng(recipe.seed)
    vectors: dict[str, dict[str, NDArray[np.float32]]] = {}
    for target in sorted({entry.partition("/")[2] for entry in recipe.mix}):
        bank = wordings(target)
        vectors[target] = {}
        for level in LEVELS:
            texts = [wording.text for wording in bank if wording.level == level]
            chosen = [texts[i] for i in rng.permutation(len(texts))[: recipe.sentences]]
            rows = [tower.embed_many(chosen[k : k + 64]) for k in range(0, len(chosen), 64)]
            vectors[target][level] = torch.cat(rows).numpy()
    return vectors


class MiniRun(TrainingRun[Batch]):
    """A run that also keeps a running average of the weights, which is what is saved at the end."""

    log_every = 20
    teacher: MiniPathSegmentor | None = None
    """Where its recipe distils, set before it goes."""

    def __init__(self, recipe: MiniRecipe, sampler: Sampler, out: Path) -> None:
        self.recipe, self.sampler, self.loaders = recipe, sampler, recipe.loaders
        start = (
            load_mini(recipe.start_from)
            if recipe.start_from
            else MiniPathSegmentor(MiniConfig(**recipe.sizes))
        )
        if recipe.imagenet:
            start.image_encoder.load_state_dict(imagenet_weights(start.config.encoder))
        self.model = start.in_channels_last().to(device())
        if recipe.norm_momentum is not None:
            for part in self.model.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.momentum = recipe.norm_momentum
        if recipe.style_mixing:
            mix_styles(self.model, recipe.style_mixing)
        self.averaged = MiniPathSegmentor(self.model.config).to(device())
        self.averaged.load_state_dict(self.model.state_dict())
        super().__init__(
            recipe,
            self.model,
            out,
            adamw(self.model, recipe),
            clip_norm=recipe.clip_norm,
            averaged=self.averaged,
        )

    def batch(self, step: int) -> Batch:
        batch = self.sampler.batch(step)
        return batch.pinned() if self.place.type == "cuda" else batch

    def done(self) -> float:
        minutes = self.recipe.own_minutes
        spent = self.seconds / (60 * minutes) if minutes else 0.0
        return min(1.0, max(self.step / self.recipe.steps, spent))

    def update(self, batch: Batch) -> dict[str, float]:
        warm = min(1.0, (self.step + 1) / max(1, self.recipe.warm_up_steps))
        rate = self.recipe.learning_rate * warm
        if self.recipe.schedule == "cosine":
            rate *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.done()))
        self.model.train()
        here, soft = batch.to(self.place), None
        if self.teacher is not None and self.recipe.distil is not None:
            soft = soft_answers(self.teacher, here, self.recipe.distil)
        loss, parts = objective(self.model, here, self.recipe, soft)
        self.descend(loss, rate)
        # The average follows faster at first, or it would carry the random start for hundreds of steps.
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            now = self.model.state_dict()
            for name, mean in self.averaged.state_dict().items():
                if mean.is_floating_point():
                    mean.lerp_(now[name], 1 - decay)
        reached = self.step + 1
        if self.recipe.keep_every and reached % self.recipe.keep_every == 0:
            note = {"recipe": f"{self.recipe.name}.yaml", "steps": str(reached)}
            save_mini(self.averaged, self.out / f"step{reached}.safetensors", note=note)
        return {"loss": float(loss.detach()), "rate": rate, **parts}


STYLE_ALPHA = 0.3


def mix_styles(model: MiniPathSegmentor, share: float) -> None:
    """In a share of training steps, mix channel means and deviations of the two finest maps between the crops of a batch."""

    def mixed(module: nn.Module, _: tuple[Tensor, ...], maps: Tensor) -> Tensor:
        if not module.training or torch.rand(()) > share:
            return maps
        values = maps.float()
        mean = values.mean((2, 3), keepdim=True).detach()
        deviation = (values.var((2, 3), keepdim=True) + 1e-5).sqrt().detach()
        weight = torch.distributions.Beta(STYLE_ALPHA, STYLE_ALPHA).sample((len(values), 1, 1, 1)).to(values)
        other = torch.randperm(len(values), device=values.device)
        target_mean = weight * mean + (1 - weight) * mean[other]
        target_deviation = weight * deviation + (1 - weight) * deviation[other]
        return ((values - mean) / deviation * target_deviation + target_mean).to(maps.dtype)

    encoder = model.image_encoder
    finest = (
        list(encoder.stages[:2])
        if isinstance(encoder, ConvPyramid)
        else [encoder.blocks[number] for number in sorted(encoder.ends)[:2]]
    )
    for part in finest:
        part.register_forward_hook(mixed)


def objective(
    model: MiniPathSegmentor, batch: Batch, recipe: MiniRecipe, soft: SoftAnswers | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Total loss of a batch and its parts. soft: what a teacher says of it."""
    with torch.autocast(batch.tiles.device.type, dtype=torch.bfloat16):
        features = model.encode_image(batch.tiles)
        answer = model.decode(features, batch.text)
        # The image head reads the features but must not shape them.
        scale, tissue = model.describe_image(features.pooled.detach())
    mask, distance, presence = answer.mask.float(), answer.distance.float(), answer.presence.float()
    segment = masked_bce(mask, batch.mask, batch.mask_known) + masked_dice(mask, batch.mask, batch.mask_known)
    gone = batch.presence_known * (1 - batch.presence)
    segment = segment * (1 - gone * (1 - recipe.absent_weight))
    said = functional.binary_cross_entropy_with_logits(presence, batch.presence, reduction="none")
    said = said * batch.presence_known
    segment = segment + recipe.presence_weight * said
    k = recipe.group_size
    weights = group_weights(segment[:, :k], gradient=recipe.group_gradient, strength=recipe.group_strength)
    grouped = (weights * segment[:, :k]).sum(1)
    close = consistency(mask[:, :k].clamp(-12, 12))
    core = masked_bce(distance, batch.distance, batch.distance_known)
    image = functional.smooth_l1_loss(scale.float(), batch.scale, reduction="none") * batch.scale_known
    kind = functional.binary_cross_entropy_with_logits(tissue.float(), batch.tissue, reduction="none")
    image = image + kind
    total = (
        grouped.mean()
        + 0.5 * segment[:, k:].mean()
        + recipe.consistency * close.mean()
        + recipe.distance_weight * core.mean()
        + recipe.image_weight * image.mean()
    )
    parts = {"segment": segment, "consistency": close, "core": core, "presence": said, "image": image}
    if soft is not None:
        heat = soft.told.temperature
        core = masked_bce(distance / heat, soft.distance, soft.distance_known)
        said = functional.binary_cross_entropy_with_logits(presence / heat, soft.presence, reduction="none")
        taught = masked_bce(mask / heat, soft.mask, soft.mask_known) + recipe.distance_weight * core
        taught = taught + recipe.presence_weight * said * soft.presence_known
        # Gradients shrink with the square of the temperature.
        total = total + soft.told.weight * heat**2 * taught.mean()
        parts |= {"taught": taught, "agreed": soft.mask_known}
    return total, {name: float(part.detach().mean()) for name, part in parts.items()}


def masked_bce(logits: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """[...] mean cross-entropy over the known pixels of [..., H, W]; 0 where nothing is known."""
    loss = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (loss * known).sum((-2, -1)) / known.sum((-2, -1)).clamp(min=1)


def masked_dice(logits: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """[...] one minus soft Dice over the known pixels of [..., H, W]; 0 where nothing is known."""
    return soft_dice(logits.sigmoid() * known, truth * known)


IMAGE_COUNTER_SHARE = 0.35
"""Pictures that are no tissue are too rare in training to judge them by."""
IMAGE_STEPS = 400
FIRST_IMAGE_BATCH = 10_000_000
"""Batches are drawn from steps that no training reaches."""


def fit_image_head(model: MiniPathSegmentor, sampler: Sampler, *, batches: int) -> None:
    """Refit ``model.image_head`` (scale, tissue or not) in place on frozen features of augmented crops; leaves it on the CPU.

    Last of all, on features that no longer change: during training the head lags behind them.
    """
    sampler = sampler.told(
        sampler.recipe.model_copy(update={"counter_share": IMAGE_COUNTER_SHARE, "distil": None})
    )
    place = next(model.parameters()).device
    model.eval()
    columns = []
    with torch.inference_mode():
        for step in range(FIRST_IMAGE_BATCH, FIRST_IMAGE_BATCH + batches):
            batch = sampler.batch(step)
            pooled = model.encode_image(batch.tiles.to(place)).pooled.mean(1).cpu()
            columns.append((pooled, batch.scale, batch.scale_known, batch.tissue))
    model.cpu()
    pooled, scale, scale_known, tissue = (torch.cat(column).clone() for column in zip(*columns, strict=True))
    optimiser = torch.optim.AdamW(model.image_head.parameters(), lr=2e-3, weight_decay=0.05)
    model.image_head.train()
    for _ in range(IMAGE_STEPS):
        rows = torch.randint(len(pooled), (128,))
        guess, logit = model.describe_image(pooled[rows][:, None])
        error = functional.smooth_l1_loss(guess, scale[rows], reduction="none") * scale_known[rows]
        loss = error.mean() + functional.binary_cross_entropy_with_logits(logit, tissue[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships this method untyped
        optimiser.step()
    model.eval()
