"""Every model this installation can name, what each may be used for, and how to load it.

Listing imports no deep-learning library and touches no weight file beyond asking whether it is there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.cards import ORIGINS, availability
from tissuetalk.models.segmentation.classical_card import CARD as CLASSICAL_NUCLEI
from tissuetalk.models.segmentation.pathsegmentor.base_card import CARD as BASE
from tissuetalk.models.segmentation.pathsegmentor.base_card import why_not as why_no_base
from tissuetalk.models.segmentation.pathsegmentor.card import CARD as MINI
from tissuetalk.models.segmentation.pathsegmentor.card import why_not as why_no_mini
from tissuetalk.models.segmentation.pfps.card import CARD as PFPS
from tissuetalk.models.segmentation.pfps.card import why_not as why_no_pfps
from tissuetalk.models.segmenter import ModelCard, Segmenter


@dataclass(frozen=True)
class Entry:
    """A model by name.

    load: ``module:function`` that returns a ready Segmenter, imported only when asked for.
    why_not: returns what is missing here and what to do about it, or None when the model is usable.
    """

    card: ModelCard
    load: str
    why_not: Callable[[], str | None] = lambda: None


MODELS: dict[str, Entry] = {
    MINI.name: Entry(MINI, "tissuetalk.models.segmentation.pathsegmentor.segmenter:load_mini", why_no_mini),
    BASE.name: Entry(BASE, "tissuetalk.models.segmentation.pathsegmentor.base_segmenter:load", why_no_base),
    CLASSICAL_NUCLEI.name: Entry(
        CLASSICAL_NUCLEI, "tissuetalk.models.segmentation.classical_nuclei:ClassicalNuclei"
    ),
    PFPS.name: Entry(PFPS, "tissuetalk.models.segmentation.pfps.segmenter:load", why_no_pfps),
    **{
        name: Entry(origin.card, origin.loader, partial(availability, name))
        for name, origin in ORIGINS.items()
    },
}
DEFAULT_MODEL = MINI.name

_loaded: dict[str, Segmenter] = {}
_loading = threading.Lock()


def load(name: str | None = None) -> Segmenter:
    """The named model (default: the shipped one), loaded once per process.

    Raises ModelUnavailableError for an unknown name or missing weights, saying which models are usable.
    """
    name = name or DEFAULT_MODEL
    entry = MODELS.get(name)
    if entry is None:
        raise ModelUnavailableError(f"no model is called {name!r}; choose one of: {', '.join(MODELS)}.")
    if (missing := entry.why_not()) is not None:
        raise ModelUnavailableError(f"{name} cannot be used here: {missing}")
    with _loading:
        if name not in _loaded:
            module, _, function = entry.load.partition(":")
            _loaded[name] = getattr(import_module(module), function)()
        return _loaded[name]
