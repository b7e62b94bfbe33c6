"""What a PFPs network is really told when it serves: the caller's sentence, the point or the box, the relation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import Place
from mcp import Client
from typer.testing import CliRunner

from tissuetalk.models import registry
from tissuetalk.models.masks.characteristics import Mask, components
from tissuetalk.models.segmentation.little import save_little_llama
from tissuetalk.models.segmentation.pfps.card import SENTENCES, UNIT_WORDS, sentence_for
from tissuetalk.models.segmentation.pfps.efficient_sam import SamSizes
from tissuetalk.models.segmentation.pfps.network import Pfps, PfpsSizes
from tissuetalk.models.segmentation.pfps.segmenter import build_pfps, save_pfps
from tissuetalk.models.segmentation.pfps.training import KidneyQuestion, answer, drawn_patch
from tissuetalk.prompts.lexicon import names_nobody
from tissuetalk.prompts.prompt_sets import sentences_of_task, task_sentences, words_of_tasks
from tissuetalk.server.app import build_server
from tissuetalk.server.commands.command_line import app
from tissuetalk.tools.answers.results import SegmentResult
from tissuetalk.tools.explain.explain import NOT_ASKED_AGAIN
from tissuetalk.tools.segment.lessons import understand
from tissuetalk.tools.segment.request import SegmentArguments
from tissuetalk.tools.segment.segment import segment
from tissuetalk.tools.session import Session

SIZES = SamSizes(
    image_px=128, width=32, depth=2, heads=2, grid=8, decoder_width=32, decoder_heads=4, decoder_mlp=48, upscaling=(32, 16)
)  # fmt: skip
PATCH = drawn_patch(9, "tuft", 100)
TUBULE = {"words": "distal tubule"}
NUCLEI = {"words": "nuclei"}
POINT = (60.0, 35.0)


class Served:
    """A network of random weights in a folder, as ``train`` leaves it, and a session that serves it."""

    def __init__(self, strategy: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.manual_seed(3)
        self.folder = folder
        language = None
        if strategy == "text":
            save_little_llama(folder / "llama")
            language = str(folder / "llama")
        self.network: Pfps = build_pfps(
            PfpsSizes(SIZES, strategy, boxes=True), language_model=language
        ).eval()
        for weights in (self.network.head.controller.weight, self.network.head.controller.bias):
            weights.data *= 4  # random answers that are about something
        save_pfps(self.network, folder / "run", language_model=language)
        monkeypatch.setenv("TISSUETALK_PFPS", str(folder / "run"))
        monkeypatch.setattr(registry, "_loaded", {})
        cv2.imwrite(str(folder / "kidney.png"), PATCH.image[..., ::-1])
        self.session = Session(folder, folder / "workspace")

    def segment(self, words: str | None = None, **asked: Any) -> SegmentResult:
        order = SegmentArguments.of("kidney.png", words, mpp=0.25, model="pfps", **asked)
        return segment(self.session, understand(self.session, order))

    def mask(self, result: SegmentResult) -> Mask:
        (only,) = result.masks
        folder = self.session.workspace.result(result.result_id).folder
        return cv2.imread(str(folder / only.resources.mask), cv2.IMREAD_UNCHANGED) > 0

    def answer(self, sentence: str = "", **asked: Any) -> Mask:
        """Straight from the network, without specks."""
        question = KidneyQuestion(PATCH.image, PATCH.units > 0, sentence=sentence, **asked)
        return components(answer(self.network, question)) > 0


@pytest.fixture
def by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    served = Served("two-set", tmp_path, monkeypatch)
    yield served
    served.session.close()


@pytest.fixture
def by_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    served = Served("text", tmp_path, monkeypatch)
    yield served
    served.session.close()


def related(op: str) -> dict[str, Any]:
    return NUCLEI | {"relation": {"op": op, "reference": "distal tubule"}}


NINE = {
    1: (TUBULE, False),
    3: (related("union"), False),
    4: (related("inside"), False),
    5: (related("outside"), False),
    7: (TUBULE, True),
    8: (related("inside"), True),
    9: (related("outside"), True),
}


def test_every_task_is_asked_of_the_network_by_its_number(by_number: Served) -> None:
    """Tasks 2 and 6, of nuclei alone, belong to no unit: there the four units' requests are averaged."""
    seen = []
    for task, (target, pointed) in NINE.items():
        place = POINT if pointed else None
        result = by_number.segment(targets=[target], points=[POINT] if pointed else None)
        said = by_number.answer(unit="dt", task=task, point_xy=place)
        assert np.array_equal(by_number.mask(result), said), task
        assert result.masks[0].provenance.told and result.masks[0].prompt == ""
        seen.append(said)
    assert sum(bool(mask.any()) for mask in seen) >= 5
    alone = [by_number.segment(targets=[NUCLEI], points=points) for points in (None, [POINT])]
    assert not np.array_equal(*(by_number.mask(each) for each in alone))


def test_the_sentence_and_the_point_reach_the_network_and_its_record(by_text: Served) -> None:
    for said in (
        "Mark only nuclei beyond the distal tubule under the point.",
        "nuclei in the distal tubule I clicked",
    ):
        result = by_text.segment(said, points=[POINT])
        assert np.array_equal(by_text.mask(result), by_text.answer(said, unit="dt", task=9, point_xy=POINT))
        made = result.masks[0].provenance
        assert made.told and made.prompt == made.words == said and made.points == [list(POINT)]
        assert "asked in words with the 1 point given" in result.masks[0].verdict
    elsewhere = by_text.segment(said, points=[(15.0, 75.0)])
    assert not np.array_equal(by_text.mask(result), by_text.mask(elsewhere))
    box = (30.0, 20.0, 75.0, 60.0)
    boxed = by_text.segment(said, boxes=[box])
    assert np.array_equal(by_text.mask(boxed), by_text.answer(said, unit="dt", task=9, box_xyxy=box))


def test_what_nobody_said_is_a_sentence_of_the_training(by_text: Served) -> None:
    for task, (target, pointed) in NINE.items():
        result = by_text.segment(targets=[target], points=[POINT] if pointed else None)
        assert result.masks[0].prompt == sentence_for("dt", task)
    for task, unit in ((task, unit) for task in SENTENCES for unit in UNIT_WORDS):
        assert sentence_for(unit, task) in sentences_of_task(task, "train", UNIT_WORDS[unit])


def test_what_was_told_a_place_is_not_asked_again_in_words_alone(by_text: Served) -> None:
    result = by_text.segment("Mark only nuclei beyond the distal tubule under the point.", points=[POINT])
    answer = by_text.session.explain(result.result_id, "how sure is this?")
    assert answer.result.stability == [] and NOT_ASKED_AGAIN in answer.text


def test_a_marked_place_that_nobody_gave_is_said(by_text: Served) -> None:
    result = by_text.segment("Outline the one nucleus that I marked.")
    assert result.masks[0].prompt == "Outline the one nucleus that I marked."
    assert "pass points" in result.masks[0].verdict


def test_a_report_is_read_and_never_sent(by_text: Served) -> None:
    report = "DIAGNOSIS: Kidney, biopsy.\nMICROSCOPIC: Mr Example has 12 glomeruli. The glomerular tufts are enlarged."
    result = by_text.segment(report)
    sent = {mask.prompt for mask in result.masks}
    assert sent == {"Segment every glomerular tuft in this patch."}
    stored = (by_text.session.workspace.result(result.result_id).folder / "request.json").read_text()
    assert "Example" not in stored


def test_a_network_that_never_saw_boxes_is_sent_none(by_number: Served) -> None:
    settings = by_number.folder / "run" / "pfps.json"
    settings.write_text(settings.read_text().replace('"boxes": true', '"boxes": false'))
    result = by_number.segment(targets=[TUBULE], boxes=[(30.0, 20.0, 75.0, 60.0)])
    assert not result.masks[0].provenance.told


def test_a_request_that_could_name_somebody_is_not_sent_as_it_stands(by_text: Served) -> None:
    for words in (
        "Segment the nuclei inside the distal tubule of Bauer.",
        "the distal tubules of 12 May 1950",
    ):
        result = by_text.segment(words)
        assert {mask.prompt for mask in result.masks} <= {sentence_for("dt", task) for task in SENTENCES}
        stored = by_text.session.workspace.result(result.result_id).folder
        assert not any(part in (stored / "request.json").read_text() for part in ("Bauer", "1950"))
    for row in task_sentences():
        said = row.text.replace("<class>", "distal tubule")
        assert names_nobody(said, 0, len(said), words_of_tasks()), said


def test_relations_the_network_was_never_trained_for_are_computed(by_number: Served) -> None:
    odd = {"words": "glomerular tuft", "relation": {"op": "inside", "reference": "glomerular capsule"}}
    result = by_number.segment(targets=[odd])
    assert not any(mask.provenance.told for mask in result.masks)


def test_the_command_line_sends_them_too(
    by_text: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = "Segment the nuclei inside the distal tubule at the point."
    arguments = ["segment", "kidney.png", said, "--model", "pfps", "--mpp", "0.25", "--point", "60,35"]
    done = CliRunner().invoke(app, [*arguments, "--out", "out"])
    assert done.exit_code == 0, done.output
    (mask,) = json.loads((tmp_path / "out" / "result.json").read_text())["masks"]
    assert mask["provenance"]["prompt"] == said and mask["provenance"]["points"] == [[60.0, 35.0]]
    painted = cv2.imread(str(tmp_path / "out" / "masks" / f"{mask['mask_id']}.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(painted > 0, by_text.answer(said, unit="dt", task=8, point_xy=POINT))


@pytest.mark.anyio
async def test_an_assistant_sends_them_too(by_number: Served) -> None:
    place = Place(by_number.folder, by_number.folder / "served")
    asked = {
        "image": "kidney.png",
        "words": "the distal tubule at the point",
        "points": [list(POINT)],
        "mpp": 0.25,
    }
    async with Client(build_server(place.lazy())) as client:
        answer = await client.call_tool("segment", asked | {"model": "pfps"})
    (mask,) = answer.structured_content["masks"]
    assert "by the number of its task with the 1 point given" in mask["verdict"]
    assert mask["area_px"] == int(by_number.answer(unit="dt", task=7, point_xy=POINT).sum())
