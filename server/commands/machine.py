"""Commands about this installation: models, doctor, translate, version."""

from __future__ import annotations

import os
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated

import typer

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.server.commands.terminal import JSON, Reader, show, table


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
    from tissuetalk.tools.doctor import (
        examine,
        examine_state,
        examine_workspace,
        repair_state_of,
        repair_workspace,
    )
    from tissuetalk.tools.storage.state import State
    from tissuetalk.tools.storage.verify_state import belongs_to_state

    if not workspace and (folder or repair):
        raise InvalidArgumentError("a folder and --repair go with --workspace.")
    found = [*examine(), *host_checks()] if not workspace else []
    place = folder or own_workspace()
    shared = State.of_environment() if workspace else None
    if shared is not None and (folder is None or belongs_to_state(place)):
        found = [*(repair_state_of(shared, place) if repair else ()), *examine_state(shared, place)]
    elif workspace:
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
