"""Listing models, and asking what they can do, costs nothing, and says what to do when their weights are not here."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tissuetalk.models import registry
from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.registry import MODELS
from tissuetalk.models.segmentation import medsam, sam3
from tissuetalk.models.segmentation.pretrained import HubWeights
from tissuetalk.models.segmenter import Prompt

HUB = {name: entry for name, entry in MODELS.items() if isinstance(entry.weights, HubWeights)}
GIVEN = {name: entry for name, entry in MODELS.items() if entry.weights and entry.weights.variable}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    for entry in GIVEN.values():
        assert entry.weights is not None
        monkeypatch.delenv(entry.weights.variable, raising=False)
    return cache


def test_listing_models_and_their_repertoires_imports_no_heavy_library() -> None:
    code = (
        "import sys; from tissuetalk.models import registry; from tissuetalk.models.segmenter import Prompt; "
        "[entry.why_not() for entry in registry.MODELS.values()]; "
        "able = [registry.repertoire(name).capability(Prompt(None, 'nuclei', '', concept='nuclei')) is not None"
        " for name in ('tissuetalk-mini', 'classical-nuclei')]; "
        "heavy = ('torch', 'transformers', 'huggingface_hub', 'cv2', 'scipy', 'skimage'); "
        "print(able, [m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[True, True] []"


@pytest.mark.parametrize("name", MODELS)
def test_every_model_says_what_it_can_be_asked_for_before_it_is_loaded(name: str) -> None:
    entry = MODELS[name]
    if name in ("pathsegmentor", "vlsm"):  # only their folders say what they were trained for
        return
    assert entry.repertoire is not None
    known = entry.repertoire()
    assert known.card is entry.card
    nuclei = known.capability(Prompt(None, "nuclei", "nuclei", concept="nuclei"))
    assert nuclei is not None and nuclei.mpp > 0
    refuses = name in ("tissuetalk-mini", "classical-nuclei", "pfps")
    assert (known.capability(Prompt(None, "a cat", "a cat")) is None) == refuses
    assert bool(known.nearest(Prompt(None, "a cat", "a cat"), 1)) == refuses


@pytest.mark.parametrize("name", ["tissuetalk-mini", "classical-nuclei"])
def test_a_loaded_model_answers_as_its_repertoire_does(name: str) -> None:
    model, known = registry.load(name), registry.repertoire(name)
    for concept in ("nuclei", "gland", "tumor", None):
        prompt = Prompt(None, concept or "a cat", "", concept=concept)
        assert model.capability(prompt) == known.capability(prompt)
        assert model.nearest(prompt) == known.nearest(prompt)


def test_weights_are_read_when_something_is_to_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_loaded", {})
    read: list[str] = []
    monkeypatch.setattr(registry, "import_module", lambda name: read.append(name) or import_module(name))
    model = registry.on_demand("classical-nuclei")
    assert model.capability(Prompt(None, "a cat", "")) is None and model.nearest(Prompt(None, "a cat", ""))
    assert not read
    assert len(model.weights_sha256) == 64 and model.tile_px == 1024
    assert len(read) == 1


@pytest.mark.parametrize("name", HUB)
def test_missing_weights_are_explained_with_the_command_that_brings_them(name: str) -> None:
    weights, reason = HUB[name].weights, HUB[name].why_not()
    assert isinstance(weights, HubWeights) and reason is not None
    assert f"hf download {weights.hub_id}" in reason
    assert weights.variable in reason


@pytest.mark.parametrize("name", GIVEN)
def test_every_loader_exists_and_refuses_a_missing_folder(name: str, tmp_path: Path) -> None:
    module, _, function = GIVEN[name].load.partition(":")
    load = getattr(import_module(module), function)
    with pytest.raises(ModelUnavailableError, match=r"there is no|no file at|holds no"):
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
    assert sam3.WEIGHTS.find() == snapshot
    assert MODELS["sam3"].why_not() is None
    monkeypatch.setenv("TISSUETALK_SAM3", str(tmp_path / "mine"))
    assert sam3.WEIGHTS.find() == tmp_path / "mine"


def test_pickled_weights_are_not_accepted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelUnavailableError, match="safetensors"):
        medsam.WEIGHTS.find(tmp_path)


def test_cards_say_what_a_user_needs_to_know() -> None:
    for entry in MODELS.values():
        card = entry.card
        assert card.research_only
        assert all((card.summary, card.licence, card.source, card.limits, card.targets))
