"""Results and workspaces that 0.1.0 wrote (commit 4792cba) still open, measure, explain and export."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import anyio
import pytest

DATA = Path(__file__).parent / "data"
SKIN = DATA / "images" / "skin_crop_256x160.png"
SLIDE_RESULT = "res_5b4b62863f041457872415717a1a0f26"
PICTURE_RESULT = "res_e0c5d200c31c17c2d16a059f87f9ff09"


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The folder of a user of 0.1.0: an image, a workspace with two results of it, and a result folder."""
    with zipfile.ZipFile(DATA / "workspace_0_1.zip") as packed:
        packed.extractall(tmp_path)
    shutil.copy(SKIN, tmp_path / "skin.png")
    request = tmp_path / "picture" / "request.json"
    asked = json.loads(request.read_text("utf-8"))
    request.write_text(json.dumps({**asked, "image": str(tmp_path / "skin.png")}), "utf-8")
    return tmp_path


def call(home: Path, tool: str, **arguments: object) -> dict:
    """A tool of a server over the old workspace; fails with its text when it is an error."""
    from mcp import Client

    from tissuetalk.server.app import build_server
    from tissuetalk.server.service import Service, Settings

    async def ask() -> dict:
        server = build_server(Service(Settings((home,), home / "workspace")))
        async with Client(server) as client:
            answer = await client.call_tool(tool, arguments)
            assert not answer.is_error, answer.content[0].text
            return answer.structured_content

    return anyio.run(ask)


@pytest.mark.parametrize("result_id", [PICTURE_RESULT, SLIDE_RESULT])
def test_an_old_result_is_measured_viewed_explained_and_saved(unpacked: Path, result_id: str) -> None:
    measured = call(unpacked, "measure", result_id=result_id, metrics=["count", "area", "size"])
    assert {row["metric"]: row["value"] for row in measured["measurements"]}["count"] == 4
    assert call(unpacked, "view", result_id=result_id)["mask_ids"]
    assert call(unpacked, "explain", result_id=result_id)["evidence"]
    for kind in ("geojson", "csv", "folder"):
        saved = call(
            unpacked, "library", action="save", result_id=result_id, format=kind, folder=f"out-{kind}"
        )
        assert saved["saved"]


def test_old_results_are_listed(unpacked: Path) -> None:
    listed = call(unpacked, "library", action="results")["results"]
    assert {row["result_id"] for row in listed} == {PICTURE_RESULT, SLIDE_RESULT}
