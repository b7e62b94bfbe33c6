"""The PFPs network: a request enters the image encoder, the mask decoder and the dynamic head (spec pfps.md).

A request is a sentence through a language model with LoRA, or rows of learned tables. The head's last layers have weights
that are generated for each image and request (facts: HATs, Omni-Seg; section 4).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.pfps.efficient_sam import (
    SMALL,
    SamDecoder,
    SamImageEncoder,
    SamPlaceEncoder,
    SamSizes,
)
from tissuetalk.models.segmentation.pretrained import (
    HubWeights,
    device,
    from_hub,
    token_table,
    tokenizer_from,
)

Strategy = Literal["one-set", "two-set", "text"]
HeadKind = Literal["hats", "replace_upscale"]
CHANNELS: Final = (8, 8, 8, 2)
"""Three 1x1 convolutions: 8 to 8, 8 to 8, 8 to 2 (background, foreground)."""
WEIGHTS: Final = tuple(a * b for a, b in pairwise(CHANNELS))
GENERATED: Final = sum(WEIGHTS) + sum(CHANNELS[1:])
"""162 values an image: all weights, then all biases."""
GROUPS: Final = 16
TINYLLAMA: Final = HubWeights(
    "tinyllama", "TISSUETALK_TINYLLAMA", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "Apache-2.0"
)
RANK, ALPHA, DROPOUT = 8, 16, 0.05
HIDDEN: Final = 1024
"""Width between the two layers that project the sentence vector."""
UNITS: Final = ("pt", "dt", "tuft", "capsule")
TASKS: Final = 9


def add_lora(model: nn.Module) -> None:
    """LoRA (by peft) on the query and value projections of every layer, in float32; everything else is frozen.

    Raises ModelUnavailableError without peft.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise ModelUnavailableError(
            "a language model with LoRA needs peft; run: pip install 'tissuetalk[train]'"
        ) from error
    model.requires_grad_(False)
    adapter = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules=["q_proj", "v_proj"])
    inject_adapter_in_model(adapter, model)
    for name, weight in model.named_parameters():
        if LORA in name:
            weight.data = weight.data.float()


LORA: Final = ".lora_"
"""Part of the name of everything that LoRA adds."""


def from_own_lora(key: str) -> str:
    """The name in peft of a weight that was saved when LoRA was our own code (until 0.1)."""
    return re.sub(r"\.(down|up)$", lambda found: OWN_LORA[found.group(1)], key)


OWN_LORA: Final = {"down": ".lora_A.default.weight", "up": ".lora_B.default.weight"}


class SentenceVector(nn.Module):
    """The last token of a causal language model, projected to the image encoder's width."""

    def __init__(self, language_model: Any, tokenizer: Any, *, width: int, lora: bool = True) -> None:
        """lora: without it the language model stays as published (the paper's ablation)."""
        super().__init__()
        self.language_model = language_model
        self.tokenizer = tokenizer
        if lora:
            add_lora(language_model)
        else:
            language_model.requires_grad_(False)
        hidden = language_model.config.hidden_size
        self.project = nn.Sequential(nn.Linear(hidden, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, width))

    def forward(self, sentences: list[str]) -> Tensor:
        """[B, 1, C], one token a sentence."""
        where = next(self.project.parameters()).device
        lines = [self.tokenizer(text)["input_ids"] for text in sentences]
        tokens, padding = (table.to(where) for table in token_table(lines))
        states = self.language_model(input_ids=tokens, attention_mask=(~padding).long()).last_hidden_state
        last = states[torch.arange(len(lines), device=where), (~padding).sum(1) - 1]
        vector: Tensor = self.project(last.float())
        return vector[:, None]


class OneSetIds(nn.Module):
    """One row for every pair of unit and task."""

    tokens = 1

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pairs = nn.Embedding(len(UNITS) * TASKS, width)

    def forward(self, units: Tensor, tasks: Tensor) -> Tensor:
        """[B] units 0..3 and [B] tasks 1..9 to [B, 1, C]."""
        row: Tensor = self.pairs(units * TASKS + tasks - 1)
        return row[:, None]


class TwoSetIds(nn.Module):
    """One row for the unit and one for the task, so that an unseen pair is made of seen parts."""

    tokens = 2

    def __init__(self, width: int) -> None:
        super().__init__()
        self.units = nn.Embedding(len(UNITS), width)
        self.tasks = nn.Embedding(TASKS, width)

    def forward(self, units: Tensor, tasks: Tensor) -> Tensor:
        """[B] units 0..3 and [B] tasks 1..9 to [B, 2, C]."""
        return torch.stack([self.units(units), self.tasks(tasks - 1)], dim=1)


def load_tinyllama(source: str | Path | None = None) -> tuple[Any, Any]:
    """TinyLlama and its tokenizer from a hub id in the local cache or a folder. Raises ModelUnavailableError."""
    model, folder = from_hub("LlamaModel", TINYLLAMA, source)
    if device().type == "cuda":  # frozen, so half the memory costs nothing; on a CPU it would only be slow
        model = model.to(torch.bfloat16)
    return model, tokenizer_from(folder, TINYLLAMA.model)


class Residual(nn.Module):
    """(GroupNorm, ReLU, 3x3 convolution) twice, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.GroupNorm(GROUPS, channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        out: Tensor = x + self.layers(x)
        return out


class DynamicHead(nn.Module):
    """Image embedding and request vector decide the layers that turn features into two channels."""

    def __init__(
        self, *, image_width: int, request_width: int, feature_width: int, kind: HeadKind, scale: int
    ) -> None:
        """scale: how much larger the answer is than the image embedding: 16, or 4 or 8 with smaller patches."""
        super().__init__()
        self.kind: HeadKind = kind
        self.scale = scale
        self.condition = nn.Sequential(
            nn.GroupNorm(GROUPS, image_width),
            nn.ReLU(),
            nn.Conv2d(image_width, image_width, 1),
            nn.GroupNorm(GROUPS, image_width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.controller = nn.Conv2d(image_width + request_width, GENERATED, 1)
        if kind == "hats":
            # the decoder enlarges four times; smaller patches leave less, or nothing, to do
            self.features: nn.Module = nn.Sequential(
                nn.Upsample(scale_factor=min(2, scale // 4), mode="nearest"),
                Residual(feature_width),
                nn.Upsample(scale_factor=max(1, scale // 8), mode="nearest"),
                Residual(feature_width),
                nn.GroupNorm(GROUPS, feature_width),
                nn.ReLU(),
                nn.Conv2d(feature_width, CHANNELS[0], 1),
            )
        else:
            self.features = nn.Conv2d(image_width, CHANNELS[0], 1)

    def forward(self, embedding: Tensor, request: Tensor, features: Tensor) -> Tensor:
        """[B, D, h, w], [B, R] and features to [B, 2, H, W] logits.

        features: the upscaled decoder output [B, 32, 4h, 4w] for ``hats``, the decoder's image [B, D, h, w] otherwise.
        """
        seen = torch.cat([self.condition(embedding), request[:, :, None, None]], dim=1)
        values = self.controller(seen).flatten(1)
        maps = self.features(features)
        if self.kind == "replace_upscale":  # a 1x1 convolution and a linear enlargement may change places
            maps = functional.interpolate(maps, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return generated_layers(maps, values)


def split(values: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """[B, 162] into weights [B, out, in] and biases [B, out] of the three layers."""
    parts = torch.split(values, [*WEIGHTS, *CHANNELS[1:]], dim=1)
    weights = [
        part.reshape(-1, after, before)
        for part, before, after in zip(parts[:3], CHANNELS[:-1], CHANNELS[1:], strict=True)
    ]
    return weights, list(parts[3:])


def generated_layers(maps: Tensor, values: Tensor) -> Tensor:
    """[B, 8, H, W] through each image's own three layers, as one grouped convolution each; ReLU between them."""
    count, _, height, width = maps.shape
    x = maps.reshape(1, -1, height, width)
    for number, (weight, bias) in enumerate(zip(*split(values), strict=True)):
        kernel = weight.reshape(-1, weight.shape[-1], 1, 1)
        x = functional.conv2d(x, kernel, bias.reshape(-1), groups=count)
        if number < 2:
            x = functional.relu(x)
    return x.reshape(count, CHANNELS[-1], height, width)


@dataclass(frozen=True)
class PfpsSizes:
    """strategy: how a request is said. head: what the dynamic head replaces. train_neck: frozen in HATs.

    boxes: whether some requests of training came with a box instead of a point; the network is the same.
    """

    sam: SamSizes = SMALL
    strategy: Strategy = "text"
    head: HeadKind = "hats"
    train_neck: bool = False
    boxes: bool = False

    @property
    def request_tokens(self) -> int:
        return 2 if self.strategy == "two-set" else 1


class Pfps(nn.Module):
    """Images, requests and perhaps points or boxes in; background and foreground logits out."""

    def __init__(self, sizes: PfpsSizes, request: nn.Module) -> None:
        """request: makes [B, T, C] tokens; SentenceVector, OneSetIds or TwoSetIds."""
        super().__init__()
        sam = sizes.sam
        self.sizes = sizes
        self.request = request
        self.image_encoder = SamImageEncoder(sam)
        self.prompt_encoder = SamPlaceEncoder(sam)
        self.mask_decoder = SamDecoder(sam)
        self.to_decoder = nn.Linear(sam.width, sam.decoder_width)
        self.head = DynamicHead(
            image_width=sam.decoder_width,
            request_width=sizes.request_tokens * sam.width,
            feature_width=sam.upscaling[1],
            kind=sizes.head,
            scale=sam.patch_px,
        )
        self.image_encoder.requires_grad_(False)
        self.image_encoder.neck.requires_grad_(sizes.train_neck)
        unused = [self.mask_decoder.output_hypernetworks_mlps, self.mask_decoder.iou_prediction_head]
        for part in unused:  # the dynamic head takes their place
            part.requires_grad_(False)

    def forward(self, images: Tensor, request: Tensor, places_xy: Tensor, kinds: Tensor) -> Tensor:
        """[B, 2, S, S] logits (background, foreground).

        Args:
            images: [B, 3, S, S], normalised by ``prepared``.
            request: [B, T, C] from ``self.request``.
            places_xy: [B, P, 2] in input pixels; any value where the kind is INVALID.
            kinds: [B, P] what each is: POINT, a corner of a box (TOP_LEFT, BOTTOM_RIGHT), or INVALID.
        """
        embedding = self.image_encoder(images, request)
        places = self.prompt_encoder(places_xy, kinds)
        prompts = torch.cat([places, self.to_decoder(request)], dim=1)
        _, seen = self.mask_decoder.attend(embedding, self.prompt_encoder.dense_places(), prompts)
        features = self.mask_decoder.upscale(seen) if self.sizes.head == "hats" else seen
        logits: Tensor = self.head(embedding, request.flatten(1), features)
        return logits


def foreground(logits: Tensor) -> Tensor:
    """[B, H, W] bool: where the foreground logit is the larger one."""
    return logits[:, 1] > logits[:, 0]
