"""Recipes of the full-size PathSegmentor (``preset: base``; pathsegmentor.md, sections 6 and 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.segmentation.pathsegmentor.base import BaseConfig


@dataclass(frozen=True)
class BaseRecipe:
    """Everything that decides a run, except the machine. The defaults are the paper's."""

    name: str
    """Names the run folder."""
    manifests: tuple[Path, ...]
    """Annotated images, as `tissuetalk data prepare` writes them; rows of the test split are left out."""
    preset: Literal["base"] = "base"
    seed: int = 7
    epochs: float = 20
    steps: int | None = None
    """If set, the length of the run instead of epochs."""
    batch: int = 32
    side_px: int = 1024
    """Images are brought to about this side, then cropped or padded to it."""
    rescale: tuple[float, float] = (0.9, 1.1)
    learning_rate: float = 8e-4
    """The paper's; far above the released base configuration's 1e-5, so watch the loss."""
    encoder_rate: float = 0.1
    text_rate: float = 0.1
    """Factors on the learning rate of the image encoder and the text tower."""
    weight_decay: float = 0.05
    warm_up_steps: int = 10
    drops: tuple[float, ...] = (0.889, 0.963)
    """Shares of the run after which the learning rate falls to a tenth."""
    clip_norm: float = 5.0
    bce_weight: float = 1.0
    dice_weight: float = 1.0
    similarity_weight: float = 0.8
    """Weight of the cross-entropy that ties the right query to the sentence (0.4 times 2)."""
    points: int = 12544
    """Points per mask on which losses are computed."""
    full_image_loss: bool = False
    """Every pixel instead of points."""
    absent_share: float = 0.0
    """Share of tiles asked for a label that the manifest says is absent: the query most like it must paint nothing.
    The paper trains no absent targets; without them something is painted for nearly every question."""
    start_from: Path | None = None
    """Published or own weights to continue from."""
    vocabulary: Path | None = None
    """vocab.txt of the text tower; default: uncased BERT's, which MiniLM ships with."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Sizes that differ from the paper's; ``size: tiny`` starts from the small configuration."""
    checkpoint_seconds: float = 45.0
    threads: int = 2

    @property
    def config(self) -> BaseConfig:
        """The network's sizes. Raises InvalidArgumentError for unknown ones."""
        changes = {
            key: tuple(value) if isinstance(value, list) else value for key, value in self.model.items()
        }
        size = changes.pop("size", "paper")
        known = {entry.name for entry in fields(BaseConfig)}
        if size not in ("paper", "tiny") or set(changes) - known:
            raise InvalidArgumentError(
                f"model knows size (paper or tiny) and {', '.join(sorted(known))}; it says {dict(self.model)}."
            )
        if changes.get("text_tower", "pubmedbert") != "pubmedbert":
            raise InvalidArgumentError(
                "training uses the pubmedbert tower; the clip tower is for released weights."
            )
        start = BaseConfig.tiny() if size == "tiny" else BaseConfig()
        return BaseConfig(**{**{name: getattr(start, name) for name in known}, **changes})


def read_base_recipe(path: Path) -> BaseRecipe:
    """Read and check a recipe. Raises InvalidArgumentError naming the key that is wrong."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = {entry.name for entry in fields(BaseRecipe)}
    if unknown := set(values) - known:
        raise InvalidArgumentError(
            f"{path.name} has unknown keys {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}."
        )
    if missing := {"name", "manifests"} - {key for key, value in values.items() if value}:
        raise InvalidArgumentError(f"{path.name} lacks {', '.join(sorted(missing))}.")

    def at(place: str) -> Path:
        return (path.parent / Path(place).expanduser()).resolve()

    values["manifests"] = tuple(at(place) for place in values["manifests"])
    for key in ("start_from", "vocabulary"):
        if values.get(key) is not None:
            values[key] = at(values[key])
    values |= {key: tuple(values[key]) for key in ("rescale", "drops") if key in values}
    recipe = BaseRecipe(**values)
    if recipe.side_px % 32 or recipe.batch < 1 or not recipe.config:
        raise InvalidArgumentError(f"{path.name}: side_px must be a multiple of 32 and batch at least 1.")
    return recipe
