"""Run a recipe: ``tissuetalk train RECIPE.yaml``. A killed run goes on where its last checkpoint left it."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from tissuetalk.models.datasets.augment import counterexamples
from tissuetalk.models.datasets.example import Example
from tissuetalk.models.datasets.sources import load
from tissuetalk.models.datasets.wordings import LEVELS, wordings
from tissuetalk.models.segmentation.pathsegmentor.lite_encoder import imagenet_weights
from tissuetalk.models.segmentation.pathsegmentor.mini import MiniConfig, MiniPathSegmentor
from tissuetalk.models.segmentation.pathsegmentor.text_encoder import MiniLMSentences
from tissuetalk.models.segmentation.pathsegmentor.weights import load_mini, save_mini
from tissuetalk.models.segmentation.pretrained import device
from tissuetalk.models.training.image_head import fit_image_head
from tissuetalk.models.training.losses import consistency, group_weights, masked_bce, masked_dice
from tissuetalk.models.training.recipe import Recipe, read_recipe
from tissuetalk.models.training.sampler import Batch, Sampler

RUNS = Path("runs")
LOG_EVERY = 20


def train(recipe_path: Path, *, out: Path | None = None) -> Path:
    """Train a recipe to the end and return the weight file.

    out: run folder (default ``runs/NAME``); holds ``checkpoint.pt``, ``log.csv``, ``curves.png`` and the weights. A run
    folder with a checkpoint is continued.
    """
    recipe = read_recipe(recipe_path)
    out = out or RUNS / recipe.name
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    sampler = Sampler(_examples(recipe), recipe, sentence_vectors(recipe))
    run = Run(recipe, out)
    run.go(sampler)
    run.averaged.to("cpu")
    fit_image_head(run.averaged, sampler, batches=recipe.image_batches)
    weights = out / f"{recipe.name}.safetensors"
    save_mini(run.averaged, weights, note={"recipe": recipe_path.name, "steps": str(run.step)})
    draw_curves(out / "log.csv", out / "curves.png")
    return weights


def _examples(recipe: Recipe) -> list[Example]:
    datasets = sorted({entry.partition("/")[0] for entry in recipe.mix})
    examples = [example for dataset in datasets for example in load(recipe.data_root, dataset)]
    kept = [example for example in examples if recipe.full_data or not example.held_out]
    return kept + list(counterexamples(recipe.seed))


def sentence_vectors(recipe: Recipe) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Target to level to [N, 384] sentence vectors of the training bank."""
    tower, rng = MiniLMSentences(), np.random.default_rng(recipe.seed)
    vectors: dict[str, dict[str, NDArray[np.float32]]] = {}
    for target in sorted({entry.partition("/")[2] for entry in recipe.mix}):
        bank = wordings(target)
        vectors[target] = {}
        for level in LEVELS:
            texts = [wording.text for wording in bank if wording.level == level]
            chosen = rng.permutation(len(texts))[: recipe.sentences]
            rows = [
                tower.embed_many([texts[i] for i in chosen[k : k + 64]]) for k in range(0, len(chosen), 64)
            ]
            vectors[target][level] = torch.cat(rows).numpy()
    return vectors


class Run:
    """The state of one run: weights, their average, optimiser, step and time spent."""

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe, self.out = recipe, out
        sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in recipe.model.items()}
        start = load_mini(recipe.start_from) if recipe.start_from else MiniPathSegmentor(MiniConfig(**sizes))
        if recipe.imagenet:
            start.image_encoder.load_state_dict(imagenet_weights(start.config.encoder))
        self.place = device()
        self.model = start.in_channels_last().to(self.place)
        self.averaged = MiniPathSegmentor(self.model.config).to(self.place)
        self.averaged.load_state_dict(self.model.state_dict())
        self.optimiser = torch.optim.AdamW(
            _parameter_groups(self.model, recipe), lr=recipe.learning_rate, fused=True
        )
        self.step, self.seconds = 0, 0.0
        if (checkpoint := out / "checkpoint.pt").is_file():
            state = torch.load(checkpoint, map_location=self.place, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.seconds = state["step"], state["seconds"]

    def progress(self) -> float:
        """0 at the start, 1 at the end of the run."""
        spent = self.seconds / (60 * self.recipe.minutes) if self.recipe.minutes else 0.0
        return min(1.0, max(self.step / self.recipe.steps, spent))

    def go(self, sampler: Sampler) -> None:
        """Train until the recipe is done, saving on the way."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        saved = time.monotonic()
        sums: dict[str, float] = {}
        with Progress(*columns) as bar, ThreadPoolExecutor(1) as loader:
            task = bar.add_task(self.recipe.name, total=self.recipe.steps, completed=self.step)
            coming = loader.submit(sampler.batch, self.step)
            while self.progress() < 1:
                began = time.monotonic()
                batch = coming.result()
                coming = loader.submit(sampler.batch, self.step + 1)
                for key, value in self._update(batch).items():
                    sums[key] = sums.get(key, 0.0) + value / LOG_EVERY
                self.step += 1
                self.seconds += time.monotonic() - began
                bar.update(task, completed=self.step)
                if self.step % LOG_EVERY == 0:
                    self._log(sums)
                    sums = {}
                if time.monotonic() - saved > self.recipe.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
        self.save()

    def save(self) -> None:
        """Write the checkpoint; a kill in between leaves the previous one whole."""
        partial = self.out / "checkpoint.partial"
        state = {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, partial)
        partial.replace(self.out / "checkpoint.pt")

    def _update(self, batch: Batch) -> dict[str, float]:
        warm = min(1.0, (self.step + 1) / max(1, self.recipe.warm_up_steps))
        rate = (
            self.recipe.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.progress())))
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.model.train()
        loss, parts = objective(self.model, batch.to(self.place), self.recipe)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships this method untyped
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimiser.step()
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for kept, new in zip(
                self.averaged.state_dict().values(), self.model.state_dict().values(), strict=True
            ):
                if kept.is_floating_point():
                    kept.lerp_(new, 1 - decay)
        return {"loss": float(loss.detach()), "rate": rate, **parts}

    def _log(self, sums: Mapping[str, float]) -> None:
        path = self.out / "log.csv"
        row = {
            "step": self.step,
            "seconds": round(self.seconds, 1),
            **{k: round(v, 6) for k, v in sums.items()},
        }
        fresh = not path.is_file()
        with path.open("a", encoding="utf-8", newline="") as lines:
            writer = csv.DictWriter(lines, row.keys())
            if fresh:
                writer.writeheader()
            writer.writerow(row)


def _parameter_groups(model: torch.nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """No decay on norms and biases; the prompt head and the image encoder may learn at their own rates."""
    factors = {"prompt_head": recipe.head_rate, "image_encoder": recipe.encoder_rate}
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        factor = factors.get(name.partition(".")[0], 1.0)
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((factor, decay), []).append(parameter)
    return [{"params": p, "weight_decay": decay, "factor": factor} for (factor, decay), p in groups.items()]


def objective(model: MiniPathSegmentor, batch: Batch, recipe: Recipe) -> tuple[Tensor, dict[str, float]]:
    """Total loss of a batch and its parts."""
    with torch.autocast(batch.tiles.device.type, dtype=torch.bfloat16):
        features = model.encode_image(batch.tiles)
        answer = model.decode(features, batch.text)
        scale, tissue = model.describe_image(features.__class__(features.pixels, features.pooled.detach()))
    mask, distance, presence = answer.mask.float(), answer.distance.float(), answer.presence.float()
    segment = masked_bce(mask, batch.mask, batch.mask_known) + masked_dice(mask, batch.mask, batch.mask_known)
    gone = batch.presence_known * (1 - batch.presence)
    segment = segment * (1 - gone * (1 - recipe.absent_weight))
    presence_loss = torch.nn.functional.binary_cross_entropy_with_logits(
        presence, batch.presence, reduction="none"
    )
    presence_loss = presence_loss * batch.presence_known
    segment = segment + recipe.presence_weight * presence_loss
    k = recipe.group_size
    weights = group_weights(segment[:, :k], gradient=recipe.group_gradient, strength=recipe.group_strength)
    grouped = (weights * segment[:, :k]).sum(1)
    close = consistency(mask[:, :k].clamp(-12, 12))
    core = masked_bce(distance, batch.distance, batch.distance_known)
    image = (
        torch.nn.functional.smooth_l1_loss(scale.float(), batch.scale, reduction="none") * batch.scale_known
    )
    image = image + torch.nn.functional.binary_cross_entropy_with_logits(
        tissue.float(), batch.tissue, reduction="none"
    )
    total = (
        grouped.mean()
        + 0.5 * segment[:, k:].mean()
        + recipe.consistency * close.mean()
        + recipe.distance_weight * core.mean()
        + recipe.image_weight * image.mean()
    )
    parts = {
        "segment": float(segment.detach().mean()),
        "consistency": float(close.detach().mean()),
        "core": float(core.detach().mean()),
        "presence": float(presence_loss.detach().mean()),
        "image": float(image.detach().mean()),
    }
    return total, parts


def draw_curves(log: Path, picture: Path) -> None:
    """Losses over steps as a picture, one panel a column of the log."""
    import cv2

    if not log.is_file():
        return
    with log.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    panels = []
    for name in [key for key in rows[0] if key not in ("step", "seconds")]:
        values = np.array([float(row[name]) for row in rows])
        panel = np.full((220, 420, 3), 255, np.uint8)
        low, high = float(values.min()), float(values.max())
        heights = 200 - 170 * (values - low) / max(high - low, 1e-9)
        points = np.stack([np.linspace(10, 410, len(values)), heights], axis=1).astype(np.int32)
        cv2.polylines(panel, [points], False, (160, 60, 20), 1, cv2.LINE_AA)
        cv2.putText(
            panel, f"{name}: {low:.4g} to {high:.4g}", (10, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1
        )
        panels.append(panel)
    panels += [np.full_like(panels[0], 255)] * (-len(panels) % 3)
    cv2.imwrite(str(picture), np.vstack([np.hstack(panels[k : k + 3]) for k in range(0, len(panels), 3)]))
