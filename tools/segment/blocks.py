"""One block of a slide: read, encode, decode, write. Pure: everything it needs is in its order, everything it gives a file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tissuetalk.models import registry
from tissuetalk.models.errors import ImageChangedError
from tissuetalk.models.images import ImageSource, open_image
from tissuetalk.models.segmenter import RGB, Context, Prompt, Segmenter
from tissuetalk.tools.segment.grid import Block
from tissuetalk.tools.segment.maps import write_maps
from tissuetalk.tools.storage.features import FeatureCache


@dataclass(frozen=True)
class BlockSpec:
    """What to do, as plain values that travel between processes and machines.

    image: path of the slide. model: its name in the registry. context: the model's statistics of the whole slide.
    step: full-resolution pixels per working pixel. out: the file to write.
    """

    image: str
    image_name: str
    image_sha256: str
    model: str
    weights_sha256: str
    prompts: tuple[Prompt, ...]
    context: Context
    step: float
    block: Block
    out: str

    @property
    def feature_key(self) -> str:
        """Pixels, weights, scale and place: what a stored feature depends on."""
        tile = self.block.tile
        return f"{self.image_sha256} {self.weights_sha256} step {self.step!r} tile {tile.as_list()}"


@runtime_checkable
class BatchEncoder(Protocol):
    """A model that encodes several tiles of one size at once, each as if alone."""

    def encode_batch(self, tiles: Sequence[RGB], context: Context) -> list[Any]: ...


def run_block(spec: BlockSpec) -> str:
    """Do one block in whatever process this is and return the file written.

    The slide and the model stay open for the next block. Raises UnreadableImageError, ImageChangedError and
    ModelUnavailableError.
    """
    model = registry.load(spec.model)
    source = opened(spec.image, spec.image_name, spec.image_sha256)
    return compute([spec], [None], model, source, FeatureCache(memory_bytes=0))[0]


def read_tile(spec: BlockSpec, source: ImageSource) -> RGB:
    """[tile, tile, 3] at the model's scale; white outside the slide."""
    tile = spec.block.tile
    return source.read_grid(
        (tile.x0 * spec.step, spec.step),
        (tile.y0 * spec.step, spec.step),
        width=tile.width,
        height=tile.height,
    )


def compute(
    specs: Sequence[BlockSpec],
    tiles: Sequence[RGB | None],
    model: Segmenter,
    source: ImageSource,
    features: FeatureCache,
) -> list[str]:
    """Encode (several at once where the model can), decode and write. A tile that is None is read when it is needed."""
    encoded = _encode(specs, tiles, model, source, features)
    for spec, each in zip(specs, encoded, strict=True):
        out = Path(spec.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_maps(out, model.decode(each, spec.prompts))
    return [spec.out for spec in specs]


def _encode(
    specs: Sequence[BlockSpec],
    tiles: Sequence[RGB | None],
    model: Segmenter,
    source: ImageSource,
    features: FeatureCache,
) -> list[Any]:
    """Features of each block, from the cache where they are there."""
    fresh: dict[int, Any] = {}
    at = [index for index, tile in enumerate(tiles) if tile is not None]
    if isinstance(model, BatchEncoder) and len(at) > 1:
        pixels = [tile for tile in tiles if tile is not None]
        fresh = dict(zip(at, model.encode_batch(pixels, specs[0].context), strict=True))

    def made(index: int) -> Callable[[], Any]:
        def now() -> Any:
            if index in fresh:
                return fresh[index]
            tile = tiles[index]
            return model.encode(
                read_tile(specs[index], source) if tile is None else tile, specs[index].context
            )

        return now

    return [features.get(spec.feature_key, model, made(index)) for index, spec in enumerate(specs)]


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
        source = _open[path, sha256]
    source.verify_unchanged()
    return source
