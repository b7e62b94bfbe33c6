"""OpenVINO computes the default model's features where the operator wants it: the same masks, and never in silence."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from slide_runs import bench_at, order_of, run

from tissuetalk.models import registry
from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.segmentation.pathsegmentor import openvino_encoder
from tissuetalk.models.segmentation.pathsegmentor.card import MINI_FILE
from tissuetalk.models.segmentation.pathsegmentor.openvino_encoder import (
    GRAPH,
    GRAPH_SHA256,
    VARIABLE,
    OpenvinoEncoder,
    contents,
)
from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter, padded
from tissuetalk.models.segmenter import Context, encoder_of
from tissuetalk.models.training.ablation import ask
from tissuetalk.tools.answers.results import Mask
from tissuetalk.tools.segment.grid import SlideSettings
from tissuetalk.tools.segment.tiles import ImageTask

HERE = find_spec("openvino") is not None
installed = pytest.mark.skipif(
    not HERE, reason="OpenVINO is not installed: pip install 'tissuetalk[openvino]'"
)
NOTHING = Context({})


def sample(name: str) -> np.ndarray:
    with resources.as_file(resources.files("tissuetalk.models").joinpath("samples", name)) as file:
        return np.asarray(Image.open(file).convert("RGB"))


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an operator who sets the variable, in a process that has loaded nothing yet."""
    monkeypatch.setenv(VARIABLE, "openvino")
    monkeypatch.setattr(registry, "_loaded", {})


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[MiniSegmenter, MiniSegmenter]]:
    yield MiniSegmenter(use="torch"), MiniSegmenter(use="openvino")


def test_the_graph_that_ships_is_the_one_that_was_measured_and_of_the_shipped_weights() -> None:
    """After new weights: python -m benchmarks quantise."""
    graph, _, sha256 = contents(GRAPH)
    assert sha256 == GRAPH_SHA256 and MINI_FILE.sha256.encode() in graph


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
@pytest.mark.parametrize("damage", ["one byte", "cut off", "gone"])
def test_a_damaged_or_foreign_graph_is_refused_before_openvino_sees_it(
    suffix: str, damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in (".xml", ".bin"):
        shutil.copy(GRAPH.with_suffix(each), tmp_path)
    file = (tmp_path / GRAPH.name).with_suffix(suffix)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content if damage == "one byte" else content[:-100])
    if damage == "gone":
        file.unlink()
    monkeypatch.setattr(openvino_encoder, "GRAPH", tmp_path / GRAPH.name)

    def never() -> Any:
        raise AssertionError("it got as far as OpenVINO")

    monkeypatch.setattr(openvino_encoder, "quiet_openvino", never)
    with pytest.raises(ModelUnavailableError, match="reinstall the package"):
        OpenvinoEncoder.shipped(MINI_FILE.sha256, often_px=1280)
    monkeypatch.setattr(openvino_encoder, "GRAPH", GRAPH)
    with pytest.raises(ModelUnavailableError, match="not made of the weights"):
        OpenvinoEncoder.shipped("0" * 64, often_px=1280)


def test_a_wish_that_cannot_be_met_is_an_error_and_says_what_to_do(
    wanted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelUnavailableError, match=r"pip install 'tissuetalk\[openvino\]'"):
        registry.load(None)
    monkeypatch.setattr(openvino_encoder, "device", lambda: torch.device("cuda"))
    with pytest.raises(ModelUnavailableError, match="has a GPU"):
        registry.load(None)
    monkeypatch.setenv(VARIABLE, "onnx")
    with pytest.raises(InvalidArgumentError, match="torch or openvino"):
        registry.load(None)


@installed
def test_importing_it_tells_nobody(tmp_path: Path) -> None:
    """By itself the package reports every import to a service of its makers."""
    program = """
import sys
reached = []
sys.addaudithook(lambda event, args: reached.append(event) if event in ("socket.connect", "socket.getaddrinfo") else None)
from tissuetalk.models.segmentation.pathsegmentor.openvino_encoder import quiet_openvino
quiet_openvino().Core()
import time
time.sleep(0.3)
assert not reached and not any(name.startswith("openvino_telemetry") for name in sys.modules), reached
"""
    told = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"HOME": str(tmp_path)},
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert not list(tmp_path.iterdir())


@installed
@pytest.mark.parametrize(("name", "target"), [("tnbc.jpg", "nuclei"), ("colon.jpg", "gland")])
def test_masks_are_those_of_torch_within_a_hundredth(
    both: tuple[MiniSegmenter, MiniSegmenter], name: str, target: str
) -> None:
    tile, masks = sample(name), []
    for model in both:
        (answer,) = model.decode(model.encode(tile, NOTHING), [ask(target)])
        masks.append(model.finish(answer, ask(target), model.prepare(tile)))
    torchs, openvinos = masks
    assert torchs.mask.any() and dice(openvinos.mask, torchs.mask) > 0.98
    assert abs(openvinos.presence - torchs.presence) < 0.05


@installed
def test_maps_and_summary_come_from_the_same_pass_and_a_batch_is_each_tile_alone(
    both: tuple[MiniSegmenter, MiniSegmenter],
) -> None:
    plain, small = both
    tile = sample("tnbc.jpg")[:96, :160]
    expected, wanted = plain.inference.encode_with_maps(padded(tile))
    found, maps = small.inference.encode_with_maps(padded(tile))
    assert torch.equal(found.pixels, small.inference.encode(padded(tile)).pixels)
    assert found.pooled.shape == expected.pooled.shape and found.pixels.dtype == expected.pixels.dtype
    for mine, theirs in zip(
        (found.pixels, found.pooled, *maps), (expected.pixels, expected.pooled, *wanted), strict=True
    ):
        assert mine.shape == theirs.shape
        assert torch.corrcoef(torch.stack([mine.float().ravel(), theirs.float().ravel()]))[0, 1] > 0.98
    again, _ = small.inference.encode_with_maps(torch.cat([padded(tile), padded(tile[:, ::-1])]))
    assert torch.equal(again.pixels[:1], found.pixels)


@installed
def test_features_that_torch_left_in_a_workspace_are_not_taken_for_openvinos(
    wanted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(sample("tnbc.jpg")[:400, :400]).save(tmp_path / "tissue.png")

    def answered(workspace: str, encoder: str) -> Mask:
        monkeypatch.setenv(VARIABLE, encoder)
        monkeypatch.setattr(registry, "_loaded", {})
        bench = bench_at(tmp_path, tmp_path / workspace, SlideSettings())
        found = run(bench, order_of(tmp_path / "tissue.png", model="tissuetalk-mini", mpp=0.25))
        bench.close()
        return found.result.masks[0]

    torchs, after_torch, alone = answered("a", "torch"), answered("a", "openvino"), answered("b", "openvino")
    assert torchs.provenance.encoder == ""
    assert after_torch.provenance.encoder == f"openvino-int8 {GRAPH_SHA256[:12]}"
    own = {"mask_id", "resources"}
    assert after_torch.model_dump(exclude=own) == alone.model_dump(exclude=own)
    assert after_torch.area_px != torchs.area_px


@installed
def test_work_is_not_shared_with_a_machine_that_computes_otherwise(wanted: None) -> None:
    task = ImageTask("", "", "", "tissuetalk-mini", "", (), NOTHING, 1.0, ())
    with pytest.raises(ModelUnavailableError, match="alike on all machines"):
        _ = task.loaded
    assert encoder_of(replace(task, encoder=encoder_of(registry.load(None))).loaded)
