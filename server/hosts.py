"""Chat hosts on this machine: where each lists its servers, how ours is put there, and whether it would start."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.reading import content_of, json_in
from tissuetalk.models.writing import place_errors, write_whole

NAME = "tissuetalk"
LONGEST_START_S = 60
_MOST_BYTES = 2**22


@dataclass(frozen=True)
class Host:
    """linux, darwin, win32: where the file lies, from the home folder. key: of its list of servers. then: to be done afterwards."""

    title: str
    linux: str
    darwin: str
    win32: str
    key: str
    then: str

    @property
    def file(self) -> Path:
        named: str = getattr(self, sys.platform, self.linux)
        return Path.home() / named


_CLAUDE, _CODE = "Claude/claude_desktop_config.json", "Code/User/mcp.json"
_MAC = "Library/Application Support"
HOSTS = {
    "claude": Host(
        "Claude Desktop",
        f".config/{_CLAUDE}",
        f"{_MAC}/{_CLAUDE}",
        f"AppData/Roaming/{_CLAUDE}",
        "mcpServers",
        "quit Claude Desktop and open it again",
    ),
    "vscode": Host(
        "VS Code",
        f".config/{_CODE}",
        f"{_MAC}/{_CODE}",
        f"AppData/Roaming/{_CODE}",
        "servers",
        "start it under 'MCP: List Servers'",
    ),
    "cursor": Host(
        "Cursor", *(3 * (".cursor/mcp.json",)), "mcpServers", "switch it on under Settings, Tools & MCP"
    ),
    "gemini": Host(
        "Gemini CLI", *(3 * (".gemini/settings.json",)), "mcpServers", "'/mcp' in a new session lists it"
    ),
}
"""By the name that `tissuetalk setup` takes. Sources: the hosts' own documentation, November 2026."""


def command() -> str:
    """The program of this installation, by its full path: hosts know no virtual environment. Raises InvalidArgumentError."""
    beside = Path(sys.executable).with_name("tissuetalk.exe" if os.name == "nt" else "tissuetalk")
    found = str(beside) if beside.is_file() else shutil.which("tissuetalk")
    if found is None:
        raise InvalidArgumentError(
            "the program tissuetalk is not installed here; install the package with pip."
        )
    return found


def entry(folders: Sequence[Path]) -> dict[str, Any]:
    """How a host starts the server with these folders. Raises InvalidArgumentError where one does not exist."""
    real = [folder.expanduser().resolve() for folder in folders]
    if missing := [str(folder) for folder in real if not folder.is_dir()]:
        raise InvalidArgumentError(f"{missing[0]} is no folder; name folders with images.")
    return {"command": command(), "args": ["serve", *map(str, real)]}


def listed(host: Host) -> dict[str, Any]:
    """Everything in the host's file, {} where there is none yet. Raises InvalidArgumentError where it is not plain JSON."""
    try:
        read = json_in(content_of(host.file, _MOST_BYTES) or b"{}")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(
            f"{host.file} cannot be changed safely ({error}); put the entry there by hand."
        ) from error
    servers = read.get(host.key, {}) if isinstance(read, dict) else None
    if not isinstance(servers, dict):
        raise InvalidArgumentError(f"{host.file} has no list {host.key!r} as {host.title} writes it.")
    return dict(read)


def ours(host: Host) -> dict[str, Any] | None:
    """What the host's file says of this server. Raises InvalidArgumentError."""
    found = listed(host).get(host.key, {}).get(NAME)
    return found if isinstance(found, dict) else None


def put(host: Host, content: dict[str, Any] | None) -> None:
    """Write our entry into the host's file, or take it out; what else is in it stays. The file as it was is kept beside it.

    Raises InvalidArgumentError where it is not plain JSON, WorkspaceUnwritableError where it cannot be written.
    """
    kept = listed(host)
    servers = {name: value for name, value in kept.get(host.key, {}).items() if name != NAME}
    if content is not None:
        servers[NAME] = {"type": "stdio", **content} if host.key == "servers" else content
    file = host.file
    with place_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            write_whole(file.with_name(f"{file.name}.before-{NAME}"), content_of(file, _MOST_BYTES))
        write_whole(file, json.dumps({**kept, host.key: servers}, indent=2, ensure_ascii=False) + "\n")


async def started(content: dict[str, Any]) -> tuple[float, list[str]]:
    """Start the server as a host does: from a folder of its own, with next to no environment. Gives seconds and the tools.

    Raises InvalidArgumentError with the last line that it wrote where it does not answer.
    """
    import anyio
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    with tempfile.TemporaryDirectory() as elsewhere, tempfile.TemporaryFile("w+") as said:
        environment = {"TISSUETALK_WORKSPACE": str(Path(elsewhere) / "workspace")}
        server = StdioServerParameters(
            command=str(content.get("command")),
            args=[str(each) for each in content.get("args", ())],
            cwd=elsewhere,
            env=environment,
        )
        begun = time.monotonic()
        try:
            with anyio.fail_after(LONGEST_START_S):
                async with Client(stdio_client(server, errlog=said)) as client:
                    tools = (await client.list_tools()).tools
                    return time.monotonic() - begun, [tool.name for tool in tools]
        except Exception as error:
            said.seek(0)
            lines = said.read().strip().splitlines()
            why = lines[-1] if lines else f"{type(error).__name__} after {time.monotonic() - begun:.0f} s"
            raise InvalidArgumentError(
                f"{server.command} does not start as a host starts it: {why}"
            ) from error
