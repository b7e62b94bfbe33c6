"""The loop that both presets are trained by: resumed where a kill left it, logged, saved on the way."""

from __future__ import annotations

import csv
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from tissuetalk.models.control import Control
from tissuetalk.models.segmentation.pretrained import device
from tissuetalk.models.training.recipes import TrainingRecipe
from tissuetalk.models.writing import CsvWriter, whole_file

B = TypeVar("B")


def prepare_torch(recipe: TrainingRecipe) -> None:
    """Torch seeded and held to the recipe's threads, before anything of a run is built."""
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)


class TrainingRun(ABC, Generic[B]):
    """The state of one run: network, optimiser, step and time spent, all of it in the checkpoint.

    states: further parts that the checkpoint holds.
    """

    log_every: ClassVar[int] = 1

    def __init__(self, recipe: TrainingRecipe, model: nn.Module, out: Path, **states: nn.Module) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.place, self.step, self.seconds = out, device(), 0, 0.0
        self.checkpoint_seconds, self.clip_norm = recipe.checkpoint_seconds, recipe.clip_norm
        groups = parameter_groups(model, recipe)
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
        self._states: dict[str, Any] = {"model": model, "optimiser": self.optimiser, **states}
        if (checkpoint := out / "checkpoint.pt").is_file():
            found = torch.load(checkpoint, map_location=self.place, weights_only=True)
            for name, part in self._states.items():
                part.load_state_dict(found[name])
            self.step, self.seconds = found["step"], found["seconds"]

    @abstractmethod
    def batch(self, step: int) -> B:
        """The batch of a step, the same one whenever it is drawn; called on a thread of its own."""

    @abstractmethod
    def update(self, batch: B) -> dict[str, float]:
        """One step of the optimiser; returns what goes into the log."""

    @abstractmethod
    def done(self) -> float:
        """0 at the start, 1 at the end of the run."""

    def go(self, name: str, control: Control = Control()) -> None:
        """Train until the run is done, saving on the way. Raises CancelledError, with the checkpoint written."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        saved, sums = time.monotonic(), dict[str, float]()
        with Progress(*columns) as bar, ThreadPoolExecutor(1) as loader:
            task = bar.add_task(name, total=100, completed=round(100 * self.done()))
            coming = loader.submit(self.batch, self.step)
            while self.done() < 1:
                began = time.monotonic()
                batch = coming.result()
                coming = loader.submit(self.batch, self.step + 1)
                for key, value in self.update(batch).items():
                    sums[key] = sums.get(key, 0.0) + value / self.log_every
                self.step += 1
                self.seconds += time.monotonic() - began
                bar.update(task, completed=round(100 * self.done()))
                control.report(self.done(), f"step {self.step}")
                if self.step % self.log_every == 0:
                    self._log(sums)
                    sums = {}
                if control.stop() or time.monotonic() - saved > self.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
                control.check()
        self.save()

    def descend(self, loss: Tensor, rate: float) -> None:
        """Follow the gradient of a loss; every part of the network at its own factor of ``rate``."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships this method untyped
        torch.nn.utils.clip_grad_norm_(self._states["model"].parameters(), self.clip_norm)
        self.optimiser.step()

    def save(self) -> None:
        """Write the checkpoint; a kill in between leaves the previous one whole."""
        found = {name: part.state_dict() for name, part in self._states.items()}
        with whole_file(self.out / "checkpoint.pt") as partial:
            torch.save({**found, "step": self.step, "seconds": self.seconds}, partial)

    def _log(self, values: Mapping[str, float]) -> None:
        path = self.out / "log.csv"
        row = {"step": self.step, "seconds": round(self.seconds, 2)}
        row |= {name: round(value, 6) for name, value in values.items()}
        fresh = not path.is_file()
        # Appended, not replaced: a log that lacks its last line after a kill is still a log.
        with path.open("a", encoding="utf-8", newline="") as lines:
            writer = CsvWriter(lines, list(row), line_end="\r\n")
            if fresh:
                writer.header()
            writer.row(row)


def parameter_groups(model: nn.Module, recipe: TrainingRecipe) -> list[dict[str, Any]]:
    """Every part at its own rate; no decay on norms, biases and embeddings."""
    plain = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.LayerNorm | nn.GroupNorm)
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        factor = recipe.rates.get(name.partition(".")[0], 1.0)
        decay = 0.0 if parameter.ndim < 2 or id(parameter) in plain else recipe.weight_decay
        groups.setdefault((factor, decay), []).append(parameter)
    return [{"params": p, "weight_decay": decay, "factor": factor} for (factor, decay), p in groups.items()]


def draw_curves(log: Path, picture: Path) -> None:
    """Losses over steps as a picture, one panel a column of the log."""
    from matplotlib.figure import Figure

    if not log.is_file():
        return
    with log.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    names = [name for name in rows[0] if name not in ("step", "seconds")]
    figure = Figure((12, 2.4 * -(-len(names) // 3)), layout="constrained")
    panels = figure.subplots(-(-len(names) // 3), 3, squeeze=False).ravel()
    steps = [int(row["step"]) for row in rows]
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    for panel, name in zip(panels, names, strict=False):
        panel.plot(steps, [float(row[name]) for row in rows], linewidth=0.8)
        panel.set_title(name, fontsize=9)
    figure.savefig(picture, dpi=100)
