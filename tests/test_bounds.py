"""Whatever is asked, an answer stays under 200 kB and an error within a few lines; every argument has a bound."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Place
from conversation import call, read, segmented, text_of
from drawn import disc_image
from mcp import Client
from mcp.shared.exceptions import MCPError

from tissuetalk.models import errors
from tissuetalk.server.app import TOOLS, build_server
from tissuetalk.server.protocol import NEXT_CALL
from tissuetalk.tools.answers import arguments, bounds

pytestmark = pytest.mark.anyio
MODEL: dict[str, Any] = {"image": "a.png", "mpp": 0.5, "model": "classical-nuclei"}
MOST_ERROR = 1_600
LONG = "x" * 1_000_000
HUGE = (
    LONG,
    [LONG] * 3,
    [[1.0, 2.0]] * 100_000,
    [["a"]] * 50_000,
    {LONG: LONG},
    10**300,
    -(10**30),
    [None] * 9,
)


def unbounded(schema: dict[str, Any], root: dict[str, Any], path: str) -> Iterator[str]:
    """Where a string, list or number may be of any size."""
    if "$ref" in schema:
        yield from unbounded(root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root, path)
        return
    for each in schema.get("anyOf", ()):
        yield from unbounded(each, root, path)
    kind = schema.get("type")
    if kind == "string" and not {"maxLength", "enum", "const"} & set(schema):
        yield f"{path}: any text"
    if kind in ("number", "integer") and not {"minimum", "maximum"} <= set(schema):
        yield f"{path}: any number"
    if kind == "array":
        if "maxItems" not in schema:
            yield f"{path}: any number of rows"
        yield from unbounded(schema["items"], root, f"{path}[]")
    if kind == "object":
        if schema.get("additionalProperties") is not False and path.count(".") > 0:
            yield f"{path}: any field"
        for name, each in schema.get("properties", {}).items():
            yield from unbounded(each, root, f"{path}.{name}")


async def test_every_string_list_and_number_of_every_argument_has_a_bound(place: Place) -> None:
    """Protects from: 60,000 ids in one list, a relation of 3 MB."""
    async with Client(build_server(place.lazy())) as client:
        tools = (await client.list_tools()).tools
    found = [each for tool in tools for each in unbounded(tool.input_schema, tool.input_schema, tool.name)]
    assert found == []


def test_every_code_has_a_next_call() -> None:
    def codes(of: type[errors.TissuetalkError]) -> set[str]:
        return {of.code} | {code for below in of.__subclasses__() for code in codes(below)}

    assert codes(errors.TissuetalkError) - {"error", "invalid_argument"} <= set(NEXT_CALL)


def crowded() -> list[dict[str, Any]]:
    """As many and as long targets as may be passed, all different and all of something that is there."""
    name = "o" * 190
    outside = {"op": "outside", "reference": "y" * 200}
    wanted = [{"words": "nuclei", "organ": f"{name}{number}"} for number in range(arguments.MOST_TARGETS - 2)]
    return [*wanted, {"words": "nuclei", "relation": outside}, {"words": "z" * 200, "relation": outside}]


async def test_the_largest_permitted_of_everything_gives_a_bounded_answer(place: Place) -> None:
    disc_image(place.root / "a.png", 5)
    points = [[20.0 + number / 7, 20.0 + number / 7] for number in range(arguments.MOST_POINTS)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with Client(build_server(place.lazy(patience_s=100))) as client:
        ask = {**MODEL, "targets": crowded(), "points": points, "words": "w" * 9_000, "organ": "p" * 100}
        await call(client, "segment", **ask, dry_run=True)
        found = await segmented(client, **ask)
        assert "read result://" in " ".join(found["left_out"])
        assert len(found["masks"]) >= arguments.MOST_TARGETS - 2
        full = await read(client, f"result://{found['result_id']}/result.json")
        assert len(full) > 200_000 and b"20.142857" in full
        result = {"result_id": found["result_id"]}
        await call(client, "measure", **result)
        pairs = ["area", "ratio", "density_in", "distance_to", "histogram"]
        measured = (await call(client, "measure", **result, metrics=pairs)).structured_content
        assert "measurements: ask with the mask_ids" in " ".join(measured["left_out"])
        await call(client, "explain", **result, question="which model and settings? " + "why? " * 390)
        await call(client, "view", **result)
        listed = await call(client, "library", action="results")
        assert listed.structured_content["results"]
        report = "Malignant glands" + " and crowded glands" * 2_000
        await call(client, "segment", image="a.png", words=f"{report}.", dry_run=True)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
    assert grown_mb < 600


async def test_repeated_ids_are_merged_and_too_many_refused(place: Place) -> None:
    disc_image(place.root / "a.png", 3)
    async with Client(build_server(place.lazy())) as client:
        found = await segmented(client, **MODEL, targets=[{"words": "nuclei"}] * 3)
        (mask,) = found["masks"]
        result, ids = {"result_id": found["result_id"]}, [mask["mask_id"]]
        once = (await call(client, "measure", **result, mask_ids=ids)).structured_content
        often = await call(
            client, "measure", **result, mask_ids=ids * arguments.MOST_IDS, metrics=["area"] * 50
        )
        assert len(often.structured_content["measurements"]) <= len(once["measurements"])
        seen = await call(client, "view", **result, mask_ids=ids * arguments.MOST_IDS)
        assert seen.structured_content["mask_ids"] == ids
        for tool in ("measure", "view"):
            refused = await client.call_tool(tool, {**result, "mask_ids": ids * 60_000})
            assert text_of(refused).startswith("invalid_argument: mask_ids: ") and "200" in text_of(refused)


@pytest.mark.parametrize("tool", TOOLS)
async def test_no_argument_comes_back_large(tool: str, place: Place) -> None:
    disc_image(place.root / "a.png", 3)
    good = {"image": "a.png", "result_id": "res_1", "job_id": "job_1", "action": "status"}
    async with Client(build_server(place.lazy())) as client:
        listed = {each.name: each.input_schema for each in (await client.list_tools()).tools}[tool]
        needed = {name: good[name] for name in listed.get("required", ())}
        for name in listed["properties"]:
            for huge in HUGE:
                answer = await client.call_tool(tool, {**needed, name: huge})
                if answer.is_error:
                    assert len(text_of(answer)) < MOST_ERROR and text_of(answer).split(":")[0].islower()
        unknown = await client.call_tool(tool, {LONG: 1})
        assert len(text_of(unknown)) < MOST_ERROR


async def test_names_of_nothing_come_back_short(place: Place) -> None:
    async with Client(build_server(place.lazy())) as client:
        for ask in (
            lambda: client.read_resource(f"result://{LONG}/overlay.png"),
            lambda: client.read_resource(f"nothing://{LONG}"),
            lambda: client.get_prompt(LONG, {}),
            lambda: client.get_prompt("report", {"image": LONG, "report": "a"}),
        ):
            with pytest.raises(MCPError) as refused:
                await ask()
            assert len(str(refused.value)) < MOST_ERROR
        nothing = text_of(await client.call_tool(LONG, {}))
        assert nothing.startswith("invalid_argument: there is no tool") and len(nothing) < MOST_ERROR


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"targets": [{"words": "nuclei", "run": "ls"}]},
            "targets.0.run: there is no such field; there are: label, words",
        ),
        ({"targets": [{"words": "a", "relation": {"op": "in", "of": "b"}}]}, "there are: op, reference"),
        ({"points": "10,10"}, "[[x, y], …] pixels"),
        ({"boxes": [[1, 2, 3]]}, "[[x0, y0, x1, y1], …] pixels"),
        ({"region": "all"}, "[x0, y0, x1, y1] in full-resolution pixels"),
        ({"image": 7}, "Path inside an allowed folder"),
        ({"sudo": True}, "has no argument 'sudo'; it takes: "),
    ],
)
async def test_a_wrong_shape_is_told_what_belongs_there(place: Place, given: Any, says: str) -> None:
    async with Client(build_server(place.lazy())) as client:
        refused = await client.call_tool("segment", {"image": "a.png", **given})
    assert text_of(refused).startswith("invalid_argument: ") and says in text_of(refused)
    assert "segment(" in text_of(refused)


def test_what_does_not_fit_is_cut_counted_and_said() -> None:
    rows = [{"metric": "area", "rule": "r" * 300} for _ in range(1000)]
    shown = bounds.fitted("MeasureResult", {"measurements": rows, "tables": {}, "pictures": {}})
    kept = len(shown["measurements"])
    assert bounds.size_of(shown) < bounds.MOST_STRUCTURE_BYTES and kept > 300
    assert shown["left_out"] == [
        f"{1000 - kept} of 1000 measurements: ask with the mask_ids you need, or for fewer metrics"
    ]
    text = bounds.fitted_text("line\n" * 50_000, shown["left_out"])
    assert len(text) < bounds.MOST_TEXT_BYTES + 200 and "more lines" in text and shown["left_out"][0] in text
