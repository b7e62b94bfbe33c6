"""The whole conversation over stdio and HTTP: unsupported, examples, mask, correction, name, other slide, cohort."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Place
from conversation import call, read, segmented, text_of
from http_server import http_server
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from PIL import Image
from taught import LEFT, PINK, PLAIN, shares, two_tissues

from tissuetalk.tools.storage import verify

pytestmark = pytest.mark.anyio
COMMAND = str(Path(sys.executable).with_name("tissuetalk"))


async def converse(client: Client, root: Path) -> None:
    """On a.png and b.png of a served folder."""
    asked: dict[str, Any] = {"image": "a.png", "words": "Where is the necrosis?", **PLAIN}
    refused = await call(client, "segment", **asked)
    (item,) = refused.structured_content["not_segmented"]
    assert item["code"] == "unsupported" and "show me some: examples=" in text_of(refused)

    shown = await segmented(client, **asked, examples=PINK)
    (mask,) = shown["masks"]
    taught = mask["taught"]
    assert (taught["name"], taught["positive"], taught["negative"], taught["images"]) == ("necrosis", 1, 1, 1)
    assert taught["expected_dice"] is None and taught["interval"] is None and taught["is_label"]
    assert mask["provenance"]["model"] == "classical-nuclei+examples"
    assert [each["is"] for each in mask["provenance"]["examples"]] == [True, False]
    pink, purple = shares(await pixels(client, mask))
    assert pink > 0.8 and purple < 0.1

    missed, wrong = [300, 100, 330, 140], [20, 300, 60, 340]
    fixed = await segmented(
        client,
        **{**asked, "words": "that one is wrong, and you missed this"},
        base_result=shown["result_id"],
        examples=[
            {"polygon": [[300, 100], [330, 100], [330, 140], [300, 140]], "is": True},
            {"box": wrong, "is": False},
        ],
    )
    assert fixed["parent"] == shown["result_id"] != fixed["result_id"]
    (corrected,) = fixed["masks"]
    after = await pixels(client, corrected)
    assert inside(after, missed).all() and inside(after, LEFT).all() and not inside(after, wrong).any()
    again = await pixels(client, mask)
    assert shares(again) == (pink, purple), "nothing is overwritten"

    named = await segmented(client, image="a.png", base_result=shown["result_id"], name="necrosis")
    assert np.array_equal(await pixels(client, named["masks"][0]), again)
    listed = (await call(client, "library", action="targets")).structured_content["targets"]
    (kept,) = [each for each in listed if each["source"] == "taught"]
    assert (kept["name"], kept["positive"], kept["is_label"]) == ("necrosis", 1, True)

    other = await segmented(client, image="b.png", words="Outline the necrotic areas.", **PLAIN)
    (elsewhere,) = other["masks"]
    assert elsewhere["taught"]["learned_sha256"] == kept["learned_sha256"]
    pink, purple = shares(await pixels(client, elsewhere))
    assert pink > 0.8 and purple < 0.1
    explained = await call(client, "explain", result_id=other["result_id"])
    assert "taught" in text_of(explained)

    folder = f"kept-{kept['learned_sha256'][:8]}"
    saved = await call(client, "library", action="save", name="Necrosis", folder=folder)
    assert saved.structured_content["saved"] == ["necrosis.md", "necrosis.safetensors"]
    cohort(root, root / folder / "necrosis.safetensors")
    await call(client, "library", action="forget", name="necrosis")
    forgotten = await call(client, "segment", image="b.png", words="necrosis", **PLAIN)
    assert "unsupported" in text_of(forgotten)


def problems(workspace: Path) -> list[str]:
    """What the doctor finds wrong."""
    return [problem for part in verify.check(workspace) for problem in (*part.problems, *part.waits)]


def inside(mask: np.ndarray, box: list[int]) -> np.ndarray:
    x0, y0, x1, y1 = box
    return mask[y0:y1, x0:x1]


async def pixels(client: Client, mask: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(await read(client, mask["resources"]["mask"])))) > 0


def cohort(root: Path, learned: Path) -> None:
    out = learned.parent.with_suffix(".cohort")
    command = [
        COMMAND,
        "segment",
        "necrosis",
        "--cohort",
        str(root / "[ab].png"),
        "--out",
        str(out),
        "--mpp",
        "0.5",
    ]
    done = subprocess.run([*command, "--learned", str(learned)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = (out / "cohort.csv").read_text()
    assert rows.count("necrosis") >= 2 and rows.count("done") == 2


async def test_the_conversation_over_stdio(place: Place, tmp_path: Path) -> None:
    for seed, name in enumerate(("a.png", "b.png")):
        two_tissues(place.root / name, seed)
    server = StdioServerParameters(
        command=COMMAND, args=["serve", "--root", str(place.root), "--workspace", str(place.workspace)]
    )
    with (tmp_path / "stderr").open("w+") as said:
        async with Client(stdio_client(server, errlog=said)) as client:
            await converse(client, place.root)
        said.seek(0)
        assert "Traceback" not in said.read()
    assert problems(place.workspace) == []


async def test_the_conversation_over_http(place: Place) -> None:
    for seed, name in enumerate(("a.png", "b.png")):
        two_tissues(place.root / name, seed)
    with http_server(place) as server:
        async with Client(f"{server.url}/mcp") as client:
            await converse(client, place.root)
