"""Targets taught by example: places shown on images become a name that a model knows."""

from tissuetalk.models.by_example.distance import far_from
from tissuetalk.models.by_example.learned import Card, Learned
from tissuetalk.models.by_example.places import Place, Shown
from tissuetalk.models.by_example.segmenter import prompt_for, with_examples
from tissuetalk.models.by_example.teaching import teach

__all__ = ["Card", "Learned", "Place", "Shown", "far_from", "prompt_for", "teach", "with_examples"]
