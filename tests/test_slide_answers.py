"""A slide result through the MCP server and the command line: numbers, pictures, views, resources, evidence, saved files."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import Place
from conversation import call, picture_of, read, segmented, text_of
from drawn import save
from mcp import Client
from mcp.shared.exceptions import MCPError
from PIL import Image

from tissuetalk.models.images import Box, open_image
from tissuetalk.server.app import build_server
from tissuetalk.tools.export import links
from tissuetalk.tools.segment import grid

pytestmark = pytest.mark.anyio
SLIDE = Path(__file__).parent / "data" / "images" / "CMU-1-Small-Region.svs"
MPP = 0.499


@pytest.fixture
def slides(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A part of a real slide, worked on in blocks as a whole slide would be."""
    with open_image(SLIDE, name="slide.svs") as source:
        pixels = source.read_region(Box(900, 900, 1500, 1400), width=600, height=500)
    save(place.root / "part.png", pixels)
    small = grid.SlideSettings(whole_px=0, tile_px=512, window_px=512)
    monkeypatch.setattr(grid, "SlideSettings", partial(replace, small))
    return place


async def test_an_assistant_measures_and_looks_at_a_slide(
    slides: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Client(build_server(slides.lazy(patience_s=120))) as client:
        asked = {
            "image": "part.png",
            "words": "heat map of all nuclei",
            "mpp": MPP,
            "model": "classical-nuclei",
        }
        found = await segmented(client, **asked)
        result_id, (mask,) = found["result_id"], found["masks"]
        assert mask["count"] > 100 and "heatmap" in found["measures"]

        wanted = ["count", "density", "size", *found["measures"]]
        measured = await call(client, "measure", result_id=result_id, metrics=wanted)
        rows = {row["metric"]: row for row in measured.structured_content["measurements"]}
        assert rows["count"]["value"] == mask["count"]
        assert rows["density.tissue"]["value"] > rows["density"]["value"]
        assert picture_of(measured).width > 300
        (uri,) = measured.structured_content["pictures"].values()
        assert Image.open(io.BytesIO(await read(client, uri))).format == "PNG"

        outlines = json.loads(await read(client, mask["resources"]["geojson"]))
        assert len(outlines["features"]) == mask["count"]
        table = list(csv.DictReader(io.StringIO((await read(client, mask["resources"]["table"])).decode())))
        assert len(table) == mask["count"]

        part = {"region": [100, 100, 300, 250]}
        with_masks = np.asarray(picture_of(await call(client, "view", result_id=result_id, **part)))
        without = np.asarray(picture_of(await call(client, "view", image="part.png", **part)))
        near = _outlined(with_masks, without, table)
        assert len(near) > 5 and all(near)

        evidence = await call(client, "explain", result_id=result_id, question="which words led to this?")
        assert "nuclei" in text_of(evidence) and evidence.structured_content["evidence"]

        saved = await call(
            client, "library", action="save", result_id=result_id, format="geojson", folder="saved"
        )
        assert saved.structured_content["saved"] == ["objects.geojson"]
        assert json.loads((slides.root / "saved" / "objects.geojson").read_text())["features"]

        monkeypatch.setattr(links, "MOST_RESOURCE_BYTES", 1000)
        for kind in ("geojson", "table"):
            with pytest.raises(MCPError, match=r"image_too_large: .* library\(action='save'"):
                await read(client, mask["resources"][kind])
        with pytest.raises(MCPError, match=r"invalid_argument: there is no picture 'hotspot_x\.png' yet"):
            await read(client, f"result://{result_id}/pictures/hotspot_x.png")

        await call(client, "library", action="save", result_id=result_id, folder="whole")
    _by_command_line(slides.root / "whole", mask["count"])


def _outlined(with_masks: np.ndarray, without: np.ndarray, table: list[dict[str, str]]) -> list[bool]:
    """Of each object well inside the region from 100, 100 to 300, 250, seen four times as large: whether something is drawn by it."""
    at = [(float(row["centroid_x"]), float(row["centroid_y"])) for row in table]
    places = [(int(4 * (x - 100)), int(4 * (y - 100))) for x, y in at if 110 < x < 290 and 110 < y < 240]
    changed = np.abs(with_masks[: len(without), : without.shape[1]].astype(int) - without).max(axis=2) > 80
    return [bool(changed[max(0, y - 60) : y + 60, max(0, x - 60) : x + 60].any()) for x, y in places]


def _by_command_line(folder: Path, count: int) -> None:
    """The saved folder answers the same on the command line."""

    def tissuetalk(*arguments: str) -> str:
        code = "from tissuetalk.server.commands.command_line import main; main()"
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout

    told = json.loads(
        tissuetalk("measure", str(folder), "--metric", "count", "--metric", "histogram", "--json")
    )
    assert next(row["value"] for row in told["measurements"] if row["metric"] == "count") == count
    assert all((folder / path).is_file() for path in told["pictures"].values())
    tissuetalk("export", str(folder), "--format", "geojson", "--out", str(folder / "o.geojson.gz"))
    assert (folder / "o.geojson.gz").read_bytes()[:2] == b"\x1f\x8b"
