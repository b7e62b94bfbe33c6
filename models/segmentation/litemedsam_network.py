"""LiteMedSAM's network: a TinyViT of our own under the prompt encoder and mask decoder of transformers.

TinyViT (Wu et al., ECCV 2022) with the first convolutions at stride 1 and the last stage not reduced: 256 px in, 64x64
embeddings of 256 channels out. Its module names follow the published weights; those of the other two parts are mapped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.segmentation.layers import Perceptron, neck

SIDE_PX: Final = 256
STRIDE_PX: Final = 4

_RENAMED: Final = (
    (r"prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix", "prompt_encoder.shared_embedding.positional_embedding"),
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
)  # fmt: skip
"""Names of the published weights, and what transformers calls the same module."""


def renamed(name: str) -> str:
    """The transformers name of a published weight."""
    for published, ours in _RENAMED:
        name = re.sub(published, ours, name)
    return name


@dataclass(frozen=True)
class TinyVitShape:
    """Sizes of the four stages; the first is convolutional. ``window_px`` is the side of an attention window."""

    channels: tuple[int, int, int, int] = (64, 128, 160, 320)
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (2, 4, 5, 10)
    window_px: tuple[int, int, int, int] = (7, 7, 14, 7)
    reduces: tuple[bool, bool, bool] = (True, True, False)
    out_channels: int = 256


class TinyVitConv(nn.Sequential):
    """Convolution without bias, then batch norm."""

    def __init__(self, inside: int, outside: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outside)


class InvertedBottleneck(nn.Module):
    """Widen by four, filter each channel, narrow, add."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = TinyVitConv(channels, 4 * channels)
        self.conv2 = TinyVitConv(4 * channels, 4 * channels, 3, groups=4 * channels)
        self.conv3 = TinyVitConv(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        inner = functional.gelu(self.conv2(functional.gelu(self.conv1(x))))
        return functional.gelu(x + self.conv3(inner))


class Merge(nn.Module):
    """Change the number of channels and, if ``reduces``, halve the resolution."""

    def __init__(self, inside: int, outside: int, *, reduces: bool) -> None:
        super().__init__()
        self.conv1 = TinyVitConv(inside, outside)
        self.conv2 = TinyVitConv(outside, outside, 3, stride=2 if reduces else 1, groups=outside)
        self.conv3 = TinyVitConv(outside, outside)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H', W']."""
        merged: Tensor = self.conv3(functional.gelu(self.conv2(functional.gelu(self.conv1(x)))))
        return merged


class WindowAttention(nn.Module):
    """Self-attention inside one window, with a learned bias per head and distance (|dy|, |dx|)."""

    def __init__(self, channels: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(heads, side * side))
        place = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        gap = (place[:, :, None] - place[:, None, :]).abs()
        self.register_buffer("bias_index", gap[0] * side + gap[1], persistent=False)
        self.bias_index: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """[windows, side*side, C] to the same."""
        windows, tokens, channels = x.shape
        # Per head: query, key and value lie next to each other in the published weights.
        qkv = self.qkv(self.norm(x)).view(windows, tokens, self.heads, 3, channels // self.heads)
        query, key, value = qkv.permute(3, 0, 2, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=self.attention_biases[:, self.bias_index]
        )
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(windows, tokens, channels))
        return projected


class NormedPerceptron(Perceptron):
    """A layer norm, then the perceptron."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 4 * channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to the same."""
        return super().forward(self.norm(x))


class WindowBlock(nn.Module):
    """Attention in windows, a depth-wise convolution across them, an MLP."""

    def __init__(self, channels: int, heads: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.attn = WindowAttention(channels, heads, side)
        self.local_conv = TinyVitConv(channels, channels, 3, groups=channels)
        self.mlp = NormedPerceptron(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        batch, channels, height, width = x.shape
        side = self.side
        down, across = -height % side, -width % side  # windows are whole: zeros are added and cut off again
        padded = functional.pad(x, (0, across, 0, down)).permute(0, 2, 3, 1)
        rows, columns = (height + down) // side, (width + across) // side
        windows = padded.reshape(batch, rows, side, columns, side, channels).transpose(2, 3)
        mixed = self.attn(windows.reshape(-1, side * side, channels))
        mixed = mixed.view(batch, rows, columns, side, side, channels).transpose(2, 3)
        mixed = mixed.reshape(batch, height + down, width + across, channels)[:, :height, :width]
        x = self.local_conv(x + mixed.permute(0, 3, 1, 2))
        widened: Tensor = self.mlp(x.permute(0, 2, 3, 1))
        return x + widened.permute(0, 3, 1, 2)


class TinyVitStage(nn.Module):
    def __init__(self, blocks: list[nn.Module], merge: Merge | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = merge

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H', W']."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class TinyVit(nn.Module):
    """Image encoder of LiteMedSAM."""

    def __init__(self, shape: TinyVitShape | None = None) -> None:
        super().__init__()
        shape = shape or TinyVitShape()
        width = shape.channels[0]
        self.patch_embed = nn.ModuleDict(
            {"seq": nn.Sequential(TinyVitConv(3, width // 2), nn.GELU(), TinyVitConv(width // 2, width))}
        )
        self.layers = nn.ModuleList()
        for number, (channels, depth) in enumerate(zip(shape.channels, shape.depths, strict=True)):
            blocks: list[nn.Module] = [
                WindowBlock(channels, shape.heads[number], shape.window_px[number])
                if number
                else InvertedBottleneck(channels)
                for _ in range(depth)
            ]
            merge = None
            if number < len(shape.reduces):
                merge = Merge(channels, shape.channels[number + 1], reduces=shape.reduces[number])
            self.layers.append(TinyVitStage(blocks, merge))
        self.neck = neck(shape.channels[-1], shape.out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, 256, 256] in 0..1 to [B, 256, 64, 64]."""
        x = self.patch_embed["seq"](images)
        for layer in self.layers:
            x = layer(x)
        embedded: Tensor = self.neck(x)
        return embedded


class LiteMedsam(nn.Module):
    """The network: images to embeddings, embeddings and boxes to mask logits."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import SamConfig, SamMaskDecoderConfig
        from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPromptEncoder

        decoder = SamMaskDecoderConfig(layer_norm_eps=1e-5)
        decoder._attn_implementation = "sdpa"  # a part built by itself has no default
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
        y, x = ((torch.arange(n, device=embeddings.device) + 0.5) / n for n in embeddings.shape[-2:])
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
        answer = self.mask_decoder(
            image_embeddings=embeddings,
            image_positional_embeddings=self.prompt_encoder.shared_embedding(grid).permute(2, 0, 1)[None],
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        logits: Tensor = answer[0][0, :, 0]
        return logits
