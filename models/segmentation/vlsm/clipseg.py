"""CLIPSeg for training, and BiomedCLIPSeg: the encoders of BiomedCLIP under the decoder of CLIPSeg.

Names are those of the published weights. Both take images [B, 3, S, S], token ids [B, L] and [B, L] bool, True where there
is a token, and give logits [B, 1, S, S].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tissuetalk.models.segmentation.layers import VitBlock, bert


class ClipSeg(nn.Module):
    """The same parts as the published forward pass, which computes both encoders without gradients."""

    def __init__(self, model: Any) -> None:
        """model: transformers' CLIPSegForImageSegmentation."""
        super().__init__()
        self.config = model.config
        self.clip = model.clip
        self.decoder = model.decoder
        self.layers: list[int] = list(model.extract_layers)

    def forward(self, images: Tensor, tokens: Tensor, known: Tensor) -> Tensor:
        return self.answer(self.see(images), tokens, known)

    def see(self, images: Tensor) -> tuple[Tensor, ...]:
        """What the decoder reads of pictures, whatever is asked about them."""
        with torch.set_grad_enabled(self._learns and torch.is_grad_enabled()):
            states = self.clip.vision_model(images, output_hidden_states=True).hidden_states
        return tuple(states[layer + 1] for layer in self.layers)  # the first state is the embedding

    def answer(self, seen: tuple[Tensor, ...], tokens: Tensor, known: Tensor) -> Tensor:
        with torch.set_grad_enabled(self._learns and torch.is_grad_enabled()):
            said = self.clip.get_text_features(input_ids=tokens, attention_mask=known.long()).pooler_output
        logits: Tensor = self.decoder(seen, said).logits
        return logits.reshape(len(tokens), 1, *logits.shape[-2:])

    @property
    def _learns(self) -> bool:
        return any(weight.requires_grad for weight in self.clip.parameters())

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.clip]


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


class BiomedTrunk(nn.Module):
    """ViT with a class token."""

    def __init__(self, sizes: BiomedSizes) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, sizes.width, 16, 16)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, (sizes.side_px // 16) ** 2 + 1, sizes.width))
        self.blocks = nn.ModuleList(VitBlock(sizes.width, sizes.heads) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(sizes.width, eps=1e-6)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, S, S] to what every block gives, each [B, 1 + N, C]."""
        patches = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed
        given = []
        for block in self.blocks:
            x = block(x)
            given.append(x)
        return given


class BiomedVisual(nn.Module):
    def __init__(self, sizes: BiomedSizes) -> None:
        super().__init__()
        self.trunk = BiomedTrunk(sizes)
        self.head = nn.ModuleDict({"proj": nn.Linear(sizes.width, sizes.joint, bias=False)})


class BiomedText(nn.Module):
    def __init__(self, sizes: BiomedSizes) -> None:
        super().__init__()
        width, layers, heads = sizes.text_width, sizes.text_layers, sizes.text_heads
        self.transformer = bert(vocabulary=sizes.vocabulary, width=width, layers=layers, heads=heads)
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
        self.visual = BiomedVisual(sizes)
        self.text = BiomedText(sizes)
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
        return self.answer(self.see(images), tokens, known)

    def see(self, images: Tensor) -> tuple[Tensor, ...]:
        """What the decoder reads of pictures, whatever is asked about them."""
        given = self.visual.trunk(images)
        return tuple(given[layer] for layer in self.sizes.layers)

    def answer(self, seen: tuple[Tensor, ...], tokens: Tensor, known: Tensor) -> Tensor:
        logits: Tensor = self.decoder(seen, self.text(tokens, known)).logits
        return logits.reshape(len(tokens), 1, *logits.shape[-2:])

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.visual, self.text]
