"""Which trainer a recipe is for, by its ``preset``; nothing heavy is imported before one of them runs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.recipe import read_values

RUNS: Final = Path("runs")


class Trainer(NamedTuple):
    """Both as ``module:name``. read: from the file to its checked recipe. train: from recipe and folder to what was written."""

    read: str
    train: str


TRAINERS: Final[Mapping[str, Trainer]] = {
    "mini": Trainer(
        "tissuetalk.models.training.recipes:MiniRecipe.read", "tissuetalk.models.training.mini:train_mini"
    ),
    "base": Trainer(
        "tissuetalk.models.training.recipes:BaseRecipe.read", "tissuetalk.models.training.base:train_base"
    ),
    "pfps": Trainer("tissuetalk.tools.train.pfps:PfpsRecipe.read", "tissuetalk.tools.train.pfps:train"),
    "vlsm": Trainer("tissuetalk.tools.train.vlsm:VlsmRecipe.read", "tissuetalk.tools.train.vlsm:train"),
    "diagnosis": Trainer(
        "tissuetalk.models.classifiers.recipe:CohortRecipe.read", "tissuetalk.tools.train.diagnosis:train"
    ),
    "diagnosis-objects": Trainer(
        "tissuetalk.models.classifiers.recipe:CohortRecipe.read", "tissuetalk.tools.train.diagnosis:train"
    ),
}
"""By preset. A new trainer is a line here."""


def run_recipe(path: Path, out: Path | None = None) -> Path:
    """Train what the recipe names; returns the weights or the folder written, by default ``runs/NAME``.

    Raises InvalidArgumentError that names the key which is wrong.
    """
    preset = read_values(path).get("preset", "mini")
    if preset not in TRAINERS:
        raise InvalidArgumentError(f"{path.name}: preset is one of {', '.join(TRAINERS)}, not {preset!r}.")
    trainer = TRAINERS[preset]
    recipe = _named(trainer.read)(path)
    out = out or RUNS / recipe.name
    written = _named(trainer.train)(recipe, out)
    return written if isinstance(written, Path) else out


def _named(place: str) -> Any:
    module, name = place.split(":")
    return attrgetter(name)(import_module(module))
