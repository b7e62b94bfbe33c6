"""Listing outside models costs nothing, and says what to do when their weights are not here."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.cards import ORIGINS, availability, weights_of


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    for origin in ORIGINS.values():
        monkeypatch.delenv(origin.variable, raising=False)
    return cache


def test_listing_models_imports_no_deep_learning_library() -> None:
    code = (
        "import sys; from tissuetalk.models.segmentation.cards import ORIGINS, availability; "
        "[availability(name) for name in ORIGINS]; "
        "print([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in ORIGINS if name != "litemedsam"])
def test_missing_weights_are_explained_with_the_command_that_brings_them(name: str) -> None:
    reason = availability(name)
    assert reason is not None
    assert f"hf download {ORIGINS[name].hub_id}" in reason
    assert ORIGINS[name].variable in reason


@pytest.mark.parametrize("name", ORIGINS)
def test_every_loader_exists_and_refuses_a_missing_folder(name: str, tmp_path: Path) -> None:
    module, _, function = ORIGINS[name].loader.partition(":")
    load = getattr(import_module(module), function)
    with pytest.raises(ModelUnavailableError, match="there is no"):
        load(tmp_path / "nowhere")


def test_weights_are_found_in_the_hub_cache_and_in_a_named_folder(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = empty_cache / "models--facebook--sam3"
    snapshot = repository / "snapshots" / "abc"
    for folder in (snapshot, tmp_path / "mine"):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert weights_of("sam3") == snapshot
    assert availability("sam3") is None
    monkeypatch.setenv("TISSUETALK_SAM3", str(tmp_path / "mine"))
    assert weights_of("sam3") == tmp_path / "mine"


def test_pickled_weights_are_not_accepted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelUnavailableError, match="safetensors"):
        weights_of("medsam", tmp_path)


def test_cards_say_what_a_user_needs_to_know() -> None:
    for origin in ORIGINS.values():
        card = origin.card
        assert card.research_only
        assert all((card.summary, card.licence, card.source, card.limits, card.targets))
