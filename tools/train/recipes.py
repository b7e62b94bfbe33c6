"""Training recipes of the systems beside PathSegmentor, by their ``preset``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import yaml

PRESETS: Final = {
    "pfps": "tissuetalk.tools.train.pfps",
    "vlsm": "tissuetalk.tools.train.vlsm",
    "diagnosis": "tissuetalk.models.classifiers.cohort",
    "diagnosis-objects": "tissuetalk.models.classifiers.object_cohort",
}


def run_recipe(path: Path, out: Path | None = None) -> Path:
    """Train what the recipe names and return the folder written, by default ``runs/NAME``. Raises InvalidArgumentError."""
    values: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    module = import_module(PRESETS[values["preset"]])
    train: Callable[[Path, Mapping[str, Any], Path], Path] = module.train
    return train(path, values, out or Path("runs") / str(values.get("name", path.stem)))
