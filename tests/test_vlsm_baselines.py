"""Baselines without words: their shapes and parts, training, and that a trained one answers its own class only."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from tissuetalk.models import registry
from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.models.segmentation.little import little_vlsm
from tissuetalk.models.segmentation.vlsm.card import CNNS
from tissuetalk.models.segmentation.vlsm.cnn import CnnSegmenter, CnnSizes, pretrained_cnn
from tissuetalk.models.segmentation.vlsm.networks import CNN_SETTINGS, loss_of, optimiser_of
from tissuetalk.models.segmentation.vlsm.segmenter import load_folder
from tissuetalk.models.segmenter import Context, Prompt
from tissuetalk.tools.train.recipes import run_recipe
from tissuetalk.tools.train.reproduce.drawn import draw_set
from tissuetalk.tools.train.vlsm import VlsmRecipe

LITTLE = CnnSizes("unet", 64, 8, (8, 8, 16, 16), (1, 1, 1, 1), (16, 8, 8, 8, 8))


@pytest.mark.parametrize(("name", "millions"), [("unet", 32.5), ("unet++", 49.0), ("deeplabv3+", 40.3)])
def test_full_sizes_answer_at_the_size_of_the_picture(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = CnnSegmenter(CnnSizes(name)).eval()
        levels = network.see(torch.rand(1, 3, 256, 256))
        assert network.answer(levels).shape == (1, 1, 256, 256)
    last = 16 if name == "deeplabv3+" else 8
    assert [level.shape[-1] for level in levels] == [128, 64, 32, 16, last]
    assert round(sum(weight.numel() for weight in network.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("name", CNNS)
def test_a_few_steps_lower_the_loss_of_a_baseline(name: str) -> None:
    torch.manual_seed(0)
    model = little_vlsm(name)
    mask = np.zeros((60, 64), bool)
    mask[16:44, 8:32] = True
    picture = np.where(mask[..., None], (90, 60, 140), (235, 200, 220)).astype(np.uint8)
    optimiser, losses = optimiser_of(model, CNN_SETTINGS["paper"]), []
    for _ in range(15):
        loss = loss_of(
            model, CNN_SETTINGS["paper"], [picture, picture[:, ::-1]], ["", ""], [mask, mask[:, ::-1]]
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0] and CNN_SETTINGS["paper"].cross == 0


def test_the_encoder_is_that_of_a_published_resnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As microsoft/resnet-50 lies on the hub: a classifier, whose head nobody needs."""
    torch.manual_seed(0)
    config = ResNetConfig(depths=[1, 1, 1, 1], embedding_size=8, hidden_sizes=[8, 8, 16, 16])
    classifier = ResNetForImageClassification(config)
    classifier.save_pretrained(tmp_path)
    network = pretrained_cnn("unet", str(tmp_path), LITTLE)
    loaded = network.encoder.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in classifier.resnet.state_dict().items())
    with pytest.raises(ModelUnavailableError, match="is no ResNet-50"):
        pretrained_cnn("unet", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    monkeypatch.delenv("TISSUETALK_RESNET50", raising=False)
    with pytest.raises(ModelUnavailableError, match="hf download microsoft/resnet-50"):
        pretrained_cnn("unet")


def test_a_baseline_trained_by_a_recipe_answers_its_class_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [(f"{number}", split) for number, split in enumerate(["train"] * 4 + ["val", "test"])]
    draw_set(tmp_path / "discs", names, ("polyp", "other"), seed=1)
    one = [{"manifest": "discs", "label": "polyp"}]
    values = {"preset": "vlsm", "name": "u", "network": "unet", "size": "little", "train": one, "test": one}
    values |= {"epochs": 2, "batch": 2, "threads": 1}
    (tmp_path / "unet.yaml").write_text(json.dumps(values))
    out = run_recipe(tmp_path / "unet.yaml", tmp_path / "out")
    with (out / "scores.csv").open(newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert row["trained_on"] == "0" and 0 <= float(row["dice"]) <= 1
    monkeypatch.setenv("TISSUETALK_VLSM", str(out))
    monkeypatch.setattr(registry, "_loaded", {})
    model = registry.load("vlsm")
    polyp = Prompt(None, "polyp", "the large polyp")
    assert model.capability(polyp) is not None and model.sent(polyp) == ""
    assert model.capability(Prompt(None, "gland", "gland")) is None and model.nearest(polyp) == ["polyp"]
    tile = np.full((80, 96, 3), 200, np.uint8)
    (answer,) = model.decode(model.encode(tile, Context({})), [polyp])
    assert answer.logits.shape == (80, 96)
    assert load_folder(out).tokenizer is None
    with pytest.raises(InvalidArgumentError, match="reads no words"):
        VlsmRecipe.checked(values | {"wrong_attributes": True}, tmp_path / "x.yaml")
