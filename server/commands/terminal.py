"""What several commands share: options with their choices, numbers with commas, and what is printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.prompts.target import ReaderName
from tissuetalk.tools.export import FORMATS
from tissuetalk.tools.measure.metrics import METRICS

if TYPE_CHECKING:
    from rich.table import Table

    from tissuetalk.tools.storage.archives import Archive


def choices(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Shell completion from a table that is imported only when somebody presses the key."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


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
ArchivesGiven = Annotated[
    list[str] | None,
    typer.Option(
        "--archive",
        envvar="TISSUETALK_ARCHIVES",
        help="NAME=https://HOST/dicom-web: a DICOMweb archive that may be asked for slides, as dicomweb:NAME/…; repeatable.",
    ),
]
CredentialsGiven = Annotated[
    list[str] | None,
    typer.Option(
        "--archive-credentials",
        help="NAME=FILE: a file with user:password or Bearer TOKEN; else TISSUETALK_ARCHIVE_NAME holds that. Repeatable.",
    ),
]
ResultDir = Annotated[Path, typer.Argument(help="Folder written by segment.")]


def archives_from(given: Sequence[str] | None, credentials: Sequence[str] | None) -> tuple[Archive, ...]:
    """Raises InvalidArgumentError."""
    if not given and not credentials:
        return ()
    from tissuetalk.tools.storage.archives import Archive, Archives

    files = {name: Path(file) for name, _, file in (each.partition("=") for each in credentials or ())}
    known = Archives([Archive.from_text(each, files) for each in given or ()])
    for name in files:
        known.named(name)
    return tuple(known)


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


def show(as_json: bool, structured: Any, *shown: Any) -> None:
    """Print the structured result alone, or what a person reads: text as it is, anything else laid out for the terminal.

    structured: JSON already where it is text.
    """
    if as_json:
        print(structured if isinstance(structured, str) else json.dumps(structured, indent=1, default=str))
        return
    for each in shown:
        if isinstance(each, str | Path):  # never wrapped: paths are copied from here
            print(each)
        else:
            from rich.console import Console

            Console(highlight=False, soft_wrap=False).print(each)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Cells are plain text: brackets in a report are not styles."""
    from rich.table import Column, Table
    from rich.text import Text

    laid_out = Table(
        *(Column(name, overflow="fold") for name in columns), box=None, pad_edge=False, header_style="bold"
    )
    for row in rows:
        laid_out.add_row(*map(Text, row))
    return laid_out


@contextmanager
def image_progress(quiet: bool) -> Iterator[Callable[[float, str], None]]:
    """A progress bar on stderr, so that stdout stays the result's."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("segmenting", total=1.0)
        yield lambda done, what: bar.update(task, completed=done, description=what)
