"""A region partly outside the image is cut to it and says so; one wholly outside is the caller's mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from conversation import call, segmented, text_of
from drawn import disc_image
from mcp import Client
from slide_runs import SMALL

from tissuetalk.server.app import build_server
from tissuetalk.tools.segment.grid import SlideSettings

pytestmark = pytest.mark.anyio
ASK: dict[str, Any] = {"targets": [{"words": "nuclei"}], "mpp": 0.5, "model": "classical-nuclei"}
SIDE = 120
PARTLY = [
    ([-10, 0, 60, 50], [0, 0, 60, 50]),
    ([20, -0.5, 60, 50], [20, 0, 60, 50]),
    ([30, 40, SIDE + 1, 90], [30, 40, SIDE, 90]),
    ([30, 40, 90, 1e12], [30, 40, 90, SIDE]),
    ([-5e5, -5e5, 5e5, 5e5], [0, 0, SIDE, SIDE]),
]
OUTSIDE = [[SIDE, 0, SIDE + 9, 9], [0, SIDE, 9, SIDE + 9], [-9, 0, 0, 9], [0, -9, 9, -1]]


def picture(folder: Path) -> Path:
    from PIL import Image

    path = disc_image(folder / "a.png", 3)
    Image.open(path).resize((SIDE, SIDE)).save(path)
    return path


def codes(answer: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in answer["warnings"]]


@pytest.mark.parametrize("slides", [None, SMALL], ids=["picture", "slide"])
async def test_segment_and_view_cut_a_region_and_say_so(place: Place, slides: SlideSettings | None) -> None:
    picture(place.root)
    async with Client(build_server(place.lazy(slides=slides))) as client:
        for asked, cut in PARTLY:
            found = await segmented(client, image="a.png", region=asked, **ASK)
            assert found["image"]["region"] == cut and "region_cut" in codes(found)
            seen = await call(client, "view", image="a.png", region=asked)
            assert seen.structured_content["image"]["region"] == cut
            assert codes(seen.structured_content) == ["region_cut"]
            assert f"cut to {cut}" in text_of(seen)
            read = await call(client, "segment", image="a.png", region=asked, dry_run=True, **ASK)
            assert codes(read.structured_content) == ["region_cut"]
        of_result = await call(client, "view", result_id=found["result_id"], region=PARTLY[0][0])
        assert codes(of_result.structured_content) == ["region_cut"]
        whole = await segmented(client, image="a.png", region=[0, 0, SIDE, SIDE], **ASK)
        assert "region_cut" not in codes(whole)


@pytest.mark.parametrize("slides", [None, SMALL], ids=["picture", "slide"])
async def test_a_region_wholly_outside_is_refused(place: Place, slides: SlideSettings | None) -> None:
    picture(place.root)
    async with Client(build_server(place.lazy(slides=slides))) as client:
        for region in OUTSIDE:
            for tool, more in (("segment", ASK), ("view", {})):
                refused = await client.call_tool(tool, {"image": "a.png", "region": region, **more})
                assert refused.is_error and text_of(refused).startswith("invalid_argument: region ")
                assert "view(" in text_of(refused)


@pytest.mark.parametrize("region", ["--region=-10,0,60,50", "--region=0,0,60,500"])
def test_the_command_line_cuts_and_says_so(region: str, tmp_path: Path) -> None:
    command = str(Path(sys.executable).with_name("tissuetalk"))
    out = tmp_path / "out"
    options = ["--target", "nuclei", "--mpp", "0.5", "--model", "classical-nuclei", "--out", str(out)]
    done = subprocess.run(
        [command, "segment", str(picture(tmp_path)), *options, region],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "region_cut" in done.stdout
    assert codes(json.loads((out / "result.json").read_text("utf-8")))[0] == "region_cut"
