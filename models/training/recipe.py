"""A training run as data: every key is checked, defaults are written here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from tissuetalk.models.datasets.sources import SOURCES
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.segmentation.pathsegmentor.targets import TARGET_MPP
from tissuetalk.models.training.losses import GroupGradient


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, except the machine."""

    name: str
    """Names the weight file and the run folder."""
    data_root: Path
    """Folder of the data sets; relative paths start at the recipe's own folder."""
    mix: Mapping[str, float]
    """``data set/target`` to its share of crops; shares are normalised."""
    seed: int = 7
    steps: int = 6000
    """Length of the run and of the learning-rate schedule."""
    minutes: float | None = None
    """If set, the run also ends here and the schedule follows whichever is further along."""
    batch: int = 12
    crop_px: int = 256
    learning_rate: float = 1.5e-3
    head_rate: float = 1.0
    """Factor on the learning rate of the prompt head."""
    encoder_rate: float = 1.0
    """Factor on the learning rate of the image encoder."""
    imagenet: bool = False
    """Start the image encoder from ImageNet instead of at random."""
    weight_decay: float = 0.03
    warm_up_steps: int = 100
    clip_norm: float = 5.0
    average: float = 0.998
    """Decay of the running average of the weights, which is what is kept."""
    zoom: float = 0.45
    """Crops are enlarged or reduced by up to e to this power."""
    group_size: int = 2
    """Sentences per crop and target (K)."""
    group_gradient: GroupGradient = "weights"
    group_strength: float = 1.0
    """lambda of the quality-guided group loss; 0 turns it off."""
    consistency: float = 0.1
    """beta of the stop-gradient consistency loss; 0 turns it off."""
    absent_weight: float = 1.0
    """Factor on the mask loss of a target that is not there; presence is learned in full."""
    distance_weight: float = 1.0
    presence_weight: float = 0.2
    image_weight: float = 0.05
    image_batches: int = 130
    """Batches on whose features the image head is refitted at the end."""
    counter_share: float = 0.03
    """Share of crops that are no tissue at all."""
    sentences: int = 400
    """Largest number of sentences of the bank that are used for each target and level."""
    text_noise: float = 0.01
    """Gaussian noise on each component of a sentence vector of length 1."""
    full_data: bool = False
    """Train on the held-out groups too. Never for weights whose scores are reported."""
    start_from: Path | None = None
    """Weights to continue from instead of a random start."""
    checkpoint_seconds: float = 45.0
    threads: int = 2
    model: Mapping[str, Any] = field(default_factory=dict)
    """Sizes that differ from the preset's."""


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe. Raises InvalidArgumentError naming the key that is wrong."""
    if not path.is_file():
        raise InvalidArgumentError(f"there is no recipe at {path}; shipped ones are in models/recipes.")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise InvalidArgumentError(f"{path.name} is not a list of keys and values.")
    known = {entry.name for entry in fields(Recipe)}
    if unknown := set(values) - known:
        raise InvalidArgumentError(
            f"{path.name} has unknown keys {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}."
        )
    if missing := {"name", "data_root", "mix"} - set(values):
        raise InvalidArgumentError(f"{path.name} lacks {', '.join(sorted(missing))}.")
    for entry in values["mix"]:
        dataset, _, target = entry.partition("/")
        if dataset not in SOURCES or target not in TARGET_MPP:
            raise InvalidArgumentError(
                f"{path.name}: {entry!r} in mix is not data set/target; sets: {', '.join(SOURCES)}; "
                f"targets: {', '.join(TARGET_MPP)}."
            )
    for key in ("data_root", "start_from"):
        if values.get(key) is not None:
            values[key] = (path.parent / Path(values[key]).expanduser()).resolve()
    return Recipe(**values)
