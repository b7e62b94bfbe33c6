"""The ``base`` preset: PathSegmentor at the paper's size (pathsegmentor.md, sections 4 and 5).

Any size can be built from ``BaseConfig``; ``BaseConfig.tiny()`` is the small configuration for tests and CPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import FocalNetConfig, FocalNetModel

from tissuetalk.models.segmentation.layers import ClipTextBlock, bert
from tissuetalk.models.segmentation.pathsegmentor.joint import JointInteraction, QueryAnswers, sine_position
from tissuetalk.models.segmentation.pathsegmentor.mini import normalise

CLIP_WIDTH = 512
"""Of the text tower in released BiomedParse checkpoints; PubMedBERT's is 768."""


@dataclass(frozen=True)
class BaseConfig:
    """Sizes of the base preset; the defaults are FocalNet-L with PubMedBERT.

    text_tower: ``pubmedbert``, or ``clip`` for checkpoints trained with that tower (see ``released_clip``).
    """

    text_tower: Literal["pubmedbert", "clip"] = "pubmedbert"

    embed_dim: int = 192
    depths: tuple[int, ...] = (2, 2, 18, 2)
    focal_levels: int = 4
    width: int = 512
    queries: int = 101
    layers: int = 9
    heads: int = 8
    hidden: int = 2048
    pixel_layers: int = 6
    norm_groups: int = 32
    drop_path: float = 0.3
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    vocabulary: int = 30522
    context: int = 77

    @classmethod
    def released_clip(cls) -> BaseConfig:
        """The paper's size with the tower of the released BiomedParse checkpoint."""
        return cls(
            text_tower="clip", text_width=CLIP_WIDTH, text_layers=12, text_heads=8, vocabulary=49408, context=77
        )  # fmt: skip

    @classmethod
    def tiny(cls) -> BaseConfig:
        """Dims 32 to 256, depths 1/1/2/1, 12 queries, 3 layers."""
        return cls(
            embed_dim=32, depths=(1, 1, 2, 1), focal_levels=2, width=64, queries=12, layers=3, heads=4, hidden=128,
            pixel_layers=1, norm_groups=8, drop_path=0.0, text_width=32, text_layers=1, text_heads=2, vocabulary=200,
        )  # fmt: skip


@dataclass(frozen=True)
class BaseFeatures:
    """levels: three maps [B, d, h, w], coarsest (stride 32) first; pixels: [B, d, H/4, W/4]."""

    levels: tuple[Tensor, ...]
    pixels: Tensor


@dataclass(frozen=True)
class Selection:
    """The query that fits each sentence best. masks: [B, H/4, W/4] logits.

    similarity: [B] its cosine to the sentence; margin: [B] its lead over the second-best query.
    """

    masks: Tensor
    similarity: Tensor
    margin: Tensor


class FocalNetPyramid(nn.Module):
    """FocalNet from ``transformers`` with a norm on each stage's output before it is reduced."""

    def __init__(self, config: BaseConfig) -> None:
        super().__init__()
        self.widths = tuple(config.embed_dim * 2**stage for stage in range(4))
        self.body: Any = FocalNetModel(
            FocalNetConfig(
                embed_dim=config.embed_dim,
                hidden_sizes=list(self.widths),
                depths=list(config.depths),
                focal_levels=[config.focal_levels] * 4,
                focal_windows=[3] * 4,
                use_conv_embed=True,
                use_post_layernorm=True,
                use_layerscale=True,
                layerscale_value=1e-4,
                normalize_modulator=True,
                drop_path_rate=config.drop_path,
            ),
            add_pooling_layer=False,
        )
        del self.body.layernorm  # each stage has a norm of its own here
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in self.widths)

    def forward(self, tiles: Tensor) -> list[Tensor]:
        """Four maps at strides 4, 8, 16, 32. tiles: [B, 3, H, W], normalised, multiples of 32."""
        tokens, size = self.body.embeddings(tiles)
        maps = []
        for stage, norm in zip(self.body.encoder.stages, self.norms, strict=True):
            height, width = size
            # before: what the stage gives before it is reduced
            tokens, before, dimensions = stage(tokens, size)
            size = dimensions[-2:]
            maps.append(norm(before).transpose(1, 2).reshape(before.shape[0], -1, height, width))
        return maps


class TransformerPixelDecoder(nn.Module):
    """A transformer over the coarsest map, then a top-down pyramid to stride 4."""

    def __init__(self, config: BaseConfig, inside: Sequence[int]) -> None:
        super().__init__()
        width, groups = config.width, config.norm_groups
        self.input_proj = nn.Conv2d(inside[-1], width, 1)
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(width, config.heads, config.hidden, dropout=0.0, batch_first=True)
            for _ in range(config.pixel_layers)
        )
        self.adapters = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.GroupNorm(groups, width))
            for channels in inside[:-1]
        )
        self.outputs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(groups, width), nn.ReLU()
            )
            for _ in inside
        )
        self.mask_features = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, maps: Sequence[Tensor]) -> BaseFeatures:
        """maps: four, [B, C, H, W] at strides 4, 8, 16 and 32."""
        coarse: Tensor = self.input_proj(maps[-1])
        height, width = coarse.shape[-2:]
        tokens = coarse.flatten(2).transpose(1, 2)
        place = sine_position(height, width, coarse.shape[1], coarse.device)
        for layer in self.encoder:
            # Post-norm, and queries and keys, but not values, carry the position.
            assert isinstance(layer, nn.TransformerEncoderLayer)
            placed = tokens + place
            seen, _ = layer.self_attn(placed, placed, tokens, need_weights=False)
            tokens = layer.norm1(tokens + seen)
            tokens = layer.norm2(tokens + layer.linear2(functional.relu(layer.linear1(tokens))))
        x: Tensor = self.outputs[-1](tokens.transpose(1, 2).reshape(coarse.shape))
        levels = [x]
        for index in (2, 1, 0):
            lateral: Tensor = self.adapters[index](maps[index])
            above = functional.interpolate(x, size=lateral.shape[-2:], mode="nearest")
            x = self.outputs[index](lateral + above)
            levels.append(x)
        return BaseFeatures(tuple(levels[:3]), self.mask_features(x))


class ClipText(nn.Module):
    """The causal CLIP-style tower that the released BiomedParse configuration selects, before projection."""

    def __init__(self, config: BaseConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary, config.text_width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context, config.text_width))
        nn.init.trunc_normal_(self.positional_embedding, std=0.02)
        self.resblocks = nn.ModuleList(
            ClipTextBlock(config.text_width, config.text_heads) for _ in range(config.text_layers)
        )
        self.ln_final = nn.LayerNorm(config.text_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L, width] from [B, L] ids."""
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        for block in self.resblocks:
            x = block(x)
        out: Tensor = self.ln_final(x)
        return out


class TextTower(nn.Module):
    """A tower's body and the projection of its token vectors to the model's width."""

    def __init__(self, body: nn.Module, config: BaseConfig) -> None:
        super().__init__()
        self.body: Any = body
        self.lang_proj = nn.Parameter(torch.empty(config.text_width, config.width))
        nn.init.trunc_normal_(self.lang_proj, std=0.02)

    def forward(self, tokens: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """([B, L, d] token vectors, [B, d] the last token that is not padding). padding: [B, L], True where padded."""
        vectors = self.hidden(tokens, padding) @ self.lang_proj
        last = (~padding).sum(1) - 1
        return vectors, vectors[torch.arange(len(vectors), device=vectors.device), last]

    def hidden(self, tokens: Tensor, padding: Tensor) -> Tensor:
        """[B, L, text_width] before projection."""
        raise NotImplementedError


class BertTower(TextTower):
    """BERT, of PubMedBERT's size by default."""

    def __init__(self, config: BaseConfig) -> None:
        width, layers, heads = config.text_width, config.text_layers, config.text_heads
        super().__init__(bert(vocabulary=config.vocabulary, width=width, layers=layers, heads=heads), config)

    def hidden(self, tokens: Tensor, padding: Tensor) -> Tensor:
        states: Tensor = self.body(input_ids=tokens, attention_mask=(~padding).long()).last_hidden_state
        return states


class ClipTower(TextTower):
    """The CLIP-style tower: causal, so that padding behind a sentence changes nothing."""

    def __init__(self, config: BaseConfig) -> None:
        super().__init__(ClipText(config), config)

    def hidden(self, tokens: Tensor, padding: Tensor) -> Tensor:
        states: Tensor = self.body(tokens)
        return states


class PathSegmentor(nn.Module):
    """Scores every pixel of an H&E tile against one sentence at a time."""

    def __init__(
        self, *, image_encoder: FocalNetPyramid, text_encoder: TextTower, pixel_decoder: TransformerPixelDecoder,
        joint: JointInteraction,
    ) -> None:  # fmt: skip
        super().__init__()
        self.image_encoder, self.text_encoder = image_encoder, text_encoder
        self.pixel_decoder, self.joint = pixel_decoder, joint
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))  # ln(1 / 0.07), as in CLIP

    def encode_image(self, tiles: Tensor) -> BaseFeatures:
        """[B, 3, H, W] pixels 0..255, H and W multiples of 32."""
        features: BaseFeatures = self.pixel_decoder(self.image_encoder(normalise(tiles)))
        return features

    def answers(
        self, features: BaseFeatures, tokens: Tensor, padding: Tensor
    ) -> tuple[list[QueryAnswers], Tensor]:
        """Every prediction step, and the sentence vectors. tokens, padding: [B, L], one sentence a tile."""
        text, sentence = self.text_encoder(tokens, padding)
        return self.joint(features.levels, features.pixels, text, padding), sentence

    def decode(self, features: BaseFeatures, tokens: Tensor, padding: Tensor) -> Selection:
        """Choose, for each tile's sentence [B, L], the query whose class vector is most like it."""
        steps, sentence = self.answers(features, tokens, padding)
        similarity = cosine(steps[-1].classes, sentence)
        best = similarity.topk(2, dim=1)
        rows = torch.arange(len(sentence), device=sentence.device)
        first, second = best.values.T
        return Selection(steps[-1].masks[rows, best.indices[:, 0]], first, first - second)


def cosine(classes: Tensor, sentence: Tensor) -> Tensor:
    """[B, N] cosine between class vectors [B, N, d] and sentences [B, d]."""
    return functional.cosine_similarity(classes, sentence[:, None], dim=-1)


def build_base(config: BaseConfig | None = None) -> PathSegmentor:
    """The untrained network of a configuration (default: the paper's size, about 0.4 billion parameters)."""
    config = config or BaseConfig()
    encoder = FocalNetPyramid(config)
    return PathSegmentor(
        image_encoder=encoder,
        text_encoder=(BertTower if config.text_tower == "pubmedbert" else ClipTower)(config),
        pixel_decoder=TransformerPixelDecoder(config, encoder.widths),
        joint=JointInteraction(
            width=config.width,
            queries=config.queries,
            layers=config.layers,
            heads=config.heads,
            hidden=config.hidden,
        ),
    )
