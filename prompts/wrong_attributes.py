"""One attribute of a prompt made wrong on purpose: how much does a model listen? (spec vlsm.md, section 6, experiment 3)"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, Final, Literal

from tissuetalk.prompts.attributes import COLOR_RGB, Attributes

Attribute = Literal["number", "sizes", "locations", "shape", "color"]
Swap = Literal["random word", "other value"]
ATTRIBUTES: Final[tuple[Attribute, ...]] = ("number", "sizes", "locations", "shape", "color")
VALUES: Final[dict[Attribute, tuple[str, ...]]] = {
    "number": ("one", "few", "many", "dozens"),
    "sizes": ("tiny", "small", "medium", "large"),
    "locations": (
        "top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right"
    ),
    "shape": ("round", "oval", "elongated", "rectangular", "irregular"),
    "color": tuple(COLOR_RGB),
}  # fmt: skip
_OPPOSITE: Final = {"one": "many", "small": "large", "tiny": "large", "top": "bottom", "left": "right"}
_WORDS: Final = (
    "quixotic", "lacustrine", "palimpsest", "gossamer", "zephyr", "obelisk", "marzipan", "sextant", "crinoline",
    "heliotrope", "tundra", "bassoon", "catamaran", "thimble", "yeoman", "velodrome",
)  # fmt: skip


def wrong(found: Attributes, attribute: Attribute, swap: Swap, seed: int) -> Attributes | None:
    """The attributes with one of them replaced, never by a value it has; None where the mask has no such attribute.

    random word: an uncommon English word. other value: the opposite where there is one, else another of the value set.
    """
    now = getattr(found, attribute)
    values = set(now) if isinstance(now, tuple) else {now}
    if not now:
        return None
    chance = random.Random(f"{seed} {attribute} {swap}")
    if swap == "random word":
        new = chance.choice(_WORDS)
    else:
        left = [value for value in VALUES[attribute] if value not in values]
        if not left:
            return None
        opposite = [value for value in map(_opposite, sorted(values)) if value in left]
        new = opposite[0] if opposite else chance.choice(left)
    changed: dict[str, Any] = {attribute: (new,) if isinstance(now, tuple) else new}
    return replace(found, **changed)


def _opposite(value: str) -> str:
    """Word by word, so that the top left becomes the bottom right."""
    table = {**_OPPOSITE, **{b: a for a, b in _OPPOSITE.items() if a != "tiny"}}
    return " ".join(table.get(word, word) for word in value.split())


def relative_change(before: float, after: float) -> float | None:
    """100 * (after - before) / before; None where nothing was right to begin with."""
    return 100 * (after - before) / before if before else None
