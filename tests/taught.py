"""Pictures of two tissues, and places in them: what is taught on one is found on the next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from drawn import save

SIDE = 512
LEFT, RIGHT = [60, 60, 120, 120], [380, 380, 440, 440]
"""Wholly in the pink tissue, and wholly in the purple one."""
PINK = [{"box": LEFT, "is": True}, {"box": RIGHT, "is": False}]
PLAIN = {"mpp": 0.5, "model": "classical-nuclei"}
"""A model without weights: colour and texture have to do, and a server answers at once."""


def two_tissues(path: Path, seed: int = 0, side: int = SIDE) -> Path:
    """Pink on the left half, purple on the right, specks of nuclei and noise everywhere."""
    rng = np.random.default_rng(seed)
    picture = np.empty((side, side, 3), np.float32)
    picture[:, : side // 2], picture[:, side // 2 :] = (225, 150, 190), (150, 110, 180)
    for x, y in rng.integers(0, side, (side * side // 4400, 2)):
        cv2.circle(picture, (int(x), int(y)), 5, (90, 50, 130), -1)
    return save(path, np.clip(picture + rng.normal(0, 8, picture.shape), 0, 255).astype(np.uint8))


def shares(mask: np.ndarray) -> tuple[float, float]:
    """Of the pink half and of the purple half that a mask marks, away from the border."""
    middle = mask.shape[1] // 2
    return float(mask[:, : middle - 20].mean()), float(mask[:, middle + 20 :].mean())


def geojson(path: Path, *places: tuple[str, Sequence[float]], **more: Any) -> Path:
    """Boxes with a class each, as QuPath writes them."""
    features = []
    for name, (x0, y0, x1, y1) in places:
        ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
        properties = {"objectType": "annotation", **({"classification": {"name": name}} if name else {})}
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": properties,
            }
        )
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **more}))
    return path
