"""What an assistant is told about how its words were read, through a real client: enough to object, and to correct."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import Place
from conversation import call, segmented, text_of
from mcp import Client

from tissuetalk.server.app import build_server

pytestmark = pytest.mark.anyio
SAMPLES = Path(__file__).parent.parent / "models" / "samples"
REPORT = "Colon, biopsy. Crowded adenomatous glands. No invasive carcinoma is seen. Previously polyps."


@pytest.fixture
def colon(place: Place) -> Place:
    shutil.copy(SAMPLES / "colon.jpg", place.root)
    return place


async def test_a_report_comes_back_sentence_by_sentence(colon: Place) -> None:
    async with Client(build_server(colon.lazy(patience_s=200))) as client:
        answer = await segmented(client, image="colon.jpg", words=REPORT, mpp=1.2)
        lines = answer["read_as"]
        assert [line["assertion"] for line in lines] == ["present", "absent", "historical"]
        for line in lines:
            start, end = line["span"]
            assert REPORT[start:end].strip() == line["sentence"].strip() and line["finding"]
        (mask,) = answer["masks"]
        assert [line["mask_id"] for line in lines] == [mask["mask_id"], None, None]


async def test_the_caller_corrects_a_reading_with_targets(colon: Place) -> None:
    targets = [{"words": "gland", "assertion": "absent"}, {"words": "nuclei", "assertion": "uncertain"}]
    async with Client(build_server(colon.lazy(patience_s=200))) as client:
        answer = await segmented(client, image="colon.jpg", words=REPORT, targets=targets, mpp=1.2)
        (mask,) = answer["masks"]
        assert mask["target"] == "nuclei" and mask["assertion"] == "uncertain"
        assert [item["code"] for item in answer["not_segmented"]] == ["absent"]


async def test_a_dry_run_reads_and_leaves_nothing_behind(colon: Place) -> None:
    async with Client(build_server(colon.lazy(patience_s=200))) as client:
        read = await call(client, "segment", image="colon.jpg", words=REPORT, dry_run=True)
        answer = read.structured_content
        assert answer["result_id"] is None and answer["masks"] == [] and len(answer["read_as"]) == 3
        assert "would look for" in text_of(read) and "No invasive carcinoma is seen." in text_of(read)
        assert (await call(client, "library", action="results")).structured_content["results"] == []


async def test_what_do_you_see_is_answered_with_everything_that_can_be_seen(colon: Place) -> None:
    async with Client(build_server(colon.lazy(patience_s=200))) as client:
        asked = await call(client, "segment", image="colon.jpg", words="Tell me what you see", mpp=1.2)
        found = {mask["target"] for mask in asked.structured_content["masks"] if mask["found"]}
        assert found == {"nuclei", "gland"}
        lines = text_of(asked).splitlines()
        assert lines[1].startswith("1. nuclei"), "what was found leads"
        refused = [line for line in lines if line.startswith("not segmented")]
        assert len(refused) == 1 and "cell-lymphocyte" in refused[0], (
            "ten rows that say the same are one line"
        )
        assert len(asked.structured_content["not_segmented"]) > 5
