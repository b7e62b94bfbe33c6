"""The shipped default behind the seam that every model offers (models/segmenter.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tissuetalk.models.segmentation.pathsegmentor.card import MINI_WEIGHTS, MiniTargets
from tissuetalk.models.segmentation.pathsegmentor.inference import Inference, TileFeatures, padded, unpacked
from tissuetalk.models.segmentation.pathsegmentor.mini import Features
from tissuetalk.models.segmentation.pathsegmentor.presence import evidence_of, probability
from tissuetalk.models.segmentation.pathsegmentor.splitting import split_objects, tidy
from tissuetalk.models.segmentation.pathsegmentor.targets import OBJECT_TARGETS, sentence, target_of
from tissuetalk.models.segmentation.pathsegmentor.text_encoder import MiniLMSentences
from tissuetalk.models.segmentation.pathsegmentor.weights import load_mini as load_weights
from tissuetalk.models.segmentation.pretrained import weights_hash
from tissuetalk.models.segmenter import RGB, Context, Decoded, Finished, Prompt

OVERVIEW_PX = 448
"""Side of the view from which scale and kind of picture are judged."""
LEAST_TISSUE = 0.05
"""Below this probability of being stained tissue nothing in a picture is likelier than that. Pale fat gets about 0.1."""


MiniTile = TileFeatures[Features]


class MiniSegmenter(MiniTargets):
    """PathSegmentor ``mini``: encodes a tile once and answers every prompt on its own."""

    tile_px = 1280
    margin_px = 160

    def __init__(self, weights: Path = MINI_WEIGHTS) -> None:
        self.weights_sha256 = weights_hash(weights) if weights.is_file() else ""
        network = load_weights(weights)
        self.presence_calibration, self.cuts = network.presence_calibration, network.cuts
        self.inference = Inference(network)
        self.text = MiniLMSentences()

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        """What the pixels of ``overview`` seem to span, learned from tissue of known scale (0.2 to 2.5 µm), per source pixel."""
        # The head learned log2; beyond 0.2 to 2.5 µm/px it has seen nothing and would guess.
        return float(np.clip(2.0 ** self._describe(overview)[0], 0.2, 2.5)) / reduction

    def prepare(self, overview: RGB) -> Context:
        """``tissue``: probability that the picture is stained tissue at all."""
        return Context({"tissue": self._describe(overview)[1]})

    def _describe(self, overview: RGB) -> tuple[float, float]:
        """(log2 of µm per pixel, probability of stained tissue), from up to five crops at the overview's own scale."""
        scales, tissues = zip(*(self._describe_crop(crop) for crop in _crops(overview)), strict=True)
        return float(np.median(scales)), float(np.median(tissues))

    def _describe_crop(self, crop: RGB) -> tuple[float, float]:
        return self.inference.describe(self.inference.encode(padded(crop)))

    def encode(self, tile: RGB, context: Context) -> MiniTile:
        """tile: [H, W, 3] of any size; it is mirrored up to a multiple of 32."""
        return TileFeatures(self.inference.encode(padded(tile)), tile.shape[0], tile.shape[1])

    def pack(self, features: MiniTile) -> bytes:
        """For the feature cache."""
        return features.packed({"pixels": features.features.pixels, "pooled": features.features.pooled})

    def unpack(self, stored: bytes) -> MiniTile:
        tensors, height, width = unpacked(stored)
        return TileFeatures(Features(tensors["pixels"], tensors["pooled"]), height, width)

    def decode(self, features: MiniTile, prompts: Sequence[Prompt]) -> list[Decoded]:
        """Every prompt is read on its own, from features that are laid out once."""
        laid_out = self.inference.laid_out(features.features)
        return [self._decode_one(laid_out, features, prompt) for prompt in prompts]

    def _decode_one(self, laid_out: Features, features: MiniTile, prompt: Prompt) -> Decoded:
        target = target_of(prompt)
        words = sentence(prompt, target) if target else prompt.text or prompt.words
        answer = self.inference.decode(laid_out, self.text([words]))
        mask = features.enlarged(answer.mask[0, 0]) - np.float32(self.cuts.get(target or "", 0.0))
        distance = features.enlarged(answer.distance[0, 0])
        return Decoded(mask, float(answer.presence[0, 0]), distance[None])

    def finish(self, stitched: Decoded, prompt: Prompt, context: Context) -> Finished:
        target = target_of(prompt) or "tumour"
        presence = probability(self.presence_calibration, target, evidence_of(stitched))
        tissue = float(context.values.get("tissue", 1.0))
        if tissue < LEAST_TISSUE:  # a cat has no nuclei, whatever the mask says
            presence = min(presence, tissue)
        mask = tidy(stitched.logits > 0, target)
        instances = None
        if target in OBJECT_TARGETS and stitched.object_maps is not None:
            instances = split_objects(mask, stitched.object_maps[0], target)
            mask = instances > 0
        return Finished(mask, instances, presence)


def _crops(overview: RGB) -> list[RGB]:
    height, width = overview.shape[:2]
    if max(height, width) <= OVERVIEW_PX:
        return [overview]
    side = min(OVERVIEW_PX, height, width)
    tops, lefts = (
        sorted({0, (height - side) // 2, height - side}),
        sorted({0, (width - side) // 2, width - side}),
    )
    corners = [(top, left) for top in tops for left in lefts]
    return [
        overview[top : top + side, left : left + side] for top, left in corners[:: max(1, len(corners) // 4)]
    ]


def load_mini() -> MiniSegmenter:
    """The shipped default, ready to answer. Raises ModelUnavailableError when its weights are missing or corrupt."""
    return MiniSegmenter()
