"""`tissuetalk setup`: into a chat host's list of servers, or out of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tissuetalk.models.errors import InvalidArgumentError, TissuetalkError
from tissuetalk.server import hosts

if TYPE_CHECKING:
    from tissuetalk.tools.doctor import Checked


def setup(
    host: Annotated[
        str, typer.Argument(help=f"{', '.join(hosts.HOSTS)}.", autocompletion=lambda: list(hosts.HOSTS))
    ],
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders with images; by default the current one.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write without asking.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the server out of the host's list.")] = False,
) -> None:
    """Put this server into a chat host's list, after asking; without a terminal to ask at, print what to put there."""
    if (chosen := hosts.HOSTS.get(host)) is None:
        raise InvalidArgumentError(f"{host!r} is no host known here; known are {', '.join(hosts.HOSTS)}.")
    content = hosts.ours(chosen) if remove else hosts.entry(folders or [Path.cwd()])
    if content is None:
        print(f"{chosen.file} does not list {hosts.NAME}.")
        return
    print(f"{'take out of' if remove else 'for'} {chosen.file}:")
    print(json.dumps({chosen.key: {hosts.NAME: content}}, indent=2))
    if not yes and not (sys.stdin.isatty() and typer.confirm(f"Change {chosen.title}'s file now?")):
        again = f"tissuetalk setup {host}{' --remove' if remove else ''} --yes"
        print(f"nothing was written; {again} writes it.")
        return
    if not remove:
        import anyio

        seconds, tools = anyio.run(hosts.started, content)
        print(f"starts in {seconds:.1f} s and offers {', '.join(tools)}")
    hosts.put(chosen, None if remove else content)
    print(f"written; {chosen.then}.")


def host_checks() -> list[Checked]:
    """For the doctor: whether a host can start this server, and what each host's file on this machine says of it."""
    import anyio

    from tissuetalk.tools.doctor import Checked

    def looked_at(part: str, content: dict[str, object]) -> Checked:
        try:
            seconds, tools = anyio.run(hosts.started, content)
        except InvalidArgumentError as error:
            return Checked(part=part, state="broken", what=f"{error}; tissuetalk setup writes it anew")
        return Checked(part=part, state="works", what=f"starts in {seconds:.1f} s, {len(tools)} tools")

    checked = [looked_at("started by a host", {"command": hosts.command(), "args": ["serve"]})]
    for name, host in hosts.HOSTS.items():
        try:
            content = hosts.ours(host)
        except TissuetalkError as error:
            checked.append(Checked(part=f"host {name}", state="missing", what=str(error)))
            continue
        if content is not None:
            checked.append(looked_at(f"host {name}", content))
    return checked
