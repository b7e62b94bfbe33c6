"""Sentences for groups of prompts: one target said in many ways, of all objects or of one class (prompt_groups.md, section 3)."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import Literal

import numpy as np
import yaml

from tissuetalk.models.datasets.wordings import LEVELS, Level

Part = Literal["train", "test"]


@lru_cache(maxsize=1)
def templates() -> dict[str, dict[Part, dict[Level, list[str]]]]:
    """``all`` and ``one`` to part to level to sentences with places for ``{things}`` and ``{class}``."""
    found = resources.files("tissuetalk.models.datasets").joinpath("group_sentences.yaml")
    read: dict[str, dict[Part, dict[Level, list[str]]]] = yaml.safe_load(found.read_text(encoding="utf-8"))
    return read


def sentences(part: Part, things: str, class_name: str | None = None) -> dict[Level, list[str]]:
    """By level: of all objects, or of one class. things: what they are, in the plural."""
    kind = templates()["all" if class_name is None else "one"][part]
    return {
        level: [each.format(**{"things": things, "class": class_name}) for each in kind[level]]
        for level in LEVELS
    }


def drawn_group(bank: dict[Level, list[str]], size: int, random: np.random.Generator) -> list[str]:
    """Sentences of a training group in random order, every level once before one comes again, no sentence twice."""
    levels = [LEVELS[place] for place in random.permutation(len(LEVELS))]
    left = {level: [bank[level][place] for place in random.permutation(len(bank[level]))] for level in LEVELS}
    chosen = [left[levels[number % len(levels)]].pop() for number in range(size)]
    return [chosen[place] for place in random.permutation(size)]
