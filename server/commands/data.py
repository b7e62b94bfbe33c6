"""tissuetalk data: annotated images brought by the user, as manifests that evaluate and train read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.server.commands.terminal import JSON, image_progress, show

group = typer.Typer(
    name="data", no_args_is_help=True, help="Annotated images of yours as manifests for evaluate and train."
)


@group.command()
def sources(json_: JSON = False) -> None:
    """The 17 PathSeg sources and the files expected of each."""
    from tissuetalk.models.datasets.pathseg.source import sources as known

    keys = ("name", "magnification", "split", "layout")
    show(
        json_,
        [{key: getattr(source, key) for key in keys} for source in known().values()],
        *(
            f"{each.name} ({each.magnification:g}x, {each.split} split): {each.layout}"
            for each in known().values()
        ),
    )


@group.command()
def prepare(
    source: Annotated[str, typer.Argument(help="One of `tissuetalk data sources`.")],
    folder: Annotated[Path, typer.Argument(help="Folder with the source's files as published.")],
    out: Annotated[Path, typer.Option(help="New folder for patches, masks and manifests.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many source images, for a try.")] = None,
    json_: JSON = False,
) -> None:
    """Bring a source to 40x and 1024 px patches; writes manifest.csv, train.csv and test.csv."""
    from dataclasses import asdict

    from tissuetalk.models.control import Control
    from tissuetalk.models.datasets.pathseg.prepare import prepare as run

    if (out / "manifest.csv").exists():
        raise InvalidArgumentError(f"{out} holds a manifest already; choose a new folder.")
    with image_progress(json_) as progress:
        done = run(source, folder, out, limit=limit, control=Control(progress))
    show(
        json_,
        asdict(done) | {"manifest": out / "manifest.csv"},
        f"{done.images} images, {done.patches} patches, {done.masks} masks ({done.test_masks} for testing), "
        f"{len(done.labels)} labels: {out / 'manifest.csv'}",
    )


@group.command()
def subset(
    manifest: Annotated[Path, typer.Argument(help="A manifest.csv or its folder.")],
    out: Annotated[Path, typer.Option(help="The new manifest.")],
    fraction: Annotated[float, typer.Option(help="Share of the images.")] = 0.1,
    seed: Annotated[int, typer.Option(help="The same seed draws the same images.")] = 2026,
    by: Annotated[str, typer.Option(help="Column of which every value keeps its share.")] = "organ",
    split: Annotated[str | None, typer.Option(help="Only rows of this split.")] = None,
    json_: JSON = False,
) -> None:
    """A fixed share of a manifest, drawn once with a seed."""
    from tissuetalk.models.datasets.manifest import draw_subset

    count = draw_subset(manifest, out, fraction=fraction, seed=seed, by=by, split=split)
    show(json_, {"images": count, "manifest": out}, f"{count} images: {out}")
