"""EfficientSAM, the backbone of PFPs: module names are those of the published checkpoint (arXiv 2312.00863).

Two things are added for PFPs and change nothing when left out: tokens that enter every block of the image encoder, and
tokens that stand beside the points in the mask decoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.layers import VitBlock, neck
from tissuetalk.models.segmentation.pretrained import IMAGENET_MEAN, IMAGENET_STD, fill

SLOTS: Final = 6
"""Points (a box is two) are padded to this many with invalid ones."""
INVALID, POINT, TOP_LEFT, BOTTOM_RIGHT = -1, 1, 2, 3


@dataclass(frozen=True)
class SamSizes:
    """The defaults are EfficientSAM-S; ``width=192, heads=3`` is -Ti."""

    image_px: int = 1024
    patch_px: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    grid: int = 14
    """Side of the learned position grid, resized to the number of patches."""
    decoder_width: int = 256
    decoder_heads: int = 8
    decoder_mlp: int = 2048
    upscaling: tuple[int, int] = (64, 32)

    @property
    def tokens(self) -> int:
        """Patches along one side."""
        return self.image_px // self.patch_px


SMALL: Final = SamSizes()
TINY: Final = SamSizes(width=192, heads=3)


class SamImageEncoder(nn.Module):
    def __init__(self, sizes: SamSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, sizes.width, sizes.patch_px, sizes.patch_px)})
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, sizes.grid**2 + 1, sizes.width))
        self.blocks = nn.ModuleList(VitBlock(sizes.width, sizes.heads) for _ in range(sizes.depth))
        self.neck = neck(sizes.width, sizes.decoder_width)

    def forward(self, images: Tensor, language: Tensor | None = None) -> Tensor:
        """[B, 3, S, S] normalised images and perhaps [B, T, C] language tokens to [B, D, S/16, S/16].

        The language tokens stand before the patches in every block; what a block makes of them is dropped and the
        original ones enter the next block again.
        """
        patches = self.patch_embed["proj"](images)
        count, width, rows, columns = patches.shape
        x = (patches + self._places(rows, columns)).flatten(2).transpose(1, 2)
        for block in self.blocks:
            if language is None:
                x = block(x)
            else:
                x = block(torch.cat([language, x], dim=1))[:, language.shape[1] :]
        out: Tensor = self.neck(x.transpose(1, 2).reshape(count, width, rows, columns))
        return out

    def _places(self, rows: int, columns: int) -> Tensor:
        """[1, C, rows, columns]; the first slot belonged to a class token nobody uses."""
        side = self.sizes.grid
        grid = self.pos_embed[:, 1:].transpose(1, 2).reshape(1, -1, side, side)
        if (rows, columns) == (side, side):
            return grid
        return functional.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)


class FourierPlaces(nn.Module):
    """Random Fourier features of places in 0..1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.positional_encoding_gaussian_matrix: Tensor
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, width // 2))

    def forward(self, places: Tensor) -> Tensor:
        """[..., 2] x, y to [..., C]."""
        # Places run 0..1 but were drawn over -1..1.
        turned = 2 * math.pi * ((2 * places - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([turned.sin(), turned.cos()], dim=-1)


class SamPlaceEncoder(nn.Module):
    def __init__(self, sizes: SamSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.pe_layer = FourierPlaces(sizes.decoder_width)
        self.invalid_points = nn.Embedding(1, sizes.decoder_width)
        self.point_embeddings = nn.Embedding(1, sizes.decoder_width)
        self.bbox_top_left_embeddings = nn.Embedding(1, sizes.decoder_width)
        self.bbox_bottom_right_embeddings = nn.Embedding(1, sizes.decoder_width)

    def forward(self, points: Tensor, labels: Tensor) -> Tensor:
        """[B, P, 2] x, y in input pixels and [B, P] kinds (at most SLOTS) to [B, SLOTS, D]."""
        spare = SLOTS - points.shape[1]
        points = functional.pad(points, (0, 0, 0, spare), value=-1.0)
        labels = functional.pad(labels, (0, spare), value=INVALID)
        points = torch.where((labels == INVALID)[..., None], -1.0, points)
        tokens: Tensor = self.pe_layer((points + 0.5) / self.sizes.image_px)  # a pixel's middle
        kinds = (
            (INVALID, self.invalid_points),
            (POINT, self.point_embeddings),
            (TOP_LEFT, self.bbox_top_left_embeddings),
            (BOTTOM_RIGHT, self.bbox_bottom_right_embeddings),
        )
        for kind, embedding in kinds:
            tokens = tokens + (labels == kind)[..., None] * embedding.weight
        return tokens

    def dense_places(self) -> Tensor:
        """[1, D, S/16, S/16] encoding of the middle of every patch."""
        side = self.sizes.tokens
        middle = (torch.arange(side, device=self.invalid_points.weight.device) + 0.5) / side
        y, x = torch.meshgrid(middle, middle, indexing="ij")
        encoded: Tensor = self.pe_layer(torch.stack([x, y], dim=-1))
        return encoded.permute(2, 0, 1)[None]


class Layers(nn.Module):
    """``depth`` hidden layers with GELU and one more linear layer."""

    def __init__(self, width: int, hidden: int, out: int, depth: int) -> None:
        super().__init__()
        sizes = [width, *[hidden] * depth]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), nn.GELU()) for before, after in pairwise(sizes)
        )
        self.fc = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., out]."""
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.fc(x)
        return out


class CrossAttention(nn.Module):
    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def look_for_alike(self) -> None:
        """Begin with equal queries and keys, large enough to tell places apart: a point then finds its place from the first
        step. From plain random weights it takes thousands; published weights take the place of these.
        """
        with torch.no_grad():
            self.q_proj.weight.mul_(2.5)
            self.k_proj.weight.copy_(self.q_proj.weight)
            self.q_proj.bias.zero_()
            self.k_proj.bias.zero_()

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[B, N, C], [B, M, C], [B, M, C] to [B, N, C]."""
        split = [
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projected in (self.q_proj(query), self.k_proj(key), self.v_proj(value))
        ]
        answer = functional.scaled_dot_product_attention(*split)
        out: Tensor = self.out_proj(answer.transpose(1, 2).flatten(2))
        return out


class TwoWayBlock(nn.Module):
    """Tokens among themselves, tokens to image, perceptron, image to tokens."""

    def __init__(self, sizes: SamSizes, *, first: bool) -> None:
        super().__init__()
        width, heads = sizes.decoder_width, sizes.decoder_heads
        self.first = first
        self.self_attn = CrossAttention(width, heads, width)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = CrossAttention(width, heads, width // 2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Layers(width, sizes.decoder_mlp, width, 1)
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = CrossAttention(width, heads, width // 2)
        self.cross_attn_token_to_image.look_for_alike()
        self.cross_attn_image_to_token.look_for_alike()

    def forward(
        self, tokens: Tensor, image: Tensor, token_places: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """tokens [B, N, D] and image [B, h*w, D], each with its places of the same shape; gives both anew."""
        if not self.first:
            tokens = tokens + token_places
        tokens = self.norm1(tokens + self.self_attn(tokens, tokens, tokens))
        seen = self.cross_attn_token_to_image(tokens + token_places, image + places, image)
        tokens = self.norm2(tokens + seen)
        tokens = self.norm3(tokens + self.mlp(tokens))
        told = self.cross_attn_image_to_token(image + places, tokens + token_places, tokens)
        return tokens, self.norm4(image + told)


class TwoWayTransformer(nn.Module):
    def __init__(self, sizes: SamSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(sizes, first=number == 0) for number in range(2))
        self.final_attn_token_to_image = CrossAttention(
            sizes.decoder_width, sizes.decoder_heads, sizes.decoder_width // 2
        )
        self.norm_final_attn = nn.LayerNorm(sizes.decoder_width)

    def forward(self, image: Tensor, places: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """[B, D, h, w], [1, D, h, w], [B, N, D] to tokens [B, N, D] and image [B, D, h, w]."""
        rows, columns = image.shape[-2:]
        seen, where = image.flatten(2).transpose(1, 2), places.flatten(2).transpose(1, 2)
        state = tokens
        for layer in self.layers:
            state, seen = layer(state, seen, tokens, where)
        looked = self.final_attn_token_to_image(state + tokens, seen + where, seen)
        return self.norm_final_attn(state + looked), seen.transpose(1, 2).reshape(
            len(seen), -1, rows, columns
        )


class SamDecoder(nn.Module):
    def __init__(self, sizes: SamSizes) -> None:
        super().__init__()
        width, (coarse, fine) = sizes.decoder_width, sizes.upscaling
        self.transformer = TwoWayTransformer(sizes)
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(4, width)
        # The identity keeps the published numbering.
        steps = (width, coarse, nn.GroupNorm(1, coarse)), (coarse, fine, nn.Identity())
        self.final_output_upscaling_layers = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(before, after, 2, 2), norm, nn.GELU())
            for before, after, norm in steps
        )
        # PFPs asks neither for masks nor for their quality here; both have weights in every published file.
        self.output_hypernetworks_mlps = nn.ModuleList(Layers(width, width, fine, 2) for _ in range(4))
        self.iou_prediction_head = Layers(width, width, 4, 2)

    def attend(self, image: Tensor, places: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, 5 + N, D] (quality, four masks, prompts) and the image [B, D, h, w] after two-way attention."""
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])[None]
        tokens = torch.cat([own.expand(len(prompts), -1, -1), prompts], dim=1)
        answer: tuple[Tensor, Tensor] = self.transformer(image, places, tokens)
        return answer

    def upscale(self, image: Tensor) -> Tensor:
        """[B, D, h, w] to [B, 32, 4h, 4w]."""
        for layer in self.final_output_upscaling_layers:
            image = layer(image)
        return image


def prepared(images: Tensor, side_px: int) -> Tensor:
    """[B, 3, H, W] in 0..1 to normalised [B, 3, side, side], as EfficientSAM was trained."""
    if images.shape[-2:] != (side_px, side_px):
        images = functional.interpolate(images, (side_px, side_px), mode="bilinear", align_corners=False)
    mean, std = (images.new_tensor(values)[None, :, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def sizes_of(weights: Mapping[str, Tensor]) -> SamSizes:
    """Which of the two published sizes a checkpoint has. Raises ModelUnavailableError."""
    projection = weights.get("image_encoder.patch_embed.proj.weight")
    found = None if projection is None else {384: SMALL, 192: TINY}.get(projection.shape[0])
    if found is None:
        raise ModelUnavailableError(
            "these are no EfficientSAM weights; give efficient_sam_vits.pt or efficient_sam_vitt.pt"
        )
    return found


def load_published(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Every weight of a published checkpoint into the parts of the same names. Raises ModelUnavailableError."""
    advice = "give efficient_sam_vits.pt for the small and efficient_sam_vitt.pt for the tiny size"
    ours = ("image_encoder.", "prompt_encoder.", "mask_decoder.")
    fill(model, weights, "EfficientSAM", advice, needed=lambda key: key.startswith(ours))
