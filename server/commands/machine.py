"""Commands about this installation: serve, models, doctor, translate, version."""

from __future__ import annotations

import os
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated

import typer

from tissuetalk.server.commands.terminal import JSON, Reader, show, table


def serve(
    root: Annotated[
        list[Path] | None, typer.Option(help="Folder images may be read from; repeatable.")
    ] = None,
    http: Annotated[str | None, typer.Option(help="HOST:PORT for streamable HTTP; stdio without it.")] = None,
    workspace: Annotated[Path | None, typer.Option(help="Where results are kept.")] = None,
    reader: Reader = "rules",
) -> None:
    """Serve MCP over stdio, or over HTTP with --http."""
    import platformdirs

    from tissuetalk.server.service import Settings

    if workspace is None:
        named = os.environ.get("TISSUETALK_WORKSPACE")
        workspace = Path(named) if named else platformdirs.user_data_path("tissuetalk") / "workspace"
    settings = Settings(roots=tuple(root) if root else None, workspace=workspace, reader=reader)
    if http is None:
        from tissuetalk.server.app import serve_stdio

        serve_stdio(settings)
    else:
        from tissuetalk.server.http import serve_http

        serve_http(settings, http)


def models(json_: JSON = False) -> None:
    """Which models are here, what each may be used for, and why others cannot be used."""
    from tissuetalk.tools.doctor import model_list

    listed = model_list()
    rows = [
        (
            f"{model['name']} (default)" if model["default"] else model["name"],
            ", ".join(model["targets"]),
            model["licence"],
            model["missing"] or "yes",
        )
        for model in listed
    ]
    show(json_, listed, table(("model", "targets", "licence", "usable here"), rows))


def doctor(json_: JSON = False) -> None:
    """What works on this machine, what is missing, and what to do about it."""
    from tissuetalk.tools.doctor import examine

    parts = [part.model_dump() for part in examine()]
    show(json_, parts, table(("part", "state", "what"), [tuple(part.values()) for part in parts]))
    if any(part["state"] == "broken" for part in parts):
        raise typer.Exit(3)


def translate(
    in_: Annotated[Path, typer.Option("--in", help="JSON lines with id, text and perhaps organ.")],
    out: Annotated[Path, typer.Option(help="JSON lines with targets.")],
    reader: Reader = "rules",
    json_: JSON = False,
) -> None:
    """Words to targets only, nothing is segmented."""
    from tissuetalk.prompts.readers import make_reader
    from tissuetalk.prompts.translate import translate_items

    count = translate_items(in_, out, make_reader(reader))
    show(json_, {"items": count, "out": out})


def version(json_: JSON = False) -> None:
    """The installed version."""
    number = installed("tissuetalk")
    show(json_, {"version": number}, number)
