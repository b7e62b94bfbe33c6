"""Pixel decoders: the encoder's pyramid in, one map of per-pixel features out. They never see a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.segmentation.pathsegmentor.image_encoder import ConvNormAct, ResidualBlock


class ConvPixelDecoder(nn.Module):
    """Top-down pyramid of the ``mini`` preset: from stride 32 back to stride 2.

    inside: encoder widths, finest first. widths: decoder widths at the same strides, finest first.
    """

    def __init__(self, *, inside: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.deepest = ConvNormAct(inside[-1], widths[-1], kernel=1)
        self.laterals = nn.ModuleList(
            ConvNormAct(i, w, kernel=1) for i, w in zip(inside[:-1], widths[:-1], strict=True)
        )
        self.narrows = nn.ModuleList(
            ConvNormAct(above, w, kernel=1) for above, w in zip(widths[1:], widths[:-1], strict=True)
        )
        self.blocks = nn.ModuleList(
            ConvNormAct(w, w) if index == 0 else ResidualBlock(w) for index, w in enumerate(widths[:-1])
        )
        self.mask_features = nn.Conv2d(widths[0], widths[0], 3, padding=1)
        self.width = widths[0]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """[B, width, H/2, W/2] per-pixel features, from the encoder's maps (finest first)."""
        x: Tensor = self.deepest(maps[-1])
        for index in reversed(range(len(self.laterals))):
            narrow = self.narrows[index](x)
            up = functional.interpolate(narrow, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.blocks[index](self.laterals[index](maps[index]) + up)
        features: Tensor = self.mask_features(x)
        return features
