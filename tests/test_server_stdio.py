"""The command itself over stdio, as a host starts it: a whole conversation in a real process."""

from __future__ import annotations

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
