"""`tissuetalk model add`: published weights, fetched where somebody asks and accepts their licence."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.server.commands.terminal import JSON, show

group = typer.Typer(
    name="model", no_args_is_help=True, help="Weights of other models; see `tissuetalk models`."
)


@group.callback()
def _model() -> None:
    """Weights of other models."""


@group.command()
def add(
    name: Annotated[str, typer.Argument(help="A model of `tissuetalk models`.")],
    accept_licence: Annotated[
        bool,
        typer.Option(
            "--accept-licence", help="You have read the licence and accept it; no question is asked."
        ),
    ] = False,
    revision: Annotated[
        str | None, typer.Option(help="Commit of the repository, 40 digits; without it the one pinned here.")
    ] = None,
    json_: JSON = False,
) -> None:
    """Fetch the published weights of a model to where it looks for them: one commit, every file checked."""
    from tissuetalk.tools.downloading import fetch, published

    found = published(name, revision)
    about = (
        f"{name}: {len(found.files)} files, {found.size_bytes / 1e6:.1f} MB, from {found.hub_id} at commit {found.commit}\n"
        f"licence: {found.licence} (https://huggingface.co/{found.hub_id})"
    )
    if not accept_licence:
        if not sys.stdin.isatty():
            raise InvalidArgumentError(
                f"nothing was fetched. {about.replace(chr(10), '; ')}. Read the licence, then pass --accept-licence."
            )
        print(about, file=sys.stderr)
        typer.confirm("Do you accept the licence, and fetch the files?", abort=True, err=True)
    folder = fetch(found)
    told = {
        "model": name,
        "hub_id": found.hub_id,
        "revision": found.commit,
        "licence": found.licence,
        "folder": folder,
    }
    show(json_, told, f"{about}\nin {folder}")
