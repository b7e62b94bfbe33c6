"""Tiles of several callers go through a network together, and everybody gets the own answer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from services import wait_until

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.gathering import VARIABLE, Gathered, tiles_at_once
from tissuetalk.models.segmentation.pathsegmentor.base import BaseConfig, build_base
from tissuetalk.models.segmentation.pathsegmentor.base_segmenter import BaseSegmenter, save_base
from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter, padded
from tissuetalk.models.segmenter import Context, Prompt

NUCLEI = Prompt("cell-cell-nucleus", "nuclei", "nuclei", concept="nucleus")


def test_who_comes_while_others_are_at_work_goes_with_the_next_and_bad_pieces_fail_alone() -> None:
    batches: list[list[str]] = []
    begun, go = threading.Event(), threading.Event()

    def together(pieces: Sequence[str]) -> list[str]:
        batches.append(list(pieces))
        begun.set()
        assert go.wait(60)
        if "bad" in pieces:
            raise ValueError("bad")
        return [piece.upper() for piece in pieces]

    gathered: Gathered[str, str] = Gathered(together, len, 3)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(gathered, "one")
        assert begun.wait(60)
        rest = []
        for number, piece in enumerate(("two", "bad", "three", "six", "ten")):
            rest.append(pool.submit(gathered, piece))
            wait_until(lambda number=number: len(gathered._waiting) == number + 1)
        go.set()
        assert first.result() == "ONE"
        with pytest.raises(ValueError, match="bad"):
            rest[1].result()
        assert [each.result() for each in rest[:1] + rest[2:]] == ["TWO", "THREE", "SIX", "TEN"]
    at_once = [batch for batch in batches if len(batch) > 1]
    assert batches[0] == ["one"] and at_once == [["two", "bad", "six"]]
    assert sorted(map(tuple, batches[1:])) == sorted(
        [("two", "bad", "six"), ("two",), ("bad",), ("six",), ("three",), ("ten",)]
    )
    assert gathered("again") == "AGAIN"


def test_masks_of_tiles_that_went_together_are_those_of_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    tiles = [random.integers(0, 255, (96, 96 + 32 * (number % 2), 3), np.uint8) for number in range(6)]
    alone = MiniSegmenter()
    expected = [alone.decode(alone.encode(tile, Context({})), [NUCLEI])[0] for tile in tiles]
    monkeypatch.setenv(VARIABLE, "4")
    model = MiniSegmenter()
    seen, network, begun, go = [], model.inference.encode_with_maps, threading.Event(), threading.Event()

    def counted(given: torch.Tensor) -> object:
        seen.append(len(given))
        begun.set()
        assert go.wait(60)
        return network(given)

    model.inference.encode_with_maps = counted  # type: ignore[method-assign,assignment]
    with ThreadPoolExecutor(6) as pool:
        made = [pool.submit(model.encode, tiles[0], Context({}))]
        assert begun.wait(60)
        made += [pool.submit(model.encode, tile, Context({})) for tile in tiles[1:]]
        waiting = model.inference._gathered
        assert isinstance(waiting, Gathered)
        wait_until(lambda: len(waiting._waiting) == 5)
        go.set()
        for each, wanted in zip(made, expected, strict=True):
            (answer,) = model.decode(each.result(), [NUCLEI])
            assert answer.logits.shape == wanted.logits.shape
            assert np.abs(answer.logits - wanted.logits).max() < 0.02
            assert np.mean((answer.logits > 0) != (wanted.logits > 0)) < 0.001
    assert seen[0] == 1 and sorted(seen[1:]) == [2, 3]


def test_tiles_of_the_full_size_network_go_together_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config, words = BaseConfig.tiny(), tmp_path / "words.txt"
    words.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nnuclei")
    file = save_base(build_base(config), config, tmp_path / "w", labels=["a-b-c"], vocabulary=words)
    monkeypatch.setenv(VARIABLE, "4")
    model = BaseSegmenter(file)
    assert isinstance(model._gathered, Gathered)
    random = np.random.default_rng(2)
    tiles = [padded(random.integers(0, 255, (64, 64, 3), np.uint8)) for _ in range(3)]
    with torch.inference_mode():
        together, alone = model._encode_all(tiles), [model._gathered(tile) for tile in tiles]
    for one, other in zip(together, alone, strict=True):
        for found, wanted in zip((*one.levels, one.pixels), (*other.levels, other.pixels), strict=True):
            assert found.shape == wanted.shape and torch.allclose(found, wanted, atol=1e-4, rtol=1e-3)


def test_how_many_tiles_is_said_by_the_device_or_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert tiles_at_once(on_a_gpu=False) == 1 < tiles_at_once(on_a_gpu=True)
    monkeypatch.setenv(VARIABLE, "1")
    assert tiles_at_once(on_a_gpu=True) == 1
    for wrong in ("0", "-2", "many", "1000"):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(InvalidArgumentError, match=VARIABLE):
            tiles_at_once(on_a_gpu=True)
