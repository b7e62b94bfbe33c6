"""What several commands share: options with their choices, numbers with commas, and JSON on stdout."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.prompts.target import ReaderName
from tissuetalk.tools.export import FORMATS
from tissuetalk.tools.measure.metrics import METRICS


def choices(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Shell completion from a table that is imported only when somebody presses the key."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def _models() -> Iterable[str]:
    from tissuetalk.models.registry import MODELS

    return MODELS


def _classifiers() -> Iterable[str]:
    from tissuetalk.models.classifiers.card import classifiers

    return classifiers()


EngineName = Literal["local", "ray"]
JSON = Annotated[bool, typer.Option("--json", help="Print the structured result and nothing else.")]
Model = Annotated[str | None, typer.Option(help="See `tissuetalk models`.", autocompletion=choices(_models))]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="See `tissuetalk models`; repeatable.", autocompletion=choices(_models)),
]
Reader = Annotated[ReaderName, typer.Option(help="How words are read.")]
Classifier = Annotated[
    str | None,
    typer.Option(help="A diagnosis classifier to explain, by name.", autocompletion=choices(_classifiers)),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", help=f"Repeatable: {', '.join(METRICS)}.", autocompletion=choices(METRICS.keys)),
]
Format = Annotated[
    str,
    typer.Option(
        help="; ".join(f"{name}: {entry.summary}" for name, entry in FORMATS.items()),
        autocompletion=choices(FORMATS.keys),
    ),
]
ResultDir = Annotated[Path, typer.Argument(help="Folder written by segment.")]


def default_workspace() -> Path:
    """TISSUETALK_WORKSPACE, or the user's data folder."""
    import platformdirs

    named = os.environ.get("TISSUETALK_WORKSPACE")
    return Path(named) if named else Path(platformdirs.user_data_dir("tissuetalk")) / "workspace"


def numbers(text: str, option: str, count: int | None = None) -> list[float]:
    """Comma-separated numbers of an option. Raises InvalidArgumentError unless there are ``count``."""
    try:
        values = [float(part) for part in text.replace(" ", "").split(",")]
    except ValueError:
        values = []
    if not values or count not in (None, len(values)):
        wanted = "numbers" if count is None else f"{count} numbers"
        raise InvalidArgumentError(f"{option} {text!r} is not {wanted} with commas between them.")
    return values


def print_json(content: Any) -> None:
    print(json.dumps(content, indent=1, default=str))
