"""What callers are told of a workspace: damaged results, removals to make room, a quota that can be set."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from conftest import Place
from conversation import call, text_of
from drawn import disc_image
from mcp import Client
from typer.testing import CliRunner, Result

from tissuetalk.server.app import build_server
from tissuetalk.server.commands.command_line import app
from tissuetalk.tools.segment.grid import SlideSettings
from tissuetalk.tools.session import Session
from tissuetalk.tools.storage.workspace import Workspace

pytestmark = pytest.mark.anyio
_WORDS = {"targets": [{"words": "nuclei"}], "mpp": 0.5, "model": "classical-nuclei"}
ASK = {"image": "discs.png", **_WORDS}


@pytest.fixture
def images(place: Place) -> Place:
    disc_image(place.root / "discs.png", 5)
    return place


async def test_one_damaged_result_does_not_hide_the_others(images: Place) -> None:
    async with Client(build_server(images.lazy())) as client:
        ids = [(await call(client, "segment", **ASK)).structured_content["result_id"] for _ in range(3)]
        for damage, result_id in zip((b"", b"\xff\xfe{", b"[" * 100_000), ids[:2], strict=False):
            (images.workspace / "results" / result_id / "result.json").write_bytes(damage)
        listed = await call(client, "library", action="results")
        found = {item["result_id"]: item for item in listed.structured_content["results"]}
        assert set(found) == set(ids)
        assert found[ids[2]]["masks"] == ["nuclei"] and found[ids[2]]["problem"] is None
        for result_id in ids[:2]:
            assert "damaged" in found[result_id]["problem"] and result_id in text_of(listed)
            await call(client, "library", action="delete", result_id=result_id)


async def test_the_next_answer_and_the_library_say_what_was_removed_to_make_room(images: Place) -> None:
    yesterday = time.time() - 3 * 24 * 3600
    with Session(images.root, images.workspace) as session:
        session.segment("discs.png", **_WORDS)
    with Workspace(images.workspace, clock=lambda: yesterday) as workspace:
        size = workspace.results()[0].size_bytes
        with workspace.new_result(image_id="img", kind="segment") as draft:
            (draft.folder / "large.bin").write_bytes(b"x" * size)
    quota_gb = (size * 2 + size // 2) * 4 / 3 / 1e9
    async with Client(build_server(images.lazy(quota_gb=quota_gb))) as client:
        answer = await call(client, "segment", **ASK)
        assert f"note: {draft.result_id}" in text_of(answer) and "make room" in text_of(answer)
        assert draft.result_id not in text_of(await call(client, "library", action="images"))
        listed = await call(client, "library", action="results")
        (removed,) = listed.structured_content["removed"]
        assert draft.result_id in removed
        assert len(listed.structured_content["results"]) == 2
        # both are of today now
        refused = await client.call_tool("segment", ASK)
        assert refused.is_error and text_of(refused).startswith("workspace_full: ")
        assert "--quota" in text_of(refused)


async def test_a_workspace_whose_path_reads_as_a_pattern_touches_no_neighbour(
    images: Path, tmp_path: Path
) -> None:
    odd, neighbour = tmp_path / "ws[ab]*?", tmp_path / "wsa-x"
    with Session(images.root, neighbour) as session:
        session.segment("discs.png", **_WORDS)
    shutil.copytree(neighbour, tmp_path / "wsb-y")
    before = {path: path.read_bytes() for path in neighbour.rglob("*.json")}
    in_blocks = SlideSettings(whole_px=0, tile_px=256, window_px=512)
    with Session(images.root, odd, slides=in_blocks) as session:
        found = session.segment("discs.png", **_WORDS)
        assert found.masks[0].record.count == 5 == len(found.objects)
        assert len(session.workspace.results()) == 1
        for kind in ("csv", "parquet", "geojson", "ome-zarr"):
            session.export(found, kind, tmp_path / f"out-{kind}")
    assert {path: path.read_bytes() for path in neighbour.rglob("*.json")} == before


def test_the_doctor_finds_what_is_wrong_and_mends_it(images: Place) -> None:
    """Hashes, a lost database, a row without files: found by one command, mended by another."""
    folder = images.workspace
    with Session(images.root, folder) as session:
        kept, hurt = [session.segment("discs.png", **_WORDS).result.result_id for _ in range(2)]
        picture = session.upload((images.root / "discs.png").read_bytes())
    runner = CliRunner()

    def doctor(*more: str) -> Result:
        return runner.invoke(app, ["doctor", "--workspace", str(folder), *more])

    assert doctor().exit_code == 0
    overlay = folder / "results" / hurt / "overlay.png"
    overlay.write_bytes(overlay.read_bytes()[:-1] + b"?")
    found = doctor("--json")
    assert found.exit_code == 3
    states = {part["part"]: part for part in json.loads(found.stdout)}
    assert states["results"]["state"] == "broken"
    assert hurt in states["results"]["what"] and "overlay.png has changed" in states["results"]["what"]
    (folder / "workspace.sqlite").unlink()
    assert doctor().exit_code == 3
    assert doctor("--repair").exit_code == 0
    assert doctor().exit_code == 0
    assert (folder / "damaged" / hurt / "result.json").is_file()
    with Session(images.root, folder) as session:
        assert [stored.result_id for stored in session.workspace.results()] == [kept]
        assert session.measure(kept, ["count"]).result.measurements[0].value == 5
        session.open(picture["image"]).close()
    assert runner.invoke(app, ["doctor", "--repair"]).exit_code != 0


async def test_a_caller_is_not_told_where_the_workspace_lies(images: Place) -> None:
    with Session(images.root, images.workspace) as session:
        session.segment("discs.png", **_WORDS)
    (images.workspace / "workspace.sqlite").write_bytes(b"noise" * 5000)
    async with Client(build_server(images.lazy())) as client:
        refused = await client.call_tool("library", {"action": "results"})
        assert refused.is_error and text_of(refused).startswith("workspace_unwritable: ")
        assert "--repair" in text_of(refused) and str(images.workspace) not in text_of(refused)
