"""Commands that make models: train, ablate, and weights to look into a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tissuetalk.models.errors import InvalidArgumentError

if TYPE_CHECKING:
    from tissuetalk.models.training.losses import GroupGradient

JSON = Annotated[bool, typer.Option("--json", help="Print the structured result and nothing else.")]


def add_to(app: typer.Typer) -> None:
    """Registers the commands; nothing heavy is imported before one of them runs."""
    for command in (train, ablate, weights):
        app.command()(command)


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe file; examples in models/recipes.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/NAME.")] = None,
) -> None:
    """Train a model from a recipe; start again to go on where it stopped."""
    if not recipe.is_file():
        raise InvalidArgumentError(f"no recipe at {recipe}; examples lie in models/recipes.")
    from tissuetalk.tools.train.recipes import run_recipe

    print(run_recipe(recipe, out))


def weights(
    file: Annotated[Path, typer.Argument(help="A checkpoint for the full-size PathSegmentor.")],
    json_: JSON = False,
) -> None:
    """What a BiomedParse- or PathSegmentor-style checkpoint gives: loaded, missing, unexpected, of another shape."""
    from dataclasses import asdict

    from tissuetalk.models.segmentation.pathsegmentor.base_segmenter import examine

    report = examine(file)
    if json_:
        print(json.dumps(asdict(report), indent=1))
        return
    for part, names in asdict(report).items():
        print(f"{part}: {len(names)}")
        if part != "loaded":
            print("".join(f"  {name}\n" for name in names), end="")


def ablate(
    recipe: Annotated[Path, typer.Argument(help="A recipe file of the default model.")],
    out: Annotated[Path, typer.Option(help="Folder for the cells, ablation.csv, .md and .svg.")],
    k: Annotated[str, typer.Option(help="Sentences per group, with commas.")] = "1,2,3,4",
    beta: Annotated[
        str, typer.Option(help="Weights of the consistency loss, with commas.")
    ] = "0,0.05,0.1,0.2",
    gradient: Annotated[
        str, typer.Option(help="Modes of the group loss: weights, weights_raw, none, softmax; with commas.")
    ] = "weights",
    images: Annotated[int, typer.Option(min=1, help="Held-out images of each set to score.")] = 8,
    wordings: Annotated[int, typer.Option(min=1, help="Unseen sentences of each quality level.")] = 3,
) -> None:
    """Train a recipe for every K and beta and table how far wordings move its masks; start again to go on."""
    from tissuetalk.models.training.ablation import ablate as run

    run(
        recipe,
        out,
        group_sizes=[int(value) for value in _numbers(k, "--k")],
        betas=_numbers(beta, "--beta"),
        gradients=cast("list[GroupGradient]", gradient.split(",")),
        images=images,
        each_level=wordings,
    )
    print((out / "ablation.md").read_text("utf-8"))


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidArgumentError(f"{option} {text!r} is not numbers with commas between them.") from None
