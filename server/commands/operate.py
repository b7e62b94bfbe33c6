"""Commands of whoever runs a server: the audit log."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.server.commands.machine import own_workspace
from tissuetalk.server.commands.terminal import JSON, show, table

group = typer.Typer(no_args_is_help=True, name="audit", help="Who asked for what: the audit log of a server.")
AuditFile = Annotated[
    Path | None, typer.Option("--file", help="The audit log; by default that of the workspace of serve.")
]


@group.command()
def export(
    since: Annotated[str, typer.Option(help="A day or a moment, such as 2026-11-22; UTC.")] = "1970-01-01",
    tenant: Annotated[str | None, typer.Option(help="Only lines of this tenant.")] = None,
    format: Annotated[Literal["csv", "jsonl"], typer.Option(help="How lines are printed.")] = "jsonl",
    file: AuditFile = None,
) -> None:
    """Print the lines since a moment, oldest first."""
    from tissuetalk.models.writing import CsvWriter
    from tissuetalk.server.audit import COLUMNS, NAME, AuditLog
    from tissuetalk.server.operations import moment

    lines = AuditLog(file or own_workspace() / NAME).lines(moment(since), tenant)
    if format == "jsonl":
        for line in lines:
            print(json.dumps(line))
        return
    written = CsvWriter(sys.stdout, COLUMNS)
    written.header()
    written.rows([line[name] for name in COLUMNS] for line in lines)


@group.command()
def verify(
    last: Annotated[
        str | None, typer.Option(help="A hash that was noted before and must still be in the chain.")
    ] = None,
    file: AuditFile = None,
    json_: JSON = False,
) -> None:
    """Whether any line was changed, taken out or put in; prints the last hash, to be kept elsewhere."""
    from tissuetalk.server.audit import NAME, AuditLog

    count, found, problems = AuditLog(file or own_workspace() / NAME).verify(last)
    said = {"lines": count, "last": found, "problems": problems}
    rows = [("lines", f"{count:,}"), ("last hash", found), *(("problem", each) for each in problems)]
    show(json_, said, table(("", ""), rows))
    if problems:
        raise typer.Exit(3)


def backup(
    out: Annotated[Path, typer.Argument(help="New file to write, a tar.")],
    workspace: Annotated[Path | None, typer.Option(help="By default that of serve.")] = None,
    json_: JSON = False,
) -> None:
    """Copy a workspace into one file; servers may go on working on it."""
    from tissuetalk.tools.storage import backup as copies
    from tissuetalk.tools.storage.state import State

    if State.of_environment() is not None:
        raise InvalidArgumentError(
            "TISSUETALK_STATE is set: what servers share is in PostgreSQL and in the bucket or folder beside it. Dump the one "
            "(pg_dump), then copy the other, as docs/operating.md says; for a workspace without a state unset the variable."
        )
    counts = copies.backup(workspace or own_workspace(), out)
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    show(json_, {"out": out, **counts}, f"{out}: {said}")


def restore(
    file: Annotated[Path, typer.Argument(help="Written by backup.")],
    workspace: Annotated[Path, typer.Option(help="New folder for the workspace.")],
    json_: JSON = False,
) -> None:
    """Make a workspace from a backup, checked as doctor --workspace does before it is there."""
    from tissuetalk.tools.storage import backup as copies

    rows = [(part.name, part.what) for part in copies.restore(file, workspace)]
    show(json_, dict(rows), table(("part", "what"), rows))
