"""Commands about this installation: serve, models, doctor, translate, version."""

from __future__ import annotations

import os
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated

import typer

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.server.commands.terminal import JSON, Reader, show, table

Quota = Annotated[
    float,
    typer.Option(
        min=0.01,
        envvar="TISSUETALK_QUOTA",
        help="GB that results, uploads and, for a quarter of it, stored features may take in the workspace.",
    ),
]


def serve(
    folders: Annotated[list[Path] | None, typer.Argument(help="As --root, one after another.")] = None,
    root: Annotated[
        list[Path] | None, typer.Option(help="Folder images may be read from; repeatable.")
    ] = None,
    http: Annotated[str | None, typer.Option(help="HOST:PORT for streamable HTTP; stdio without it.")] = None,
    workspace: Annotated[Path | None, typer.Option(help="Where results are kept.")] = None,
    reader: Reader = "rules",
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="With --http: a further host name of this server, for requests and pages; repeatable."
        ),
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="With --http: address of a proxy whose X-Forwarded-For is believed; repeatable."),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(envvar="TISSUETALK_TOKEN_FILE", help="With --http: a file with the token.")
    ] = None,
    sessions_each: Annotated[int, typer.Option(help="MCP sessions per address.", min=1)] = 200,
    uploads_each: Annotated[int, typer.Option(help="Uploads at once per address.", min=1)] = 16,
    in_flight_mb: Annotated[int, typer.Option(help="Uploads in flight per address, in MB.", min=1)] = 2048,
    idle_s: Annotated[
        float, typer.Option(help="A session without requests ends after this.", min=1)
    ] = 1800.0,
    stalled_s: Annotated[float, typer.Option(help="A client that stalls half-way is dropped.", min=1)] = 30.0,
    quota: Quota = 10,
) -> None:
    """Serve MCP over stdio, or over HTTP with --http."""
    from tissuetalk.models import worker
    from tissuetalk.server.service import Settings
    from tissuetalk.tools.lanes import few_arenas

    few_arenas()
    worker.start()  # it warms while everything else is imported
    settings = Settings(
        roots=(*(folders or ()), *(root or ())) or None,
        workspace=workspace or own_workspace(),
        reader=reader,
        quota_gb=quota,
    )
    if http is None:
        from tissuetalk.server.stdio import serve_stdio

        serve_stdio(settings)
    else:
        from tissuetalk.server.http import Where, serve_http
        from tissuetalk.server.limits import PeerLimits

        limits = PeerLimits(
            sessions_each=sessions_each,
            uploads_each=uploads_each,
            upload_bytes_each=in_flight_mb * 1_000_000,
            session_idle_s=idle_s,
            stalled_s=stalled_s,
        )
        serve_http(settings, Where(http, allowed_host or (), proxy or (), token_file, limits))


def own_workspace() -> Path:
    import platformdirs

    named = os.environ.get("TISSUETALK_WORKSPACE")
    return Path(named) if named else platformdirs.user_data_path("tissuetalk") / "workspace"


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


def doctor(
    folder: Annotated[
        Path | None, typer.Argument(help="With --workspace: the one to check, by default that of serve.")
    ] = None,
    workspace: Annotated[
        bool, typer.Option("--workspace", help="Check a workspace: every file of it, and its index.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="With --workspace: index it anew, set aside what is damaged.")
    ] = False,
    json_: JSON = False,
) -> None:
    """What works on this machine, what is missing, and what to do about it; or whether a workspace is whole."""
    from tissuetalk.server.commands.setup import host_checks
    from tissuetalk.tools.doctor import examine, examine_workspace, repair_workspace

    if not workspace and (folder or repair):
        raise InvalidArgumentError("a folder and --repair go with --workspace.")
    found = [*examine(), *host_checks()] if not workspace else []
    if workspace:
        place = folder or own_workspace()
        found = [*(repair_workspace(place) if repair else ()), *examine_workspace(place)]
    parts = [part.model_dump() for part in found]
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
