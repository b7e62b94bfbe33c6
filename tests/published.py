"""Weights with the names and shapes that public code gives a model, at a tiny size; ``data/README.md`` says whose."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor

LAYOUTS = Path(__file__).parent / "data" / "layouts"


def published(name: str) -> dict[str, Tensor]:
    """A state dictionary of random values. name: of a layout."""
    random = torch.Generator().manual_seed(0)
    with (LAYOUTS / f"{name}.csv").open(newline="") as file:
        rows = [(row["name"], [int(side) for side in row["shape"].split()]) for row in csv.DictReader(file)]
    return {key: torch.rand(shape, generator=random) * 0.1 for key, shape in rows}
