"""A learned target: plain arrays and a card in one small file, in which nothing can be executed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.reading import json_in, require_tensors
from tissuetalk.models.segmenter import Prompt

FORMAT: Final = "tissuetalk-by-example-1"
MOST_BYTES: Final = 4 * 2**20
"""Of a learned file. An honest one has some 20 kB."""
MOST_CARD_BYTES: Final = 64 * 1024
LONGEST_NAME: Final = 80
LONGEST_WORDS: Final = 2_000
"""Of what the base is asked for."""
Kind = Literal["region", "object"]
REDUCTIONS: Final = {1: (1,), 3: (1, 2), 6: (2, 4)}
"""Of the tile, by their sum."""
FINEST: Final = (0, 1)
"""Octaves of colour and texture that may be the first."""


@dataclass(frozen=True)
class Card:
    """What is known about a learned target.

    positive, negative: places shown. images: how many images they came from. expected_dice, interval: of leaving one
    example out, None where that cannot be done. taught_at_mpp: µm per full-resolution pixel of each image.
    stain_mean, stain_spread: of the optical density in red, green and blue of the images' tissue.
    """

    positive: int
    negative: int
    images: int
    expected_dice: float | None
    interval: tuple[float, float] | None
    taught_at_mpp: tuple[float, ...]
    stain_mean: tuple[float, ...]
    stain_spread: tuple[float, ...]


@dataclass(frozen=True)
class Learned:
    """A target that was shown.

    base: name of the model whose features it reads, and base_sha256 of its weights. mpp: µm per working pixel.
    objects_of: target of the base whose objects are sorted, None for pixels. arrays: by name, float32.
    rules: smallest object and hole, in working pixels, and how the base's own answer is taken. like: what that answers to; None
    where the base did not know it, or was wrong about the examples.
    """

    name: str
    kind: Kind
    base: str
    base_sha256: str
    mpp: float
    objects_of: str | None
    arrays: Mapping[str, NDArray[np.float32]]
    rules: Mapping[str, float]
    card: Card
    like: Prompt | None = None

    @cached_property
    def sha256(self) -> str:
        """Of all that decides masks and what is said of them; a new name changes neither."""
        told, arrays = self._told(), self._arrays()
        del told["name"]
        whole = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        for name, array in arrays.items():
            whole.update(f"{name} {array.shape}".encode() + array.tobytes())
        return whole.hexdigest()

    @property
    def reductions(self) -> tuple[int, ...]:
        """How much smaller than the tile the encoder sees it: 1, or 1 and 2, or 2 and 4."""
        return REDUCTIONS[int(self.rules["reductions"])]

    @property
    def finest(self) -> int:
        """Octave of colour and texture from which on it reads; 0 is every pixel."""
        return int(self.rules.get("finest_octave", 0))

    def to_bytes(self) -> bytes:
        told = {**self._told(), "sha256": self.sha256}
        # one entry of metadata only: the library writes several in any order
        return bytes(save(self._arrays(), {"learned": json.dumps(told, sort_keys=True)}))

    def _arrays(self) -> dict[str, NDArray[np.float32]]:
        return {name: np.ascontiguousarray(self.arrays[name], np.float32) for name in sorted(self.arrays)}

    def _told(self) -> dict[str, Any]:
        told = {
            "format": FORMAT,
            "name": self.name,
            "kind": self.kind,
            "base": self.base,
            "base_sha256": self.base_sha256,
            "mpp": self.mpp,
            "objects_of": self.objects_of,
            "rules": dict(self.rules),
            "card": asdict(self.card),
        }
        # left out where there is none, so that files of before keep their SHA-256
        return told if self.like is None else {**told, "like": asdict(self.like)}

    @classmethod
    def from_bytes(cls, content: bytes) -> Learned:
        """Raises InvalidArgumentError for anything that ``to_bytes`` did not write."""
        if len(content) > MOST_BYTES:
            raise InvalidArgumentError(
                f"a learned target has at most {MOST_BYTES} bytes; this file is something else."
            )
        try:
            require_tensors(content, len(content))
            length = int.from_bytes(content[:8], "little")
            header = json_in(content[8 : 8 + length], MOST_CARD_BYTES)
            told = _metadata(header)
            arrays = load(content)
            for name, array in arrays.items():
                if array.dtype != np.float32 or array.ndim > 2 or not np.isfinite(array).all():
                    raise ValueError(f"its array {name[:40]!r} is not what a learned target has")
            learned = _checked(told, arrays)
            if learned.sha256 != told["sha256"]:
                raise ValueError("its content is not what was written")
            return learned
        except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InvalidArgumentError(
                f"this is not a learned target that can be read ({reason}); name a file that `tissuetalk teach` wrote."
            ) from error


def _metadata(header: Any) -> dict[str, Any]:
    told: dict[str, Any] = json_in(header["__metadata__"]["learned"], MOST_CARD_BYTES)
    if told.get("format") != FORMAT:
        raise ValueError(f"its format is {str(told.get('format'))[:40]!r}, not {FORMAT!r}")
    return told


def _checked(told: dict[str, Any], arrays: Mapping[str, NDArray[np.float32]]) -> Learned:
    card = dict(told["card"])
    numbers = {
        key: tuple(float(each) for each in card[key])
        for key in ("taught_at_mpp", "stain_mean", "stain_spread")
    }
    interval = card["interval"]
    read = Card(
        positive=int(card["positive"]),
        negative=int(card["negative"]),
        images=int(card["images"]),
        expected_dice=None if card["expected_dice"] is None else float(card["expected_dice"]),
        interval=None if interval is None else (float(interval[0]), float(interval[1])),
        **numbers,
    )
    name, kind, mpp = named(told["name"]), told["kind"], float(told["mpp"])
    if kind not in ("region", "object") or not 0.02 <= mpp <= 100:
        raise ValueError("its kind or scale is not one we know")
    _require_arrays(arrays, told["rules"])
    if not re.fullmatch(r"[0-9a-f]{64}", str(told["base_sha256"])):
        raise ValueError("it does not say which weights it was taught on")
    of = told["objects_of"]
    rules = {str(key)[:40]: float(value) for key, value in told["rules"].items()}
    return Learned(
        name,
        kind,
        str(told["base"])[:100],
        str(told["base_sha256"]),
        mpp,
        None if of is None else str(of)[:100],
        dict(arrays),
        rules,
        read,
        _prompt_in(told.get("like"), rules),
    )


def _prompt_in(told: Any, rules: Mapping[str, float]) -> Prompt | None:
    if told is None:
        return None
    if not all(np.isfinite(rules[key]) for key in ("answer_scale", "answer_shift", "answer_present")):
        raise ValueError("its rules are not ones we know")
    texts = [told["label"], told["words"], told["text"], told["concept"]]
    if any(each is not None and (not isinstance(each, str) or len(each) > LONGEST_WORDS) for each in texts):
        raise ValueError("its words are longer than any target's")
    label, words, text, concept = texts
    return Prompt(label, str(words), str(text), bool(told["verbatim"]), concept)


def _require_arrays(arrays: Mapping[str, NDArray[np.float32]], rules: Mapping[str, Any]) -> None:
    if (
        int(rules["reductions"]) not in REDUCTIONS
        or float(rules["smallest_px"]) < 0
        or float(rules["hole_px"]) < 0
        or int(rules.get("finest_octave", 0)) not in FINEST
    ):
        raise ValueError("its rules are not ones we know")
    for head in {"head", *(name.partition(".")[0] for name in arrays)}:
        widths = {arrays[f"{head}.{part}"].shape for part in ("weights", "middle", "spread")}
        if len(widths) != 1 or len(next(iter(widths))) != 1 or arrays[f"{head}.bias"].shape != (1,):
            raise ValueError("its arrays do not fit each other")
        if not (arrays[f"{head}.spread"] > 0).all():
            raise ValueError("one of its arrays has a spread of zero")


def named(name: str) -> str:
    """A name as it is kept: on one line, without outer blanks. Raises InvalidArgumentError."""
    kept = " ".join(str(name).split())
    if not kept or len(kept) > LONGEST_NAME or not kept.isprintable():
        raise InvalidArgumentError(
            f"a learned target needs a name of 1 to {LONGEST_NAME} printable characters."
        )
    return kept
