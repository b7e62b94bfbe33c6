"""Every kind of explanation through a real server, and long ones as jobs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import slow_model as slow
from conftest import Place, SlowModel
from conversation import call, picture_of, read, segmented, text_of, wait_for
from drawn import discs, lattice, save
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import CallToolResult

from tissuetalk.server.app import build_server

pytestmark = pytest.mark.anyio
COMMAND = str(Path(sys.executable).with_name("tissuetalk"))
SAMPLES = Path(__file__).parent.parent / "models" / "samples"
REPORT = "Colon biopsy: crowded adenomatous glands. No invasive carcinoma is seen. Previously polyps."


async def explained(client: Client, **asked: object) -> CallToolResult:
    """The answer, at once or, on a busy machine, at the end of the job it became; of the same shape in both cases."""
    answer = await call(client, "explain", **asked)
    if answer.structured_content["job_id"] is None:
        return answer
    done = await wait_for(client, answer.structured_content["job_id"])
    done.structured_content = done.structured_content["result"]
    return done


async def test_a_conversation_that_asks_for_every_kind_of_explanation(place: Place) -> None:
    shutil.copy(SAMPLES / "colon.jpg", place.root)
    server = StdioServerParameters(
        command=COMMAND, args=["serve", "--root", str(place.root), "--workspace", str(place.workspace)]
    )
    async with Client(stdio_client(server)) as client:
        found = await segmented(client, image="colon.jpg", words=REPORT, mpp=1.2)
        (mask,) = found["masks"]
        assert mask["reliability"] is None or 0 <= mask["reliability"] <= 1
        await _overview(client, found["result_id"], mask["mask_id"])
        await _kinds(client, found["result_id"])
        await _bad_questions(client, found["result_id"])
        (place.root / "colon.jpg").unlink()
        gone = await client.call_tool("explain", {"result_id": found["result_id"]})
        assert gone.is_error and text_of(gone).startswith("unknown_image: ")


async def _overview(client: Client, result_id: str, mask_id: str) -> None:
    answer = await explained(client, result_id=result_id)
    said = answer.structured_content
    assert said["kinds"] == ["grounding", "observations", "meaning"]
    assert said["evidence"][0]["mask_id"] == mask_id and said["evidence"][0]["number"] == 1
    assert {item["assertion"] for item in said["evidence"]} >= {"present", "absent"}
    assert "tumour" not in [item["name"] for item in said["observations"]], "the report rules it out"
    assert said["meanings"][0]["reference"] and said["meanings"][0]["example_box"]
    assert len(text_of(answer).splitlines()) <= 11 and "esearch use only" in text_of(answer)
    assert max(picture_of(answer).size) <= 1024
    assert (await read(client, said["picture"]))[:4] == b"\x89PNG"


async def _kinds(client: Client, result_id: str) -> None:
    answer = await explained(client, result_id=result_id, question="How sure are you of the glands?")
    (stability,) = answer.structured_content["stability"]
    assert 0 <= stability["agreement"] <= 1
    assert (stability["reliability"] is None) == (stability["level"] is None)
    assert len(stability["wordings"]) == 3 and len(stability["changes"]) == 6
    assert stability["statement"] in text_of(answer) and picture_of(answer).width > 500
    assert (await read(client, stability["map"]))[:4] == b"\x89PNG"
    answer = await explained(client, result_id=result_id, question="What if the glands were not there?")
    views = answer.structured_content["counterfactuals"]
    assert [view["change"] for view in views] == ["blurred", "removed"] and picture_of(answer)
    answer = await explained(client, result_id=result_id, question="what does dysplasia mean?")
    assert [item["name"] for item in answer.structured_content["meanings"]] == ["dysplasia"]
    answer = await explained(client, result_id=result_id, question="which model and settings made this?")
    (record,) = answer.structured_content["provenance"]
    assert record["weights_sha256"][:12] in text_of(answer)
    answer = await explained(client, result_id=result_id, question="Is it cancer?")
    assert "cannot answer for a diagnosis" in text_of(answer) and answer.structured_content["evidence"]


async def _bad_questions(client: Client, result_id: str) -> None:
    never = await client.call_tool(
        "explain", {"result_id": result_id, "question": "how sure are you of the mitoses?"}
    )
    assert text_of(never).startswith("unknown_mask: ") and "it has: 1 gland" in text_of(never)
    nobody = await client.call_tool("explain", {"result_id": result_id, "classifier": "oracle"})
    assert text_of(nobody).startswith("model_unavailable: ")
    outside = await client.call_tool(
        "explain", {"result_id": result_id, "classifier": "../../oracle.safetensors"}
    )
    assert text_of(outside).startswith("outside_roots: ")


@pytest.fixture
def slow_image(place: Place) -> Place:
    save(place.root / "slow.png", discs(slow.SIDE_PX, slow.SIDE_PX, lattice(9)))
    return place


ASK = {"image": "slow.png", "targets": [{"words": "nuclei"}], "mpp": 0.5, "model": slow.NAME}


async def test_a_long_explanation_goes_on_as_a_job(slow_image: Place, slow_model: SlowModel) -> None:
    async with Client(build_server(slow_image.lazy(patience_s=0.3))) as client:
        slow_model.open_gate()
        result_id = (await segmented(client, **ASK))["result_id"]
        slow_model.gate.unlink()
        started = await call(client, "explain", result_id=result_id, question="how sure are you?")
        answer = started.structured_content
        assert answer["job_id"] in text_of(started) and answer["stability"] == []
        slow_model.open_gate()
        done = await wait_for(client, answer["job_id"])
        result = done.structured_content["result"]
        assert result["stability"][0]["agreement"] > 0.5 and result["stability"][0]["statement"] in text_of(
            done
        )
        assert [block for block in done.content if block.type == "image"]


async def test_a_long_explanation_outlives_its_server(
    slow_image: Place, slow_model: SlowModel, eventually: Callable
) -> None:
    async with Client(build_server(slow_image.lazy(patience_s=0.3))) as client:
        slow_model.open_gate()
        result_id = (await segmented(client, **ASK))["result_id"]
        slow_model.gate.unlink()
        before = slow_model.tiles()
        started = await call(client, "explain", result_id=result_id, question="how sure are you?")
        await eventually(lambda: slow_model.tiles() > before)
    slow_model.open_gate()
    async with Client(build_server(slow_image.lazy())) as client:
        done = await wait_for(client, started.structured_content["job_id"])
        assert done.structured_content["state"] == "done"
        assert done.structured_content["result"]["result_id"] == result_id
    assert (slow_image.workspace / "results" / result_id / "explanations").is_dir()
