"""Text-prompted backends on tiny, randomly initialised models saved to disk and loaded the real way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Place
from drawn import disc_image
from transformers import (
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPTokenizer,
    Sam3Config,
    Sam3Model,
)

from tissuetalk.models import registry
from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation import clipseg, sam3
from tissuetalk.models.segmentation.pretrained import IMAGENET_MEAN, IMAGENET_STD
from tissuetalk.models.segmenter import RGB, Context, Decoded, Prompt, Segmenter
from tissuetalk.tools.session import Session

LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *(letter + "</w>" for letter in "abcdefghijklmnopqrstuvwxyz")]
VOCABULARY = {token: number for number, token in enumerate([*LETTERS, "<|startoftext|>", "<|endoftext|>"])}
TEXT = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "projection_dim": 16,
    "bos_token_id": VOCABULARY["<|startoftext|>"],
    "eos_token_id": VOCABULARY["<|endoftext|>"],
    "pad_token_id": VOCABULARY["<|endoftext|>"],
}


def save_tokenizer(folder: Path) -> None:
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)


def tiny_clipseg(folder: Path) -> Path:
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    config = CLIPSegConfig(
        text_config=TEXT,
        vision_config=vision,
        projection_dim=16,
        extract_layers=[0, 1, 2],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
        use_complex_transposed_convolution=True,
    )
    CLIPSegForImageSegmentation(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def tiny_sam3(folder: Path) -> Path:
    torch.manual_seed(0)
    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_layers": 2,
        "dropout": 0.0,
    }
    config = Sam3Config(
        vision_config={
            "fpn_hidden_size": 16,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 56,
                "pretrain_image_size": 28,
                "patch_size": 14,
                "window_size": 2,
                "global_attn_indexes": [1],
            },
        },
        text_config={**TEXT, "model_type": "clip_text_model"},
        geometry_encoder_config=small,
        detr_encoder_config=small,
        detr_decoder_config={**small, "num_queries": 5},
        mask_decoder_config={"hidden_size": 16, "num_attention_heads": 2},
    )
    Sam3Model(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module", params=["clipseg", "sam3"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    folder = tmp_path_factory.mktemp(request.param)
    loaders: dict[str, Callable[[], Segmenter]] = {
        "clipseg": lambda: clipseg.load(tiny_clipseg(folder)),
        "sam3": lambda: sam3.load(tiny_sam3(folder)),
    }
    return loaders[request.param]()


def prompt(words: str) -> Prompt:
    return Prompt(label=None, words=words, text=words)


@pytest.fixture
def tile() -> RGB:
    return np.random.default_rng(0).integers(0, 256, size=(40, 60, 3), dtype=np.uint8)


def test_one_logit_per_pixel_and_prompt(model: Segmenter, tile: RGB) -> None:
    features = model.encode(tile, Context({}))
    decoded = model.decode(features, [prompt("nuclei"), prompt("gland")])
    assert [one.logits.shape for one in decoded] == [(40, 60), (40, 60)]
    assert all(one.logits.dtype == np.float32 and np.isfinite(one.logits).all() for one in decoded)


def test_prompts_do_not_influence_each_other(model: Segmenter, tile: RGB) -> None:
    features = model.encode(tile, Context({}))
    alone = model.decode(features, [prompt("gland")])[0]
    _, among, _ = model.decode(features, [prompt("a much longer phrase"), prompt("gland"), prompt("tumor")])
    assert among.logits == pytest.approx(alone.logits, abs=1e-4)


def test_words_change_the_answer(model: Segmenter, tile: RGB) -> None:
    features = model.encode(tile, Context({}))
    gland, tumor = model.decode(features, [prompt("gland"), prompt("tumor")])
    assert not np.array_equal(gland.logits, tumor.logits)


def test_a_sentence_that_must_be_read_as_it_stands_reaches_the_network(model: Segmenter, tile: RGB) -> None:
    """Protects from: the words were sent in its place, so every wording agreed to 1.00 with every other."""
    features = model.encode(tile, Context({}))
    other = Prompt(label=None, words="gland", text="tumor", verbatim=True)
    words, sentence, meant = model.decode(features, [prompt("gland"), other, prompt("tumor")])
    assert np.array_equal(sentence.logits, meant.logits) and not np.array_equal(sentence.logits, words.logits)
    assert (model.sent(prompt("gland")), model.sent(other)) == ("gland", "tumor")


@pytest.mark.parametrize(
    ("words", "read"), [("outline the glands", "glands"), ("keratin pearls", "keratin pearls")]
)
def test_the_record_holds_what_was_sent(
    words: str, read: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label's sentence is not what this model was sent."""
    monkeypatch.setenv("TISSUETALK_CLIPSEG", str(tiny_clipseg(place.root)))
    monkeypatch.setattr(registry, "_loaded", {})
    disc_image(place.root / "tile.png", 3)
    with Session(place.root, place.workspace) as session:
        (mask,) = session.segment("tile.png", words, model="clipseg", mpp=0.5).result.masks
    assert mask.prompt == mask.provenance.prompt == read


def test_any_words_are_answered_but_no_words_are_not(model: Segmenter) -> None:
    assert model.capability(prompt("a cat")) is not None
    assert model.capability(prompt("  ")) is None
    assert len(model.weights_sha256) == 64


def test_long_words_are_cut_to_what_the_text_tower_takes(model: Segmenter, tile: RGB) -> None:
    features = model.encode(tile, Context({}))
    assert model.decode(features, [prompt("gland " * 50)])[0].logits.shape == (40, 60)


def test_finish_thresholds_and_reports_presence(model: Segmenter) -> None:
    logits = np.full((40, 40), -2.0, dtype=np.float32)
    logits[5:15, 5:15] = logits[20:30, 20:30] = 2.0
    finished = model.finish(Decoded(logits, presence=0.0), prompt("gland"), Context({}))
    assert finished.mask.sum() == 200
    assert finished.presence == 0.5
    if finished.instances is not None:
        assert finished.instances.max() == 2


def test_clipseg_equals_the_plain_forward_pass(tmp_path: Path, tile: RGB) -> None:
    segmenter = clipseg.load(tiny_clipseg(tmp_path))
    square = np.ascontiguousarray(tile[:32, :32])
    ours = segmenter.decode(segmenter.encode(square, Context({})), [prompt("gland")])[0].logits
    tokens = segmenter.tokenizer("gland", return_tensors="pt")
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    pixels = torch.from_numpy(((square / 255.0 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32))
    with torch.inference_mode():
        plain: Any = segmenter.model(pixel_values=pixels, **tokens).logits
    assert ours == pytest.approx(plain.reshape(32, 32).numpy(), abs=1e-4)


def test_sam3_masks_need_a_query_the_model_believes_in(tmp_path: Path, tile: RGB) -> None:
    segmenter = sam3.load(tiny_sam3(tmp_path))
    with torch.no_grad():
        for parameter in segmenter.model.detr_decoder.presence_head.parameters():
            parameter.fill_(0.0)
    features = segmenter.encode(tile, Context({}))
    decoded = segmenter.decode(features, [prompt("gland")])[0]
    assert decoded.presence == pytest.approx(0.0)
    # presence 0.5 times any score is below 0.5: nothing may be painted
    assert (decoded.logits <= 0).all()


@pytest.mark.parametrize("load", [clipseg.load, sam3.load])
def test_foreign_or_damaged_weights_are_refused(tmp_path: Path, load: Callable[[Path], Segmenter]) -> None:
    with pytest.raises(ModelUnavailableError, match=r"lacks config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ModelUnavailableError, match="download the model again"):
        load(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    tiny_clipseg(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    tiny_sam3(other)
    (tmp_path / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(ModelUnavailableError, match=r"lacks \d+ weights"):
        clipseg.load(tmp_path)
