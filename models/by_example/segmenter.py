"""A model that also knows what it was shown: the same calls, the same pass, more names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.by_example.features import SeenTile, fine_colour, maps_of
from tissuetalk.models.by_example.head import LinearHead
from tissuetalk.models.by_example.learned import Learned
from tissuetalk.models.by_example.objects import NUCLEI, nuclei_of, read_objects, sorted_out
from tissuetalk.models.by_example.prior import grounded
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.masks.characteristics import without_specks
from tissuetalk.models.segmenter import (
    RGB,
    TAUGHT,
    Capability,
    Context,
    Decoded,
    Finished,
    Prompt,
    Segmenter,
    encoder_of,
)

STRONGEST_PX = 200
Floats = NDArray[np.float32]


def prompt_for(learned: Learned) -> Prompt:
    """The prompt that means exactly this learned target."""
    return Prompt(None, learned.name, learned.name, verbatim=True, concept=TAUGHT + learned.sha256)


@dataclass(frozen=True)
class TaughtTile:
    """What every learned target says about one tile. base: the base's features where they are there already."""

    tile: RGB
    context: Context
    base: Any
    answers: tuple[Decoded, ...]


class TaughtSegmenter:
    """The base model with learned targets beside its own."""

    def __init__(self, base: Segmenter, learned: Sequence[Learned]) -> None:
        self._base = base
        self._learned = {each.sha256: each for each in learned}
        whole = hashlib.sha256(base.weights_sha256.encode())
        for each in learned:
            whole.update(each.sha256.encode())
        self.weights_sha256 = whole.hexdigest()
        self.card = replace(
            base.card,
            name=f"{base.card.name}+examples",
            targets=(*base.card.targets, *(each.name for each in learned)),
        )
        self.tile_px, self.margin_px = base.tile_px, base.margin_px
        self.encoder = encoder_of(base)

    def _meant(self, prompt: Prompt) -> Learned | None:
        """By its own concept; by name only what the base does not know."""
        if prompt.concept is not None and prompt.concept.startswith(TAUGHT):
            return self._learned.get(prompt.concept.removeprefix(TAUGHT))
        if self._base.capability(prompt) is not None:
            return None
        asked = prompt.words.strip().casefold()
        return next((each for each in self._learned.values() if each.name.casefold() == asked), None)

    def capability(self, prompt: Prompt) -> Capability | None:
        learned = self._meant(prompt)
        if learned is None:
            return self._base.capability(prompt)
        own = None if learned.like is None else self._base.capability(learned.like)
        if own is None or not learned.rules["answer_present"]:
            return Capability(learned.name, learned.mpp, learned.kind == "object")
        return replace(own, target=learned.name, mpp=learned.mpp, objects=learned.kind == "object")

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return self._base.nearest(prompt, limit)

    def sent(self, prompt: Prompt) -> str:
        """A learned target reads no words."""
        return "" if self._meant(prompt) is not None else self._base.sent(prompt)

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        return self._base.assume_mpp(overview, reduction)

    def prepare(self, overview: RGB) -> Context:
        return self._base.prepare(overview)

    def encode(self, tile: RGB, context: Context) -> TaughtTile:
        """Maps that several learned targets read are made once; the base's own features only where it is asked."""
        seen: dict[tuple[tuple[int, ...], int], SeenTile] = {}
        answers = []
        for learned in self._learned.values():
            reads = learned.reductions, learned.finest
            if reads not in seen:
                seen[reads] = maps_of(self._base, tile, context, *reads)
            if learned.like is not None:
                answers.append(self._read_grounded(learned, learned.like, seen[reads], tile, context))
            elif learned.objects_of is None:
                answers.append(_read(learned, seen[reads], tile))
            else:
                answers.append(self._read_objects(learned, seen[reads], tile, context))
        ready = next((each.base for each in seen.values() if each.base is not None), None)
        return TaughtTile(tile, context, ready, tuple(answers))

    def _read_grounded(
        self, learned: Learned, like: Prompt, seen: SeenTile, tile: RGB, context: Context
    ) -> Decoded:
        base = self._base.encode(tile, context) if seen.base is None else seen.base
        (answer,) = self._base.decode(base, [like])
        return grounded(answer, learned.rules, _read(learned, seen, tile).logits)

    def _read_objects(self, learned: Learned, seen: SeenTile, tile: RGB, context: Context) -> Decoded:
        base = self._base.encode(tile, context) if seen.base is None else seen.base
        (nuclei,) = self._base.decode(base, [NUCLEI])
        return read_objects(learned.arrays, seen, nuclei, tile.shape[0], tile.shape[1])

    def decode(self, features: TaughtTile, prompts: Sequence[Prompt]) -> list[Decoded]:
        meant = [self._meant(prompt) for prompt in prompts]
        own = [prompt for prompt, learned in zip(prompts, meant, strict=True) if learned is None]
        answers: Iterator[Decoded] = iter(())
        if own:
            base = features.base
            if base is None:
                base = self._base.encode(features.tile, features.context)
            answers = iter(self._base.decode(base, own))
        order = list(self._learned)
        return [
            next(answers) if learned is None else features.answers[order.index(learned.sha256)]
            for learned in meant
        ]

    def finish(self, stitched: Decoded, prompt: Prompt, context: Context) -> Finished:
        learned = self._meant(prompt)
        if learned is None:
            return self._base.finish(stitched, prompt, context)
        if learned.objects_of is not None:
            return self._finish_objects(learned, stitched, context)
        logits = stitched.logits.ravel()
        count = min(STRONGEST_PX, logits.size)
        strongest = float(np.partition(logits, logits.size - count)[-count:].mean())
        presence = float(1 / (1 + np.exp(-np.clip(strongest, -30, 30))))
        if learned.like is None:
            return finished(learned, stitched, presence)
        own = self._base.finish(stitched, learned.like, context)
        if learned.rules["answer_present"]:
            # a cut that examples moved says where the target ends, not whether it is there
            unmoved = Decoded(stitched.logits - np.float32(learned.rules["answer_shift"]), stitched.presence)
            presence = self._base.finish(unmoved, learned.like, context).presence
        instances = None if learned.kind == "region" else own.instances
        if learned.kind == "object" and instances is None:
            instances = _parts(own.mask)
        return Finished(own.mask, instances, presence)

    def _finish_objects(self, learned: Learned, stitched: Decoded, context: Context) -> Finished:
        if stitched.object_maps is None:  # only presence is asked for
            return self._base.finish(stitched, NUCLEI, context)
        nuclei, inside, around = nuclei_of(stitched)
        shape = LinearHead.from_arrays("shape", learned.arrays)
        return sorted_out(self._base.finish(nuclei, NUCLEI, context), inside, around, shape)


def with_examples(model: Segmenter, learned: Sequence[Learned]) -> Segmenter:
    """The model, and beside its own targets the learned ones. Raises InvalidArgumentError where one was taught on other weights."""
    for each in learned:
        if each.base_sha256 != model.weights_sha256:
            raise InvalidArgumentError(
                f"“{each.name}” was taught on other weights (of {each.base}) than those of {model.card.name} here; teach it again."
            )
        if each.like is not None and model.capability(each.like) is None:
            raise InvalidArgumentError(
                f"“{each.name}” goes by what {each.base} answers to words that it does not know; teach it again."
            )
    return TaughtSegmenter(model, learned)


def _read(learned: Learned, seen: SeenTile, tile: RGB) -> Decoded:
    """Logits of one learned target; of something white its outline, and what the surroundings say as a second map."""
    height, width = tile.shape[:2]
    around = LinearHead.from_arrays("head", learned.arrays).read(seen.maps, height, width)
    if "fine.weights" not in learned.arrays:
        return Decoded(around)
    outline = LinearHead.from_arrays("fine", learned.arrays).read(fine_colour(tile), height, width)
    return Decoded(outline, object_maps=around[None])


def finished(learned: Learned, stitched: Decoded, presence: float) -> Finished:
    """The mask without specks and pinholes, and its objects where the target has them."""
    mask = stitched.logits > 0
    if stitched.object_maps is not None and "reject_below" in learned.rules:
        mask = _of_one_kind(mask, stitched.object_maps[0], learned.rules["reject_below"])
    mask = without_specks(mask, learned.rules["smallest_px"], learned.rules["hole_px"])
    instances = None
    if learned.kind == "object":
        instances = _parts(mask)
    return Finished(mask, instances, presence)


def _parts(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    return np.asarray(cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[1], np.int32)


def _of_one_kind(mask: NDArray[np.bool_], around: Floats, reject_below: float) -> NDArray[np.bool_]:
    """Parts that hang together by more than a thread, where the surroundings agree on average."""
    opened = cv2.morphologyEx(
        mask.astype(np.uint8), cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    )
    count, labels = cv2.connectedComponents(opened, connectivity=4)
    flat = labels.ravel()
    mean = np.bincount(flat, around.ravel(), count) / np.maximum(np.bincount(flat, minlength=count), 1)
    kept = mean > reject_below
    kept[0] = False
    return np.asarray(kept[labels], np.bool_)
