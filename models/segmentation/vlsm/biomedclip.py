"""BiomedCLIPSeg: the encoders of BiomedCLIP under the decoder of CLIPSeg. Names are those of the published weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tissuetalk.models.segmentation.pfps.efficient_sam import Block, PatchEmbedding, SamSizes

LAYERS = (3, 6, 9)
LEGACY_LAYERS = (4, 7, 10)
"""What the released code reads by mistake: its list of outputs lacks the embedding, and it counts as if it were there."""


@dataclass(frozen=True)
class BiomedSizes:
    """The defaults are ViT-B/16 and PubMedBERT."""

    side_px: int = 224
    width: int = 768
    depth: int = 12
    heads: int = 12
    joint: int = 512
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    vocabulary: int = 30522
    context: int = 256
    reduced: int = 64
    decoder_hidden: int = 2048
    layers: tuple[int, ...] = LAYERS


class Trunk(nn.Module):
    """ViT with a class token."""

    def __init__(self, sizes: BiomedSizes) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(SamSizes(width=sizes.width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, (sizes.side_px // 16) ** 2 + 1, sizes.width))
        self.blocks = nn.ModuleList(Block(sizes.width, sizes.heads) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(sizes.width, eps=1e-6)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, S, S] to what every block gives, each [B, 1 + N, C]."""
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed
        given = []
        for block in self.blocks:
            x = block(x)
            given.append(x)
        return given


class Visual(nn.Module):
    def __init__(self, sizes: BiomedSizes) -> None:
        super().__init__()
        self.trunk = Trunk(sizes)
        self.head = nn.ModuleDict({"proj": nn.Linear(sizes.width, sizes.joint, bias=False)})


class Text(nn.Module):
    def __init__(self, sizes: BiomedSizes) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=sizes.vocabulary,
            hidden_size=sizes.text_width,
            num_hidden_layers=sizes.text_layers,
            num_attention_heads=sizes.text_heads,
            intermediate_size=4 * sizes.text_width,
        )
        self.transformer: Any = BertModel(config, add_pooling_layer=False)
        hidden = (sizes.text_width + sizes.joint) // 2
        self.proj = nn.Sequential(
            nn.Linear(sizes.text_width, hidden, bias=False),
            nn.GELU(),
            nn.Linear(hidden, sizes.joint, bias=False),
        )

    def forward(self, tokens: Tensor, known: Tensor) -> Tensor:
        """[B, joint] from the class token."""
        states = self.transformer(input_ids=tokens, attention_mask=known.long()).last_hidden_state
        vector: Tensor = self.proj(states[:, 0])
        return vector


class BiomedClipSeg(nn.Module):
    """Images [B, 3, S, S] and token ids [B, L] to logits [B, 1, S, S]."""

    def __init__(self, sizes: BiomedSizes | None = None) -> None:
        super().__init__()
        from transformers import CLIPSegConfig
        from transformers.models.clipseg.modeling_clipseg import CLIPSegDecoder

        sizes = sizes or BiomedSizes()
        self.sizes = sizes
        self.visual = Visual(sizes)
        self.text = Text(sizes)
        config: Any = CLIPSegConfig(
            vision_config={
                "hidden_size": sizes.width,
                "num_attention_heads": sizes.heads,
                "image_size": sizes.side_px,
                "patch_size": 16,
            },
            reduce_dim=sizes.reduced,
            projection_dim=sizes.joint,
            extract_layers=list(sizes.layers),
            decoder_num_attention_heads=4,
            decoder_intermediate_size=sizes.decoder_hidden,
            use_complex_transposed_convolution=True,
        )
        config._attn_implementation = "sdpa"
        config.vision_config._attn_implementation = "sdpa"
        self.decoder: Any = CLIPSegDecoder(config)

    def forward(self, images: Tensor, tokens: Tensor, known: Tensor) -> Tensor:
        given = self.visual.trunk(images)
        chosen = tuple(given[layer] for layer in self.sizes.layers)
        logits: Tensor = self.decoder(chosen, self.text(tokens, known)).logits
        return logits.reshape(len(images), 1, *logits.shape[-2:])

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.visual, self.text]
