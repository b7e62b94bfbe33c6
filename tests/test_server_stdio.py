"""The command itself over stdio, as a host starts it: a whole conversation in a real process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Place
from conversation import converse, text_of
from drawn import disc_image
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

pytestmark = pytest.mark.anyio
COMMAND = str(Path(sys.executable).with_name("tissuetalk"))


@pytest.mark.parametrize(
    ("line", "number", "code"),
    [
        ('{"jsonrpc":"2.0","id":7,"method":"tools/call","params":"view"}', 7, -32600),
        ('{"jsonrpc":"2.0","id":"a","method":"ping","params":{"x":"\\ud83d"}}', "a", -32700),
        ('[{"jsonrpc":"2.0","id":7,"method":"ping"}]', None, -32600),
        ("hello", None, -32700),
    ],
    ids=["parameters that are text", "half a character", "a list of messages", "no JSON"],
)
def test_a_line_that_is_no_message_is_answered(
    place: Place, line: str, number: int | str | None, code: int
) -> None:
    """The SDK drops such a line, and whoever sent it waits for ever."""
    command = [COMMAND, "serve", "--root", str(place.root), "--workspace", str(place.workspace)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(line + "\n")
        server.stdin.flush()
        said = json.loads(server.stdout.readline())
        server.stdin.close()
    assert (said["id"], said["error"]["code"]) == (number, code) and "invalid_argument" in said["error"][
        "message"
    ]


async def test_a_whole_conversation_over_stdio(place: Place, tmp_path: Path) -> None:
    disc_image(place.root / "nuclei.png", 12)
    server = StdioServerParameters(
        command=COMMAND, args=["serve", "--root", str(place.root), "--workspace", str(place.workspace)]
    )
    with (tmp_path / "stderr").open("w+") as said:
        async with Client(stdio_client(server, errlog=said)) as client:
            await converse(client, "nuclei.png", 12)
            bad = await client.call_tool("segment", {"image": "../x.png", "words": "nuclei"})
            assert text_of(bad).startswith("outside_roots: ")
        said.seek(0)
        assert "Traceback" not in said.read()
