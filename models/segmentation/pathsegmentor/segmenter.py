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
from skimage.segmentation import watershed
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tissuetalk.models.gathering import gathered
from tissuetalk.models.masks.characteristics import largest, without_specks
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
    """

    def __init__(self, network: MiniPathSegmentor) -> None:
        self.network = fold_norms(network.eval()).in_channels_last().to(device())
        self._autocast = halves_are_fast()
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
        place = device()
        with torch.inference_mode(), torch.autocast(place.type, dtype=torch.bfloat16, enabled=self._autocast):
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


@dataclass(frozen=True)
class Rule:
    """How one target's objects look, in pixels at its own scale.

    smallest_px: area below which objects are dropped. hole_px: area below which holes are filled. smooth_px: smoothing
    before centres are taken. predicted: share of the network's depth in the depth, beside the mask's own. deep_px: below
    the outline, where the mask's own depth is full. dip: of two centres close by the deeper one stays alone unless the way
    between them is shallower than both by this. core: if set, an object's centre is a whole connected core, deeper than
    this, and not a peak: for long and branching objects.
    """

    smallest_px: int
    hole_px: int
    smooth_px: float = 2.0
    predicted: float = 0.8
    deep_px: float = 30.0
    dip: float = 0.06
    core: float | None = None


RULES: Mapping[str, Rule] = {
    "nuclei": Rule(60, 60),
    "tumour nuclei": Rule(100, 80),
    "non-tumour nuclei": Rule(80, 60),
    "mitosis": Rule(100, 80),
    "gland": Rule(150, 400, 6.0, predicted=0.5, deep_px=20.0, core=0.45),
    "glomerulus": Rule(300, 2000, 6.0, predicted=0.5, deep_px=20.0, core=0.3),
    "tumour": Rule(200, 100),
    "lymphocytes": Rule(60, 60),
    "adipose tissue": Rule(400, 400),
    "stroma": Rule(200, 100),
}
"""Chosen on training images of DSB, PUMA and EBHI; how nuclei are parted is better on all sets, held out and trained on."""
DIP_REACH_PX = 32
"""How far apart two centres may be of which one is given up: no step here looks further, so every window decides the same."""


BESIDE = ((-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))
"""Steps to the neighbours of a pixel, edges before corners."""


def tidy(mask: NDArray[np.bool_], target: str) -> NDArray[np.bool_]:
    """[H, W] without specks and pinholes."""
    return without_specks(mask, RULES[target].smallest_px, RULES[target].hole_px)


def split_objects(
    mask: NDArray[np.bool_], depth_logits: NDArray[np.float32], target: str
) -> NDArray[np.int32]:
    """[H, W] object numbers 1..N, 0 background: the mask flooded from the centres of its objects.

    Depth is a mean of the predicted relative depth and the mask's own. The flooding runs at half
    size, which is the network's own; the outline stays the mask's.
    """
    rule = RULES[target]
    height, width = mask.shape
    size = ((width + 1) // 2, (height + 1) // 2)
    # Nearest, not area: a thin bridge between two objects must not thicken.
    small = np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), np.uint8)
    predicted = 1 / (1 + np.exp(-cv2.resize(depth_logits, size, interpolation=cv2.INTER_AREA)))
    own = np.minimum(cv2.distanceTransform(small, cv2.DIST_L2, 3) / (rule.deep_px / 2), 1)
    mean = rule.predicted * predicted + (1 - rule.predicted) * own
    depth = cv2.GaussianBlur(mean.astype(np.float32), (0, 0), rule.smooth_px / 2)
    centres = _centres(depth, small, rule)
    # No compactness: long glands would be cut into round pieces.
    flooded = watershed(-depth, centres, mask=small > 0)
    full = cv2.resize(flooded.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
    labels, marked = np.pad(np.where(mask, full, 0).astype(np.int32), 1), np.pad(mask, 1)
    for _ in range(2):
        _give_to_neighbours(labels, marked)
    return _numbered(labels[1:-1, 1:-1], rule.smallest_px)


def _give_to_neighbours(labels: NDArray[np.int32], mask: NDArray[np.bool_]) -> None:
    """Mask pixels that halving lost go to an object beside them: the same one whatever its number, which is a window's own."""
    y, x = np.nonzero(mask & (labels == 0))
    found = np.zeros(len(y), np.int32)
    for down, right in BESIDE:
        found = np.where(found == 0, labels[y + down, x + right], found)
    labels[y, x] = found


def _centres(depth: NDArray[np.float32], small: NDArray[np.uint8], rule: Rule) -> NDArray[np.int32]:
    """[h, w] numbered seeds; every connected part of the mask has at least one."""
    if rule.core is None:
        seeds = _peaks(np.where(small > 0, depth, np.float32(-1)), rule.dip) & (small > 0)
    else:
        seeds = (depth > rule.core) & (small > 0)
    _, parts = cv2.connectedComponents(small, connectivity=4)
    count, centres = cv2.connectedComponents(seeds.astype(np.uint8), connectivity=8)
    seeded = np.bincount(parts.ravel(), weights=seeds.ravel()) > 0
    return np.asarray(np.where((small > 0) & ~seeded[parts], parts + count, centres), np.int32)


def _peaks(depth: NDArray[np.float32], dip: float) -> NDArray[np.bool_]:
    """[h, w] where no way of DIP_REACH_PX leads to anything deeper without passing what is shallower by ``dip``."""
    flooded = depth - np.float32(dip)
    for _ in range(DIP_REACH_PX // 2):
        flooded = np.minimum(cv2.dilate(flooded, np.ones((3, 3), np.uint8)), depth)
    return np.asarray(depth - flooded >= 0.999 * dip, np.bool_)


def _numbered(labels: NDArray[np.int32], smallest_px: int) -> NDArray[np.int32]:
    """Numbers 1..N in reading order of their first pixel, small objects dropped."""
    flat = labels.ravel()
    at = np.flatnonzero(flat)[::-1]  # backwards, so that the first pixel is written last and stays
    marked = flat[at]
    areas = np.bincount(marked, minlength=1)
    first = np.zeros(len(areas), np.int64)
    first[marked] = at
    kept = np.flatnonzero(areas >= max(smallest_px, 1))
    order = kept[np.argsort(first[kept])]
    numbers = np.zeros(len(areas), np.int32)
    numbers[order] = np.arange(1, len(order) + 1)
    return np.asarray(numbers[flat].reshape(labels.shape), np.int32)


OVERVIEW_PX = 448
"""Side of the view from which scale and kind of picture are judged."""
LEAST_TISSUE = 0.05
"""Below this probability of being stained tissue nothing in a picture is likelier than that. Pale fat gets about 0.1."""


LEARNED_MPP = (0.2, 2.5)
"""What the head for scale was trained on; beyond that it has seen nothing and would guess."""


MiniTile = TileFeatures[Features]


class MiniSegmenter(MiniTargets):
    """PathSegmentor ``mini``: encodes a tile once and answers every prompt on its own.

    Raises ModelUnavailableError when its weights are missing or corrupt.
    """

    tile_px = 1280
    margin_px = 160

    def __init__(self, weights: Path = MINI_WEIGHTS) -> None:
        self.weights_sha256 = weights_hash(weights) if weights.is_file() else ""
        MINI_FILE.require(weights, self.weights_sha256)
        network = load_mini(weights)
        self.presence_calibration, self.cuts = network.presence_calibration, network.cuts
        self.inference = Inference(network)
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
    tops, lefts = (sorted({0, (size - side) // 2, size - side}) for size in (height, width))
    corners = [(top, left) for top in tops for left in lefts]
    chosen = corners[:: max(1, len(corners) // 4)]
    return [overview[top : top + side, left : left + side] for top, left in chosen]
