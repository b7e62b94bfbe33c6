"""The image tower of CONCH as a frozen patch encoder: a ViT/16 with attentional pooling, read from its published file.

Names are those of the public code (mahmoodlab/CONCH); the text tower and the captions' pooling in the same file are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.pretrained import fill, read_tensors
from tissuetalk.models.segmentation.vlsm.clipseg import BiomedSizes, BiomedTrunk

HEAD_WIDTH: Final = 64
PATCH: Final = 16
POOLING_HEADS: Final = 8
PREFIX: Final = "visual."
_UNUSED: Final = ("attn_pool_caption.", "ln_caption.")


class QueryPool(nn.Module):
    """One learned question about all tokens."""

    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, width))
        self.attn = nn.MultiheadAttention(width, POOLING_HEADS, kdim=inside, vdim=inside, batch_first=True)
        self.ln_q = nn.LayerNorm(width)
        self.ln_k = nn.LayerNorm(inside)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, inside] to [B, width]."""
        asked = self.ln_q(self.query).expand(len(tokens), -1, -1)
        keys = self.ln_k(tokens)
        found: Tensor = self.attn(asked, keys, keys, need_weights=False)[0]
        return found[:, 0]


class ConchTower(nn.Module):
    """Normalised pictures [B, 3, S, S] to tokens [B, 1 + N, C], the class token first, and one vector [B, D]."""

    def __init__(self, sizes: BiomedSizes, width: int) -> None:
        super().__init__()
        self.trunk = BiomedTrunk(sizes)
        self.attn_pool_contrast = QueryPool(width, sizes.width)
        self.ln_contrast = nn.LayerNorm(width)
        self.proj_contrast = nn.Parameter(torch.zeros(width, width))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.trunk.norm(self.trunk(pictures)[-1])
        return tokens, self.ln_contrast(self.attn_pool_contrast(tokens)) @ self.proj_contrast


def read_conch(file: Path, side_px: int) -> ConchTower:
    """The tower in a published file, its positions brought to pictures of ``side_px``. Raises ModelUnavailableError."""
    found = {
        key.removeprefix(PREFIX): value
        for key, value in read_tensors(file).items()
        if key.startswith(PREFIX) and not key.removeprefix(PREFIX).startswith(_UNUSED)
    }
    try:
        width = found["trunk.norm.weight"].shape[0]
        depth = 1 + max(int(key.split(".")[2]) for key in found if key.startswith("trunk.blocks."))
        pooled = found["ln_contrast.weight"].shape[0]
        found["trunk.pos_embed"] = _resampled(found["trunk.pos_embed"], side_px // PATCH)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ModelUnavailableError(
            f"{file.name} is no CONCH-style checkpoint ({error}); give CONCH's pytorch_model.bin, or a folder with a ViT."
        ) from error
    heads = max(1, width // HEAD_WIDTH)
    tower = ConchTower(BiomedSizes(side_px=side_px, width=width, depth=depth, heads=heads), pooled)
    fill(tower, found, file.name, "give CONCH's published pytorch_model.bin")
    return tower


def _resampled(positions: Tensor, cells: int) -> Tensor:
    """[1, 1 + N, C] of any square grid to one of ``cells`` each way."""
    side = round((positions.shape[1] - 1) ** 0.5)
    grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    small = functional.interpolate(grid, (cells, cells), mode="bilinear", align_corners=False)
    return torch.cat([positions[:, :1], small.flatten(2).transpose(1, 2)], dim=1)
