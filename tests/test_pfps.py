"""PFPs at small sizes: requests enter three places of the network, and its numbers are those of the paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from published import published
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import LlamaConfig, LlamaModel

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.little import save_little_llama
from tissuetalk.models.segmentation.pfps.efficient_sam import (
    BOTTOM_RIGHT,
    INVALID,
    POINT,
    SLOTS,
    SMALL,
    TINY,
    TOP_LEFT,
    SamDecoder,
    SamImageEncoder,
    SamPlaceEncoder,
    SamSizes,
    load_published,
    sizes_of,
)
from tissuetalk.models.segmentation.pfps.network import (
    GENERATED,
    OneSetIds,
    Pfps,
    PfpsSizes,
    TwoSetIds,
    add_lora,
    generated_layers,
    split,
)
from tissuetalk.models.segmentation.pfps.segmenter import build_pfps, load_folder, save_pfps
from tissuetalk.models.segmentation.pfps.training import (
    KidneyQuestion,
    answer,
    ask,
    drawn_patch,
    loss_of,
    optimiser_of,
    pfps_loss,
)

LITTLE = SamSizes(
    image_px=128, width=32, depth=2, heads=2, grid=4, decoder_width=32, decoder_heads=4, decoder_mlp=48, upscaling=(32, 16)
)  # fmt: skip


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal language model of two layers, saved like the published one."""
    folder = tmp_path_factory.mktemp("llama")
    save_little_llama(folder)
    return folder


def by_id(strategy: str = "two-set", **other: object) -> Pfps:
    torch.manual_seed(0)
    return build_pfps(PfpsSizes(LITTLE, strategy, **other))


def question(seed: int = 0, task: int = 2, **other: object) -> KidneyQuestion:
    patch = drawn_patch(seed, "tuft", 128)
    given = {
        "truth": patch.nuclei > 0,
        "unit": "tuft",
        "task": task,
        "sentence": "segment the nuclei",
    } | other
    return KidneyQuestion(patch.image, **given)


def train_step(model: Pfps, optimiser: torch.optim.Optimizer, asked: list[KidneyQuestion]) -> float:
    loss = loss_of(model, asked)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return float(loss.detach())


# --- the backbone


def backbone(sizes: SamSizes) -> torch.nn.ModuleDict:
    """The three parts of a published EfficientSAM."""
    parts = {"image_encoder": SamImageEncoder, "prompt_encoder": SamPlaceEncoder, "mask_decoder": SamDecoder}
    return torch.nn.ModuleDict({name: part(sizes) for name, part in parts.items()})


def test_the_backbone_has_the_published_size_and_names() -> None:
    with torch.device("meta"):
        small, tiny = backbone(SMALL), backbone(TINY)
    names = small.state_dict()
    assert names["image_encoder.pos_embed"].shape == (1, 197, 384)
    for key in (
        "image_encoder.blocks.11.attn.qkv.weight",
        "image_encoder.neck.3.bias",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        "prompt_encoder.bbox_bottom_right_embeddings.weight",
        "mask_decoder.transformer.layers.1.cross_attn_image_to_token.out_proj.weight",
        "mask_decoder.transformer.final_attn_token_to_image.q_proj.weight",
        "mask_decoder.output_hypernetworks_mlps.3.layers.1.0.weight",
        "mask_decoder.iou_prediction_head.fc.weight",
        "mask_decoder.final_output_upscaling_layers.1.0.weight",
    ):
        assert key in names
    assert names["mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight"].shape == (
        128,
        256,
    )
    assert [round(sum(p.numel() for p in model.parameters()) / 1e6, 1) for model in (small, tiny)] == [
        26.4,
        10.2,
    ]


def test_published_weights_fill_every_part_and_others_are_refused() -> None:
    torch.manual_seed(0)
    weights = published("efficientsam")
    model = by_id()
    load_published(model, weights)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in weights.items())
    with pytest.raises(ModelUnavailableError, match="1 are missing"):
        load_published(by_id(), {key: value for key, value in weights.items() if "pos_embed" not in key})
    with pytest.raises(ModelUnavailableError, match="efficient_sam_vits"):
        sizes_of(weights)
    assert sizes_of({"image_encoder.patch_embed.proj.weight": torch.empty(192, 3, 16, 16)}) == TINY


def test_language_tokens_leave_the_number_of_image_tokens_alone() -> None:
    encoder = by_id().image_encoder
    images, language = torch.rand(1, 3, 128, 128), torch.rand(1, 2, 32)
    seen: list[int] = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda module, given, made: seen.append(given[0].shape[1]))
    with torch.inference_mode():
        told, silent = encoder(images, language), encoder(images)
    assert seen == [64 + 2] * 2 + [64] * 2
    assert told.shape == silent.shape == (1, 32, 8, 8) and not torch.allclose(told, silent)


def test_an_invalid_point_equals_no_point() -> None:
    encoder = by_id().prompt_encoder
    nothing = encoder(torch.zeros(1, 0, 2), torch.zeros(1, 0, dtype=torch.long))
    invalid = encoder(torch.tensor([[[40.0, 50.0]]]), torch.tensor([[INVALID]]))
    assert nothing.shape == (1, SLOTS, 32) and torch.equal(nothing, invalid)
    point = encoder(torch.tensor([[[40.0, 50.0]]]), torch.tensor([[POINT]]))
    box = encoder(torch.tensor([[[40.0, 50.0], [60.0, 70.0]]]), torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]]))
    assert not torch.equal(point, nothing) and not torch.equal(box[:, 0], point[:, 0])


# --- the dynamic head


def test_162_values_are_split_into_weights_then_biases() -> None:
    weights, biases = split(torch.arange(GENERATED, dtype=torch.float32)[None])
    assert GENERATED == 162
    assert [tuple(each.shape[1:]) for each in weights] == [(8, 8), (8, 8), (2, 8)]
    assert weights[0][0, 0, 1] == 1 and weights[1][0, 0, 0] == 64 and weights[2][0, 0, 0] == 128
    assert biases[0][0, 0] == 144 and biases[1][0, 0] == 152 and biases[2][0].tolist() == [160, 161]


def test_grouped_convolution_equals_a_loop_over_images() -> None:
    torch.manual_seed(0)
    maps, values = torch.rand(3, 8, 5, 7), torch.randn(3, GENERATED)
    together = generated_layers(maps, values)
    weights, biases = split(values)
    for number in range(3):
        x = maps[number : number + 1]
        for layer in range(3):
            x = functional.conv2d(x, weights[layer][number][:, :, None, None], biases[layer][number])
            x = functional.relu(x) if layer < 2 else x
        assert torch.allclose(together[number : number + 1], x, atol=1e-5)


@pytest.mark.parametrize("head", ["hats", "replace_upscale"])
@pytest.mark.parametrize("strategy", ["one-set", "two-set"])
def test_two_requests_in_a_batch_equal_two_runs(strategy: str, head: str) -> None:
    model = by_id(strategy, head=head).eval()
    asked = [question(0), question(1, 7, unit="dt", point_xy=(30.0, 60.0))]
    with torch.inference_mode():
        together = ask(model, asked)
        alone = torch.cat([ask(model, [each]) for each in asked])
    assert together.shape == (2, 2, 128, 128)
    assert torch.allclose(together, alone, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


# --- requests


def test_id_tables_have_the_published_sizes() -> None:
    one, two = OneSetIds(384), TwoSetIds(384)
    assert one.pairs.weight.shape == (36, 384)
    assert (two.units.weight.shape, two.tasks.weight.shape) == ((4, 384), (9, 384))
    units, tasks = torch.tensor([0, 3]), torch.tensor([1, 9])
    assert one(units, tasks).shape == (2, 1, 384) and two(units, tasks).shape == (2, 2, 384)
    assert torch.equal(one(units, tasks)[1, 0], one.pairs.weight[35])
    every = [(unit, task) for unit in range(4) for task in range(1, 10)]
    rows = one(torch.tensor([u for u, _ in every]), torch.tensor([t for _, t in every]))
    assert len(torch.unique(rows[:, 0], dim=0)) == 36


def test_lora_trains_exactly_the_published_number_of_weights() -> None:
    with torch.device("meta"):
        published = LlamaModel(
            LlamaConfig(
                vocab_size=32_000,
                hidden_size=2048,
                intermediate_size=5632,
                num_hidden_layers=22,
                num_attention_heads=32,
                num_key_value_heads=4,
            )
        )
        add_lora(published)
    trained = sum(p.numel() for p in published.parameters() if p.requires_grad)
    assert trained == 1_126_400
    assert 0.0009 < trained / sum(p.numel() for p in published.parameters()) < 0.0012


def test_lora_changes_nothing_before_training(llama: Path) -> None:
    plain = LlamaModel.from_pretrained(llama).eval()
    changed = LlamaModel.from_pretrained(llama)
    add_lora(changed)
    tokens = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        assert torch.allclose(
            plain(tokens).last_hidden_state, changed.eval()(tokens).last_hidden_state, atol=1e-6
        )


def test_weights_of_our_own_former_lora_still_load_and_answer_as_they_did(
    llama: Path, tmp_path: Path
) -> None:
    model = build_pfps(PfpsSizes(LITTLE), language_model=str(llama))
    train_step(model, optimiser_of(model), [question(0)])
    save_pfps(model.eval(), tmp_path, language_model=str(llama))
    weights = load_file(tmp_path / "pfps.safetensors")
    layer = model.request.language_model.layers[0].self_attn.q_proj
    former = {
        re.sub(r"\.lora_([AB])\.default\.weight$", lambda m: {"A": ".down", "B": ".up"}[m[1]], key): value
        for key, value in weights.items()
    }
    assert (
        sum(key.endswith((".down", ".up")) for key in former) == sum(".lora_" in key for key in weights) > 0
    )
    save_file(former, tmp_path / "pfps.safetensors")
    x = torch.rand(3, layer.base_layer.in_features)
    key = "request.language_model.layers.0.self_attn.q_proj"
    down, up = former[f"{key}.down"], former[f"{key}.up"]
    with torch.inference_mode():
        again = load_folder(tmp_path).request.language_model.layers[0].self_attn.q_proj
        assert torch.allclose(again(x), layer.base_layer(x) + 16 / 8 * (x @ down.T @ up.T), atol=1e-6)
        assert up.abs().sum() > 0


def test_a_half_precision_language_model_has_lora_in_full_precision(llama: Path) -> None:
    model = LlamaModel.from_pretrained(llama).to(torch.bfloat16)
    add_lora(model)
    kinds = {(weight.requires_grad, weight.dtype) for weight in model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    model(torch.tensor([[1, 2, 3]])).last_hidden_state.float().sum().backward()
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


def test_a_sentence_has_the_same_vector_alone_and_beside_a_longer_one(llama: Path) -> None:
    model = build_pfps(PfpsSizes(LITTLE), language_model=str(llama)).eval()
    sentences = ["segment nuclei", "segment every proximal tubule and all the nuclei"]
    with torch.inference_mode():
        both = model.request(sentences)
        alone = model.request(sentences[:1])
    assert both.shape == (2, 1, 32)
    assert torch.allclose(both[:1], alone, atol=1e-5)


def test_only_what_the_paper_trains_is_trained(llama: Path) -> None:
    model = build_pfps(PfpsSizes(LITTLE), language_model=str(llama))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert not any(name.startswith("image_encoder.") for name in trained)
    assert all(".lora_" in name for name in trained if ".language_model." in name)
    for part in (
        "request.project.",
        "prompt_encoder.",
        "mask_decoder.transformer.",
        "head.controller",
        "to_decoder",
    ):
        assert any(name.startswith(part) for name in trained)
    frozen = build_pfps(PfpsSizes(LITTLE), language_model=str(llama), lora=False)
    assert not any(p.requires_grad for p in frozen.request.language_model.parameters())


# --- training


@pytest.mark.parametrize("strategy", ["two-set", "text"])
def test_a_few_steps_lower_the_loss(strategy: str, llama: Path) -> None:
    torch.manual_seed(0)
    model = build_pfps(PfpsSizes(LITTLE, strategy), language_model=str(llama))
    optimiser = optimiser_of(model)
    asked = [question(0), question(1)]
    losses = [train_step(model, optimiser, asked) for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]


def test_the_loss_of_a_perfect_answer_is_nothing() -> None:
    truth = torch.zeros(1, 16, 16)
    truth[:, 4:8, 4:8] = 1
    perfect = 40 * (2 * torch.stack([1 - truth, truth], dim=1) - 1)
    assert float(pfps_loss(perfect, truth)) < 1e-6 < float(pfps_loss(-perfect, truth))


@pytest.mark.parametrize("strategy", ["one-set", "text"])
def test_a_saved_network_answers_the_same(strategy: str, llama: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_pfps(PfpsSizes(LITTLE, strategy), language_model=str(llama))
    train_step(model, optimiser_of(model), [question(0)])
    save_pfps(model, tmp_path / "run", language_model=str(llama))
    again = load_folder(tmp_path / "run")
    with torch.inference_mode():
        assert torch.equal(ask(model.eval(), [question(3)]), ask(again, [question(3)]))
    assert answer(again, question(3)).shape == (128, 128)
    (tmp_path / "run" / "pfps.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelUnavailableError, match="damaged"):
        load_folder(tmp_path / "run")


def test_a_missing_language_model_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("TISSUETALK_TINYLLAMA", raising=False)
    with pytest.raises(ModelUnavailableError, match="hf download TinyLlama/TinyLlama"):
        build_pfps(PfpsSizes(LITTLE))
