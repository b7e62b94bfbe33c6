"""What the model said about one block, on disk; and the blend of overlapping blocks.

Half precision is kept: 11 bits of a logit. Blocks are added in the order of their place, so a blend has the same bits
whatever order they were made in, and however often the work was interrupted.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import UnreadableImageError
from tissuetalk.models.images import Box
from tissuetalk.models.segmenter import Decoded
from tissuetalk.tools.segment.grid import Block, inside, intersection

BACKGROUND_LOGIT = -10.0
"""Where no block was worked on."""
_MAGIC = b"TTMAPS01"
_LEVEL = 1


@dataclass(frozen=True)
class BlockMaps:
    """presence[i]: logit of prompt i in this tile, or None. Arrays stay packed until asked for."""

    presence: tuple[float | None, ...]
    shape: tuple[int, int]
    channels: tuple[int, ...]
    packed: tuple[bytes, ...]

    def arrays(self, prompt: int, at: tuple[slice, slice]) -> NDArray[np.float16]:
        """[1 + K, h, w] of the rows and columns ``at``: logits, then object maps."""
        raw = np.frombuffer(imagecodecs.zstd_decode(self.packed[prompt]), np.uint8)
        low, high = raw.reshape(2, self.channels[prompt], *self.shape)[(slice(None), slice(None), *at)]
        joined: NDArray[np.uint16] = high.astype(np.uint16) << 8 | low
        return joined.view(np.float16)


def write_maps(path: Path, answers: Sequence[Decoded]) -> None:
    """Write all of it or nothing."""
    packed, channels, presence = [], [], []
    for answer in answers:
        extra = [] if answer.object_maps is None else list(answer.object_maps)
        stacked = np.clip(np.stack([answer.logits, *extra]), -60000, 60000).astype(np.float16)
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
    write_file(path, b"".join([_MAGIC, struct.pack("<I", len(head)), head, *packed]))


def read_maps(path: Path) -> BlockMaps:
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
    return BlockMaps(tuple(head["presence"]), (height, width), tuple(head["channels"]), tuple(packed))


def write_file(path: Path, content: bytes) -> None:
    """Readers, and whoever goes on after a kill, see the whole file or none."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)


def blend(
    view: Box, blocks: Sequence[Block], read: Callable[[Block], BlockMaps], prompt: int
) -> tuple[Decoded, NDArray[np.bool_]] | None:
    """The weighted mean of all tiles over ``view`` (working pixels), and where there was any; None if nowhere.

    presence is the highest any of the tiles saw.
    """
    sums: NDArray[np.float32] | None = None
    weights = np.zeros((view.height, view.width), np.float32)
    presence: float | None = None
    for block in sorted(blocks, key=lambda each: (each.row, each.column)):
        shared = intersection(block.tile, view)
        if shared is None:
            continue
        maps = read(block)
        from_tile, to_view = inside(shared, block.tile), inside(shared, view)
        answer = maps.arrays(prompt, from_tile).astype(np.float32)
        weight = _weights(block.side, block.margin)[from_tile]
        if sums is None:
            sums = np.zeros((len(answer), view.height, view.width), np.float32)
        sums[(slice(None), *to_view)] += answer * weight
        weights[to_view] += weight
        here = maps.presence[prompt]
        if here is not None:
            presence = here if presence is None else max(presence, here)
    if sums is None:
        return None
    covered = weights > 0
    np.divide(sums, weights, out=sums, where=covered)
    sums[0][~covered] = BACKGROUND_LOGIT
    return Decoded(sums[0], presence, sums[1:] if len(sums) > 1 else None), covered


@lru_cache(maxsize=8)
def _weights(side: int, margin: int) -> NDArray[np.float32]:
    """[tile, tile]: 1 inside, falling linearly around the border between blocks, 0 in the outer half of the margin.

    There the model saw least of what lies around.
    """
    blind = margin // 2
    slope_px = 2 * (margin - blind)
    places = np.arange(side + 2 * margin, dtype=np.float32) + 0.5
    from_edge = np.minimum(places, places[::-1]) - np.float32(blind)
    profile = np.clip(from_edge / np.float32(max(slope_px, 1)), 0, 1) if margin else np.ones_like(places)
    return np.outer(profile, profile).astype(np.float32)
