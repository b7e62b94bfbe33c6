"""What the box- and point-prompted models have in common: one encoding, prompts a few at a time, masks at full size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.segmentation.pretrained import (
    AnyWords,
    HubWeights,
    device,
    from_hub,
    resized,
    to_size,
    weights_hash,
    without_gradients,
)
from tissuetalk.models.segmenter import (
    RGB,
    BoxXYXY,
    Capability,
    Context,
    Decoded,
    Finished,
    ModelCard,
    PointXY,
    Prompt,
)

if TYPE_CHECKING:
    from torch import Tensor

AT_ONCE = 16
"""Prompts decoded together: bounds memory, changes no answer."""
ASSUMED_MPP = 0.5
"""Only what areas are reckoned with when nobody knows the scale: these models work in pixels."""


def any_place(card: ModelCard) -> AnyWords:
    """Any words will do, even none: they name what is in the box and change nothing."""
    return AnyWords(card, ASSUMED_MPP, objects=True, nameless=True)


@dataclass(frozen=True)
class Encoded:
    """Image embeddings with the image's size and where it lies on the model's square input.

    scale_x, scale_y: input pixels per image pixel. used_height, used_width: share of the input that is image.
    """

    embeddings: Tensor | list[Tensor]
    height: int
    width: int
    scale_x: float
    scale_y: float
    used_height: float = 1.0
    used_width: float = 1.0


class SamFamily(ABC):
    """A ``PromptableSegmenter`` in terms of two steps: ``encode`` an image and ``logits`` for prompts."""

    card: ModelCard
    takes_points: bool
    margin_px = 0

    def __init__(self, model: Any, *, weights_sha256: str) -> None:
        self.model = model.to(device()).eval()
        self.weights_sha256 = weights_sha256

    @property
    @abstractmethod
    def side_px(self) -> int:
        """Side of the model's square input."""

    @property
    def tile_px(self) -> int:
        return self.side_px

    def capability(self, prompt: Prompt) -> Capability | None:
        return any_place(self.card).capability(prompt)

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return []

    def sent(self, prompt: Prompt) -> str:
        return ""

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        return ASSUMED_MPP

    def prepare(self, overview: RGB) -> Context:
        return Context({})

    @abstractmethod
    def encode(self, tile: RGB, context: Context | None = None) -> Encoded:
        """Features of one image [H, W, 3], shared by all its prompts."""

    @abstractmethod
    def pixels(self, square: NDArray[np.uint8]) -> Tensor:
        """[1, 3, S, S] float32 from [S, S, 3] bytes, scaled as the model was trained."""

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
        import torch
        from safetensors.torch import save

        several = isinstance(features.embeddings, list)
        tensors = features.embeddings if isinstance(features.embeddings, list) else [features.embeddings]
        stored = {f"{number}": one.half().cpu().contiguous() for number, one in enumerate(tensors)}
        frame = (features.height, features.width, features.scale_x, features.scale_y)
        share = (features.used_height, features.used_width, float(several))
        stored["frame"] = torch.tensor([*frame, *share], dtype=torch.float64)
        return save(stored)

    def unpack(self, stored: bytes) -> Encoded:
        from safetensors.torch import load

        tensors = load(stored)
        height, width, *rest, several = tensors.pop("frame").tolist()
        embeddings = [tensors[f"{number}"].float().to(device()) for number in range(len(tensors))]
        return Encoded(embeddings if several else embeddings[0], int(height), int(width), *rest)

    @abstractmethod
    def logits(self, embeddings: Any, *, boxes: Tensor | None = None, points: Tensor | None = None) -> Tensor:
        """[N, h, w] mask logits over the square input, for [N, 4] boxes or [N, 2] points in input pixels."""

    def from_boxes(self, features: Encoded, boxes_xyxy: Sequence[BoxXYXY]) -> Iterator[NDArray[np.bool_]]:
        """One [H, W] mask per box, in order, a few at a time."""
        for x0, y0, x1, y1 in boxes_xyxy:
            if not (x0 < x1 and y0 < y1):
                raise InvalidArgumentError(
                    f"box {[x0, y0, x1, y1]} is empty; give [x0, y0, x1, y1] with x0 < x1, y0 < y1"
                )
        yield from self._masks(features, "boxes", boxes_xyxy)

    def from_points(self, features: Encoded, points_xy: Sequence[PointXY]) -> Iterator[NDArray[np.bool_]]:
        """One [H, W] mask per point, in order, a few at a time."""
        if not self.takes_points:
            raise InvalidArgumentError(
                f"{self.card.name} was made for boxes only; give boxes or use the model sam2"
            )
        yield from self._masks(features, "points", points_xy)

    def segment_boxes(self, image: RGB, boxes_xyxy: Sequence[BoxXYXY]) -> Iterator[NDArray[np.bool_]]:
        return self.from_boxes(self.encode(image), boxes_xyxy)

    def _masks(
        self, features: Encoded, kind: str, places: Sequence[tuple[float, ...]]
    ) -> Iterator[NDArray[np.bool_]]:
        """kind: ``boxes`` or ``points``, as ``logits`` calls them; places in pixels of the image."""
        import torch

        axes = [features.scale_x, features.scale_y]
        for start in range(0, len(places), AT_ONCE):
            chunk = torch.tensor(places[start : start + AT_ONCE], dtype=torch.float32, device=device())
            scale = torch.tensor(axes * (chunk.shape[1] // 2), device=device())
            with torch.inference_mode():
                logits = self.logits(features.embeddings, **{kind: chunk * scale})
            # What was padded to make the picture square is cut off before it is brought to size.
            rows = max(1, round(logits.shape[-2] * features.used_height))
            columns = max(1, round(logits.shape[-1] * features.used_width))
            for one in logits:  # one at a time: a thousand full-size masks would not fit in memory
                yield to_size(one[None, :rows, :columns], features.height, features.width)[0] > 0.0


class PublishedSam(SamFamily):
    """A SAM of transformers; ``kind`` is the name of its class there."""

    kind: ClassVar[str]
    weights: ClassVar[HubWeights]

    @classmethod
    def load(cls, source: str | Path | None = None) -> Self:
        """From a hub id in the local cache or a folder. Raises ModelUnavailableError."""
        model, folder = from_hub(cls.kind, cls.weights, source)
        return cls(model, weights_sha256=weights_hash(folder))

    @without_gradients
    def encode(self, tile: RGB, context: Context | None = None) -> Encoded:
        """The whole image [H, W, 3] stretched to the model's square, as SAM 2 and MedSAM were trained."""
        (height, width), side = tile.shape[:2], self.side_px
        embeddings = self.model.get_image_embeddings(self.pixels(resized(tile, side, side)))
        return Encoded(embeddings, height, width, side / width, side / height)
