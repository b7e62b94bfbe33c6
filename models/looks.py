"""Several looks at one tile: where a model gains by it, its answer is the mean of those to the tile and to its mirror images.

A model whose features were learned from few cases answers a little differently to each; the mean keeps what does not
depend on the side one looks from. Which targets gain is the model's to say (``Capability.looks``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from tissuetalk.models.segmenter import RGB, Context, Decoded, Prompt, Segmenter

MIRRORS = (np.s_[:, :], np.s_[:, ::-1], np.s_[::-1, :], np.s_[::-1, ::-1])
"""As it is, left to right, upside down, both. Each undoes itself; all keep the tile's size."""


def mirrored(tile: RGB, look: int) -> RGB:
    """[H, W, 3] as seen by one look."""
    return np.ascontiguousarray(tile[MIRRORS[look]])


def brought_back(answer: Decoded, look: int) -> Decoded:
    """The answer to a mirrored tile, in the tile's own pixels."""
    if look == 0:
        return answer
    maps = answer.object_maps
    return replace(
        answer,
        logits=np.ascontiguousarray(answer.logits[MIRRORS[look]]),
        object_maps=None if maps is None else np.ascontiguousarray(maps[(slice(None), *MIRRORS[look])]),
    )


def mean_of(answers: Sequence[Decoded]) -> Decoded:
    """The mean of logits, object maps and presence. Answers of one model to one prompt have the same parts."""
    if len(answers) == 1:
        return answers[0]
    share = np.float32(1 / len(answers))
    maps = [answer.object_maps for answer in answers if answer.object_maps is not None]
    said = [answer.presence for answer in answers if answer.presence is not None]
    return Decoded(
        reduce(np.add, [answer.logits for answer in answers]) * share,
        float(np.mean(said)) if said else None,
        reduce(np.add, maps) * share if maps else None,
    )


def answer_from(model: Segmenter, tile: RGB, context: Context, prompt: Prompt, looks: int) -> Decoded:
    """A model's answer to one prompt on a tile, from so many sides."""
    seen = [model.decode(model.encode(mirrored(tile, look), context), [prompt])[0] for look in range(looks)]
    return mean_of([brought_back(each, look) for look, each in enumerate(seen)])
