"""`python -m benchmarks masks`: ways to the same masks beside each other, on drawn nuclei."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from benchmarks.masks import by_words, measured
from benchmarks.masks_unet import UNet
from tissuetalk.models import registry
from tissuetalk.models.datasets.example import Example, from_instances
from tissuetalk.models.segmenter import Finished


def drawn(number: int) -> Example:
    """Twelve purple discs on pink at 0.5 µm/px."""
    image = np.full((120, 160, 3), (225, 180, 205), np.uint8)
    truth = np.zeros((120, 160), np.int32)
    for at in range(12):
        centre = 20 + at % 4 * 40 + number, 20 + at // 4 * 40
        cv2.circle(image, centre, 8, (95, 60, 140), -1)
        cv2.circle(truth, centre, 8, at + 1, -1)
    return Example(
        "drawn", str(number), "p", True, image, 0.5, True, {"nuclei": from_instances(truth, parted=True)}
    )


def test_a_method_is_scored_on_every_set_once(tmp_path: Path) -> None:
    classical, kept = by_words(registry.load("classical-nuclei")), tmp_path / "kept.json"
    examples, asked = [drawn(0), drawn(3)], []

    def nothing(example: Example, target: str) -> Finished:
        asked.append(example.name)
        return Finished(
            np.zeros(example.image.shape[:2], np.bool_), np.zeros(example.image.shape[:2], np.int32), 0.0
        )

    methods = {"classical": classical, "nothing": nothing, "none of it": lambda example, target: None}
    table = measured(methods, examples, ["nuclei", "gland"], kept)
    scores = table["drawn/nuclei"]
    assert list(table) == ["drawn/nuclei"] and scores["none of it"] is None
    assert scores["classical"] is not None and scores["nothing"] is not None
    assert scores["classical"]["images"] == 2 and (scores["classical"]["dice"] or 0) > 0.85
    assert (scores["classical"]["pq"] or 0) > 0.7 and scores["nothing"]["pq"] == 0
    count = len(asked)
    assert measured(methods, examples, ["nuclei", "gland"], kept) == table
    assert len(asked) == count  # what is there is not measured again


def test_the_u_net_has_the_size_it_is_said_to_have_and_answers_at_any_size() -> None:
    network = UNet()
    assert 1.55e6 < sum(weight.numel() for weight in network.parameters()) < 1.65e6
    found = network.found(drawn(0).image[:101, :77], "nuclei")
    assert found.mask.shape == (101, 77) and found.instances is not None
