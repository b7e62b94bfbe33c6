"""What the mini model was trained for, at which scale it looks for it, and what of that it offers. Imports no deep-learning library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

TARGET_MPP: Final[Mapping[str, float]] = {
    "nuclei": 0.25,
    "gland": 1.2,
    "tumour": 1.0,
    "glomerulus": 2.0,
    "tumour nuclei": 0.25,
    "non-tumour nuclei": 0.25,
    "mitosis": 0.25,
}
"""µm per pixel at which each target is looked for."""

OFFERED_TARGETS: Final = ("nuclei", "gland", "tumour", "glomerulus")
"""Targets whose held-out scores allow them to be offered; the others are trained, measured and refused."""

OBJECT_TARGETS: Final = frozenset(TARGET_MPP) - {"tumour"}
"""Targets that come back as separate objects."""
