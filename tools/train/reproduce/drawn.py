"""Little pictures for dry runs: discs of two colours on a pink ground, with a manifest as `tissuetalk data prepare` writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.metrics.tables import csv_text
from tissuetalk.models.writing import write_whole

GROUND, COLOURS = (225, 190, 215), ((90, 60, 140), (150, 90, 160))


def discs(random: np.random.Generator, side: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """[side, side, 3] RGB and [side, side] class numbers 0 to 2; both classes are there."""
    classes = np.zeros((side, side), np.uint8)
    for number in range(count):
        x, y = (int(value) for value in random.integers(side // 8, side - side // 8, 2))
        cv2.circle(classes, (x, y), int(random.integers(side // 16, side // 8)), number % 2 + 1, -1)
    picture = np.asarray((GROUND, *COLOURS), np.float64)[classes] + random.normal(0, 6, (side, side, 3))
    return picture.clip(0, 255).astype(np.uint8), classes


def draw_set(
    folder: Path,
    names: Sequence[tuple[str, str]],
    labels: tuple[str, str],
    *,
    seed: int,
    side: int = 64,
    organs: Sequence[str] = ("breast", "colon"),
) -> None:
    """names: of the pictures, with their split. labels: of the two colours. A folder that has a manifest stays as it is."""
    if (folder / "manifest.csv").is_file():
        return
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    rows = []
    for number, (name, split) in enumerate(names):
        picture, classes = discs(random, side, 6)
        cv2.imwrite(str(folder / f"images/{name}.png"), picture[..., ::-1])
        for value, label in enumerate(labels, start=1):
            mask = f"masks/{name}_{value}.png"
            cv2.imwrite(str(folder / mask), np.where(classes == value, 255, 0).astype(np.uint8))
            rows.append(
                {
                    "file": f"images/{name}.png", "mask": mask, "mask_kind": "binary", "mask_class": label,
                    "group": name, "organ": organs[number % len(organs)], "mpp_um": "0.25", "split": split,
                    "source": folder.name, "absent": "",
                }
            )  # fmt: skip
    text = csv_text(rows)
    for part in ("manifest", "train", "test"):
        some = [row for row in rows if part in ("manifest", row["split"])]
        if some:
            write_whole(folder / f"{part}.csv", text if part == "manifest" else csv_text(some))
