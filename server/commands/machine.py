"""Commands about this installation: serve, models, doctor, translate, version."""

from __future__ import annotations

from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated

import typer

from tissuetalk.server.commands.options import JSON, Reader, default_workspace, print_json


def serve(
    root: Annotated[
        list[Path] | None, typer.Option(help="Folder images may be read from; repeatable.")
    ] = None,
    http: Annotated[str | None, typer.Option(help="HOST:PORT for streamable HTTP; stdio without it.")] = None,
    workspace: Annotated[Path | None, typer.Option(help="Where results are kept.")] = None,
    reader: Reader = "rules",
) -> None:
    """Serve MCP over stdio, or over HTTP with --http."""
    from tissuetalk.server.service import Settings

    settings = Settings(
        roots=tuple(root) if root else None, workspace=workspace or default_workspace(), reader=reader
    )
    if http is None:
        from tissuetalk.server.app import serve_stdio

        serve_stdio(settings)
    else:
        from tissuetalk.server.http import serve_http

        serve_http(settings, http)


def models(json_: JSON = False) -> None:
    """Which models are here, what each may be used for, and why others cannot be used."""
    from tissuetalk.server.commands.printing import models_table
    from tissuetalk.tools.doctor import model_list

    listed = model_list()
    if json_:
        print_json(listed)
    else:
        models_table(listed)


def doctor(json_: JSON = False) -> None:
    """What works on this machine, what is missing, and what to do about it."""
    from tissuetalk.server.commands.printing import doctor_table
    from tissuetalk.tools.doctor import examine

    parts = examine()
    if json_:
        print_json([part.model_dump() for part in parts])
    else:
        doctor_table(parts)
    if any(part.state == "broken" for part in parts):
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
    if json_:
        print_json({"items": count, "out": out})


def version(json_: JSON = False) -> None:
    """The installed version."""
    number = installed("tissuetalk")
    if json_:
        print_json({"version": number})
    else:
        print(number)
