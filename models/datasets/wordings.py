"""Many ways to ask for the same target, at three levels of quality (prompt_groups.md, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import numpy as np
import yaml

Level = Literal["low", "medium", "high"]
LEVELS: tuple[Level, ...] = ("low", "medium", "high")
TEST_DRAW_SEED = 2026


@dataclass(frozen=True)
class BankSentence:
    """One sentence for one target."""

    target: str
    level: Level
    text: str


@lru_cache(maxsize=1)
def _bank() -> dict[str, Any]:
    text = resources.files("tissuetalk.models.datasets").joinpath("wordings.yaml").read_text(encoding="utf-8")
    bank: dict[str, Any] = yaml.safe_load(text)
    return bank


def targets() -> tuple[str, ...]:
    """Names of all targets the bank has sentences for."""
    return tuple(_bank()["names"])


def names(target: str) -> tuple[str, ...]:
    """What people call the target."""
    return tuple(_bank()["names"][target])


def wordings(target: str, *, part: Literal["train", "test"] = "train") -> tuple[BankSentence, ...]:
    """Every sentence of the bank for one target, in a fixed order."""
    bank = _bank()
    found: dict[str, BankSentence] = {}
    for level in LEVELS:
        for template in bank[part][level]:
            for name in names(target):
                for organ in bank["organs"][target] if "{organ}" in template else ("",):
                    text = template.format(name=name, organ=organ, structure=bank["structures"][target])
                    found.setdefault(text, BankSentence(target, level, text))
    return tuple(found.values())


def rephrasings(name: str) -> tuple[BankSentence, ...]:
    """One untrained sentence per level for anything that has a name."""
    bank, first = _bank(), {level: _bank()["test"][level][0] for level in LEVELS}
    words = {"name": name, "structure": bank["structures"].get(name, "tissue"), "organ": "tissue"}
    return tuple(BankSentence(name, level, text.format(**words)) for level, text in first.items())


def unseen_sentences(target: str, each_level: int) -> list[BankSentence]:
    """Up to ``each_level`` untrained sentences of each level, the same ones every time.

    Anything the bank has no sentences for gets one per level.
    """
    if target not in targets():
        return list(rephrasings(target))
    rng = np.random.default_rng(TEST_DRAW_SEED)
    chosen: list[BankSentence] = []
    for level in LEVELS:
        pool = [wording for wording in wordings(target, part="test") if wording.level == level]
        chosen += [pool[index] for index in sorted(rng.permutation(len(pool))[:each_level].tolist())]
    return chosen
