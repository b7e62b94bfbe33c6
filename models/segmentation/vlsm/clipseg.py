"""CLIPSeg for training: the same parts as the published forward pass, which computes both encoders without gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ClipSeg(nn.Module):
    """Images [B, 3, S, S] and token ids [B, L] to logits [B, 1, S, S]."""

    def __init__(self, model: Any) -> None:
        """model: transformers' CLIPSegForImageSegmentation."""
        super().__init__()
        self.clip = model.clip
        self.decoder = model.decoder
        self.layers: list[int] = list(model.extract_layers)

    def forward(self, images: Tensor, tokens: Tensor, known: Tensor) -> Tensor:
        learns = any(weight.requires_grad for weight in self.clip.parameters())
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            states = self.clip.vision_model(images, output_hidden_states=True).hidden_states
            said = self.clip.get_text_features(input_ids=tokens, attention_mask=known.long()).pooler_output
        chosen = tuple(states[layer + 1] for layer in self.layers)  # the first state is the embedding
        logits: Tensor = self.decoder(chosen, said).logits
        return logits.reshape(len(images), 1, *logits.shape[-2:])

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.clip]
