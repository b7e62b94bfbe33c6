"""The whole conversation of an assistant with a server, over whatever transport the client is connected with."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import jsonschema
import numpy as np
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult
from PIL import Image

Answered = TypeVar("Answered")
MOST_BYTES = 200_000


async def patiently(ask: Callable[[], Awaitable[Answered]]) -> Answered:
    """Asks again in a moment while the server says it is busy, as it says to."""
    with anyio.fail_after(200):
        while True:
            try:
                answer = await ask()
            except MCPError as error:
                if not str(error).startswith("busy: "):
                    raise
            else:
                failed = isinstance(answer, CallToolResult) and answer.is_error
                if not (failed and text_of(answer).startswith("busy: ")):
                    return answer
            await anyio.sleep(1)


async def call(client: Client, tool: str, **arguments: Any) -> CallToolResult:
    """A call that must succeed, fit in a message and match the tool's published schema."""
    result = await patiently(lambda: client.call_tool(tool, arguments))
    assert not result.is_error, result.content[0].text
    assert len(result.model_dump_json(by_alias=True)) < MOST_BYTES
    listed = {each.name: each for each in (await client.list_tools()).tools}
    jsonschema.validate(result.structured_content, listed[tool].output_schema)
    return result


async def wait_for(client: Client, job_id: str) -> CallToolResult:
    """Waits for the end of a job as an assistant does: as often as it takes."""
    with anyio.fail_after(200):
        while True:
            answer = await call(client, "job", job_id=job_id, action="wait")
            if answer.structured_content["state"] not in ("queued", "running"):
                return answer


async def finished(client: Client, tool: str, **asked: Any) -> tuple[dict[str, Any], CallToolResult]:
    """What came of it, at once or, on a busy machine, at the end of the job it became; and the answer that says so."""
    said = await call(client, tool, **asked)
    if (job_id := said.structured_content["job_id"]) is None:
        return said.structured_content, said
    said = await wait_for(client, job_id)
    return said.structured_content["result"], said


async def segmented(client: Client, **asked: Any) -> dict[str, Any]:
    return (await finished(client, "segment", **asked))[0]


def text_of(result: CallToolResult) -> str:
    return result.content[0].text


def picture_of(result: CallToolResult) -> Image.Image:
    (block,) = [block for block in result.content if block.type == "image"]
    return Image.open(io.BytesIO(base64.b64decode(block.data)))


async def read(client: Client, uri: str) -> bytes:
    (content,) = (await patiently(lambda: client.read_resource(uri))).contents
    return base64.b64decode(content.blob) if hasattr(content, "blob") else content.text.encode()


async def converse(client: Client, image: str, count: int) -> None:
    """segment, measure, explain, view, library and every resource, on a picture of ``count`` discs at 0.5 µm/px."""
    result_id = await _segment(client, image, count)
    await _measure(client, result_id, count)
    await _explain_and_view(client, result_id)
    await _library(client, result_id)


async def _segment(client: Client, image: str, count: int) -> str:
    answer, result = await finished(
        client,
        "segment",
        image=image,
        words="Please outline all nuclei. No glands are seen.",
        mpp=0.5,
        model="classical-nuclei",
    )
    text = text_of(result)
    (mask,) = answer["masks"]
    assert mask["found"] and mask["count"] == count
    assert [item["code"] for item in answer["not_segmented"]] == ["absent"]
    assert answer["result_id"] in text and mask["mask_id"] in text and mask["verdict"] in text
    assert "absent" in text and all(warning["code"] in text for warning in answer["warnings"])
    assert max(picture_of(result).size) <= 1024
    links = {block.uri for block in result.content if block.type == "resource_link"}
    assert {mask["resources"][kind] for kind in ("mask", "geojson", "table")} <= links
    await _resources(client, answer, mask)
    return answer["result_id"]


async def _resources(client: Client, answer: dict[str, Any], mask: dict[str, Any]) -> None:
    image = answer["image"]
    pixels = np.asarray(Image.open(io.BytesIO(await read(client, mask["resources"]["mask"]))))
    assert pixels.shape == (image["height"], image["width"]) and pixels.dtype == np.uint8
    assert set(np.unique(pixels)) == {0, 255} and (pixels > 0).sum() == mask["area_px"]
    labels = np.asarray(Image.open(io.BytesIO(await read(client, mask["resources"]["instances"]))))
    assert labels.max() == mask["count"] and ((labels > 0) == (pixels > 0)).all()
    collection = json.loads(await read(client, mask["resources"]["geojson"]))
    assert len(collection["features"]) == mask["count"]
    rows = list(csv.DictReader(io.StringIO((await read(client, mask["resources"]["table"])).decode())))
    assert len(rows) == mask["count"] and sum(int(row["area_px"]) for row in rows) == mask["area_px"]
    overlay = Image.open(io.BytesIO(await read(client, answer["overlay"])))
    assert overlay.format == "PNG"
    stored = json.loads(await read(client, f"result://{answer['result_id']}/result.json"))
    assert stored == answer
    seen = Image.open(io.BytesIO(await read(client, f"image://{image['image_id']}")))
    assert max(seen.size) <= 1024


async def _measure(client: Client, result_id: str, count: int) -> None:
    result = await call(
        client, "measure", result_id=result_id, metrics=["count", "density", "size", "distance"]
    )
    values = {row["metric"]: row for row in result.structured_content["measurements"]}
    assert values["count"]["value"] == count
    assert values["density"]["unit"] == "per mm²" and values["size.mean"]["unit"] == "µm²"
    for row in values.values():
        assert row["rule"] and f"{row['metric']} {row['value']:.4g} {row['unit']}" in text_of(result)


async def _explain_and_view(client: Client, result_id: str) -> None:
    answer, explained = await finished(client, "explain", result_id=result_id)
    assert answer["evidence"][0]["words"] in "Please outline all nuclei."
    assert [item["assertion"] for item in answer["evidence"]] == ["present", "absent"]
    assert all(item["statement"] in text_of(explained) for item in answer["evidence"])
    assert "esearch use only" in answer["notice"] and answer["notice"] in text_of(explained)
    viewed = await call(client, "view", result_id=result_id, grid=True, region=[0, 0, 130, 130])
    assert viewed.structured_content["image"]["region"] == [0, 0, 130, 130]
    assert picture_of(viewed).size == (
        viewed.structured_content["picture_width"],
        viewed.structured_content["picture_height"],
    )


async def _library(client: Client, result_id: str) -> None:
    images = await call(client, "library", action="images")
    assert images.structured_content["images"]
    results = await call(client, "library", action="results")
    assert result_id in [item["result_id"] for item in results.structured_content["results"]]
    folder = f"saved-{result_id[-8:]}"
    saved = await call(client, "library", action="save", result_id=result_id, folder=folder)
    assert "result.json" in saved.structured_content["saved"]
    await call(client, "library", action="delete", result_id=result_id)
    gone = await client.call_tool("measure", {"result_id": result_id})
    assert gone.is_error and text_of(gone).startswith("unknown_result: ")
