"""What every segmentation model offers, whatever is inside it.

The order of calls for one image, one model and any number of prompts:

    context  = model.prepare(overview)          once per image: statistics that must not depend on tiles
    features = model.encode(tile, context)      once per tile and scale: shared by all prompts
    decoded  = model.decode(features, prompts)  once per tile: one answer per prompt, independent of each other
    finished = model.finish(stitched, ...)      once per prompt, on the blended maps of all tiles

This module imports no deep-learning library, so that a server can list its models before it loads one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import source

RGB = source.RGB
"""[H, W, 3] pixels, 0..255: what every model is shown."""
BoxXYXY = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the image, half-open."""
PointXY = tuple[float, float]
"""x, y in pixels of the image."""
Blends = Literal["logits", "probabilities"]
TAUGHT = "taught:"
"""Before the SHA-256 of a learned target, as the concept of the prompt that means it."""


@dataclass(frozen=True)
class Prompt:
    """One thing to look for, in the forms different models want it.

    label: canonical ``region-structure-object``, or None when the taxonomy has no such object.
    words: what was said, verbatim or as resolved; a loosely fitting label never hides it.
    concept: id of the one concept that the words name as a whole, decided by the readers of words; None when any word
    belongs to something else. Models know concepts, never English.
    text:  the sentence a text-prompted model is given.
    verbatim: the model reads ``text`` as it stands; otherwise it may fall back on ``words`` where the two differ.
    relation: how the object lies to another, as operation and words, for a ``SituatedSegmenter``; others are never told.
    at_place: a point or box comes with it, for a ``SituatedSegmenter``.
    """

    label: str | None
    words: str
    text: str
    verbatim: bool = False
    concept: str | None = None
    relation: tuple[str, str] | None = None
    at_place: bool = False


@dataclass(frozen=True)
class Capability:
    """How a model would answer a prompt.

    target: the model's own name for it (``nuclei``, ``colon glands``), as in its model card.
    mpp: µm per pixel at which the model wants tiles for this target.
    objects: whether separate objects come back (nuclei, glands) or only a region.
    least_px: area at that scale below which an object is a speck, far smaller than what the model was trained on.
    present_from: calibrated presence below which nothing is painted (the model card reports the curve).
    looks: how many views of a tile (itself, then its mirror images) the answer is the mean of; see ``models/looks.py``.
    blends: what of overlapping tiles is averaged.
    """

    target: str
    mpp: float
    objects: bool
    least_px: int = 0
    present_from: float = 0.5
    looks: int = 1
    blends: Blends = "logits"


@dataclass(frozen=True)
class Context:
    """Statistics of the whole image, computed once so that no result depends on how it was tiled."""

    values: Mapping[str, Any]


@dataclass(frozen=True)
class Decoded:
    """A model's answer to one prompt on one tile, before tiles are blended.

    logits: [H, W] float32 at the tile's own size; > 0 is foreground.
    presence: logit that the target is in the tile at all, or None when the model has no such head.
    object_maps: [K, H, W] float32 that ``finish`` splits objects with (boundary, distance...), or None.
    """

    logits: NDArray[np.float32]
    presence: float | None = None
    object_maps: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Finished:
    """The mask of one prompt at the scale the model worked at.

    mask: [H, W] bool. instances: [H, W] int32, 0 background and 1..N objects, or None for a region.
    presence: 0..1, the probability that the target is there at all.
    """

    mask: NDArray[np.bool_]
    instances: NDArray[np.int32] | None
    presence: float


@dataclass(frozen=True)
class FeatureMap:
    """values: [C, ceil(H / stride), ceil(W / stride)] float32 or larger of a tile [H, W]; a pixel of it covers ``stride`` of the tile's.

    weight: how much it counts beside the others; what the model answers to its own prompts says more than one map.
    """

    values: NDArray[np.float32]
    stride: float
    weight: float = 1.0


@runtime_checkable
class FrozenFeatures(Protocol):
    """A model that also shows what it saw, so that targets can be taught by example (``models/by_example``)."""

    def encode_with_maps(self, tile: RGB, context: Context) -> tuple[Any, list[FeatureMap]]:
        """What ``encode`` gives, and maps of the same pass at any strides. They depend on the tile's pixels alone."""
        ...


@dataclass(frozen=True)
class ModelCard:
    """May I use this model, and on what? The registry lists cards without loading anything."""

    name: str
    summary: str
    licence: str
    research_only: bool
    targets: tuple[str, ...]
    mpp: tuple[float, ...]
    prompts: Literal["text", "text with boxes and points", "boxes and points", "fixed"]
    source: str
    metrics: Mapping[str, str]
    limits: str


class Repertoire(Protocol):
    """What a model can be asked for. Answered from its card and its words: no weights, no deep-learning library."""

    @property
    def card(self) -> ModelCard: ...

    def capability(self, prompt: Prompt) -> Capability | None:
        """How the prompt would be answered, or None when the model was never made for it."""
        ...

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        """The targets this model does know that are closest to the prompt, best first."""
        ...


class Segmenter(Repertoire, Protocol):
    """A loaded model. It keeps nothing about any image: two callers must never mix two patients."""

    weights_sha256: str
    """Hash of the weight file; for a model without weights, of the version of its rules."""
    tile_px: int
    """Preferred tile side, at the scale of the target."""
    margin_px: int
    """Context a pixel needs on every side before its answer stops depending on the tile."""

    def sent(self, prompt: Prompt) -> str:
        """The words that reach the network, which the record of a mask keeps; empty for a model that reads none."""
        ...

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        """µm per full-resolution pixel to go on with when nobody knows it.

        reduction: full-resolution pixels per pixel of the overview.
        """
        ...

    def prepare(self, overview: RGB) -> Context:
        """Statistics of the image from a view of all of it (longest side about 1024 px)."""
        ...

    def encode(self, tile: RGB, context: Context) -> Any:
        """Features of one tile [H, W, 3]: opaque, shared by all prompts of the same scale."""
        ...

    def decode(self, features: Any, prompts: Sequence[Prompt]) -> list[Decoded]:
        """One answer per prompt. No prompt influences another's answer."""
        ...

    def finish(self, stitched: Decoded, prompt: Prompt, context: Context) -> Finished:
        """Threshold and split the blended maps of the whole region."""
        ...


def encoder_of(model: Segmenter) -> str:
    """What computes its features where that is not torch, as records and stored features name it; else empty."""
    return str(getattr(model, "encoder", ""))


class PromptableSegmenter(Segmenter, Protocol):
    """A loaded model that is told where to look instead of what to look for.

    It is a ``Segmenter`` in name, scale and refusals: any words are accepted as the name of what is in the box, and
    ``decode`` without a place raises InvalidArgumentError.
    """

    side_px: int
    """Images are brought to this side before encoding: small objects need crops of about this size."""
    takes_points: bool

    def encode(self, tile: RGB, context: Context | None = None) -> Any:
        """Features of one image [H, W, 3], shared by all its prompts."""
        ...

    def from_boxes(self, features: Any, boxes_xyxy: Sequence[BoxXYXY]) -> Iterator[NDArray[np.bool_]]:
        """One full-size [H, W] mask per box, in order, a few at a time. No box influences another's mask."""
        ...

    def from_points(self, features: Any, points_xy: Sequence[PointXY]) -> Iterator[NDArray[np.bool_]]:
        """One full-size [H, W] mask per point, each of the object under it.

        Raises InvalidArgumentError where the model was made for boxes only.
        """
        ...

    def needs_places(self) -> InvalidArgumentError:
        """What to tell a caller who gave no place, or one of a kind the model was not made for."""
        ...

    def segment_boxes(self, image: RGB, boxes_xyxy: Sequence[BoxXYXY]) -> Iterator[NDArray[np.bool_]]:
        """Encode an image [H, W, 3] and prompt it in one call."""
        ...


class SituatedSegmenter(Segmenter, Protocol):
    """A loaded model whose network is told words and a place together, and how one object lies to another."""

    reads_sentences: bool
    """Whether the caller's own sentence is what it is asked with; otherwise what was understood of it."""
    takes_boxes: bool
    """Whether it was trained with boxes as well as with points."""

    def answers(self, prompt: Prompt) -> bool:
        """Whether the network was made for the request as it stands, relation and place included."""
        ...

    def answer_at(
        self, tile: RGB, prompt: Prompt, *, point: PointXY | None = None, box: BoxXYXY | None = None
    ) -> Decoded:
        """The answer to a prompt ``at_place`` on one tile [H, W, 3], with a point or a box in its pixels."""
        ...


def is_situated(model: Repertoire) -> TypeGuard[SituatedSegmenter]:
    """Whether the network takes words and places in one request."""
    return model.card.prompts == "text with boxes and points"


def is_pointed(model: Segmenter) -> TypeGuard[PromptableSegmenter]:
    """Whether the model must be told where to look."""
    return model.card.prompts == "boxes and points"
