"""The causal CLIP-style text tower that the released BiomedParse configuration selects (pathsegmentor.md, section 4)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ClipSizes:
    """Vocabulary, width, layers, heads and longest sentence; the defaults are the released ones."""

    vocabulary: int = 49408
    width: int = 512
    layers: int = 12
    heads: int = 8
    context: int = 77


class QuickGELU(nn.Module):
    """CLIP's approximation of GELU: ``x * sigmoid(1.702 x)``."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, both pre-norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, 4 * width), gelu=QuickGELU(), c_proj=nn.Linear(4 * width, width)
            )
        )

    def forward(self, tokens: Tensor, later: Tensor) -> Tensor:
        normed = self.ln_1(tokens)
        seen, _ = self.attn(normed, normed, normed, attn_mask=later, need_weights=False)
        tokens = tokens + seen
        out: Tensor = tokens + self.mlp(self.ln_2(tokens))
        return out


class ClipText(nn.Module):
    """Token vectors of the tower before projection."""

    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(sizes.vocabulary, sizes.width)
        self.positional_embedding = nn.Parameter(torch.empty(sizes.context, sizes.width))
        nn.init.trunc_normal_(self.positional_embedding, std=0.02)
        self.resblocks = nn.ModuleList(Block(sizes.width, sizes.heads) for _ in range(sizes.layers))
        self.ln_final = nn.LayerNorm(sizes.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L, width] from [B, L] ids. A token never sees what comes after it, so padding behind changes nothing."""
        length = tokens.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        for block in self.resblocks:
            x = block(x, later)
        out: Tensor = self.ln_final(x)
        return out


class ClipTower(nn.Module):
    """The CLIP-style tower and its projection to the model's width."""

    def __init__(self, sizes: ClipSizes, width: int) -> None:
        super().__init__()
        self.body = ClipText(sizes)
        self.lang_proj = nn.Parameter(torch.empty(sizes.width, width))
        nn.init.trunc_normal_(self.lang_proj, std=0.02)

    def forward(self, tokens: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """([B, L, d] token vectors, [B, d] the last token that is not padding). padding: True where padded."""
        vectors = self.body(tokens) @ self.lang_proj
        last = (~padding).sum(1) - 1
        return vectors, vectors[torch.arange(len(vectors), device=vectors.device), last]
