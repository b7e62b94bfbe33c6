"""What is known about a model before it is loaded: its card, where its weights lie, and what it can be asked for.

Imports no deep-learning library. Nothing here or in the loaders ever downloads: weights are put in place by the
operator, from the Hugging Face cache, a local folder or file, or a package.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmenter import Capability, ModelCard, Prompt, Repertoire


@dataclass(frozen=True)
class Weights(ABC):
    """Where weights lie: at the place a caller names, else where the environment variable says, else at the usual place.

    model: what messages call it. variable: the environment variable; empty when there is none.
    """

    model: str
    variable: str = ""

    def find(self, source: str | Path | None = None) -> Path:
        """The file or folder. Raises ModelUnavailableError saying what to do."""
        named = str(source or os.environ.get(self.variable, ""))
        return self.at(Path(named).expanduser()) if named else self.usual()

    def missing(self) -> str | None:
        """None when the weights are here, else what is missing and what to do about it."""
        try:
            self.find()
        except ModelUnavailableError as error:
            return str(error)
        return None

    @abstractmethod
    def at(self, place: Path) -> Path:
        """The weights at a place somebody named. Raises ModelUnavailableError."""

    @abstractmethod
    def usual(self) -> Path:
        """The weights where they are without being told. Raises ModelUnavailableError."""


@dataclass(frozen=True)
class HubWeights(Weights):
    """A repository in the local Hugging Face cache, or a folder saved with ``save_pretrained``."""

    hub_id: str = ""
    licence: str = ""

    def usual(self) -> Path:
        return self.at(Path(self.hub_id))

    def at(self, place: Path) -> Path:
        if place.is_dir():
            return self._checked(place)
        wanted = place.as_posix()
        if wanted.count("/") != 1 or wanted.startswith((".", "/")):
            raise ModelUnavailableError(
                f"{self.model}: there is no folder {wanted}; set {self.variable} to a folder or a hub id"
            )
        cached = _cached_snapshot(wanted)
        if cached is None:
            raise ModelUnavailableError(
                f"{self.model}: the weights of {wanted} are not on this machine ({self.licence}); run "
                f"`hf download {wanted}`, or set {self.variable} to a folder that holds them"
            )
        return self._checked(cached)

    def _checked(self, folder: Path) -> Path:
        """Only safetensors are read: other weight formats can run code when opened."""
        needed = {"config.json": "config.json", "a .safetensors file": "*.safetensors"}
        lacking = [what for what, pattern in needed.items() if not any(folder.glob(pattern))]
        if lacking:
            raise ModelUnavailableError(
                f"{self.model}: {folder} lacks {' and '.join(lacking)}; give a folder saved with save_pretrained"
            )
        return folder


@dataclass(frozen=True)
class PackageWeights(Weights):
    """A file that an installed Python package carries.

    package: its import name. file: path or pattern inside it. bring: how to get it.
    """

    package: str = ""
    file: str = ""
    bring: str = ""

    def usual(self) -> Path:
        spec = find_spec(self.package)
        # Found without importing the package: it may need a deep-learning library, or not even import here.
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for file in sorted(Path(folder).glob(self.file)):
                return file
        name = Path(self.file).name
        other = f", or set {self.variable} to the file {name}" if self.variable else ""
        raise ModelUnavailableError(f"{self.model}: the weights are not on this machine; {self.bring}{other}")

    def at(self, place: Path) -> Path:
        if not place.is_file():
            name = Path(self.file).name
            raise ModelUnavailableError(
                f"{self.model}: there is no file {place}; set {self.variable or 'the path'} to {name}"
            )
        return place


def _cached_snapshot(hub_id: str) -> Path | None:
    """The folder the cache keeps for a repository: the one its main branch points at, else the last by name."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    main = repository / "refs" / "main"
    if main.is_file():
        snapshot = repository / "snapshots" / main.read_text(encoding="utf-8").strip()
        return snapshot if snapshot.is_dir() else None
    # A copied cache may have lost its refs.
    snapshots = sorted(repository.glob("snapshots/*"))
    return snapshots[-1] if snapshots else None


@dataclass(frozen=True)
class AnyWords:
    """The repertoire of a model that never refuses words.

    mpp: µm per pixel at which tiles are wanted. objects: whether separate objects come back. nameless: answers without
    any words, too, because a place says what is meant.
    """

    card: ModelCard
    mpp: float
    objects: bool
    nameless: bool = False

    def capability(self, prompt: Prompt) -> Capability | None:
        words = prompt.words.strip()
        return Capability(words, self.mpp, self.objects) if words or self.nameless else None

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return []


@dataclass(frozen=True)
class Entry:
    """A model by name, as the registry lists it.

    load: ``module:function`` that returns a ready Segmenter, imported only when asked for. weights: where they lie, None
    for a model that has none or brings its own. repertoire: made on demand; None when only the loaded model can tell.
    """

    card: ModelCard
    load: str
    weights: Weights | None = None
    repertoire: Callable[[], Repertoire] | None = None

    def why_not(self) -> str | None:
        """What is missing here and what to do about it, or None when the model is usable."""
        return None if self.weights is None else self.weights.missing()
