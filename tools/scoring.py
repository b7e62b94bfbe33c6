"""evaluate: the same core as segment, scored against annotated images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models import registry
from tissuetalk.models.errors import UnknownLabelError
from tissuetalk.models.images import open_image
from tissuetalk.prompts.engines import make_engine
from tissuetalk.tools.engine import Found
from tissuetalk.tools.evaluate import Summary, evaluate
from tissuetalk.tools.looking import look
from tissuetalk.tools.scale import region_of, scale_of


def evaluate_manifest(
    manifest: Path,
    out: Path,
    *,
    model: str | None,
    words: str | None,
    progress: Callable[[float, str], None] = lambda done, what: None,
) -> Summary:
    """Score a model on a manifest; the words go through the rules engine as they would in segment."""
    loaded, engine = registry.load(model), make_engine("rules")

    asked_words = words

    def segment_image(
        image: Path, words: str, mpp: float | None
    ) -> tuple[NDArray[np.bool_], NDArray[np.int32] | None]:
        request = engine.translate(words)
        with open_image(image, name=image.name) as source:
            looked = look(source, loaded, request, region_of(source, None), scale_of(source, mpp, loaded))
        if not looked.found:
            reasons = "; ".join(item.reason for item in looked.refused)
            raise UnknownLabelError(f"{words!r} cannot be asked of {loaded.card.name}: {reasons}.")
        return together(looked.found)

    return evaluate(
        manifest,
        out,
        model=loaded.card.name,
        words=asked_words,
        segment_image=segment_image,
        progress=progress,
    )


def together(found: Sequence[Found]) -> tuple[NDArray[np.bool_], NDArray[np.int32] | None]:
    """Everything the words led to, as one mask; objects stay apart where only one target has them."""
    if len(found) == 1:
        return found[0].mask, found[0].instances
    return np.any([each.mask for each in found], axis=0), None
