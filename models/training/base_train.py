"""Train the full-size PathSegmentor: ``tissuetalk train`` on a recipe with ``preset: base``. A killed run goes on."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.segmentation.pathsegmentor.base import PathSegmentor, build_base
from tissuetalk.models.segmentation.pathsegmentor.base_weights import load_weights, save_base
from tissuetalk.models.segmentation.pathsegmentor.text_encoder import minilm_folder
from tissuetalk.models.segmentation.pathsegmentor.tokens import word_pieces
from tissuetalk.models.segmentation.pretrained import device
from tissuetalk.models.training.base_data import TripleBatch, TripleSampler, triples
from tissuetalk.models.training.base_losses import supervised
from tissuetalk.models.training.base_recipe import BaseRecipe, read_base_recipe
from tissuetalk.models.training.train import RUNS, draw_curves


def train_base(recipe_path: Path, *, out: Path | None = None) -> Path:
    """Train a recipe to the end and return the weight file, whose folder ``segment --model pathsegmentor`` can use.

    out: run folder (default ``runs/NAME``); holds ``checkpoint.pt``, ``log.csv``, ``curves.png`` and ``weights/``. A run
    folder with a checkpoint is continued. Raises InvalidArgumentError when the loss is no longer a number.
    """
    recipe = read_base_recipe(recipe_path)
    out = out or RUNS / recipe.name
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    vocabulary = recipe.vocabulary or minilm_folder() / "vocab.txt"
    found = triples(recipe)
    run = BaseRun(recipe, TripleSampler(found, recipe, word_pieces(vocabulary, recipe.config.context)), out)
    run.go()
    labels = sorted({triple.name for triple in found})
    weights = save_base(run.model, recipe.config, out / "weights", labels=labels, vocabulary=vocabulary)
    draw_curves(out / "log.csv", out / "curves.png")
    return weights


class BaseRun:
    """The state of one run: weights, optimiser and step."""

    def __init__(self, recipe: BaseRecipe, sampler: TripleSampler, out: Path) -> None:
        self.recipe, self.sampler, self.out = recipe, sampler, out
        model = build_base(recipe.config)
        if recipe.start_from is not None:
            report = load_weights(model, recipe.start_from)
            print(
                f"{recipe.start_from.name}: {len(report.loaded)} weights loaded, {len(report.missing)} missing, "
                f"{len(report.unexpected)} unexpected, {len(report.mismatched)} of another shape"
            )
        self.model: PathSegmentor = model.to(device())
        self.optimiser = torch.optim.AdamW(parameter_groups(self.model, recipe), lr=recipe.learning_rate)
        self.step, self.seconds = 0, 0.0
        if (checkpoint := out / "checkpoint.pt").is_file():
            state = torch.load(checkpoint, weights_only=True, map_location=device())
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.seconds = state["step"], state["seconds"]

    def go(self) -> None:
        """Train until the recipe is done, saving on the way."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        total, saved = self.sampler.steps, time.monotonic()
        with Progress(*columns) as bar, ThreadPoolExecutor(1) as loader:
            task = bar.add_task(self.recipe.name, total=total, completed=self.step)
            coming = loader.submit(self.sampler.batch, self.step)
            while self.step < total:
                began = time.monotonic()
                batch = coming.result()
                coming = loader.submit(self.sampler.batch, self.step + 1)
                parts = self.update(batch)
                self.step += 1
                self.seconds += time.monotonic() - began
                self._log(parts)
                bar.update(task, completed=self.step)
                if time.monotonic() - saved > self.recipe.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
        self.save()

    def update(self, batch: TripleBatch) -> dict[str, float]:
        """One step of the optimiser."""
        rate = self.recipe.learning_rate * schedule(self.step, self.sampler.steps, self.recipe)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.model.train()
        place = device()
        points = torch.Generator().manual_seed(self.recipe.seed + 7919 * self.step)
        half = torch.autocast("cuda", dtype=torch.bfloat16) if place.type == "cuda" else nullcontext()
        with half:
            features = self.model.encode_image(batch.tiles.to(place))
            steps, sentence = self.model.answers(features, batch.ids.to(place), batch.padding.to(place))
        truth, shown, counts = (part.to(place) for part in (batch.truth, batch.shown, batch.counts))
        scale = self.model.logit_scale
        loss, parts = supervised(steps, sentence, scale, truth, shown, counts, self.recipe, points)
        if not math.isfinite(float(loss.detach())):
            raise InvalidArgumentError(
                f"the loss is no longer a number at step {self.step}; lower learning_rate ({self.recipe.learning_rate:g}) "
                f"and delete {self.out / 'checkpoint.pt'}."
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships this method untyped
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimiser.step()
        return {"loss": float(loss.detach()), "rate": rate, **parts}

    def save(self) -> None:
        """Write the checkpoint; a kill in between leaves the previous one whole."""
        partial = self.out / "checkpoint.partial"
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, partial)
        partial.replace(self.out / "checkpoint.pt")

    def _log(self, parts: Mapping[str, float]) -> None:
        path = self.out / "log.csv"
        row = {"step": self.step, "seconds": round(self.seconds, 2)}
        row |= {name: round(value, 6) for name, value in parts.items()}
        fresh = not path.is_file()
        with path.open("a", encoding="utf-8", newline="") as lines:
            writer = csv.DictWriter(lines, row.keys())
            if fresh:
                writer.writeheader()
            writer.writerow(row)


def schedule(step: int, steps: int, recipe: BaseRecipe) -> float:
    """Factor on the learning rate: a linear warm-up, then a tenth after each drop."""
    warm = min(1.0, (step + 1) / max(1, recipe.warm_up_steps))
    return warm * 0.1 ** sum(step >= share * steps for share in recipe.drops)


def parameter_groups(model: nn.Module, recipe: BaseRecipe) -> list[dict[str, Any]]:
    """Own rates for the image encoder and text tower; no decay on norms, biases and embeddings."""
    plain = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.LayerNorm | nn.GroupNorm)
        for parameter in module.parameters(recurse=False)
    }
    rates = {"image_encoder": recipe.encoder_rate, "text_encoder": recipe.text_rate}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decay = 0.0 if parameter.ndim < 2 or id(parameter) in plain else recipe.weight_decay
        groups.setdefault((rates.get(name.split(".")[0], 1.0), decay), []).append(parameter)
    return [{"params": p, "weight_decay": decay, "factor": factor} for (factor, decay), p in groups.items()]
