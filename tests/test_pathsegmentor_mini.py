"""The shipped model: what it finds, what it refuses, and that no prompt can see another."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage import data as photographs

from benchmarks.held_out import score, spread
from tissuetalk.models.datasets.example import Example
from tissuetalk.models.datasets.sources import load
from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.pathsegmentor.card import MINI, MINI_WEIGHTS, OFFERED_TARGETS
from tissuetalk.models.segmentation.pathsegmentor.mini import (
    MiniConfig,
    MiniPathSegmentor,
    load_mini,
    save_mini,
)
from tissuetalk.models.segmentation.pathsegmentor.segmenter import (
    MiniSegmenter,
    fold_norms,
)
from tissuetalk.models.segmentation.pathsegmentor.text_tower import MINILM, MiniLMSentences
from tissuetalk.models.segmenter import Context
from tissuetalk.models.training.ablation import ask
from tissuetalk.prompts.names import prompt_of

SAMPLES = Path(__file__).parent.parent / "models" / "datasets" / "samples"
NOWHERE = Context({})


@pytest.fixture(scope="module")
def model() -> MiniSegmenter:
    return MiniSegmenter()


def _held_out(dataset: str) -> list[Example]:
    return [example for example in load(SAMPLES, dataset) if example.held_out]


def test_the_shipped_weights_are_small_and_fit_the_network() -> None:
    assert MINI.why_not() is None
    network = load_mini(MINI_WEIGHTS)
    assert sum(parameter.numel() for parameter in network.parameters()) <= 10_000_000
    assert len(MINI.card.targets) == len(MINI.card.mpp) > 0
    assert MINI.card.metrics


@pytest.mark.parametrize(
    ("dataset", "target", "least"), [("ebhi-seg-glands", "gland", 0.85), ("dsb2018-histology", "nuclei", 0.7)]
)
def test_words_find_what_experts_outlined_on_patients_never_seen(
    model: MiniSegmenter, dataset: str, target: str, least: float
) -> None:
    examples = _held_out(dataset)
    assert examples
    for example in examples:
        assert score(model, example, target, example.targets[target]).mask.dice > least


def test_new_wordings_hardly_move_the_mask(model: MiniSegmenter) -> None:
    assert spread(model, _held_out("ebhi-seg-glands")[:1], "gland", each_level=2)["std"] < 0.02


def test_prompts_do_not_influence_each_other(model: MiniSegmenter) -> None:
    image = _held_out("ebhi-seg-glands")[0].image
    features = model.encode(image, NOWHERE)
    prompts = [ask("gland"), ask("tumour"), ask("nuclei"), ask("gland")]
    together = model.decode(features, prompts)
    for prompt, answer in zip(prompts, together, strict=True):
        alone = model.decode(features, [prompt])[0]
        assert np.array_equal(alone.logits, answer.logits)
        assert alone.presence == answer.presence


def test_the_cat_is_no_tissue_and_a_biopsy_is(model: MiniSegmenter) -> None:
    cat = model.prepare(np.asarray(photographs.chelsea()))
    biopsy = model.prepare(_held_out("ebhi-seg-glands")[0].image)
    assert cat.values["tissue"] < 0.4
    assert biopsy.values["tissue"] > 0.9


def test_nothing_is_painted_with_confidence_on_a_cat(model: MiniSegmenter) -> None:
    picture = np.asarray(photographs.chelsea())
    context = model.prepare(picture)
    features = model.encode(picture, context)
    for target in OFFERED_TARGETS:
        decoded = model.decode(features, [ask(target)])[0]
        assert model.finish(decoded, ask(target), context).presence < 0.5


@pytest.mark.parametrize("side", [1, 7, 33])
def test_tiny_pictures_are_answered(model: MiniSegmenter, side: int) -> None:
    picture = np.full((side, side + 2, 3), 230, np.uint8)
    prompt = ask("nuclei")
    finished = model.finish(model.decode(model.encode(picture, NOWHERE), [prompt])[0], prompt, NOWHERE)
    assert finished.mask.shape == (side, side + 2)
    assert not finished.mask.any() or finished.presence < 0.5


def test_scale_is_guessed_from_tissue(model: MiniSegmenter) -> None:
    biopsy = _held_out("ebhi-seg-glands")[0].image
    closer = np.asarray(cv2.resize(biopsy, None, fx=3.0, fy=3.0, interpolation=cv2.INTER_CUBIC), np.uint8)
    assert 0.6 < model.assume_mpp(biopsy) < 2.4
    assert model.assume_mpp(closer) < 0.7 * model.assume_mpp(biopsy)


def test_capability_says_target_scale_and_objects(model: MiniSegmenter) -> None:
    gland = model.capability(
        prompt_of("colon-tissue-gland", "glands", "tissue-level gland in colon pathology")
    )
    assert gland is not None
    assert (gland.target, gland.mpp, gland.objects) == ("gland", 1.2, True)
    tumour = model.capability(prompt_of(None, "oral squamous cell carcinoma", "oral squamous cell carcinoma"))
    assert tumour is not None
    assert not tumour.objects
    stroma = prompt_of("breast-tissue-stroma", "stroma", "tissue-level stroma in breast pathology")
    assert model.capability(stroma) is None
    assert len(model.nearest(stroma)) == 3


def test_saved_weights_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = MiniPathSegmentor(
        MiniConfig((8, 8, 8, 8, 8), (0, 0, 0, 0, 0), (8, 8, 8, 8, 8), hidden=8, queries=2)
    ).eval()
    save_mini(network, tmp_path / "w.safetensors", note={"recipe": "none"})
    again = load_mini(tmp_path / "w.safetensors")
    tile, text = torch.randint(0, 256, (1, 3, 64, 64)), torch.randn(2, 384)
    with torch.inference_mode():
        assert torch.allclose(network(tile, text).mask, again(tile, text).mask, atol=0.05)


@pytest.mark.parametrize("damage", ["missing", "noise", "cut", "pickle", "foreign", "other sizes"])
def test_wrong_weight_files_are_refused_with_a_clear_message(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "w.safetensors"
    config = MiniConfig((8, 8, 8, 8, 8), (0, 0, 0, 0, 0), (8, 8, 8, 8, 8), hidden=8, queries=2)
    save_mini(MiniPathSegmentor(config), path)
    if damage == "missing":
        path.unlink()
    elif damage == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(2000))
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    elif damage == "pickle":
        torch.save({"a": torch.ones(1)}, path)
    elif damage == "foreign":
        save_file({"a": torch.ones(1)}, path)
    else:
        header = {"format": "tissuetalk-pathsegmentor-mini-1", "config": '{"hidden": 16}'}
        save_file({"a": torch.ones(1)}, path, metadata=header)
    with pytest.raises(ModelUnavailableError, match=r"w\.safetensors"):
        load_mini(path)


def test_folding_the_norms_changes_no_answer() -> None:
    network = load_mini(MINI_WEIGHTS)
    tiles = torch.from_numpy(photographs.immunohistochemistry()[:256, :256].transpose(2, 0, 1).copy())[None]
    text = torch.randn(1, 2, 384, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = network(tiles, text).mask
        folded = fold_norms(network)(tiles, text).mask
    assert torch.allclose(plain, folded, atol=0.02)


def test_features_from_the_cache_answer_exactly_as_fresh_ones(model: MiniSegmenter) -> None:
    picture = photographs.immunohistochemistry()[:224, :224]
    fresh = model.encode(picture, NOWHERE)
    kept = model.unpack(model.pack(fresh))
    first, again = (model.decode(features, [ask("nuclei")])[0] for features in (fresh, kept))
    assert np.array_equal(first.logits, again.logits)
    assert first.presence == again.presence


def test_the_text_tower_says_what_the_published_code_says() -> None:
    """Without importing transformers; alone and in a padded batch, with odd letters, nothing at all, and too much."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tower = MiniLMSentences()
    sentences = [
        "nuclei",
        "segment all glands",
        "café 40 um, 中文, grade-ii (g2)!",
        "",
        "word " * 100,
        "a" * 200,
    ]
    tokenizer = AutoTokenizer.from_pretrained(MINILM.find().parent, local_files_only=True)
    published = AutoModel.from_pretrained(MINILM.find().parent, local_files_only=True).eval()
    for group in [sentences, *([sentence] for sentence in sentences)]:
        tokens = tokenizer(group, padding=True, truncation=True, max_length=64, return_tensors="pt")
        with torch.inference_mode():
            hidden = published(**tokens).last_hidden_state
        keep = tokens["attention_mask"][..., None].float()
        expected = torch.nn.functional.normalize((hidden * keep).sum(1) / keep.sum(1), dim=-1)
        torch.testing.assert_close(tower.embed_many(group), expected, atol=1e-5, rtol=0)
