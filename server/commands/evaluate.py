"""Commands that score models: evaluate, and the group that compares them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.server.commands.terminal import JSON, Model, Models, image_progress, show


class _WithDefault(TyperGroup):
    """`tissuetalk compare NAME=FOLDER …`, as it was spelled before it became a group, means its first command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *self.get_help_option_names(ctx)):
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)


group = typer.Typer(
    name="compare",
    no_args_is_help=True,
    cls=_WithDefault,
    help="Models against each other, from evaluations.",
)


def evaluate(
    manifest: Annotated[Path, typer.Argument(help="Annotated images: a manifest.csv or its folder.")],
    out: Annotated[Path, typer.Option(help="Folder for scores.csv, summary.json, report.md and plots.")],
    model: Model = None,
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
    presence: Annotated[
        Path | None,
        typer.Option(
            help="Compare ways to say whether a target is there; distributions of the check are in this file, or fitted "
            "to these images and written there."
        ),
    ] = None,
    json_: JSON = False,
) -> None:
    """Score a model on annotated images."""
    from tissuetalk.models.control import Control
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
            presence=presence,
            control=Control(progress),
        )
    show(json_, summary.model_dump_json(indent=1), (out / "summary.json").read_text("utf-8"))


@group.command()
def models(
    scored: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=FOLDER...", help="Folders that evaluate wrote.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for comparison.csv, .json, .md and .svg; with --all for baselines.md."),
    ] = None,
    all_: Annotated[
        bool,
        typer.Option("--all", help="Every method the papers compare with: run here, published, or why not."),
    ] = False,
    stand_in: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE=FOLDER", help="On CoNSeP: a model specialised on this source; repeatable."
        ),
    ] = None,
    json_: JSON = False,
) -> None:
    """Test the first model against the best of the others on the same images (one-sided paired t-test)."""
    if all_:
        from tissuetalk.tools.evaluate.baselines import all_baselines

        print(all_baselines(_named(scored or ()), out))
        return
    if out is None:
        raise InvalidArgumentError("say with --out where the comparison goes.")
    from tissuetalk.tools.evaluate.compare import compare as run

    run(_named(scored or ()), out, stand_ins=_named(stand_in or ()))
    print((out / f"comparison.{'json' if json_ else 'md'}").read_text("utf-8"))


def _named(given: Sequence[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or not name or name in folders:
            raise InvalidArgumentError(f"{text!r} is not NAME=FOLDER with a name of its own.")
        folders[name] = Path(folder)
    return folders


@group.command()
def sets(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests of several data sets.")],
    out: Annotated[Path, typer.Option(help="Folder for zero_shot.csv, .md and each set's evaluation.")],
    words: Annotated[
        str, typer.Option(help="The one sentence all sets are asked with.")
    ] = "segment all nuclei",
    model: Models = None,
    json_: JSON = False,
) -> None:
    """Score models on several data sets with one sentence and no fine-tuning."""
    from dataclasses import asdict

    from tissuetalk.models.registry import DEFAULT_MODEL
    from tissuetalk.tools.evaluate.compare import zero_shot as run
    from tissuetalk.tools.evaluate.probes import evaluate_manifest

    cells = run(
        manifests,
        model or [DEFAULT_MODEL],
        words,
        out,
        lambda manifest, folder, name: evaluate_manifest(manifest, folder, model=name, words=words),
    )
    rows = [asdict(cell) | {"dice": cell.dice.model_dump() if cell.dice else None} for cell in cells]
    show(json_, rows, (out / "zero_shot.md").read_text("utf-8"))
