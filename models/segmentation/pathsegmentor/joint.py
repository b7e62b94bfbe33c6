"""Joint feature interaction of the ``base`` preset: queries, text tokens and image tokens (pathsegmentor.md, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


def sine_position(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """[H*W, channels] sine position: half the channels for y, half for x, both scaled to one turn per side."""
    half = channels // 2
    wave = 10000 ** (2 * torch.div(torch.arange(half, device=device), 2, rounding_mode="floor") / half)

    def along(length: int) -> Tensor:
        place = (torch.arange(length, device=device) + 1) / (length + 1e-6) * 2 * torch.pi
        angle = place[:, None] / wave
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1)

    rows = along(height)[:, None].expand(height, width, half)
    columns = along(width)[None].expand(height, width, half)
    return torch.cat([rows, columns], dim=-1).reshape(height * width, channels)


class CrossAttentionLayer(nn.Module):
    """Queries look at one level of the image, each only where its last mask was."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, queries: Tensor, place: Tensor, keys: Tensor, values: Tensor, blocked: Tensor
    ) -> Tensor:
        """[B, N, d] queries; keys, values: [B, h*w, d]; blocked: [B * heads, N, h*w], True where nobody looks."""
        seen, _ = self.multihead_attn(queries + place, keys, values, attn_mask=blocked, need_weights=False)
        out: Tensor = self.norm(queries + seen)
        return out


class SelfAttentionLayer(nn.Module):
    """Queries and text tokens look at each other; padding is looked at by nobody."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, place: Tensor, padding: Tensor) -> Tensor:
        """[B, N + L, d] queries and words; padding: [B, N + L], True where nobody looks."""
        placed = tokens + place
        seen, _ = self.self_attn(placed, placed, tokens, key_padding_mask=padding, need_weights=False)
        out: Tensor = self.norm(tokens + seen)
        return out


class FeedForwardLayer(nn.Module):
    """Two linear layers around a ReLU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, d] to the same."""
        out: Tensor = self.norm(tokens + self.linear2(functional.relu(self.linear1(tokens))))
        return out


class MaskEmbedding(nn.Module):
    """Three linear layers with ReLU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, queries: Tensor) -> Tensor:
        """[B, N, d] to the same."""
        x = queries
        for index, layer in enumerate(self.layers):
            x = layer(x) if index == 2 else functional.relu(layer(x))
        return x


@dataclass(frozen=True)
class QueryAnswers:
    """One prediction step. classes: [B, N, d]; masks: [B, N, H/4, W/4] logits."""

    classes: Tensor
    masks: Tensor


class JointInteraction(nn.Module):
    """N learned queries read the image under the guidance of one sentence, layer by layer."""

    def __init__(self, *, width: int, queries: int, layers: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.query_feat = nn.Embedding(queries, width)
        self.query_embed = nn.Embedding(queries, width)
        self.level_embed = nn.Embedding(3, width)
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(width, heads) for _ in range(layers)
        )
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(width, heads) for _ in range(layers)
        )
        self.transformer_ffn_layers = nn.ModuleList(FeedForwardLayer(width, hidden) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.mask_embed = MaskEmbedding(width)
        self.class_embed = nn.Parameter(torch.empty(width, width))
        nn.init.trunc_normal_(self.class_embed, std=0.02)
        self.heads = heads

    def forward(
        self, levels: Sequence[Tensor], pixels: Tensor, text: Tensor, padding: Tensor
    ) -> list[QueryAnswers]:
        """Every prediction step, the untouched queries first.

        Args:
            levels: three maps [B, d, h, w], coarsest first.
            pixels: [B, d, H/4, W/4] mask features.
            text: [B, L, d] token vectors. padding: [B, L], True where a token is padding.
        """
        batch = pixels.shape[0]
        queries = self.query_feat.weight[None].expand(batch, -1, -1)
        place = self.query_embed.weight[None].expand(batch, -1, -1)
        count = queries.shape[1]
        keys, values = [], []
        for index, level in enumerate(levels):
            height, width = level.shape[-2:]
            values.append(level.flatten(2).transpose(1, 2) + self.level_embed.weight[index])
            keys.append(values[-1] + sine_position(height, width, level.shape[1], level.device))
        places = torch.cat([place, text.detach()], dim=1)  # a word's place is its own vector
        hidden = torch.cat([torch.zeros(batch, count, dtype=torch.bool, device=text.device), padding], dim=1)
        answers = [self._predict(queries, pixels)]
        for index, cross in enumerate(self.transformer_cross_attention_layers):
            number = index % len(levels)  # coarse to fine, over and over
            blocked = self._blocked(answers[-1].masks, levels[number])
            queries = cross(queries, place, keys[number], values[number], blocked)
            tokens = torch.cat([queries, text], dim=1)
            tokens = self.transformer_self_attention_layers[index](tokens, places, hidden)
            tokens = self.transformer_ffn_layers[index](tokens)
            queries, text = tokens[:, :count], tokens[:, count:]
            answers.append(self._predict(queries, pixels))
        return answers

    def _predict(self, queries: Tensor, pixels: Tensor) -> QueryAnswers:
        normed = self.decoder_norm(queries)
        masks = torch.einsum("bnd,bdhw->bnhw", self.mask_embed(normed), pixels)
        return QueryAnswers(normed @ self.class_embed, masks)

    def _blocked(self, masks: Tensor, level: Tensor) -> Tensor:
        """[B * heads, N, h*w], True where a query may not look; a query blocked everywhere may look everywhere."""
        small = functional.interpolate(
            masks.detach(), size=level.shape[-2:], mode="bilinear", align_corners=False
        )
        blocked = small.flatten(2).sigmoid() < 0.5
        blocked = blocked & ~blocked.all(-1, keepdim=True)  # softmax over nothing is NaN
        return blocked.repeat_interleave(self.heads, dim=0)
