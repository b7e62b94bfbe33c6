"""A loaded slide classifier and what it says about a bag of patches or an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from os import environ
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tissuetalk.models.classifiers.classifier_file import (
    ClassifierCard,
    read_card,
    read_classifier_file,
    require_encoder,
    save_classifier,
)
from tissuetalk.models.classifiers.mil import AttentionMIL, MilConfig
from tissuetalk.models.classifiers.patch_bag import ObjectMask, PatchBag, SourceBag
from tissuetalk.models.classifiers.patch_encoder import PatchEncoder, encode_bag, load_encoder
from tissuetalk.models.classifiers.patches import patch_boxes, patch_side_px, require_patches
from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.images import Box, ImageSource

SHIPPED = Path(__file__).with_name("classifiers")
FOLDER_VARIABLE = "TISSUETALK_CLASSIFIERS"
Floats = NDArray[np.float64]
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Classifier:
    """The standard model with the encoder whose features it reads."""

    card: ClassifierCard
    model: AttentionMIL
    encoder: PatchEncoder


@dataclass(frozen=True)
class Prediction:
    """What a classifier says about one bag.

    probabilities: one per class. label: number of the likeliest. attention: [N], sums to 1.
    contributions: [N, C], what each patch adds to each logit. vectors: [N, d] patch features, to be used again.
    """

    probabilities: tuple[float, ...]
    label: int
    attention: Floats
    contributions: Floats
    vectors: Tensor


def predict_vectors(model: AttentionMIL, vectors: Tensor) -> Prediction:
    """From patch features [N, d]."""
    with torch.inference_mode():
        logits, attention = model.attend(vectors)
        shares = torch.softmax(logits.double(), 0)
        return Prediction(
            tuple(shares.tolist()),
            int(shares.argmax()),
            attention.double().numpy(),
            model.contributions(vectors).double().numpy(),
            vectors,
        )


def predict_bag(classifier: Classifier, bag: PatchBag, *, stop: Stop = lambda: False) -> Prediction:
    """Encode every patch once and classify."""
    return predict_vectors(
        classifier.model, encode_bag(classifier.encoder, bag, classifier.card.feature, stop=stop)
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


def predict(
    classifier: Classifier,
    source: ImageSource,
    *,
    mpp: float | None = None,
    region: Box | None = None,
    stop: Stop = lambda: False,
) -> Prediction:
    """What the classifier says about an image or a region of it."""
    return predict_bag(classifier, bag_of(classifier.card, source, mpp=mpp, region=region), stop=stop)


def store_classifier(path: Path, card: ClassifierCard, model: AttentionMIL) -> ClassifierCard:
    """Write a trained standard model."""
    return save_classifier(path, card, model.state_dict())


def load_classifier(path: Path | str, encoder: PatchEncoder | None = None) -> Classifier:
    """A classifier by file, or by name as ``classifiers`` lists them.

    encoder: one that is loaded already; default is the one the card names.
    Raises ModelUnavailableError when a file is missing, damaged, or made for other classes or another encoder.
    """
    card, tensors = read_classifier_file(find_classifier(path), "attention")
    encoder = encoder or load_encoder(card.encoder)
    require_encoder(card, encoder.name, encoder.weights_sha256)
    try:
        config = MilConfig(**card.sizes)
        if config.classes != len(card.classes):
            raise ModelUnavailableError(
                f"{card.name} names {len(card.classes)} classes, but its weights decide between {config.classes}; "
                "use the card that was written with them."
            )
        model = AttentionMIL(config)
        model.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelUnavailableError(f"the weights of {card.name} do not fit its card: {error}") from error
    return Classifier(card, model.eval(), encoder)


def sizes_of(model: AttentionMIL) -> dict[str, object]:
    """What a card's ``sizes`` has to say."""
    return asdict(model.config)


def classifiers() -> dict[str, ClassifierCard]:
    """Cards by name: the shipped ones, and those in the folder ``TISSUETALK_CLASSIFIERS``; nothing else is ever looked at."""
    return {path.stem: read_card(path) for path in _files().values()}


def _files() -> dict[str, Path]:
    folders = [SHIPPED, *(Path(folder) for folder in (environ.get(FOLDER_VARIABLE),) if folder)]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.safetensors"))}


def find_classifier(name: Path | str) -> Path:
    """The weight file of a name, or a path as it is. Strings are names only, so that words can never open a file."""
    if isinstance(name, Path):
        return name
    known = _files()
    if name not in known:
        raise ModelUnavailableError(
            f"no classifier is called {name!r}; here are: {', '.join(known) or 'none'}. "
            f"Put trained ones in a folder and name it in {FOLDER_VARIABLE}."
        )
    return known[name]


@lru_cache(maxsize=4)
def named_classifier(name: str) -> Classifier:
    """A listed classifier, loaded once per process."""
    return load_classifier(name)
