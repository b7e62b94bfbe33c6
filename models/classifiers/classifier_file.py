"""A slide classifier on disk: weights as safetensors, and beside them a JSON card that says what it is and may be used for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tissuetalk.models.classifiers.patches import PATCH_PX, PATCH_UM
from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.models.segmentation.pretrained import weights_hash

FORMAT = "tissuetalk-classifier-1"
Kind = Literal["attention", "object-aware"]


@dataclass(frozen=True)
class ClassifierCard:
    """classes: in the order of the logits. encoder: name, and hash of its weights. sizes: what the network is built from.

    patch_um, patch_px: a patch's side, in µm where the scale is known and else in full-resolution pixels.
    objects: what to segment when its importance is asked for: canonical labels or words.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    encoder: str
    encoder_sha256: str
    feature: Literal["tokens", "pooled"]
    sizes: Mapping[str, Any]
    objects: tuple[str, ...] = ()
    patch_um: float = PATCH_UM
    patch_px: int = PATCH_PX
    summary: str = ""
    training: str = ""
    licence: str = ""
    limits: str = ""
    metrics: Mapping[str, str] = field(default_factory=dict)
    weights_sha256: str = ""
    research_only: bool = True

    def class_number(self, name: str) -> int:
        """Which logit a class is. Raises InvalidArgumentError for a class this classifier does not have."""
        if name not in self.classes:
            raise InvalidArgumentError(
                f"the classifier {self.name} has no class {name!r}; its classes are: {', '.join(self.classes)}."
            )
        return self.classes.index(name)


def save_classifier(path: Path, card: ClassifierCard, tensors: Mapping[str, Tensor]) -> ClassifierCard:
    """Write ``path`` (.safetensors) and the card beside it (.json); returns the card with the weights' hash."""
    path = path.with_suffix(".safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
        path,
        metadata={"format": FORMAT},
    )
    path.chmod(0o644)
    told = asdict(card) | {"weights_sha256": weights_hash(path)}
    path.with_suffix(".json").write_text(
        json.dumps({"format": FORMAT, **told}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return read_card(path)


def read_card(path: Path) -> ClassifierCard:
    """The card alone, without loading weights. path: the .safetensors or the .json file.

    Raises ModelUnavailableError when it is missing or not a classifier's.
    """
    path = path.with_suffix(".json")
    if not path.is_file():
        raise ModelUnavailableError(
            f"there is no classifier card {path}; name a file that a training run wrote."
        )
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(told, dict) or told.pop("format", None) != FORMAT:
            raise ModelUnavailableError(f"{path.name} is not a classifier's card ({FORMAT}); train it again.")
        for name in ("classes", "objects"):
            told[name] = tuple(str(entry) for entry in told.get(name, ()))
        if unknown := set(told) - {entry.name for entry in fields(ClassifierCard)}:
            raise ModelUnavailableError(f"{path.name} has unknown keys: {', '.join(sorted(unknown))}.")
        card = ClassifierCard(**told)
    except (ValueError, TypeError) as error:
        raise ModelUnavailableError(f"{path.name} is not a readable classifier card: {error}") from error
    if len(card.classes) < 2 or len(set(card.classes)) < len(card.classes):
        raise ModelUnavailableError(
            f"{path.name} names the classes {list(card.classes)}; a classifier has at least two, all different."
        )
    return card


def read_classifier_file(path: Path, kind: Kind) -> tuple[ClassifierCard, dict[str, Tensor]]:
    """Card and weights of one kind of classifier.

    Raises ModelUnavailableError when a file is missing or damaged, when the two do not belong together, and for another kind.
    """
    card = read_card(path)
    path = path.with_suffix(".safetensors")
    if card.kind != kind:
        raise ModelUnavailableError(
            f"{card.name} is a classifier of the kind {card.kind!r}, not {kind!r}; ask for what that kind can explain."
        )
    if not path.is_file():
        raise ModelUnavailableError(f"the weights {path} are missing beside their card; train it again.")
    if card.weights_sha256 != weights_hash(path):
        raise ModelUnavailableError(
            f"{path.name} is not the file its card describes; copy the .safetensors and .json of one training run."
        )
    try:
        return card, load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelUnavailableError(f"{path.name} is not a readable safetensors file ({error}).") from error


def require_encoder(card: ClassifierCard, name: str, weights_sha256: str) -> None:
    """Raise ModelUnavailableError unless this is the encoder on whose features the classifier was trained."""
    if (card.encoder, card.encoder_sha256) != (name, weights_sha256):
        raise ModelUnavailableError(
            f"the classifier {card.name} reads features of {card.encoder} (weights {card.encoder_sha256[:12]}…), but here "
            f"{name} has the weights {weights_sha256[:12] or 'none'}…; train the classifier again with this encoder."
        )
