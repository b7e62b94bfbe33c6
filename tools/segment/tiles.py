"""One block: read, encode, decode; what the model said about it, kept on disk or in memory; and the blend of all of them.

Half precision is kept either way: 11 bits of a logit. Blocks are added in the order of their place, so a blend has the
same bits whatever order they were made in, wherever they were kept, and however often the work was interrupted.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models import registry
from tissuetalk.models.by_example import with_examples
from tissuetalk.models.errors import ImageChangedError, ModelUnavailableError, UnreadableImageError
from tissuetalk.models.images import Box, ImageSource, open_image
from tissuetalk.models.looks import brought_back, mean_of, mirrored
from tissuetalk.models.segmenter import RGB, Blends, Context, Decoded, Prompt, Segmenter, encoder_of
from tissuetalk.models.writing import write_whole
from tissuetalk.tools.segment.grid import Block
from tissuetalk.tools.storage.features import FeatureCache
from tissuetalk.tools.storage.targets import read_learned

BACKGROUND_LOGIT = -10.0
"""Where no block was worked on."""
_MAGIC = b"TTMAPS01"
_LEVEL = 1
_LEAST_PROBABILITY = 1e-6
"""Of a pixel, where probabilities are averaged: its logit stays finite."""
_CERTAIN = 30.0
"""A logit beyond which nothing is more probable, and the exponential would overflow."""
_LARGEST = 60_000
"""Half precision ends at 65504."""


@dataclass(frozen=True)
class ImageTask:
    """The image and the question, as plain values that travel between processes and machines.

    image: path of the slide. model: its name in the registry. context: the model's statistics of the whole image.
    step: full-resolution pixels per working pixel. looks: for each prompt, how many mirror images its answer is the mean of.
    learned: files of the learned targets that the model also knows. encoder: what computes features, where not torch.
    """

    image: str
    image_name: str
    image_sha256: str
    model: str
    weights_sha256: str
    prompts: tuple[Prompt, ...]
    context: Context
    step: float
    looks: tuple[int, ...]
    learned: tuple[str, ...] = ()
    encoder: str = ""

    @property
    def loaded(self) -> Segmenter:
        """The model in this process. Raises ModelUnavailableError, and InvalidArgumentError for what was taught on other weights."""
        model = _with_learned(self.model, self.learned) if self.learned else registry.load(self.model)
        if (here := encoder_of(model)) != self.encoder:
            raise ModelUnavailableError(
                f"features are computed by {here or 'torch'} here and by {self.encoder or 'torch'} where the work began; set "
                "TISSUETALK_ENCODER alike on all machines."
            )
        return model


@dataclass(frozen=True)
class BlockSpec:
    """One block of a task. out: the file to write."""

    task: ImageTask
    block: Block
    out: str = ""

    def feature_key(self, look: int = 0) -> str:
        """Pixels, weights, scale, place, side looked from and encoder: what a stored feature depends on."""
        task, tile = self.task, self.block.tile
        side = f" mirror {look}" if look else ""
        side += f" by {task.encoder}" if task.encoder else ""
        return f"{task.image_sha256} {task.weights_sha256} step {task.step!r} tile {tile.as_list()}{side}"


@runtime_checkable
class BatchEncoder(Protocol):
    """A model that encodes several tiles of one size at once, each as if alone."""

    def encode_batch(self, tiles: Sequence[RGB], context: Context) -> list[Any]: ...


class TileMaps(Protocol):
    """What the model said about one tile. presence[i]: logit of prompt i, or None."""

    @property
    def presence(self) -> Sequence[float | None]: ...

    def arrays(self, prompt: int, at: tuple[slice, slice]) -> NDArray[np.float16]:
        """[1 + K, h, w] of the rows and columns ``at``: logits, then object maps."""
        ...


@dataclass(frozen=True)
class HeldMaps:
    """In memory."""

    presence: tuple[float | None, ...]
    maps: tuple[NDArray[np.float16], ...]

    @classmethod
    def of(cls, answers: Sequence[Decoded]) -> HeldMaps:
        return cls(tuple(answer.presence for answer in answers), tuple(map(_halved, answers)))

    def arrays(self, prompt: int, at: tuple[slice, slice]) -> NDArray[np.float16]:
        return self.maps[prompt][(slice(None), *at)]


@dataclass(frozen=True)
class PackedMaps:
    """As they lie on the disk; they stay packed until asked for."""

    presence: tuple[float | None, ...]
    shape: tuple[int, int]
    channels: tuple[int, ...]
    packed: tuple[bytes, ...]

    def arrays(self, prompt: int, at: tuple[slice, slice]) -> NDArray[np.float16]:
        raw = np.frombuffer(imagecodecs.zstd_decode(self.packed[prompt]), np.uint8)
        # high and low bytes lie apart: they pack better
        low, high = raw.reshape(2, self.channels[prompt], *self.shape)[(slice(None), slice(None), *at)]
        joined: NDArray[np.uint16] = high.astype(np.uint16)
        joined <<= 8
        joined |= low
        return joined.view(np.float16)


def run_block(spec: BlockSpec) -> str:
    """Do one block in whatever process this is and return the file written.

    The slide and the model stay open for the next block. Raises UnreadableImageError, ImageChangedError and
    ModelUnavailableError.
    """
    task = spec.task
    source = opened(task.image, task.image_name, task.image_sha256)
    (answers,) = answers_of([spec], [None], task.loaded, source, FeatureCache(memory_bytes=0))
    write_maps(Path(spec.out), answers)
    return spec.out


def read_tile(spec: BlockSpec, source: ImageSource) -> RGB:
    """[h, w, 3] of the block's tile at the model's scale."""
    tile, step = spec.block.tile, spec.task.step
    return source.read_grid(
        (tile.x0 * step, step), (tile.y0 * step, step), width=tile.width, height=tile.height
    )


def answers_of(
    specs: Sequence[BlockSpec],
    tiles: Sequence[RGB | None],
    model: Segmenter,
    source: ImageSource,
    features: FeatureCache,
) -> list[list[Decoded]]:
    """One answer per block and prompt: encoded several at once where the model can, features from the cache where they are
    there. A tile that is None is read when it is needed."""
    prompts, looks = specs[0].task.prompts, specs[0].task.looks
    pixels = [_Pixels(spec, tile, source) for spec, tile in zip(specs, tiles, strict=True)]
    answers: list[list[list[Decoded]]] = [[[] for _ in prompts] for _ in specs]
    for look in range(max(looks)):
        asked = [index for index, most in enumerate(looks) if look < most]
        seen = _features(specs, pixels, look, model, features)
        for of_block, encoded in zip(answers, seen, strict=True):
            decoded = model.decode(encoded, [prompts[index] for index in asked])
            for index, answer in zip(asked, decoded, strict=True):
                of_block[index].append(brought_back(answer, look))
    return [[mean_of(of_prompt) for of_prompt in of_block] for of_block in answers]


@dataclass
class _Pixels:
    """The tile of a block, read once and only when it is needed."""

    spec: BlockSpec
    tile: RGB | None
    source: ImageSource

    def seen(self, look: int) -> RGB:
        if self.tile is None:
            self.tile = read_tile(self.spec, self.source)
        return mirrored(self.tile, look)


def _features(
    specs: Sequence[BlockSpec],
    pixels: Sequence[_Pixels],
    look: int,
    model: Segmenter,
    features: FeatureCache,
) -> list[Any]:
    """Of every block under one look: from the cache, or encoded, several at once where the model can."""
    context = specs[0].task.context
    fresh: dict[int, Any] = {}
    at = [index for index, each in enumerate(pixels) if each.tile is not None]
    if isinstance(model, BatchEncoder) and len(at) > 1:
        batch = model.encode_batch([pixels[index].seen(look) for index in at], context)
        fresh = dict(zip(at, batch, strict=True))

    def made(index: int) -> Callable[[], Any]:
        return lambda: fresh[index] if index in fresh else model.encode(pixels[index].seen(look), context)

    return [features.get(spec.feature_key(look), model, made(index)) for index, spec in enumerate(specs)]


@lru_cache(maxsize=2)
def _with_learned(model: str, files: tuple[str, ...]) -> Segmenter:
    return with_examples(registry.load(model), [read_learned(Path(file)) for file in files])


_MOST_OPEN = 2
"""Slides that one process of a cluster keeps open: the one it works on, and the one before while its last work ends."""
_open: dict[tuple[str, str], ImageSource] = {}
_opening = threading.Lock()


def opened(path: str, name: str, sha256: str) -> ImageSource:
    """The slide, opened once per process. Raises ImageChangedError when it is not the one the work is about."""
    with _opening:
        if (path, sha256) not in _open:
            source = open_image(Path(path), name=name)
            if source.sha256 != sha256:
                source.close()
                raise ImageChangedError(f"{name} is not the file the work began with; segment it again.")
            _open[path, sha256] = source
            while len(_open) > _MOST_OPEN:
                _open.pop(next(iter(_open))).close()
        source = _open[path, sha256]
    source.verify_unchanged()
    return source


def _halved(answer: Decoded) -> NDArray[np.float16]:
    """[1 + K, h, w]: logits, then object maps."""
    maps = [answer.logits, *([] if answer.object_maps is None else answer.object_maps)]
    halved = np.empty((len(maps), *answer.logits.shape), np.float16)
    for into, each in zip(halved, maps, strict=True):
        into[...] = np.clip(each, -_LARGEST, _LARGEST)
    return halved


def write_maps(path: Path, answers: Sequence[Decoded]) -> None:
    """Write all of it or nothing."""
    packed, channels, presence = [], [], []
    for answer in answers:
        stacked = _halved(answer)
        bytes_apart = np.ascontiguousarray(stacked.reshape(-1, 1).view(np.uint8).T)
        packed.append(imagecodecs.zstd_encode(bytes_apart.tobytes(), level=_LEVEL))
        channels.append(len(stacked))
        presence.append(None if answer.presence is None else float(answer.presence))
    head = json.dumps(
        {
            "shape": list(answers[0].logits.shape),
            "channels": channels,
            "presence": presence,
            "bytes": [len(each) for each in packed],
        }
    ).encode()
    write_whole(path, b"".join([_MAGIC, struct.pack("<I", len(head)), head, *packed]))


def read_maps(path: Path) -> PackedMaps:
    """Raises UnreadableImageError for a file that is not what ``write_maps`` wrote."""
    stored = path.read_bytes()
    if stored[:8] != _MAGIC:
        raise UnreadableImageError(
            f"{path.name} in the unfinished work is damaged; remove that folder and start again."
        )
    (length,) = struct.unpack("<I", stored[8:12])
    head = json.loads(stored[12 : 12 + length])
    packed, at = [], 12 + length
    for count in head["bytes"]:
        packed.append(stored[at : at + count])
        at += count
    height, width = head["shape"]
    return PackedMaps(tuple(head["presence"]), (height, width), tuple(head["channels"]), tuple(packed))


def blend(
    view: Box,
    blocks: Sequence[Block],
    read: Callable[[Block], TileMaps],
    prompt: int,
    blends: Blends = "logits",
) -> tuple[Decoded, NDArray[np.bool_]] | None:
    """The weighted mean of all tiles over ``view`` (working pixels), and where there was any; None if nowhere.

    presence is the highest any of the tiles saw. blends: what the mean is of; logits are given back either way.
    """
    sums: NDArray[np.float32] | None = None
    weights = np.zeros((view.height, view.width), np.float32)
    presence: float | None = None
    for block in sorted(blocks, key=lambda each: (each.row, each.column)):
        shared = block.tile.intersection(view)
        if shared is None:
            continue
        shared = block.heard.intersection(view) or shared
        maps = read(block)
        from_tile, to_view = shared.inside(block.tile), shared.inside(view)
        answer = maps.arrays(prompt, from_tile).astype(np.float32)
        if blends == "probabilities":
            answer[0] = 1 / (1 + np.exp(-answer[0].clip(-_CERTAIN, _CERTAIN)))
        weight = _weights(block.tile.width, block.tile.height, block.margin, block.beside)[from_tile]
        if sums is None:
            sums = np.zeros((len(answer), view.height, view.width), np.float32)
        answer *= weight
        sums[(slice(None), *to_view)] += answer
        weights[to_view] += weight
        here = maps.presence[prompt]
        if here is not None:
            presence = here if presence is None else max(presence, here)
    if sums is None:
        return None
    covered = weights > 0
    weights[~covered] = 1
    sums /= weights
    if blends == "probabilities":
        sure = np.clip(sums[0], _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
        sums[0] = np.log(sure / (1 - sure))
    sums[0][~covered] = BACKGROUND_LOGIT
    return Decoded(sums[0], presence, sums[1:] if len(sums) > 1 else None), covered


@lru_cache(maxsize=12)
def _weights(
    width: int, height: int, margin: int, beside: tuple[bool, bool, bool, bool]
) -> NDArray[np.float32]:
    """[h, w] of a tile: 1 inside, falling linearly around the border to a neighbour, 0 in the outer half of the margin.

    There the model saw least of what lies around. Where no neighbour is, the tile has the last word.
    """
    left, top, right, bottom = beside
    return np.outer(_profile(height, margin, top, bottom), _profile(width, margin, left, right)).astype(
        np.float32
    )


def _profile(length: int, margin: int, before: bool, after: bool) -> NDArray[np.float32]:
    blind = margin // 2
    slope_px = np.float32(max(2 * (margin - blind), 1))
    places = np.arange(length, dtype=np.float32) + 0.5
    profile = np.ones(length, np.float32)
    if before and margin:
        profile = np.minimum(profile, np.clip((places - blind) / slope_px, 0, 1))
    if after and margin:
        profile = np.minimum(profile, np.clip((places[::-1] - blind) / slope_px, 0, 1))
    return profile
