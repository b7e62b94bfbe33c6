"""Commands that make models: train, ablate, weights to look into a checkpoint, and describe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.server.commands.terminal import JSON, image_progress, numbers, show

if TYPE_CHECKING:
    from tissuetalk.models.training.recipes import GroupGradient

FIRST_SEED = 7
"""Of the recipes."""
group = typer.Typer(
    name="training",
    no_args_is_help=True,
    help="Around training: ablations, what a checkpoint holds, what targets look like.",
)


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe file; examples in models/recipes.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/NAME.")] = None,
    pack: Annotated[
        Path | None,
        typer.Option(help="Train nothing: write the recipe's data into this file, which data_root may name."),
    ] = None,
    most_mb: Annotated[
        float | None, typer.Option(min=0, help="With --pack: refuse to write a larger file.")
    ] = None,
    json_: JSON = False,
) -> None:
    """Train a model from a recipe; start again to go on where it stopped."""
    if not recipe.is_file():
        raise InvalidArgumentError(f"no recipe at {recipe}; examples lie in models/recipes.")
    from tissuetalk.tools.train.recipes import pack_recipe, run_recipe

    if pack is not None:
        sizes = pack_recipe(recipe, pack, most_mb)
        lines = (f"{name}: {size / 1e6:.1f} MB" for name, size in sizes.items())
        return show(json_, {"file": pack, "bytes": sizes}, *lines, pack)
    written = run_recipe(recipe, out)
    show(json_, {"out": written}, written)


def reproduce(
    paper: Annotated[str, typer.Argument(help="pathsegmentor, diagnosis, pfps, vlsm or prompt-groups.")],
    data: Annotated[Path | None, typer.Option(help="Folder with the paper's data and weights.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of all runs and page.md; default: runs/reproduce-PAPER.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Every run at tiny size on drawn data, on a CPU in minutes.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Runs of every cell, each with a seed.")] = 1,
    only: Annotated[str, typer.Option(help="Only runs whose names begin so.")] = "",
    json_: JSON = False,
) -> None:
    """Run a paper's main experiments, or go on with them; ends in a page with its tables beside ours."""
    import torch

    from tissuetalk.tools.train.reproduce.grid import reproduce as run
    from tissuetalk.tools.train.reproduce.papers import paper_named

    found = paper_named(paper)
    page = run(
        found,
        data,
        out or Path("runs") / f"reproduce-{found.name}{'-dry' if dry_run else ''}",
        dry=dry_run,
        seeds=range(FIRST_SEED, FIRST_SEED + seeds),
        only=only,
        has_gpu=torch.cuda.is_available,
    )
    show(json_, {"page": page}, page)


@group.command()
def weights(
    file: Annotated[Path, typer.Argument(help="A checkpoint for the full-size PathSegmentor.")],
    json_: JSON = False,
) -> None:
    """What a BiomedParse- or PathSegmentor-style checkpoint gives: loaded, missing, unexpected, of another shape."""
    from dataclasses import asdict

    from tissuetalk.models.segmentation.pathsegmentor.base_segmenter import examine

    report = asdict(examine(file))
    lines = []
    for part, names in report.items():
        lines += [f"{part}: {len(names)}", *(f"  {name}" for name in names if part != "loaded")]
    show(json_, report, *lines)


@group.command()
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
    json_: JSON = False,
) -> None:
    """Train a recipe for every K and beta and table how far wordings move its masks; start again to go on."""
    from dataclasses import asdict

    from tissuetalk.models.training.ablation import ablate as run

    cells = run(
        recipe,
        out,
        group_sizes=[int(value) for value in numbers(k, "--k")],
        betas=numbers(beta, "--beta"),
        gradients=cast("list[GroupGradient]", gradient.split(",")),
        images=images,
        each_level=wordings,
    )
    show(json_, [asdict(cell) for cell in cells], (out / "ablation.md").read_text("utf-8"))


@group.command()
def describe(
    manifest: Annotated[Path, typer.Argument(help="Annotated images: a manifest.csv or its folder.")],
    name: Annotated[str, typer.Argument(help="Class of what is annotated, such as polyp.")],
    out: Annotated[Path, typer.Option(help="Table for `studies` of a recipe; what it has already stays.")],
    json_: JSON = False,
) -> None:
    """Ask the language model for shape and colour of every annotated target; the pictures are sent to its server."""
    from tissuetalk.models.control import Control
    from tissuetalk.prompts.readers import LanguageSettings, endpoint_model
    from tissuetalk.tools.train.describe import describe as run

    model = endpoint_model(LanguageSettings.from_environment())
    with image_progress(json_) as progress:
        written = run(manifest, name, out, model, Control(progress))
    show(json_, {"table": str(written)}, str(written))
