"""Commands that score models: evaluate, compare, zero-shot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tissuetalk.models.errors import InvalidArgumentError

JSON = Annotated[bool, typer.Option("--json", help="Print the structured result and nothing else.")]


def add_to(app: typer.Typer) -> None:
    """Registers the commands; nothing heavy is imported before one of them runs."""
    for command in (evaluate, compare, zero_shot):
        app.command()(command)


def evaluate(
    manifest: Annotated[Path, typer.Argument(help="Annotated images: a manifest.csv or its folder.")],
    out: Annotated[Path, typer.Option(help="Folder for scores.csv, summary.json, report.md and plots.")],
    model: Annotated[str | None, typer.Option(help="See `tissuetalk models`.")] = None,
    words: Annotated[str | None, typer.Option(help="What to ask for; default: the annotated class.")] = None,
    wordings: Annotated[
        int, typer.Option(min=0, help="Also ask this many unseen sentences of each quality level.")
    ] = 0,
    box_model: Annotated[
        list[str] | None,
        typer.Option(help="Also prompt this model with boxes from the annotation; repeatable."),
    ] = None,
    pictures: Annotated[
        int, typer.Option(min=0, help="Draw this many of the worst and of the best answers.")
    ] = 0,
    json_: JSON = False,
) -> None:
    """Score a model on annotated images."""
    from tissuetalk.models.control import Control
    from tissuetalk.server.commands.printing import as_json, image_progress
    from tissuetalk.tools.evaluate.probes import evaluate_manifest

    with image_progress(json_) as progress:
        summary = evaluate_manifest(
            manifest,
            out,
            model=model,
            words=words,
            wordings=wordings,
            box_models=box_model or (),
            pictures=pictures,
            control=Control(progress),
        )
    if json_:
        as_json(summary)
    else:
        print((out / "summary.json").read_text("utf-8"))


def compare(
    scored: Annotated[
        list[str], typer.Argument(metavar="NAME=FOLDER...", help="Folders that evaluate wrote.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for comparison.csv, .json, .md and .svg.")],
    stand_in: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE=FOLDER", help="On CoNSeP: a model specialised on this source; repeatable."
        ),
    ] = None,
    json_: JSON = False,
) -> None:
    """Test the first model against the best of the others on the same images (one-sided paired t-test)."""
    from tissuetalk.tools.evaluate.compare import compare as run

    run(_named(scored), out, stand_ins=_named(stand_in or ()))
    print((out / f"comparison.{'json' if json_ else 'md'}").read_text("utf-8"))


def _named(given: Sequence[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or not name or name in folders:
            raise InvalidArgumentError(f"{text!r} is not NAME=FOLDER with a name of its own.")
        folders[name] = Path(folder)
    return folders


def zero_shot(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests of several data sets.")],
    out: Annotated[Path, typer.Option(help="Folder for zero_shot.csv, .md and each set's evaluation.")],
    words: Annotated[
        str, typer.Option(help="The one sentence all sets are asked with.")
    ] = "segment all nuclei",
    model: Annotated[list[str] | None, typer.Option(help="See `tissuetalk models`; repeatable.")] = None,
    json_: JSON = False,
) -> None:
    """Score models on several data sets with one sentence and no fine-tuning."""
    from dataclasses import asdict

    from tissuetalk.models.registry import DEFAULT_MODEL
    from tissuetalk.tools.evaluate.probes import evaluate_manifest
    from tissuetalk.tools.evaluate.zero_shot import zero_shot as run

    cells = run(
        manifests,
        model or [DEFAULT_MODEL],
        words,
        out,
        lambda manifest, folder, name: evaluate_manifest(manifest, folder, model=name, words=words),
    )
    if json_:
        rows = [asdict(cell) | {"dice": cell.dice.model_dump() if cell.dice else None} for cell in cells]
        print(json.dumps(rows, indent=1))
    else:
        print((out / "zero_shot.md").read_text("utf-8"))
