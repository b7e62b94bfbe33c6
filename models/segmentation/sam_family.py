"""What the box- and point-prompted models have in common: one encoding, prompts a few at a time, masks at full size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.segmentation.loading import device, to_size
from tissuetalk.models.segmentation.pointed import BoxXYXY, PointXY
from tissuetalk.models.segmenter import RGB, Capability, Context, Decoded, Finished, ModelCard, Prompt

AT_ONCE = 16
"""Prompts decoded together: bounds memory, changes no answer."""
ASSUMED_MPP = 0.5
"""Only what areas are reckoned with when nobody knows the scale: these models work in pixels."""


@dataclass(frozen=True)
class Encoded:
    """Image embeddings with the image's size and where it lies on the model's square input.

    scale_x, scale_y: input pixels per image pixel. used_height, used_width: share of the input that is image.
    """

    embeddings: torch.Tensor | list[torch.Tensor]
    height: int
    width: int
    scale_x: float
    scale_y: float
    used_height: float = 1.0
    used_width: float = 1.0


class SamFamily(ABC):
    """A ``PromptableSegmenter`` in terms of two steps: ``encode`` an image and ``logits`` for prompts."""

    card: ModelCard
    weights_sha256: str
    side_px: int
    takes_points: bool

    margin_px = 0

    @property
    def tile_px(self) -> int:
        return self.side_px

    def capability(self, prompt: Prompt) -> Capability:
        """Any words will do: they name what is in the box and change nothing."""
        return Capability(target=prompt.words, mpp=ASSUMED_MPP, objects=True)

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return []

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        return ASSUMED_MPP

    def prepare(self, overview: RGB) -> Context:
        return Context({})

    @abstractmethod
    def encode(self, tile: RGB, context: Context | None = None) -> Encoded: ...

    def decode(self, features: Any, prompts: Sequence[Prompt]) -> list[Decoded]:
        raise self.needs_places()

    def finish(self, stitched: Decoded, prompt: Prompt, context: Context) -> Finished:
        raise self.needs_places()

    def needs_places(self) -> InvalidArgumentError:
        what = "boxes or points" if self.takes_points else "boxes"
        other = "" if self.takes_points else "points are for sam2; "
        return InvalidArgumentError(
            f"{self.card.name} is told where to look, not what to look for: pass {what}, one around every object "
            f"(boxes=[[x0, y0, x1, y1], …] or --box X0,Y0,X1,Y1; {other}view with grid=true shows the pixels), "
            "or leave model out to look for the words."
        )

    def pack(self, features: Encoded) -> bytes:
        """Half precision, for the feature cache."""
        several = isinstance(features.embeddings, list)
        tensors = features.embeddings if isinstance(features.embeddings, list) else [features.embeddings]
        kept = {f"{number}": one.half().cpu().contiguous() for number, one in enumerate(tensors)}
        frame = (features.height, features.width, features.scale_x, features.scale_y)
        share = (features.used_height, features.used_width, float(several))
        kept["frame"] = torch.tensor([*frame, *share], dtype=torch.float64)
        return save(kept)

    def unpack(self, stored: bytes) -> Encoded:
        kept = load(stored)
        height, width, scale_x, scale_y, used_height, used_width, several = kept.pop("frame").tolist()
        tensors = [kept[f"{number}"].float().to(device()) for number in range(len(kept))]
        return Encoded(
            tensors if several else tensors[0],
            int(height),
            int(width),
            scale_x,
            scale_y,
            used_height,
            used_width,
        )

    @abstractmethod
    def logits(
        self, embeddings: Any, *, boxes: torch.Tensor | None = None, points: torch.Tensor | None = None
    ) -> torch.Tensor:
        """[N, h, w] mask logits over the square input, for [N, 4] boxes or [N, 2] points in input pixels."""

    def from_boxes(self, features: Encoded, boxes_xyxy: Sequence[BoxXYXY]) -> Iterator[Mask]:
        for x0, y0, x1, y1 in boxes_xyxy:
            if not (x0 < x1 and y0 < y1):
                raise InvalidArgumentError(
                    f"box {[x0, y0, x1, y1]} is empty; give [x0, y0, x1, y1] with x0 < x1, y0 < y1"
                )
        scale = torch.tensor([features.scale_x, features.scale_y] * 2, device=device())
        for start in range(0, len(boxes_xyxy), AT_ONCE):
            chunk = torch.tensor(boxes_xyxy[start : start + AT_ONCE], dtype=torch.float32, device=device())
            yield from self._masks(features, boxes=chunk * scale)

    def from_points(self, features: Encoded, points_xy: Sequence[PointXY]) -> Iterator[Mask]:
        if not self.takes_points:
            raise InvalidArgumentError(
                f"{self.card.name} was made for boxes only; give boxes or use the model sam2"
            )
        scale = torch.tensor([features.scale_x, features.scale_y], device=device())
        for start in range(0, len(points_xy), AT_ONCE):
            chunk = torch.tensor(points_xy[start : start + AT_ONCE], dtype=torch.float32, device=device())
            yield from self._masks(features, points=chunk * scale)

    def segment_boxes(self, image: RGB, boxes_xyxy: Sequence[BoxXYXY]) -> Iterator[Mask]:
        return self.from_boxes(self.encode(image), boxes_xyxy)

    def _masks(self, features: Encoded, **prompts: torch.Tensor) -> Iterator[Mask]:
        with torch.inference_mode():
            logits = self.logits(features.embeddings, **prompts)
        rows = max(1, round(logits.shape[-2] * features.used_height))
        columns = max(1, round(logits.shape[-1] * features.used_width))
        for one in logits:
            yield to_size(one[None, :rows, :columns], features.height, features.width)[0] > 0.0
