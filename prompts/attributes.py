"""Attribute prompts P0 to P10 for H&E: what a mask itself says about number, size, place, shape and colour.

Source: the attribute prompts of the VLSM benchmark (spec vlsm.md, sections 4, 5 and 8), its photo group carried over to
H&E: a1 object type, a2 shape, a3 stain colour, a4 size, a5 number, a6 location, a7 a description, a8 region.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.prompts.glossary import card_for, cards
from tissuetalk.prompts.taxonomy import Label, pathsegmentor_prompt
from tissuetalk.prompts.words import load_terms

Mask = NDArray[np.bool_]
RGB = NDArray[np.uint8]
PromptId = Literal["P0", "P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "P10"]
PROMPT_IDS: tuple[PromptId, ...] = ("P0", "P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "P10")

SMALLEST_COMPONENT_PX = 36
SIZE_CUTS = ((0.005, "tiny"), (0.10, "small"), (0.30, "medium"))
NUMBER_BANDS = ((1, "one"), (4, "few"), (11, "many"))
COLOR_RGB: Mapping[str, tuple[int, int, int]] = {
    "purple": (120, 80, 160),
    "blue": (70, 70, 150),
    "pink": (225, 160, 190),
    "red": (200, 60, 70),
    "white": (240, 240, 240),
    "brown": (140, 95, 60),
    "gray": (150, 150, 150),
}


@dataclass(frozen=True)
class Attributes:
    """What was read off one mask. Empty strings and tuples stand for what could not be told."""

    object_type: str
    region: str
    number: str = ""
    sizes: tuple[str, ...] = ()
    locations: tuple[str, ...] = ()
    shape: str = ""
    color: str = ""


@dataclass(frozen=True)
class Component:
    """One 8-connected part: area in px, box [x0, y0, x1, y1) and its own pixels inside the box."""

    area_px: int
    box_xyxy: tuple[int, int, int, int]
    pixels: Mask


def components(mask: Mask, smallest_px: int = SMALLEST_COMPONENT_PX) -> list[Component]:
    """8-connected parts of at least `smallest_px`, largest first."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    found = []
    for value, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        pixels = labels[rows, columns] == value
        area = int(np.count_nonzero(pixels))
        if area >= smallest_px:
            found.append(Component(area, (columns.start, rows.start, columns.stop, rows.stop), pixels))
    return sorted(found, key=lambda part: (-part.area_px, part.box_xyxy))


def attributes_of(
    mask: Mask, label: Label, image: RGB | None = None, *, tganet_size: bool = False
) -> Attributes:
    """Number, sizes, locations, shape and colour of a mask.

    image: [H, W, 3] pixels for the stain colour, or None to leave colour out. tganet_size: size from the bounding box
    instead of the component's own area, as TGANet does.
    """
    if mask.ndim != 2 or (image is not None and image.shape[:2] != mask.shape):
        raise InvalidArgumentError("attributes need a two-dimensional mask and an image of the same size.")
    parts = components(mask)
    noun = noun_of(label)
    if not parts:
        return Attributes(noun, label.region)
    sizes = {_size(part, mask, tganet_size) for part in parts}
    return Attributes(
        noun,
        label.region,
        number_word(len(parts)),
        tuple(name for name in VALUES["sizes"] if name in sizes),
        tuple(dict.fromkeys(location_word(p.box_xyxy, mask.shape) for p in parts)),
        shape_word(parts[0]),
        "" if image is None else color_word(image[mask].mean(axis=0)),
    )


def number_word(count: int) -> str:
    """The band a count falls into: one, few (to 4), many (to 11), dozens."""
    return next((word for limit, word in NUMBER_BANDS if count <= limit), "dozens")


def _size(part: Component, mask: Mask, by_box: bool) -> str:
    x0, y0, x1, y1 = part.box_xyxy
    area = (x1 - x0) * (y1 - y0) if by_box else part.area_px
    return size_word(area / mask.size)


def size_word(fraction: float) -> str:
    """tiny below 0.005 of the image, small below 0.10, medium below 0.30, else large."""
    return next((word for limit, word in SIZE_CUTS if fraction < limit), "large")


def location_word(
    box_xyxy: tuple[int, int, int, int], shape: tuple[int, ...], *, legacy_location: bool = False
) -> str:
    """The cell of a 3x3 grid in which the centre of a box lies; `legacy_location` cuts columns at H/3 as released."""
    height, width = shape[:2]
    x, y = (box_xyxy[0] + box_xyxy[2]) / 2, (box_xyxy[1] + box_xyxy[3]) / 2
    span = height if legacy_location else width
    row = ("top", "", "bottom")[int(y >= height / 3) + int(y >= 2 * height / 3)]
    column = ("left", "", "right")[int(x >= span / 3) + int(x >= 2 * span / 3)]
    return " ".join(word for word in (row, column) if word) or "center"


def shape_word(part: Component) -> str:
    """round, oval, elongated, rectangular or irregular, from the moments and the fill of the box."""
    rows, columns = np.nonzero(part.pixels)
    if len(rows) < 3:
        return "round"
    values = np.linalg.eigvalsh(np.cov(np.stack([rows, columns]).astype(float)) + np.eye(2) / 12)
    minor, major = float(np.sqrt(values[0])), float(np.sqrt(values[1]))
    ellipse_fill = part.area_px / (4 * np.pi * minor * major)
    box_fill = part.area_px / part.pixels.size
    if box_fill > 0.93:
        return "rectangular"
    if ellipse_fill < 0.85:
        return "irregular"
    ratio = major / minor
    return "round" if ratio < 1.25 else "oval" if ratio < 2.5 else "elongated"


def color_word(mean_rgb: NDArray[np.float64] | Sequence[float]) -> str:
    """The nearest of the stain colours."""
    wanted = np.asarray(mean_rgb, dtype=float)
    return min(COLOR_RGB, key=lambda name: float(np.abs(wanted - np.asarray(COLOR_RGB[name])).sum()))


def noun_of(label: Label) -> str:
    """What an object type is called in a prompt; a class outside the taxonomy by its own name."""
    return card_for(label).name if label.object_type in cards() else label.object_type


def descriptions_of(label: Label) -> tuple[str, ...]:
    """Five descriptions of an object type (a7), as they follow "which is"; none of a class outside the taxonomy."""
    if label.object_type not in cards():
        return ()
    card = card_for(label)
    name, look = label.object_type, _lower(card.what_it_looks_like)
    return tuple(
        text.format(name=name, look=look, what=_lower(card.what_it_is))
        for text in load_terms("descriptions.yaml")["which_is"]
    )


def _lower(text: str) -> str:
    return text[0].lower() + text[1:].rstrip(".")


def attribute_prompt(
    prompt: PromptId, found: Attributes, label: Label, form: int = 0, descriptions: Sequence[str] = ()
) -> str:
    """One of the prompts P0..P10; a missing attribute goes together with its clause.

    form: which of the descriptions is used in P7 to P9; training draws one at random, evaluation keeps 0. descriptions:
    instead of those of the glossary.
    """
    noun = found.object_type
    if prompt == "P0":
        return ""
    if prompt == "P10":
        return pathsegmentor_prompt(label)
    known = descriptions or descriptions_of(label)
    about = f", which is {known[form % len(known)]}" if known else ""
    if prompt == "P7":
        return f"{noun}{about}"
    depth = {"P1": 0, "P2": 1, "P3": 2, "P4": 3}.get(prompt, 4)
    words = [found.shape, found.color, ", ".join(found.sizes), found.number][:depth]
    head = " ".join([word for word in reversed(words) if word] + [noun])
    where = f"located in {listed(found.locations)} of the image" if found.locations else ""
    if prompt == "P6":
        return f"{head}, {where}" if where else head
    if prompt == "P8":
        return f"{head}{about}"
    if prompt == "P9":
        return f"{head}{about}, {where}" if where else f"{head}{about}"
    return head


def listed(words: Sequence[str]) -> str:
    """Words with commas and a last "and"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


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
