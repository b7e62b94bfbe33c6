"""Sentences the seed systems are trained and tested with: prompt groups (E1, E2) and the nine PFPs tasks (C10)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import yaml

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.prompts.words import LOADER

GroupType = Literal["T1", "T2"]
Quality = Literal["low", "medium", "high"]
Split = Literal["train", "test"]
TRAIN_TEMPLATES = 9
CONSTRAINT = re.compile(
    r"\b(?:but|without|except|exclud\w+|leave out|do not|only where|never|inside|within|while ignoring|left empty|keep .* out)\b"
)


@dataclass(frozen=True)
class TaskSentence:
    """One sentence of a PFPs task; `text` has a `<class>` slot where a unit is named. `index` counts from 1 to 20."""

    task: int
    index: int
    split: Split
    text: str


@lru_cache(maxsize=4)
def _load(name: str) -> Any:
    text = resources.files("tissuetalk.prompts").joinpath("sets", name).read_text(encoding="utf-8")
    return yaml.load(text, Loader=LOADER)


def group_templates(kind: GroupType, quality: Quality, split: Split) -> tuple[str, ...]:
    """The templates of one cell of the bank: nine to train, three to test; T2 templates have a `{class}` slot."""
    rows: list[str] = _load("prompt_groups.yaml")[kind][quality]
    return tuple(rows[:TRAIN_TEMPLATES] if split == "train" else rows[TRAIN_TEMPLATES:])


def group_sentences(kind: GroupType, quality: Quality, split: Split, class_name: str = "") -> tuple[str, ...]:
    """The templates with the class filled in. Raises InvalidArgumentError for a T2 group without a class."""
    if kind == "T2" and not class_name:
        raise InvalidArgumentError(
            "a T2 prompt group is about one class; name it, for example 'inflammatory'."
        )
    return tuple(text.replace("{class}", class_name) for text in group_templates(kind, quality, split))


def group_classes(dataset: str) -> tuple[str, ...]:
    """The class names of a data set for the T2 slot. Raises InvalidArgumentError for a set without a list."""
    rows: dict[str, list[str]] = _load("prompt_groups.yaml")["classes"]
    if dataset not in rows:
        raise InvalidArgumentError(f"no class list for {dataset!r}; there are lists for {', '.join(rows)}.")
    return tuple(rows[dataset])


def quality_of(sentence: str) -> Quality | None:
    """The level a sentence has by rule: words are counted, and a high one must constrain; None when it is no level."""
    count = len(sentence.split())
    if count <= 4:
        return "low"
    if count <= 12:
        return "medium"
    return "high" if CONSTRAINT.search(sentence.lower()) else None


@lru_cache(maxsize=1)
def task_sentences() -> tuple[TaskSentence, ...]:
    """All 180 sentences of the nine tasks, 15 for training and 5 for testing each."""
    found: list[TaskSentence] = []
    for task, parts in _load("pfps_sentences.yaml").items():
        texts: list[tuple[Split, str]] = [("train", text) for text in parts["train"]]
        texts += [("test", text) for text in parts["test"]]
        found += [
            TaskSentence(int(task), number, split, text)
            for number, (split, text) in enumerate(texts, start=1)
        ]
    return tuple(found)


@lru_cache(maxsize=1)
def words_of_tasks() -> frozenset[str]:
    """Every word of the 180 sentences, in lower case: whoever says them names nobody."""
    return frozenset(word.lower() for row in task_sentences() for word in re.findall(r"[a-zA-Z]+", row.text))


def sentences_of_task(task: int, split: Split, class_name: str) -> tuple[str, ...]:
    """The sentences of one task with the unit's name filled in (plain words, such as "proximal tubule")."""
    return tuple(
        row.text.replace("<class>", class_name)
        for row in task_sentences()
        if row.task == task and row.split == split
    )
