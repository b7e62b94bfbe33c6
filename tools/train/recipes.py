"""Which trainer a recipe is for, by its ``preset``; nothing heavy is imported before one of them runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tissuetalk.models.control import Control
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.recipe import read_values
from tissuetalk.models.segmenter import Prompt
from tissuetalk.prompts.names import prompt_of
from tissuetalk.prompts.taxonomy import Label, pathsegmentor_prompt

if TYPE_CHECKING:
    from tissuetalk.models.classifiers.card import ClassifierCard
    from tissuetalk.models.classifiers.recipe import CohortRecipe

RUNS: Final = Path("runs")


class Trainer(NamedTuple):
    """Both as ``module:name`` below tissuetalk. recipe: a class. train: from recipe and folder to what was written."""

    recipe: str
    train: str


TRAINERS: Final[Mapping[str, Trainer]] = {
    "mini": Trainer("models.training.recipes:MiniRecipe", "models.training.mini:train_mini"),
    "base": Trainer("models.training.recipes:BaseRecipe", "models.training.base:train_base"),
    "pfps": Trainer("tools.train.pfps:PfpsRecipe", "tools.train.pfps:train"),
    "vlsm": Trainer("tools.train.vlsm:VlsmRecipe", "tools.train.vlsm:train"),
    "prompt-groups": Trainer("models.training.groups:GroupsRecipe", "models.training.groups:train_groups"),
    "diagnosis": Trainer("models.classifiers.recipe:CohortRecipe", "tools.train.recipes:train_classifier"),
    "diagnosis-objects": Trainer(
        "models.classifiers.recipe:CohortRecipe", "tools.train.recipes:train_classifier"
    ),
}
"""By preset. A new trainer is a line here."""


def run_recipe(path: Path, out: Path | None = None, control: Control = Control()) -> Path:
    """Train what the recipe names; returns the weights or the folder written, by default ``runs/NAME``.

    Raises InvalidArgumentError that names the key which is wrong.
    """
    preset = read_values(path).get("preset", "mini")
    if preset not in TRAINERS:
        raise InvalidArgumentError(f"{path.name}: preset is one of {', '.join(TRAINERS)}, not {preset!r}.")
    recipe, train = (_named(place) for place in TRAINERS[preset])
    checked = recipe.read(path)
    out = out or RUNS / checked.name
    written = train(checked, out, control=control)
    return written if isinstance(written, Path) else out


def pack_recipe(path: Path, out: Path, most_mb: float | None = None) -> dict[str, int]:
    """Put what a recipe of the default model trains on into one file; returns the bytes of every set. Raises InvalidArgumentError."""
    if (preset := read_values(path).get("preset", "mini")) != "mini":
        raise InvalidArgumentError(
            f"{path.name}: only data of the preset mini can be packed, not of {preset!r}."
        )
    from tissuetalk.models.datasets.archive import pack
    from tissuetalk.models.training.mini import data_files
    from tissuetalk.models.training.recipes import MiniRecipe

    recipe = MiniRecipe.read(path)
    return pack(recipe.data, data_files(recipe), out, most_mb)


def _named(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(f"tissuetalk.{module}"), name)


def prompt_of_label(label: str) -> Prompt:
    """A canonical label as ``segment`` asks for it. Raises UnknownLabelError."""
    parsed = Label.parse(label)
    return prompt_of(str(parsed), parsed.object_type, pathsegmentor_prompt(parsed))


def train_classifier(recipe: CohortRecipe, out: Path, control: Control = Control()) -> ClassifierCard:
    """Slide classifiers: what their evidence is read from is asked for in the taxonomy's sentences."""
    from tissuetalk.models.classifiers.cohort_training import train_cohort

    def report(said: str) -> None:
        print(said, file=sys.stderr)
        control.check()

    return train_cohort(recipe, out, prompt_of=prompt_of_label, report=report)
