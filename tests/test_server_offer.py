"""What a server offers before anybody calls it: tools with hints and schemas, prompts, completions, resources."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import Place
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference, ResourceTemplateReference

from tissuetalk.prompts.taxonomy import LABELS
from tissuetalk.server.app import build_server

pytestmark = pytest.mark.anyio
TOOLS = {"segment", "measure", "explain", "view", "job", "library"}
READING = {"measure", "explain", "view"}


async def test_every_tool_says_what_it_may_do(place: Place) -> None:
    async with Client(build_server(place.lazy())) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == TOOLS
    for name, tool in tools.items():
        hints = tool.annotations
        assert hints.read_only_hint is (name in READING)
        assert hints.destructive_hint is (name == "library")
        assert hints.idempotent_hint is (name in READING | {"job"})
        assert hints.open_world_hint is False
        assert tool.title and tool.description and tool.output_schema["additionalProperties"] is False


async def test_arguments_are_named_as_in_the_contract(place: Place) -> None:
    arguments = {
        "segment": "image words targets points boxes region organ mpp model examples name base_result dry_run",
        "measure": "result_id metrics mask_ids",
        "explain": "result_id question classifier",
        "view": "image result_id region mask_ids grid",
        "job": "job_id action",
        "library": "action result_id format folder organ name",
    }
    async with Client(build_server(place.lazy())) as client:
        for tool in (await client.list_tools()).tools:
            assert set(tool.input_schema["properties"]) == set(arguments[tool.name].split())


async def test_instructions_say_research_use_only(place: Place) -> None:
    async with Client(build_server(place.lazy())) as client:
        assert "Research use only" in client.instructions


async def test_the_three_uses_are_prompts_and_words_in_them_stay_words(place: Place) -> None:
    async with Client(build_server(place.lazy())) as client:
        names = {prompt.name: prompt for prompt in (await client.list_prompts()).prompts}
        assert set(names) == {"report", "targeted", "exploratory"}
        odd = "No {image} {report} <script> seen."
        filled = await client.get_prompt("report", {"image": "a.png", "report": odd})
        text = filled.messages[0].content.text
        assert odd in text and "a.png" in text and "segment" in text
        for name, other in (
            ("targeted", {"request": "count the nuclei"}),
            ("exploratory", {"organ": "colon"}),
        ):
            filled = await client.get_prompt(name, {"image": "b.svs", **other})
            assert "b.svs" in filled.messages[0].content.text
            assert next(iter(other.values())) in filled.messages[0].content.text


async def test_labels_and_organs_are_completed(place: Place) -> None:
    template = ResourceTemplateReference(type="ref/resource", uri="taxonomy://label/{label}")
    organs = ResourceTemplateReference(type="ref/resource", uri="taxonomy://labels/{organ}")
    prompt = PromptReference(type="ref/prompt", name="exploratory")
    async with Client(build_server(place.lazy())) as client:
        labels = (await client.complete(template, {"name": "label", "value": "colon"})).completion
        assert labels.values and all(value.startswith("colon") for value in labels.values[:3])
        everything = (await client.complete(template, {"name": "label", "value": ""})).completion
        assert (
            everything.total == len(LABELS) == 160 and everything.has_more and len(everything.values) <= 100
        )
        for ref in (organs, prompt):
            assert (
                "breast" in (await client.complete(ref, {"name": "organ", "value": "bre"})).completion.values
            )
        assert (await client.complete(prompt, {"name": "question", "value": "x"})).completion.values == []


async def test_a_host_without_resources_lists_labels_by_a_tool(place: Place) -> None:
    async with Client(build_server(place.lazy())) as client:
        every = (await client.call_tool("library", {"action": "labels"})).structured_content["labels"]
        assert every == [str(label) for label in LABELS]
        colon = await client.call_tool("library", {"action": "labels", "organ": "large bowel"})
        of_colon = [label for label in every if label.startswith("colon-")]
        assert colon.structured_content["labels"] == of_colon and of_colon[0] in colon.content[0].text
        cells = await client.call_tool("library", {"action": "labels", "organ": "cell"})
        assert {label.split("-")[1] for label in cells.structured_content["labels"]} == {"cell"}
        missing = await client.call_tool("library", {"action": "labels", "organ": "atlantis"})
        assert missing.is_error and missing.content[0].text.startswith("unknown_label: ")


async def test_the_exploratory_prompt_passes_the_organ_on(place: Place) -> None:
    async with Client(build_server(place.lazy())) as client:
        filled = await client.get_prompt("exploratory", {"image": "b.svs", "organ": "colon"})
        assert 'organ="colon"' in filled.messages[0].content.text
        filled = await client.get_prompt("exploratory", {"image": "b.svs"})
        assert "organ=" not in filled.messages[0].content.text


async def test_the_taxonomy_and_the_models_can_be_read(place: Place) -> None:
    async def read(uri: str) -> object:
        return json.loads((await client.read_resource(uri)).contents[0].text)

    async with Client(build_server(place.lazy())) as client:
        by_organ = await read("taxonomy://labels")
        assert sum(map(len, by_organ.values())) == 160
        assert await read("taxonomy://labels/colon") == by_organ["colon"]
        every = [label.split("-", 2) for labels in by_organ.values() for label in labels]
        for part, name in ((1, "tissue"), (2, "lymphocyte"), (2, "necrosis or debris")):
            found = await read(f"taxonomy://labels/{name.replace(' ', '%20')}")
            assert found and sorted(found) == sorted(
                "-".join(parts) for parts in every if parts[part] == name
            )
        card = await read(f"taxonomy://label/{by_organ['colon'][0]}")
        assert card["label"] == by_organ["colon"][0] and card["prompt"]
        models = await read("model://models")
        assert [model["default"] for model in models].count(True) == 1
        baseline = await read("model://classical-nuclei")
        assert baseline["licence"] and baseline["limits"] and baseline["targets"] == ["nuclei"]


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("taxonomy://labels/atlantis", "unknown_label"),
        ("taxonomy://label/colon-unicorn-horn", "unknown_label"),
        ("model://gpt", "model_unavailable"),
        ("image://img_" + "0" * 32, "unknown_image"),
        ("result://res_" + "0" * 32 + "/overlay.png", "unknown_result"),
        ("result://res_" + "0" * 32 + "/masks/msk_" + "0" * 32 + ".png", "unknown_result"),
    ],
)
async def test_a_resource_that_is_not_there_has_a_code(place: Place, uri: str, code: str) -> None:
    async with Client(build_server(place.lazy())) as client:
        with pytest.raises(MCPError, match=code):
            await client.read_resource(uri)


async def test_clients_of_the_older_protocol_are_served(place: Place) -> None:
    async with Client(build_server(place.lazy()), mode="legacy") as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
        listed = await client.call_tool("library", {"action": "images"})
        assert listed.structured_content["images"] == []


def test_starting_imports_nothing_heavy() -> None:
    """What a client waits for when it starts the server."""
    program = (
        "import sys; from pathlib import Path\n"
        "from tissuetalk.server.app import build_server\n"
        "from tissuetalk.server.commands import command_line\n"
        "from tissuetalk.server.service import Service, Settings\n"
        "build_server(Service(Settings((Path('.'),), Path('never-made'))))\n"
        "heavy = ('torch', 'cv2', 'scipy', 'skimage', 'numpy', 'PIL', 'tifffile', 'openslide', 'peewee')\n"
        "print([name for name in heavy if name in sys.modules], Path('never-made').exists())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=280
    )
    assert done.stdout.split() == ["[]", "False"]
