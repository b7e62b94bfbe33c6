"""Box- and point-prompted backends on tiny models saved to disk, and LiteMedSAM's network at its real size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Sam2Config, Sam2Model, SamConfig, SamModel

from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.models.metrics.oracles import ask_oracle
from tissuetalk.models.segmentation import litemedsam, medsam, sam2
from tissuetalk.models.segmentation.litemedsam_network import LiteMedsam, TinyVit, TinyVitShape
from tissuetalk.models.segmentation.sam_family import Encoded
from tissuetalk.models.segmenter import RGB, PromptableSegmenter

DECODER = {"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16}


def tiny_medsam(folder: Path) -> Path:
    torch.manual_seed(0)
    config = SamConfig(
        vision_config={
            "hidden_size": 16,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
            "window_size": 2,
            "global_attn_indexes": [1],
            "num_pos_feats": 8,
            "mlp_dim": 32,
        },
        prompt_encoder_config={
            "hidden_size": 16,
            "image_size": 64,
            "patch_size": 16,
            "mask_input_channels": 4,
        },
        mask_decoder_config=DECODER,
    )
    SamModel(config).save_pretrained(folder)
    return folder


def tiny_sam2(folder: Path) -> Path:
    torch.manual_seed(0)
    config = Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "image_size": [64, 64],
                "blocks_per_stage": [1, 2, 1, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 2],
                "window_size_per_stage": [4, 2, 2, 2],
                "global_attention_blocks": [2],
                "window_positional_embedding_background_size": [2, 2],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 16,
        },
        prompt_encoder_config={
            "hidden_size": 16,
            "image_size": 64,
            "patch_size": 16,
            "mask_input_channels": 4,
        },
        mask_decoder_config=DECODER,
    )
    Sam2Model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["medsam", "sam2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PromptableSegmenter:
    folder = tmp_path_factory.mktemp(request.param)
    loaders: dict[str, Callable[[], PromptableSegmenter]] = {
        "medsam": lambda: medsam.load(tiny_medsam(folder)),
        "sam2": lambda: sam2.load(tiny_sam2(folder)),
    }
    return loaders[request.param]()


@pytest.fixture
def image() -> RGB:
    return np.random.default_rng(0).integers(0, 256, size=(50, 70, 3), dtype=np.uint8)


def test_every_box_gets_its_own_full_size_mask(model: PromptableSegmenter, image: RGB) -> None:
    boxes = [(float(x), 5.0, float(x) + 20.0, 30.0) for x in range(20)]
    features = model.encode(image)
    masks = list(model.from_boxes(features, boxes))
    assert len(masks) == 20
    assert all(mask.shape == (50, 70) and mask.dtype == np.bool_ for mask in masks)
    alone = next(model.from_boxes(features, boxes[17:18]))
    assert (alone != masks[17]).mean() < 0.01


def test_an_empty_box_is_refused_and_no_box_gives_no_mask(model: PromptableSegmenter, image: RGB) -> None:
    features = model.encode(image)
    with pytest.raises(InvalidArgumentError, match="empty"):
        list(model.from_boxes(features, [(10.0, 10.0, 10.0, 20.0)]))
    assert list(model.from_boxes(features, [])) == []


def test_oracles_run_on_a_real_box_model(model: PromptableSegmenter, image: RGB) -> None:
    truth = np.zeros((50, 70), dtype=np.bool_)
    truth[5:15, 5:15] = truth[30:45, 40:60] = True
    answer = ask_oracle("instance box", truth, image=image, model=model)
    assert answer.prompts == 2
    assert answer.mask.shape == truth.shape


def test_points_are_answered_by_sam2_and_refused_by_medsam(model: PromptableSegmenter, image: RGB) -> None:
    features = model.encode(image)
    points = [(10.0, 10.0), (40.0, 30.0)]
    if model.card.name == "sam2":
        assert [mask.shape for mask in model.from_points(features, points)] == [(50, 70)] * 2
    else:
        with pytest.raises(InvalidArgumentError, match="boxes only"):
            list(model.from_points(features, points))


def test_boxes_are_scaled_to_the_model_input(tmp_path: Path, image: RGB) -> None:
    """The same picture twice as large with boxes twice as large shows the model the same input."""
    segmenter = medsam.load(tiny_medsam(tmp_path))
    small = segmenter.encode(image)
    assert (small.scale_x, small.scale_y) == (64 / 70, 64 / 50)


@pytest.mark.parametrize("load", [medsam.load, sam2.load])
def test_a_folder_without_weights_is_refused(
    tmp_path: Path, load: Callable[[Path], PromptableSegmenter]
) -> None:
    with pytest.raises(ModelUnavailableError, match=r"lacks config\.json and a \.safetensors file"):
        load(tmp_path)


@pytest.fixture(scope="module")
def lite_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights under the published names, written like the published file."""
    torch.manual_seed(0)
    published = {}
    inverse = {
        "prompt_encoder.shared_embedding.positional_embedding": (
            "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
        ),
        "prompt_encoder.point_embed.": "prompt_encoder.point_embeddings.",
        "prompt_encoder.mask_embed.conv1.": "prompt_encoder.mask_downscaling.0.",
        "prompt_encoder.mask_embed.layer_norm1.": "prompt_encoder.mask_downscaling.1.",
        "prompt_encoder.mask_embed.conv2.": "prompt_encoder.mask_downscaling.3.",
        "prompt_encoder.mask_embed.layer_norm2.": "prompt_encoder.mask_downscaling.4.",
        "prompt_encoder.mask_embed.conv3.": "prompt_encoder.mask_downscaling.6.",
        "upscale_conv1.": "output_upscaling.0.",
        "upscale_layer_norm.": "output_upscaling.1.",
        "upscale_conv2.": "output_upscaling.3.",
        ".layers.0.weight": ".layers.1.weight",
        ".layers.0.bias": ".layers.1.bias",
        ".proj_in.": ".layers.0.",
        ".proj_out.": ".layers.2.",
        ".layer_norm_final_attn.": ".norm_final_attn.",
        ".layer_norm": ".norm",
    }
    for name, value in LiteMedsam().state_dict().items():
        if not name.startswith("image_encoder."):
            for ours, theirs in inverse.items():
                if ours.startswith(".layers.0.") and not ("iou_pred" in name or "hypernet" in name):
                    continue
                name = name.replace(ours, theirs)
        published[name] = value
    path = tmp_path_factory.mktemp("lite") / "lite_medsam.pth"
    torch.save({"model": published}, path)
    return path


def test_litemedsam_loads_the_published_names(lite_weights: Path) -> None:
    segmenter = litemedsam.load(lite_weights)
    torch.manual_seed(0)
    features = Encoded(torch.rand(1, 256, 64, 64), 50, 70, 256 / 70, 183 / 50, used_height=183 / 256)
    masks = list(segmenter.from_boxes(features, [(5.0, 5.0, 30.0, 30.0), (20.0, 20.0, 60.0, 45.0)]))
    assert [mask.shape for mask in masks] == [(50, 70), (50, 70)]


def test_litemedsam_fills_the_square_from_the_top_left(lite_weights: Path, image: RGB) -> None:
    segmenter = litemedsam.load(lite_weights)
    segmenter.model.image_encoder = torch.nn.Identity()  # so that the "embeddings" are the prepared picture
    features = segmenter.encode(image)
    square = features.embeddings[0]
    assert square.shape == (3, 256, 256)
    assert float(square.max()) <= 1.0
    assert square[:, 182, 255].any()
    assert not square[:, 183:].any()
    assert (features.used_height, features.used_width) == (183 / 256, 1.0)
    assert (features.scale_x, features.scale_y) == (256 / 70, 183 / 50)


def test_litemedsam_refuses_other_files(lite_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="no file"):
        litemedsam.load(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(ModelUnavailableError, match="cannot be read as plain weights"):
        litemedsam.load(tmp_path / "text.pth")
    stored = torch.load(lite_weights, weights_only=True)
    stored["model"].pop("mask_decoder.iou_token.weight")
    torch.save(stored, tmp_path / "partial.pth")
    with pytest.raises(ModelUnavailableError, match="do not fit: 1 are missing"):
        litemedsam.load(tmp_path / "partial.pth")


class Armed:
    """Would create a file if the weight file were unpickled freely."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.target,)


def test_nothing_in_a_weight_file_is_executed(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    torch.save({"model": Armed(target)}, tmp_path / "armed.pth")
    with pytest.raises(ModelUnavailableError, match="cannot be read as plain weights"):
        litemedsam.load(tmp_path / "armed.pth")
    assert not target.exists()


def test_attention_in_windows_pads_and_keeps_the_size() -> None:
    shape = TinyVitShape((4, 8, 8, 8), (1, 1, 1, 1), (1, 2, 2, 2), (3, 3, 5, 3), (True, True, False), 4)
    network = TinyVit(shape).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 32, 32)).shape == (1, 4, 8, 8)
