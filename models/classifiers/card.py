"""A slide classifier on disk: weights as safetensors, and beside them a JSON card that says what it is and may be used for.

Listing and reading cards imports no torch: a server tells what is here without loading anything.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, field_validator
from pydantic.dataclasses import dataclass

from tissuetalk.models.classifiers.patches import PATCH_PX, PATCH_UM, PatchPx, PatchUm
from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError, OutsideRootsError
from tissuetalk.models.reading import content_of, json_in, require_tensors
from tissuetalk.models.writing import write_tensors, write_whole

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "tissuetalk-classifier-1"
SHIPPED = Path(__file__).with_name("classifiers")
FOLDER_VARIABLE = "TISSUETALK_CLASSIFIERS"
OWN_ENCODER = "tissuetalk-mini"
Kind = Literal["attention", "object-aware"]
_MOST_CARD_BYTES = 2**20
_MOST_WEIGHT_BYTES = 512 * 2**20
_WIDEST = 16_384
"""Of anything that a size may say."""
_LONGEST_NAME = 1024
Line = Annotated[str, StringConstraints(max_length=200)]
Lines = Annotated[str, StringConstraints(max_length=4000)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ClassifierCard:
    """classes: in the order of the logits. encoder: name, and hash of its weights. sizes: what the network is built from.

    patch_um, patch_px: a patch's side, in µm where the scale is known and else in full-resolution pixels.
    objects: what to segment when its importance is asked for: canonical labels or words.
    """

    name: Line
    kind: Kind
    classes: Annotated[tuple[Line, ...], Field(max_length=1000)]
    encoder: Annotated[str, StringConstraints(max_length=_LONGEST_NAME)]
    encoder_sha256: Line
    feature: Literal["tokens", "pooled"]
    sizes: Mapping[str, Any]
    objects: Annotated[tuple[Line, ...], Field(max_length=500)] = ()
    patch_um: PatchUm = PATCH_UM
    patch_px: PatchPx = PATCH_PX
    summary: Lines = ""
    training: Lines = ""
    licence: Lines = ""
    limits: Lines = ""
    metrics: Annotated[Mapping[Line, Lines], Field(max_length=100)] = field(default_factory=dict)
    weights_sha256: Line = ""
    research_only: bool = True

    @field_validator("classes")
    @classmethod
    def _told_apart(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError(
                f"it names the classes {list(classes)}; a classifier has at least two, all different"
            )
        return classes

    @field_validator("sizes")
    @classmethod
    def _buildable(cls, sizes: Mapping[str, Any]) -> Mapping[str, Any]:
        for name, value in sizes.items():
            if isinstance(value, int | float) and not 0 <= value <= _WIDEST:
                raise ValueError(f"the size {name} is {value}; it is 0 to {_WIDEST}")
            listed = isinstance(value, list | tuple) and len(value) <= 500
            if not isinstance(value, int | float) and not (
                listed and all(isinstance(each, str) and len(each) <= 200 for each in value)
            ):
                raise ValueError(f"the size {name} is no number and no list of names")
        return sizes

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


class ClassifierFile(NamedTuple):
    """Where a classifier lies. path: either of its files.

    within: the root it was named in by a caller, below which no link is followed; None for the operator's own place.
    """

    path: Path
    within: Path | None = None

    def content(self, suffix: str, most_bytes: int) -> bytes:
        """Raises ModelUnavailableError, and OutsideRootsError for a link, wherever it leads."""
        path = self.path.with_suffix(suffix)
        what = "card" if suffix == ".json" else "weights"
        try:
            return content_of(path, most_bytes, within=self.within)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ModelUnavailableError(
                f"the classifier {path.stem} has no {what} {path.name}; name a file that a training run wrote, with "
                "both of its files (.safetensors and .json)."
            ) from error
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OutsideRootsError(
                    f"the {what} {path.name} is a link; put the file itself there."
                ) from error
            raise ModelUnavailableError(f"{path.name} cannot be read ({error.strerror}).") from error
        except ValueError as error:
            raise ModelUnavailableError(f"{path.name} is no classifier's {what}: {error}.") from error


def read_card(place: Path | ClassifierFile) -> ClassifierCard:
    """The card alone, without loading weights. place: the .safetensors or the .json file.

    Raises ModelUnavailableError when it is missing, not a classifier's, or names an encoder that is not registered here.
    """
    file = place if isinstance(place, ClassifierFile) else ClassifierFile(place)
    name = file.path.with_suffix(".json").name
    content = file.content(".json", _MOST_CARD_BYTES)
    try:
        told = json_in(content)
        if not isinstance(told, dict) or told.pop("format", None) != FORMAT:
            raise ModelUnavailableError(f"{name} is not a classifier's card ({FORMAT}); train it again.")
        if unknown := set(told) - {entry.name for entry in fields(ClassifierCard)}:
            raise ModelUnavailableError(f"{name} has unknown keys: {', '.join(sorted(unknown))[:200]}.")
        card = _CARD.validate_python(told)
    except (ValueError, TypeError) as error:  # pydantic's and json's errors are ValueErrors
        raise ModelUnavailableError(
            f"{name} is not a readable classifier card: {str(error)[:500]}"
        ) from error
    # an encoder may be a path: what a caller's file names is never looked for
    if file.within is not None and card.encoder not in _registered_encoders():
        raise ModelUnavailableError(
            f"{name} names an encoder that is not registered here; known are {', '.join(_registered_encoders())}. Ask the "
            f"operator to put the classifier into {FOLDER_VARIABLE}."
        )
    return card


def _registered_encoders() -> list[str]:
    """Our own, and those of the classifiers the operator put in place."""
    return sorted({OWN_ENCODER, *(card.encoder for card in classifiers().values())})


def read_classifier_file(
    place: Path | ClassifierFile, kind: Kind
) -> tuple[ClassifierCard, dict[str, Tensor]]:
    """Card and weights of one kind of classifier.

    Raises ModelUnavailableError when a file is missing or damaged, when the two do not belong together, and for another kind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    file = place if isinstance(place, ClassifierFile) else ClassifierFile(place)
    card = read_card(file)
    if card.kind != kind:
        raise ModelUnavailableError(
            f"{card.name} is a classifier of the kind {card.kind!r}, not {kind!r}; ask for what that kind can explain."
        )
    name = file.path.with_suffix(".safetensors").name
    # hashed and loaded from the same bytes: nobody can swap the file in between
    content = file.content(".safetensors", _MOST_WEIGHT_BYTES)
    if card.weights_sha256 != hashlib.sha256(content).hexdigest():
        raise ModelUnavailableError(
            f"{name} is not the file its card describes; copy the .safetensors and .json of one training run."
        )
    try:
        require_tensors(content, len(content))
        tensors = load(content)
    except (SafetensorError, ValueError) as error:
        raise ModelUnavailableError(f"{name} is not a readable safetensors file ({error}).") from error
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ModelUnavailableError(f"{name} holds numbers that are not finite; train it again.")
    return card, tensors


def classifiers() -> dict[str, ClassifierCard]:
    """Cards by name: the shipped ones, and those in the folder ``TISSUETALK_CLASSIFIERS``; nothing else is ever looked at."""
    return {name: read_card(path) for name, path in _files().items()}


def _files() -> dict[str, Path]:
    folders = [SHIPPED, *(Path(folder) for folder in (environ.get(FOLDER_VARIABLE),) if folder)]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.safetensors"))}


def find_classifier(name: Path | str | ClassifierFile) -> ClassifierFile:
    """The files of a name, or of a path as it is. Strings are names only, so that words can never open a file."""
    if isinstance(name, ClassifierFile):
        return name
    if isinstance(name, Path):
        return ClassifierFile(name)
    known = _files()
    if name not in known:
        raise ModelUnavailableError(
            f"no classifier is called {name[:80]!r}; here are: {', '.join(known) or 'none'}. "
            f"Put trained ones in a folder and name it in {FOLDER_VARIABLE}."
        )
    return ClassifierFile(known[name])


def classifier_in_roots(name: str, roots: Sequence[Path] | None) -> str | ClassifierFile:
    """A listed classifier's name, or a file that a caller named. roots: folders it may lie in; None allows any.

    Raises OutsideRootsError, and ModelUnavailableError which lists what there is.
    """
    known = _files()
    if name in known:
        return name
    here = f"here are: {', '.join(known) or 'none'}"
    if not name.endswith((".safetensors", ".json")) or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise ModelUnavailableError(
            f"no classifier is called {name[:80]!r}; {here}. "
            "A trained one can be named by its .safetensors file in an allowed folder."
        )
    path = Path(os.path.realpath(Path(name) if roots is None else roots[0] / name))
    within = next((root for root in roots or () if path.is_relative_to(os.path.realpath(root))), None)
    if roots is not None and within is None:
        raise OutsideRootsError(f"{name[:200]!r} is not inside an allowed folder; put the classifier there.")
    if not path.is_file():
        raise ModelUnavailableError(f"there is no classifier file {name[:200]!r}; by name {here}.")
    return ClassifierFile(path, None if within is None else Path(os.path.realpath(within)))
