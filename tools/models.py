"""The models of this installation, as a list anybody can read."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tissuetalk.models.registry import DEFAULT_MODEL, MODELS


def model_list() -> list[dict[str, Any]]:
    """One entry per model: its card, whether it is the default, and what is missing where it cannot be used."""
    return [
        {
            **asdict(entry.card),
            "metrics": dict(entry.card.metrics),
            "default": name == DEFAULT_MODEL,
            "missing": entry.why_not(),
        }
        for name, entry in MODELS.items()
    ]
