"""Slide classifiers (presets ``diagnosis`` and ``diagnosis-objects``): objects are asked for in the taxonomy's sentences."""

from __future__ import annotations

from pathlib import Path

from tissuetalk.models.classifiers.card import ClassifierCard
from tissuetalk.models.classifiers.cohort_training import train_cohort
from tissuetalk.models.classifiers.recipe import CohortRecipe
from tissuetalk.models.segmenter import Prompt
from tissuetalk.prompts.names import prompt_of
from tissuetalk.prompts.taxonomy import Label, pathsegmentor_prompt


def prompt_of_label(label: str) -> Prompt:
    """A canonical label as ``segment`` asks for it. Raises UnknownLabelError."""
    parsed = Label.parse(label)
    return prompt_of(str(parsed), parsed.object_type, pathsegmentor_prompt(parsed))


def train(recipe: CohortRecipe, out: Path) -> ClassifierCard:
    """What ``tissuetalk train`` calls."""
    return train_cohort(recipe, out, prompt_of=prompt_of_label)
