"""The shipped default behind the seam that every model offers (models/segmenter.py): network, frozen text tower, objects.

The network runs as fast as the machine allows without changing what it says, on tiles of any size. Presence is the presence
logit and the mask itself, weighed by curves fitted on held-out pairs. Objects are split on the stitched maps: tiles leave no trace.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tissuetalk.models.gathering import gathered
from tissuetalk.models.masks.characteristics import largest
from tissuetalk.models.segmentation.pathsegmentor.card import (
    MINI_FILE,
    MINI_WEIGHTS,
    OBJECT_TARGETS,
    OFFERED_TARGETS,
    MiniTargets,
    sentence,
    target_of,
)
from tissuetalk.models.segmentation.pathsegmentor.mini import (
    Calibration,
    Calibrations,
    Features,
    MiniAnswers,
    MiniPathSegmentor,
    load_mini,
)
from tissuetalk.models.segmentation.pathsegmentor.openvino_encoder import Encoder, OpenvinoEncoder, asked_for
from tissuetalk.models.segmentation.pathsegmentor.splitting import around, split_objects, tidy
from tissuetalk.models.segmentation.pathsegmentor.text_tower import MiniLMSentences
from tissuetalk.models.segmentation.pretrained import (
    device,
    weights_hash,
)
from tissuetalk.models.segmenter import RGB, Context, Decoded, FeatureMap, Finished, Prompt

M = TypeVar("M", bound=nn.Module)
F = TypeVar("F")

MAP_STRIDES = (2, 4, 8, 16, 32)
"""Of the image encoder's maps."""
ANSWERS_WEIGHT = 2.0
"""Of what the targets answer, beside one map, where something is taught by example."""
STRIDE = 32
"""Networks take tiles whose sides are multiples of this."""


@dataclass(frozen=True)
class TileFeatures(Generic[F]):
    """Features of one tile, and the tile's own size before padding."""

    features: F
    height: int
    width: int

    def packed(self, tensors: Mapping[str, Tensor]) -> bytes:
        """The features as tensors, with the size, for the feature cache."""
        contiguous = {name: value.contiguous() for name, value in tensors.items()}
        return save(contiguous | {"size": torch.tensor([self.height, self.width])})

    def enlarged(self, answer: Tensor) -> NDArray[np.float32]:
        """[H, W] at the tile's own size, from the map [h, w] of the padded tile, whatever its stride."""
        small = answer.float().cpu().numpy()
        padded = (-(-self.width // STRIDE) * STRIDE, -(-self.height // STRIDE) * STRIDE)
        full = cv2.resize(small, padded, interpolation=cv2.INTER_LINEAR)
        return np.asarray(full[: self.height, : self.width], np.float32)


def unpacked(stored: bytes) -> tuple[dict[str, Tensor], int, int]:
    """Tensors, height and width of a tile's packed features."""
    tensors = load(stored)
    height, width = (int(side) for side in tensors.pop("size"))
    return tensors, height, width


def padded(tile: RGB) -> Tensor:
    """[1, 3, H, W] uint8 with H and W multiples of 32, mirrored beyond the border."""
    bottom, right = -tile.shape[0] % STRIDE, -tile.shape[1] % STRIDE
    mirrored = cv2.copyMakeBorder(np.ascontiguousarray(tile), 0, bottom, 0, right, cv2.BORDER_REFLECT)
    return torch.from_numpy(np.asarray(mirrored).transpose(2, 0, 1).copy())[None]


def fold_norms(network: M) -> M:
    """Every convolution takes in the batch norm behind it, in place; the network must be in ``eval`` mode."""
    for part in network.children():
        fold_norms(part)
        if isinstance(part, nn.Sequential) and len(part) > 1:
            conv, norm = part[0], part[1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                part[0], part[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()  # numbering stays
    return network


def halves_are_fast() -> bool:
    """Whether this machine multiplies bfloat16 in hardware; elsewhere it would be emulated, and slow."""
    if device().type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))  # older cards only pretend
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


class Inference:
    """A network with its norms folded, on the best device; features are kept in half precision on the CPU.

    Features are rounded to half precision at once, so those from a cache answer exactly as fresh ones do. Tiles of several
    callers that have the same size go through the network together, where there is a GPU.

    encoder: encodes instead of the network.
    """

    def __init__(self, network: MiniPathSegmentor, encoder: OpenvinoEncoder | None = None) -> None:
        self.network = fold_norms(network.eval()).in_channels_last().to(device())
        self._encoder = encoder
        self.autocast = halves_are_fast()
        self._gathered = gathered(self._encode_all, lambda tile: tile.shape, on_a_gpu=device().type == "cuda")

    def encode(self, tile: Tensor) -> Features:
        """[1, 3, H, W] pixels 0..255, H and W multiples of 32."""
        return self._gathered(tile)

    def _encode_all(self, tiles: Sequence[Tensor]) -> list[Features]:
        made = self.encode_with_maps(torch.cat(list(tiles)))[0]
        if len(tiles) == 1:
            return [made]
        each = range(len(tiles))
        # copies: kept, a part would keep the whole
        return [Features(made.pixels[at : at + 1].clone(), made.pooled[at : at + 1].clone()) for at in each]

    def encode_with_maps(self, tiles: Tensor) -> tuple[Features, list[Tensor]]:
        """``encode``, and the image encoder's maps of the same pass: [B, C, H/s, W/s] at strides s 2, 4, 8, 16 and 32."""
        if self._encoder is not None:
            with torch.inference_mode():
                pixels, maps = self._encoder(tiles)
                return Features(pixels, self.network.pooled(maps, tiles.shape).half()), maps
        place = device()
        with torch.inference_mode(), torch.autocast(place.type, dtype=torch.bfloat16, enabled=self.autocast):
            features, maps = self.network.encode_with_maps(tiles.to(place))
        return Features(halves(features.pixels), features.pooled.half().cpu()), maps

    def laid_out(self, features: Features) -> Features:
        """Kept features in full precision on the device, for any number of calls of ``decode``."""
        return Features(features.pixels.to(device()).float(), features.pooled.to(device()).float())

    def decode(self, features: Features, text: Tensor) -> MiniAnswers:
        """Answers in full precision, on the CPU, from features that are laid out. text: [P, text_width]."""
        with torch.inference_mode():
            answer = self.network.decode(features, text.to(device()))
            return MiniAnswers(answer.mask.cpu(), answer.distance.cpu(), answer.presence.cpu())

    def describe(self, features: Features) -> tuple[float, float]:
        """(log2 of µm per pixel, probability of being stained tissue) of one tile."""
        with torch.inference_mode():
            scale, tissue = self.network.describe_image(features.pooled.to(device()).float())
            return float(scale[0]), float(tissue[0].sigmoid())


def halves(pixels: Tensor) -> Tensor:
    """[B, C, H, W] in half precision on the CPU, channel after channel.

    Row by row there: a row of all channels fits into a core's cache, and the same copy takes a fifth of the time.
    """
    if pixels.device.type != "cpu":
        return pixels.half().contiguous().cpu()
    halves = torch.empty(pixels.shape, dtype=torch.half)
    for row in range(pixels.shape[2]):
        halves[:, :, row] = pixels[:, :, row]
    return halves


ANY = "any"
"""Name of the curve of every target that has none of its own."""


Evidence = tuple[float, float]
"""Presence logit, and mean mask logit of the strongest pixels."""

STRONGEST_PX = 200
"""How many pixels speak for the mask: about one small object."""


def probability(curves: Calibrations, target: str, evidence: Evidence) -> float:
    """What the target's curve, else the common one, makes of the evidence."""
    curve, (said, strongest) = curves.get(target, curves.get(ANY, Calibration())), evidence
    return float(1 / (1 + np.exp(-(curve.said * said + curve.strongest * strongest + curve.offset))))


def evidence_of(decoded: Decoded) -> Evidence:
    """Without a presence logit, the strongest pixel has to do."""
    strongest = float(largest(decoded.logits.ravel(), STRONGEST_PX).mean())
    said = float(decoded.logits.max()) if decoded.presence is None else decoded.presence
    return said, strongest


OVERVIEW_PX = 448
"""Side of the view from which scale and kind of picture are judged."""
LEAST_TISSUE = 0.05
"""Below this probability of being stained tissue nothing in a picture is likelier than that. Pale fat gets about 0.1."""


LEARNED_MPP = (0.2, 2.5)
"""What the head for scale was trained on; beyond that it has seen nothing and would guess."""


MiniTile = TileFeatures[Features]


class MiniSegmenter(MiniTargets):
    """PathSegmentor ``mini``: encodes a tile once and answers every prompt on its own.

    use: what encodes; by default what the operator asked for. encoder: its name in records, empty for torch.
    Raises ModelUnavailableError when weights or encoder are missing or corrupt.
    """

    tile_px = 1280
    margin_px = 160

    def __init__(self, weights: Path = MINI_WEIGHTS, use: Encoder | None = None) -> None:
        self.weights_sha256 = weights_hash(weights) if weights.is_file() else ""
        MINI_FILE.require(weights, self.weights_sha256)
        network = load_mini(weights)
        self.presence_calibration, self.cuts = network.presence_calibration, network.cuts
        encoder = None
        if (use or asked_for()) == "openvino":
            encoder = OpenvinoEncoder.shipped(self.weights_sha256, often_px=self.tile_px)
        self.encoder = "" if encoder is None else encoder.name
        self.inference = Inference(network, encoder)
        self.text = MiniLMSentences()

    def sent(self, prompt: Prompt) -> str:
        target = target_of(prompt)
        return sentence(prompt, target) if target else prompt.text or prompt.words

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        """What the pixels of ``overview`` seem to span, learned from tissue of known scale (0.2 to 2.5 µm), per source pixel."""
        return float(np.clip(2.0 ** self._describe(overview)[0], *LEARNED_MPP)) / reduction

    def prepare(self, overview: RGB) -> Context:
        """``tissue``: probability that the picture is stained tissue at all. ``mpp``: least and most that its pixels seem to span."""
        scale, tissue = self._describe(overview)
        (finest, coarsest), seen = LEARNED_MPP, 2.0**scale
        spans = (seen if seen > finest else 0.0, seen if seen < coarsest else math.inf)
        return Context({"tissue": tissue, "mpp": spans})

    def _describe(self, overview: RGB) -> tuple[float, float]:
        """(log2 of µm per pixel, probability of stained tissue), from up to five crops at the overview's own scale."""
        encoded = (self.inference.encode(padded(crop)) for crop in _crops(overview))
        scales, tissues = zip(*map(self.inference.describe, encoded), strict=True)
        return float(np.median(scales)), float(np.median(tissues))

    def encode(self, tile: RGB, context: Context) -> MiniTile:
        """tile: [H, W, 3] of any size; it is mirrored up to a multiple of 32."""
        return TileFeatures(self.inference.encode(padded(tile)), tile.shape[0], tile.shape[1])

    def encode_with_maps(self, tile: RGB, context: Context) -> tuple[MiniTile, list[FeatureMap]]:
        """``encode``, and maps of the same pass: the encoder's, the pixel decoder's, and what each offered target answers."""
        features, maps = self.inference.encode_with_maps(padded(tile))
        kept, shown = (
            TileFeatures(features, tile.shape[0], tile.shape[1]),
            list(zip(maps, MAP_STRIDES, strict=True)),
        )
        # half the detail of the finest: a read-out of them takes a quarter of the time
        fine = Features(functional.avg_pool2d(features.pixels.float(), 2), features.pooled)
        answers = self.inference.decode(self.inference.laid_out(fine), self.text(list(OFFERED_TARGETS)))
        offered = [(each, stride, 1.0) for each, stride in shown]
        offered += [(fine.pixels, 4, 1.0), (answers.mask, 4, ANSWERS_WEIGHT)]
        return kept, [
            FeatureMap(np.asarray(each[0].float().cpu().numpy(), np.float32), stride, weight)
            for each, stride, weight in offered
        ]

    def pack(self, features: MiniTile) -> bytes:
        """For the feature cache."""
        return features.packed({"pixels": features.features.pixels, "pooled": features.features.pooled})

    def unpack(self, stored: bytes) -> MiniTile:
        tensors, height, width = unpacked(stored)
        return TileFeatures(Features(tensors["pixels"], tensors["pooled"]), height, width)

    def decode(self, features: MiniTile, prompts: Sequence[Prompt]) -> list[Decoded]:
        """Every prompt is read on its own, from features that are laid out once."""
        laid_out, decoded = self.inference.laid_out(features.features), []
        for prompt in prompts:
            answer = self.inference.decode(laid_out, self.text([self.sent(prompt)]))
            cut = self.cuts.get(target_of(prompt) or "", 0.0)
            mask = features.enlarged(answer.mask[0, 0]) - np.float32(cut)
            distance = features.enlarged(answer.distance[0, 0])
            decoded.append(Decoded(mask, float(answer.presence[0, 0]), distance[None]))
        return decoded

    def finish(self, stitched: Decoded, prompt: Prompt, context: Context) -> Finished:
        target = target_of(prompt) or "tumour"
        presence = probability(self.presence_calibration, target, evidence_of(stitched))
        tissue = float(context.values.get("tissue", 1.0))
        if tissue < LEAST_TISSUE:  # a cat has no nuclei, whatever the mask says
            presence = min(presence, tissue)
        above = stitched.logits > 0
        at = around(above)
        mask = np.zeros(above.shape, bool)
        mask[at] = tidy(above[at], target)
        instances = None
        if target in OBJECT_TARGETS and stitched.object_maps is not None:
            instances = np.zeros(above.shape, np.int32)
            instances[at] = split_objects(mask[at], stitched.object_maps[0][at], target)
            mask = instances > 0
        return Finished(mask, instances, presence)


def _crops(overview: RGB) -> list[RGB]:
    height, width = overview.shape[:2]
    if max(height, width) <= OVERVIEW_PX:
        return [overview]
    side = min(OVERVIEW_PX, height, width)
    tops, lefts = (sorted({0, (size - side) // 2, size - side}) for size in (height, width))
    corners = [(top, left) for top in tops for left in lefts]
    chosen = corners[:: max(1, len(corners) // 4)]
    return [overview[top : top + side, left : left + side] for top, left in chosen]
