"""Frozen patch encoders: our own, and a real (tiny) vision transformer from a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_tissue import tiny_vit
from published import published

from tissuetalk.models.classifiers.encoder import (
    OWN_ENCODER,
    OwnEncoder,
    encode_patches,
    load_encoder,
    to_batch,
)
from tissuetalk.models.control import Control
from tissuetalk.models.errors import CancelledError, ModelUnavailableError
from tissuetalk.models.segmentation.little import save_little_vit


def noise(seed: int, side: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_a_vit_gives_its_patch_tokens_and_its_class_token(tmp_path: Path) -> None:
    encoder = tiny_vit(tmp_path)
    features = encoder.encode(to_batch([noise(0), noise(1)]))
    assert features.tokens.shape == (2, 14, 14, 16) and features.pooled.shape == (2, 16)
    assert len(encoder.weights_sha256) == 64
    assert torch.allclose(features.vectors("tokens"), features.tokens.mean((1, 2)))


def test_tokens_lie_where_the_picture_has_them(tmp_path: Path) -> None:
    encoder = tiny_vit(tmp_path)
    plain = np.full((224, 224, 3), 200, np.uint8)
    changed = plain.copy()
    changed[32:48, 160:176] = 0
    before, after = encoder.encode(to_batch([plain])).tokens, encoder.encode(to_batch([changed])).tokens
    row, column = divmod(int((after - before).abs().sum(-1).argmax()), 14)
    assert (row, column) == (2, 10)


def test_the_models_own_normalisation_is_used_when_it_says_so(tmp_path: Path) -> None:
    told = tiny_vit(tmp_path / "plain").encode(to_batch([noise(0)])).pooled
    folder = save_little_vit(tmp_path / "told")
    (folder / "preprocessor_config.json").write_text(
        '{"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}', "utf-8"
    )
    assert not torch.allclose(load_encoder(str(folder)).encode(to_batch([noise(0)])).pooled, told)


def test_without_a_name_our_own_encoder_is_loaded() -> None:
    encoder = load_encoder()
    features = encoder.encode(to_batch([noise(0)]))
    assert encoder.name == OWN_ENCODER and encoder.weights_sha256
    assert features.tokens.shape[:3] == (1, 14, 14) and features.pooled.ndim == 2
    assert torch.equal(encoder.encode(to_batch([noise(0)])).pooled, features.pooled)


def test_our_tokens_weigh_every_level_alike_and_lie_where_the_picture_has_them() -> None:
    encoder = load_encoder()
    plain = np.full((224, 224, 3), 200, np.uint8)
    changed = plain.copy()
    changed[32:48, 160:176] = (120, 30, 120)
    before, after = encoder.encode(to_batch([plain, changed])).tokens
    row, column = divmod(int((after - before).abs().sum(-1).argmax()), 14)
    assert abs(row - 2) <= 1 and abs(column - 10) <= 1
    assert torch.allclose(after[..., :48].mean(-1), torch.zeros(14, 14), atol=1e-4), (
        "each level has zero mean"
    )
    assert torch.allclose(after.square().mean(-1), torch.ones(14, 14), atol=0.05), "and unit spread"


def test_the_grid_costs_no_pass_of_its_own() -> None:
    encoder = OwnEncoder()
    passes: list[int] = []
    encoder_of_images = encoder._inference.network.image_encoder
    hook = encoder_of_images.register_forward_hook(lambda *_: passes.append(1))
    encoder.encode(to_batch([noise(0), noise(1)]))
    hook.remove()
    assert len(passes) == 1


def test_an_encoder_that_is_not_here_is_a_named_error() -> None:
    with pytest.raises(ModelUnavailableError, match="hf download"):
        load_encoder("nobody/no-such-vit")


def test_a_model_that_is_no_vit_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=10
    )
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelUnavailableError, match="not a ViT"):
        load_encoder(str(tmp_path))


def test_encoding_stops_when_it_is_told_to(tmp_path: Path) -> None:
    with pytest.raises(CancelledError):
        encode_patches(tiny_vit(tmp_path), [noise(0)], "pooled", control=Control(stop=lambda: True))


def test_conchs_published_file_is_a_patch_encoder(tmp_path: Path) -> None:
    weights = published("conch")
    torch.save(weights, tmp_path / "pytorch_model.bin")
    encoder = load_encoder(str(tmp_path))
    features = encoder.encode(to_batch([noise(0), noise(1)]))
    assert features.tokens.shape == (2, 14, 14, 32) and features.pooled.shape == (2, 16)
    # a picture that differs in one place has another token there, as positions of 448 px were brought to 224
    plain = np.full((224, 224, 3), 200, np.uint8)
    changed = plain.copy()
    changed[32:48, 160:176] = 0
    before, after = encoder.encode(to_batch([plain])).tokens, encoder.encode(to_batch([changed])).tokens
    assert divmod(int((after - before).abs().sum(-1).argmax()), 14) == (2, 10)
    alone = load_encoder(str(tmp_path / "pytorch_model.bin"))
    assert alone.weights_sha256 == encoder.weights_sha256
    assert torch.allclose(alone.encode(to_batch([noise(0)])).pooled, features.pooled[:1], atol=1e-5)
    torch.save({"visual.trunk.norm.weight": torch.ones(8)}, tmp_path / "half.bin")
    with pytest.raises(ModelUnavailableError, match="no CONCH-style checkpoint"):
        load_encoder(str(tmp_path / "half.bin"))
    torch.save({k: v for k, v in weights.items() if "blocks.1.mlp" not in k}, tmp_path / "cut.bin")
    with pytest.raises(ModelUnavailableError, match="4 are missing"):
        load_encoder(str(tmp_path / "cut.bin"))
