"""Loaded slide classifiers and what they say about a bag of patches: one that weighs patches, one that reads objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tissuetalk.models.classifiers.activation_maps import ObjectMap, object_map
from tissuetalk.models.classifiers.bags import ObjectMask, PatchBag, SourceBag
from tissuetalk.models.classifiers.card import (
    ClassifierCard,
    ClassifierFile,
    Kind,
    find_classifier,
    read_card,
    read_classifier_file,
    save_classifier,
)
from tissuetalk.models.classifiers.encoder import PatchEncoder, encode_bag, load_encoder
from tissuetalk.models.classifiers.networks import (
    AttentionMIL,
    MilConfig,
    ObjectAwareConfig,
    ObjectAwareModel,
)
from tissuetalk.models.classifiers.objects import OTHER, ObjectBag, read_objects
from tissuetalk.models.classifiers.patches import patch_boxes, patch_side_px, require_patches
from tissuetalk.models.control import Control
from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.models.images import Box, ImageSource

Floats = NDArray[np.float64]
Network = TypeVar("Network", AttentionMIL, ObjectAwareModel)


@dataclass(frozen=True)
class LoadedClassifier(Generic[Network]):
    """A card, its network, and the encoder whose features the network reads."""

    card: ClassifierCard
    model: Network
    encoder: PatchEncoder


class Classifier(LoadedClassifier[AttentionMIL]):
    """The standard model: attention over patches."""


class ObjectClassifier(LoadedClassifier[ObjectAwareModel]):
    """The object-aware model."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """The objects that have to be segmented before this classifier can be asked."""
        return tuple(name for name in self.model.config.objects if name != OTHER)


@dataclass(frozen=True)
class Prediction:
    """What a standard classifier says about one bag.

    probabilities: one per class. label: number of the likeliest. attention: [N], sums to 1.
    contributions: [N, C], what each patch adds to each logit. vectors: [N, d] patch features, to be used again.
    """

    probabilities: tuple[float, ...]
    label: int
    attention: Floats
    contributions: Floats
    vectors: Tensor


@dataclass(frozen=True)
class ObjectPrediction:
    """What an object-aware classifier says about one bag, and what in it says so.

    label: number of the likeliest class. shares: for that class, or for the one that was asked about. patches: what was read.
    pooled: object features, to be used again. ignored: masks of objects that the classifier does not know; they count as other.
    """

    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    label: int
    shares: ObjectMap
    patches: PatchBag
    pooled: ObjectBag
    ignored: tuple[str, ...]


def predict_vectors(model: AttentionMIL, vectors: Tensor) -> Prediction:
    """From patch features [N, d]."""
    with torch.inference_mode():
        logits, attention = model.attend(vectors)
        shares = torch.softmax(logits.double(), 0)
        told, label = tuple(shares.tolist()), int(shares.argmax())
        added = model.contributions(vectors).double().numpy()
        return Prediction(told, label, attention.double().numpy(), added, vectors)


def predict_bag(classifier: Classifier, bag: PatchBag, control: Control = Control()) -> Prediction:
    """Encode every patch once and classify. Raises CancelledError."""
    vectors = encode_bag(classifier.encoder, bag, classifier.card.feature, control)
    return predict_vectors(classifier.model, vectors)


def predict_objects(
    classifier: ObjectClassifier,
    bag: PatchBag,
    *,
    about: int | str | None = None,
    control: Control = Control(),
) -> ObjectPrediction:
    """Prediction and shares of objects for a bag of patches whose objects have been segmented.

    about: the class to explain, by number or name; default the predicted one.
    Raises CancelledError, and InvalidArgumentError when an object the classifier reads was not looked for; the message
    names all of them.
    """
    if missing := [name for name in classifier.wanted if name not in bag.objects]:
        raise InvalidArgumentError(
            f"the classifier {classifier.card.name} reads {', '.join(classifier.wanted)}, but nobody looked for "
            f"{', '.join(missing)}; segment them on this image first (nothing found is an answer, too)."
        )
    number = None if about is None else classifier.card.class_number(about)
    pooled = read_objects(classifier.encoder, bag, classifier.model.config.objects, control)
    shares = object_map(classifier.model, pooled, number)
    return ObjectPrediction(
        classes=classifier.card.classes,
        probabilities=tuple(shares.probabilities.tolist()),
        label=int(shares.probabilities.argmax()),
        shares=shares,
        patches=bag,
        pooled=pooled,
        ignored=tuple(name for name in bag.objects if name not in classifier.wanted),
    )


def bag_of(
    card: ClassifierCard,
    source: ImageSource,
    masks: Sequence[ObjectMask] = (),
    *,
    mpp: float | None = None,
    region: Box | None = None,
) -> SourceBag:
    """Patches of an image at the size the classifier was trained on.

    mpp: µm per pixel when the caller knows better than the file. Raises InvalidArgumentError for fewer than two patches.
    """
    side = patch_side_px(mpp or source.mpp, patch_um=card.patch_um, patch_px=card.patch_px)
    boxes = require_patches(patch_boxes(source, side_px=side, region=region), source, side)
    return SourceBag(source, boxes, masks, patch_um=card.patch_um)


def store_classifier(path: Path, card: ClassifierCard, model: Network) -> ClassifierCard:
    """Write a trained model; kind and sizes of the card are replaced by the model's own."""
    if isinstance(model, ObjectAwareModel):
        card = replace(card, kind="object-aware", feature="tokens")
    return save_classifier(path, replace(card, sizes=asdict(model.config)), model.state_dict())


def load_classifier(path: Path | str | ClassifierFile, encoder: PatchEncoder | None = None) -> Classifier:
    """A standard classifier by file, or by name as ``card.classifiers`` lists them.

    encoder: one that is loaded already; default is the one the card names.
    Raises ModelUnavailableError when a file is missing, damaged, of the other kind, or made for other classes or another encoder.
    """
    return Classifier(*_load(path, "attention", lambda card: AttentionMIL(MilConfig(**card.sizes)), encoder))


def load_object_classifier(
    path: Path | str | ClassifierFile, encoder: PatchEncoder | None = None
) -> ObjectClassifier:
    """The same for an object-aware classifier."""

    def build(card: ClassifierCard) -> ObjectAwareModel:
        sizes = {**card.sizes, "objects": tuple(card.sizes["objects"])}
        return ObjectAwareModel(ObjectAwareConfig(**sizes))

    return ObjectClassifier(*_load(path, "object-aware", build, encoder))


Module = TypeVar("Module", bound=nn.Module)


def _load(
    path: Path | str | ClassifierFile,
    kind: Kind,
    build: Callable[[ClassifierCard], Module],
    encoder: PatchEncoder | None,
) -> tuple[ClassifierCard, Module, PatchEncoder]:
    card, tensors = read_classifier_file(find_classifier(path), kind)
    encoder = encoder or load_encoder(card.encoder)
    if (card.encoder, card.encoder_sha256) != (encoder.name, encoder.weights_sha256):
        raise ModelUnavailableError(
            f"the classifier {card.name} reads features of {card.encoder} (weights {card.encoder_sha256[:12]}…), but here "
            f"{encoder.name} has the weights {encoder.weights_sha256[:12] or 'none'}…; train the classifier again with this "
            "encoder."
        )
    try:
        model = build(card)
        # a card may name more classes than its weights decide between: it would fit, and name the wrong ones
        if card.sizes["classes"] != len(card.classes):
            raise ModelUnavailableError(
                f"{card.name} names {len(card.classes)} classes, but its weights decide between {card.sizes['classes']}; "
                "use the card that was written with them."
            )
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelUnavailableError(
            f"the weights of {card.name} do not fit its card ({error}); train it again."
        ) from error
    return card, model.eval(), encoder


def load_any(path: Path | str | ClassifierFile) -> Classifier | ObjectClassifier:
    """Whichever kind the card says it is."""
    kind = read_card(find_classifier(path)).kind
    return load_object_classifier(path) if kind == "object-aware" else load_classifier(path)


@lru_cache(maxsize=8)
def named_classifier(name: str) -> Classifier | ObjectClassifier:
    """A listed classifier, loaded once per process."""
    return load_any(name)
