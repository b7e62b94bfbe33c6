"""A loaded object-aware classifier, and the evidence it gives on a slide or image: route B end to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import torch

from tissuetalk.models.classifiers.activation_maps import ObjectMap, object_map
from tissuetalk.models.classifiers.classifier import bag_of, find_classifier
from tissuetalk.models.classifiers.classifier_file import (
    ClassifierCard,
    read_classifier_file,
    require_encoder,
    save_classifier,
)
from tissuetalk.models.classifiers.object_aware import ObjectAwareConfig, ObjectAwareModel
from tissuetalk.models.classifiers.object_lists import OTHER
from tissuetalk.models.classifiers.object_pooling import ObjectBag, read_objects
from tissuetalk.models.classifiers.patch_bag import ObjectMask, PatchBag
from tissuetalk.models.classifiers.patch_encoder import PatchEncoder, load_encoder
from tissuetalk.models.classifiers.train_mil import Trained, TrainSettings, fit
from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.models.images import Box, ImageSource

PAPER: Final = TrainSettings()


@dataclass(frozen=True)
class ObjectClassifier:
    """The object-aware model with the encoder whose tokens it reads."""

    card: ClassifierCard
    model: ObjectAwareModel
    encoder: PatchEncoder

    @property
    def wanted(self) -> tuple[str, ...]:
        """The objects that have to be segmented before this classifier can be asked."""
        return tuple(name for name in self.model.config.objects if name != OTHER)


@dataclass(frozen=True)
class ObjectEvidence:
    """What an object-aware classifier says about one slide, and what in the slide says so.

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


def train_objects(
    bags: Sequence[ObjectBag],
    labels: Sequence[int],
    *,
    classes: int,
    validation: Sequence[tuple[ObjectBag, int]] = (),
    settings: TrainSettings = PAPER,
) -> tuple[ObjectAwareModel, Trained]:
    """The object-aware model on pooled slides; the same seed gives the same weights."""
    config = ObjectAwareConfig(
        objects=bags[0].objects,
        width=bags[0].features.shape[2],
        classes=classes,
        hidden=settings.hidden,
        gated=settings.gated,
        dropout=settings.dropout,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = ObjectAwareModel(config)
    model.standardise_like(bags)
    trained = fit(model, bags, labels, validation=validation, settings=settings)
    model.centre_classes()
    return model, trained


def bag_evidence(
    classifier: ObjectClassifier,
    bag: PatchBag,
    *,
    class_index: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> ObjectEvidence:
    """Prediction and shares of objects for a bag of patches whose objects have been segmented.

    class_index: the class to explain; default the predicted one.
    Raises InvalidArgumentError when an object the classifier reads was not looked for; the message names all of them.
    """
    missing = [name for name in classifier.wanted if name not in bag.objects]
    if missing:
        raise InvalidArgumentError(
            f"the classifier {classifier.card.name} reads {', '.join(classifier.wanted)}, but nobody looked for "
            f"{', '.join(missing)}; segment them on this image first (nothing found is an answer, too)."
        )
    pooled = read_objects(classifier.encoder, bag, classifier.model.config.objects, stop=stop)
    shares = object_map(classifier.model, pooled, class_index)
    return ObjectEvidence(
        classes=classifier.card.classes,
        probabilities=tuple(shares.probabilities.tolist()),
        label=int(shares.probabilities.argmax()),
        shares=shares,
        patches=bag,
        pooled=pooled,
        ignored=tuple(name for name in bag.objects if name not in classifier.wanted),
    )


def object_evidence(
    classifier: ObjectClassifier,
    source: ImageSource,
    masks: Sequence[ObjectMask],
    *,
    mpp: float | None = None,
    region: Box | None = None,
    class_index: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> ObjectEvidence:
    """The same for an image or a region of it, cut into patches at the size the classifier was trained on."""
    bag = bag_of(classifier.card, source, masks, mpp=mpp, region=region)
    return bag_evidence(classifier, bag, class_index=class_index, stop=stop)


def store_object_classifier(path: Path, card: ClassifierCard, model: ObjectAwareModel) -> ClassifierCard:
    """Write a trained object-aware model; ``card.sizes`` is replaced by the model's own."""
    told = asdict(card) | {"kind": "object-aware", "feature": "tokens", "sizes": asdict(model.config)}
    return save_classifier(path, ClassifierCard(**told), model.state_dict())


def load_object_classifier(path: Path | str, encoder: PatchEncoder | None = None) -> ObjectClassifier:
    """An object-aware classifier by file, or by name as ``classifiers`` lists them.

    encoder: one that is loaded already; default is the one the card names.
    Raises ModelUnavailableError when a file is missing, damaged, of the other kind, or made for other classes or another encoder.
    """
    card, tensors = read_classifier_file(find_classifier(path), "object-aware")
    encoder = encoder or load_encoder(card.encoder)
    require_encoder(card, encoder.name, encoder.weights_sha256)
    try:
        sizes = dict(card.sizes)
        config = ObjectAwareConfig(objects=tuple(sizes.pop("objects")), **sizes)
        if config.classes != len(card.classes):
            raise ModelUnavailableError(
                f"{card.name} names {len(card.classes)} classes, but its weights decide between {config.classes}; "
                "use the card that was written with them."
            )
        model = ObjectAwareModel(config)
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelUnavailableError(
            f"the weights of {card.name} do not fit its card ({error}); train it again."
        ) from error
    return ObjectClassifier(card, model.eval(), encoder)


@lru_cache(maxsize=4)
def named_object_classifier(name: str) -> ObjectClassifier:
    """A listed classifier, loaded once per process."""
    return load_object_classifier(name)
