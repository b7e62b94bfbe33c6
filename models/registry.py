"""Every model this installation can name, what each may be used for, and how to load it.

Listing models, and asking what one of them can be asked for, imports no deep-learning library and touches no weight
file beyond asking whether it is there. A new model is one file that ends in an ``ENTRY``, and its line here.
"""

from __future__ import annotations

import threading
from functools import cached_property
from importlib import import_module
from typing import Any, cast

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation import classical_nuclei, clipseg, litemedsam, medsam, sam2, sam3
from tissuetalk.models.segmentation.pathsegmentor.card import BASE, MINI
from tissuetalk.models.segmentation.pfps import card as pfps
from tissuetalk.models.segmentation.pretrained import Entry
from tissuetalk.models.segmentation.vlsm import card as vlsm
from tissuetalk.models.segmenter import Capability, ModelCard, Prompt, Repertoire, Segmenter

MODELS: dict[str, Entry] = {
    entry.card.name: entry
    for entry in (
        MINI,
        BASE,
        classical_nuclei.ENTRY,
        pfps.ENTRY,
        vlsm.ENTRY,
        sam3.ENTRY,
        clipseg.ENTRY,
        medsam.ENTRY,
        sam2.ENTRY,
        litemedsam.ENTRY,
    )
}
DEFAULT_MODEL = MINI.card.name

_loaded: dict[str, Segmenter] = {}
_loading = threading.Lock()


def usable(name: str | None = None) -> Entry:
    """The entry of the named model (default: the shipped one), whose weights are here.

    Raises ModelUnavailableError for an unknown name, saying which there are, or for missing weights, saying what to do.
    """
    name = name or DEFAULT_MODEL
    entry = MODELS.get(name)
    if entry is None:
        raise ModelUnavailableError(f"no model is called {name[:100]!r}; choose one of: {', '.join(MODELS)}.")
    if (missing := entry.why_not()) is not None:
        raise ModelUnavailableError(f"{name} cannot be used here: {missing}")
    return entry


def repertoire(name: str | None = None) -> Repertoire:
    """What the named model can be asked for, at once: a model is loaded only where nothing else can tell.

    Raises ModelUnavailableError.
    """
    entry = usable(name)
    return load(name) if entry.repertoire is None else entry.repertoire()


def load(name: str | None = None) -> Segmenter:
    """The named model (default: the shipped one), loaded once per process. Raises ModelUnavailableError."""
    entry = usable(name)
    with _loading:
        if entry.card.name not in _loaded:
            module, _, function = entry.load.partition(":")
            _loaded[entry.card.name] = getattr(import_module(module), function)()
        return _loaded[entry.card.name]


class OnDemand:
    """A model that is loaded when something beyond its repertoire is first asked of it: refusing needs no weights."""

    def __init__(self, name: str | None) -> None:
        self._repertoire = repertoire(name)

    @property
    def card(self) -> ModelCard:
        return self._repertoire.card

    def capability(self, prompt: Prompt) -> Capability | None:
        return self._repertoire.capability(prompt)

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return self._repertoire.nearest(prompt, limit)

    @cached_property
    def _model(self) -> Segmenter:
        return load(self.card.name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # an unpickled one is asked for these before it has anything
            raise AttributeError(name)
        return getattr(self._model, name)


def on_demand(name: str | None = None) -> Segmenter:
    """The named model, not loaded yet. Raises ModelUnavailableError; what is wrong with its weights comes on first use."""
    return cast("Segmenter", OnDemand(name))  # every other attribute of a Segmenter goes through __getattr__
