"""The loop that every trainer here goes through: resumed where a kill left it, logged, saved on the way, the best kept."""

from __future__ import annotations

import csv
import json
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from tissuetalk.models.control import Control
from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.models.segmentation.pretrained import device
from tissuetalk.models.training.recipes import RunRecipe, TrainingRecipe
from tissuetalk.models.training.several import bring_together, share
from tissuetalk.models.writing import CsvWriter, whole_file, write_whole

B = TypeVar("B")
CHECKPOINT: Final = "checkpoint.pt"
LOG: Final = "log.csv"
BOARD: Final = "tensorboard"


def prepare_torch(recipe: RunRecipe) -> None:
    """Torch seeded and held to the recipe's threads, before anything of a run is built."""
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)


class TrainingRun(ABC, Generic[B]):
    """The state of one run: network, optimiser, step, time spent and torch's random state, all of it in the checkpoint.

    A run that was killed and started again takes the same steps as one that was not, provided that ``batch`` depends on
    the step alone.

    optimiser: its groups may have a ``factor`` on the rate. clip_norm: longest gradient, None for any. states: further
    parts that the checkpoint holds.
    """

    log_every: int = 1
    loaders: int = 1
    """Batches that are drawn at once, each on a thread; more than one only where ``batch`` may be called so."""
    divides_batches: bool = False
    """Whether each of several processes takes a share of a batch."""
    marks: dict[str, float]
    """Further numbers that the checkpoint holds."""

    def __init__(
        self,
        recipe: RunRecipe,
        model: nn.Module,
        out: Path,
        optimiser: torch.optim.Optimizer,
        *,
        clip_norm: float | None = None,
        **states: Any,
    ) -> None:
        if share().processes > 1 and not self.divides_batches:
            raise InvalidArgumentError(
                "this preset trains in one process, several would only do the same; start it without `accelerate launch`."
            )
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.place, self.step, self.seconds = out, device(), 0, 0.0
        self.optimiser, self.clip_norm, self.marks = optimiser, clip_norm, {}
        self._told, self._sums = recipe, dict[str, float]()
        self._model, self._states = model, {"optimiser": optimiser, **states}
        self._opened: ScalarBoard | None = None
        if (out / CHECKPOINT).is_file():
            self._resume(torch.load(out / CHECKPOINT, map_location=self.place, weights_only=True))

    @abstractmethod
    def batch(self, step: int) -> B:
        """The batch of a step, the same one whenever it is drawn; called on another thread."""

    @abstractmethod
    def update(self, batch: B) -> dict[str, float]:
        """One step of the optimiser; returns what goes into the log."""

    @abstractmethod
    def done(self) -> float:
        """0 at the start, 1 at the end of the run."""

    def stored(self, key: str) -> bool:
        """Whether a weight belongs into the checkpoint; all others are those of a published file, which the recipe names."""
        return True

    def noted(self) -> dict[str, float]:
        """Called before each row of the log is written; returns what else goes into it."""
        return {}

    def go(self, name: str, control: Control = Control()) -> None:
        """Train until the run is done, saving on the way. Raises CancelledError, with the checkpoint written.

        Raises ModelUnavailableError where the memory of the GPU is too small; the last checkpoint stays.
        """
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        saved = time.monotonic()
        with Progress(*columns, console=Console(stderr=True)) as bar, self._coming() as batches:
            task = bar.add_task(name, total=100, completed=round(100 * self.done()))
            while self.done() < 1:
                began = time.monotonic()
                self._learn(next(batches))
                self.seconds += time.monotonic() - began
                bar.update(task, completed=round(100 * self.done()))
                control.report(self.done(), f"step {self.step}")
                if control.stop() or time.monotonic() - saved > self._told.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
                control.check()
        self.save()

    @contextmanager
    def _coming(self) -> Iterator[Iterator[B]]:
        """The batches from this step on, drawn ahead; those that nobody takes are not finished."""
        with ThreadPoolExecutor(self.loaders) as pool:
            ahead = deque(pool.submit(self.batch, self.step + number) for number in range(self.loaders))

            def batches() -> Iterator[B]:
                for step in count(self.step + self.loaders):
                    batch = ahead.popleft().result()
                    ahead.append(pool.submit(self.batch, step))
                    yield batch

            try:
                yield batches()
            finally:
                pool.shutdown(cancel_futures=True)

    def _learn(self, batch: B) -> None:
        """One step with its place in the log."""
        try:
            values = self.update(batch)
        except torch.OutOfMemoryError as error:
            raise ModelUnavailableError(
                f"the GPU's memory is full at step {self.step}; free it and start again, which goes on from the last "
                "checkpoint, in more parts (`accumulate`, where the recipe knows it), or train with a smaller batch in a new folder."
            ) from error
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + value / self.log_every
        self.step += 1
        if self.step % self.log_every == 0:
            self._log(self.noted() | self._sums)
            self._sums = {}

    def descend(self, losses: Tensor | Iterable[Tensor], rate: float | None = None) -> None:
        """Follow the gradient of a loss; every part of the network at its own factor of ``rate``, or as the optimiser says.

        losses: one, or parts that add up to it, of which only one at a time is held in memory.
        Raises InvalidArgumentError where the loss is no longer a number.
        """
        if rate is not None:
            for group in self.optimiser.param_groups:
                group["lr"] = rate * group.get("factor", 1.0)
        self.optimiser.zero_grad(set_to_none=True)
        for loss in [losses] if isinstance(losses, Tensor) else losses:
            if not math.isfinite(float(loss.detach())):
                raise InvalidArgumentError(
                    f"the loss is no longer a number at step {self.step}; lower the learning rate and delete "
                    f"{self.out / CHECKPOINT}."
                )
            loss.backward()
        if share().processes > 1:
            bring_together(self._model)
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self.clip_norm)
        self.optimiser.step()

    def save(self) -> None:
        """Write the checkpoint; a kill in between leaves the previous one whole."""
        if not share().first:
            return
        found: dict[str, Any] = {name: part.state_dict() for name, part in self._states.items()}
        found["model"] = {key: value for key, value in self._model.state_dict().items() if self.stored(key)}
        found |= {"step": self.step, "seconds": self.seconds, "marks": self.marks, "sums": self._sums}
        found |= {"random": torch.get_rng_state(), "recipe": self._told.model_dump_json()}
        if self.place.type == "cuda":
            found["random_cuda"] = torch.cuda.get_rng_state(self.place)
        with whole_file(self.out / CHECKPOINT) as partial:
            torch.save(found, partial)

    def _resume(self, found: Mapping[str, Any]) -> None:
        if changed := _changed(found.get("recipe"), self._told):
            raise InvalidArgumentError(
                f"{self.out} holds a run of another recipe: {changed} differs; train in a new folder, or delete "
                f"{self.out / CHECKPOINT} to begin again."
            )
        self._model.load_state_dict(self._model.state_dict() | found["model"])
        for name, part in self._states.items():
            part.load_state_dict(found[name])
        self.step, self.seconds = found["step"], found["seconds"]
        self.marks |= found.get("marks", {})
        self._sums |= found.get("sums", {})
        if "random" in found:  # not in checkpoints of 0.1
            torch.set_rng_state(found["random"].cpu())
        if "random_cuda" in found and self.place.type == "cuda":
            torch.cuda.set_rng_state(found["random_cuda"].cpu(), self.place)
        if share().first:
            _rewind(self.out / LOG, self.step)

    def _log(self, values: Mapping[str, float]) -> None:
        if not share().first:
            return
        path = self.out / LOG
        row = {"step": self.step, "seconds": round(self.seconds, 2)}
        row |= {name: round(value, 6) for name, value in values.items()}
        fresh = not path.is_file()
        # Appended, not replaced: a log that lacks its last line after a kill is still a log.
        with path.open("a", encoding="utf-8", newline="") as lines:
            writer = CsvWriter(lines, list(row), line_end="\r\n")
            if fresh:
                writer.header()
            writer.row(row)
        if self._told.tensorboard:
            self._board().log(row)

    def _board(self) -> ScalarBoard:
        if self._opened is None:
            self._opened = ScalarBoard(self.out / BOARD)
        return self._opened


class ScalarBoard:
    """The log once more, as TensorBoard reads it. Raises ModelUnavailableError where ``tensorboard`` is not installed."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ModelUnavailableError(
                "the recipe wants a TensorBoard log and the package is missing; run `pip install tensorboard`, or leave "
                "`tensorboard` out: log.csv has the same figures."
            ) from error
        untyped: Any = SummaryWriter
        self._writer: Any = untyped(str(folder))

    def log(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name != "step" and math.isfinite(value):
                self._writer.add_scalar(name, value, int(row["step"]))
        self._writer.flush()


class EpochRun(TrainingRun[B]):
    """A run in epochs, checked on validation data: the best weights are kept, and it may end when nothing improves.

    epoch_steps: optimiser steps an epoch. check_every: epochs. patience: epochs without a better score after which the run
    ends; None for never. A run is always checked at its last epoch.
    """

    def __init__(
        self,
        recipe: RunRecipe,
        model: nn.Module,
        out: Path,
        optimiser: torch.optim.Optimizer,
        *,
        epochs: int,
        epoch_steps: int,
        check_every: int = 1,
        patience: int | None = None,
        clip_norm: float | None = None,
        **states: Any,
    ) -> None:
        self.epochs, self.log_every = epochs, epoch_steps
        self.check_every, self.patience = check_every, patience
        super().__init__(recipe, model, out, optimiser, clip_norm=clip_norm, **states)
        self.marks = {"best": -math.inf, "best_epoch": 0} | self.marks

    @abstractmethod
    def validate(self) -> float:
        """Score on validation data, larger is better; draws nothing from torch's random state."""

    @abstractmethod
    def keep(self) -> None:
        """Write the weights, which are the best so far."""

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self.step // self.log_every

    def done(self) -> float:
        if self.patience is not None and self.epoch - self.marks["best_epoch"] > self.patience:
            return 1.0
        return min(1.0, self.step / (self.epochs * self.log_every))

    def noted(self) -> dict[str, float]:
        score = math.nan
        if self.epoch % self.check_every == 0 or self.epoch >= self.epochs:
            score = self.validate()
            if score > self.marks["best"]:
                self.marks |= {"best": score, "best_epoch": self.epoch}
                # Before the checkpoint: after a kill in between the same steps are taken again and end in the same file.
                self.keep()
        return {"epoch": self.epoch, "validation_dice": score}


MAY_CHANGE: Final = frozenset(
    {
        "name",
        "threads",
        "checkpoint_seconds",
        "epochs",
        "steps",
        "minutes",
        "test",
        "wrong_attributes",
        "tensorboard",
        "accumulate",
        "loaders",
    }
)
"""Keys of a recipe that a run may be continued with in another form."""


def _changed(before: str | None, recipe: RunRecipe) -> str:
    """The first key that a checkpoint was written with in another form; empty where there is none."""
    if before is None:  # not in checkpoints of 0.1
        return ""
    then, now = (_without_folders(json.loads(text)) for text in (before, recipe.model_dump_json()))
    return next((key for key in now if key not in MAY_CHANGE and key in then and now[key] != then[key]), "")


def _without_folders(value: Any) -> Any:
    """Paths by their last part: data may have moved."""
    if isinstance(value, dict):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def _rewind(log: Path, step: int) -> None:
    """Take out the rows of steps that come again."""
    if not log.is_file():
        return
    # Bytes, because the line ends matter: a kill may have cut the last line, even the header, and what it tells comes again.
    header, *rows = [line for line in log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")] or [
        b""
    ]
    write_whole(log, b"".join([header, *(row for row in rows if int(row.partition(b",")[0]) <= step)]))
    if not header:
        log.unlink()


def adamw(model: nn.Module, recipe: TrainingRecipe) -> torch.optim.AdamW:
    """The optimiser of both PathSegmentors."""
    return torch.optim.AdamW(parameter_groups(model, recipe), lr=recipe.learning_rate, fused=True)


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
    """Losses over steps as a picture, one panel a column of the log; none of a single row."""
    if not log.is_file():
        return
    with log.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    if len(rows) < 2:
        return
    from matplotlib.figure import Figure

    names = [name for name in rows[0] if name not in ("step", "seconds", "epoch")]
    figure = Figure((12, 2.4 * -(-len(names) // 3)), layout="constrained")
    panels = figure.subplots(-(-len(names) // 3), 3, squeeze=False).ravel()
    steps = [int(row["step"]) for row in rows]
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    for panel, name in zip(panels, names, strict=False):
        panel.plot(steps, [float(row[name]) for row in rows], linewidth=0.8)
        panel.set_title(name, fontsize=9)
    figure.savefig(picture, dpi=100)
