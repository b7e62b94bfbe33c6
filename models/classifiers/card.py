"""A slide classifier on disk: weights as safetensors, and beside them a JSON card that says what it is and may be used for.

Listing and reading cards imports no torch: a server tells what is here without loading anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, TypeAdapter, field_validator
from pydantic.dataclasses import dataclass

from tissuetalk.models.classifiers.patches import PATCH_PX, PATCH_UM
from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError, OutsideRootsError
from tissuetalk.models.writing import write_tensors, write_whole

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "tissuetalk-classifier-1"
SHIPPED = Path(__file__).with_name("classifiers")
FOLDER_VARIABLE = "TISSUETALK_CLASSIFIERS"
Kind = Literal["attention", "object-aware"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
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

    @field_validator("classes")
    @classmethod
    def _told_apart(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError(
                f"it names the classes {list(classes)}; a classifier has at least two, all different"
            )
        return classes

    def class_number(self, which: str | int) -> int:
        """Which logit a class is. Raises InvalidArgumentError for a class this classifier does not have."""
        if which in self.classes:
            return self.classes.index(str(which))
        if isinstance(which, int) and 0 <= which < len(self.classes):
            return which
        raise InvalidArgumentError(
            f"class {which!r} does not exist; {self.name} has 0 to {len(self.classes) - 1}: {', '.join(self.classes)}."
        )


_CARD = TypeAdapter(ClassifierCard)


def save_classifier(path: Path, card: ClassifierCard, tensors: Mapping[str, Tensor]) -> ClassifierCard:
    """Write ``path`` (.safetensors) and the card beside it (.json); returns the card with the weights' hash."""
    from tissuetalk.models.segmentation.pretrained import weights_hash

    path = path.with_suffix(".safetensors")
    write_tensors(path, tensors, {"format": FORMAT})
    told = {"format": FORMAT, **asdict(card), "weights_sha256": weights_hash(path)}
    write_whole(path.with_suffix(".json"), json.dumps(told, indent=1, ensure_ascii=False) + "\n")
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
        if unknown := set(told) - {entry.name for entry in fields(ClassifierCard)}:
            raise ModelUnavailableError(f"{path.name} has unknown keys: {', '.join(sorted(unknown))}.")
        return _CARD.validate_python(told)
    except (ValueError, TypeError) as error:  # pydantic's and json's errors are ValueErrors
        raise ModelUnavailableError(f"{path.name} is not a readable classifier card: {error}") from error


def read_classifier_file(path: Path, kind: Kind) -> tuple[ClassifierCard, dict[str, Tensor]]:
    """Card and weights of one kind of classifier.

    Raises ModelUnavailableError when a file is missing or damaged, when the two do not belong together, and for another kind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from tissuetalk.models.segmentation.pretrained import weights_hash

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


def classifiers() -> dict[str, ClassifierCard]:
    """Cards by name: the shipped ones, and those in the folder ``TISSUETALK_CLASSIFIERS``; nothing else is ever looked at."""
    return {name: read_card(path) for name, path in _files().items()}


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


def classifier_in_roots(name: str, roots: Sequence[Path] | None) -> str | Path:
    """A listed classifier's name, or a file that a caller named. roots: folders it may lie in; None allows any.

    Raises OutsideRootsError, and ModelUnavailableError which lists what there is.
    """
    known = _files()
    if name in known:
        return name
    here = f"here are: {', '.join(known) or 'none'}"
    if not name.endswith((".safetensors", ".json")):
        raise ModelUnavailableError(
            f"no classifier is called {name[:80]!r}; {here}. "
            "A trained one can be named by its .safetensors file in an allowed folder."
        )
    path = (Path(name) if roots is None else roots[0] / name).resolve()
    if roots is not None and not any(path.is_relative_to(root.resolve()) for root in roots):
        raise OutsideRootsError(f"{name[:200]!r} is not inside an allowed folder; put the classifier there.")
    if not path.is_file():
        raise ModelUnavailableError(f"there is no classifier file {name[:200]!r}; by name {here}.")
    return path.with_suffix(".safetensors")
