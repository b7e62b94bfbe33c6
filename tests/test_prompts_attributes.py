"""Attributes read off drawn masks, and the prompts made from them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tissuetalk.prompts.attributes import (
    PROMPT_IDS,
    attribute_prompt,
    attributes_of,
    components,
    descriptions_of,
    location_word,
    number_word,
    shape_word,
    size_word,
)
from tissuetalk.prompts.taxonomy import Label

GLAND = Label.parse("colon-tissue-gland")


def test_components_are_eight_connected_and_small_ones_are_left_out() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[0:10, 0:10] = mask[10:20, 10:20] = True
    mask[30:33, 30:33] = True
    assert [part.area_px for part in components(mask)] == [200]
    assert len(components(mask, smallest_px=1)) == 2


def test_components_agree_with_scipy_on_noise() -> None:
    noise = np.random.default_rng(1).random((60, 70)) < 0.4
    _, count = ndimage.label(noise, structure=np.ones((3, 3)))
    assert len(components(noise, smallest_px=1)) == count


def test_number_size_and_location_of_two_squares() -> None:
    mask = np.zeros((90, 90), dtype=bool)
    mask[5:25, 5:25] = mask[60:80, 60:85] = True
    found = attributes_of(mask, GLAND)
    assert (found.number, found.sizes, found.locations) == ("few", ("small",), ("bottom right", "top left"))


@pytest.mark.parametrize(
    ("fraction", "word"), [(0.004, "tiny"), (0.005, "small"), (0.1, "medium"), (0.3, "large")]
)
def test_size_cuts(fraction: float, word: str) -> None:
    assert size_word(fraction) == word


def test_number_bands_and_locations() -> None:
    assert [number_word(count) for count in (1, 4, 11, 12)] == ["one", "few", "many", "dozens"]
    assert location_word((40, 40, 50, 50), (90, 90)) == "center"
    assert location_word((100, 40, 110, 50), (90, 180)) == "center"
    assert location_word((100, 40, 110, 50), (90, 180), legacy_location=True) == "right"


def test_shapes_of_a_disc_a_rod_and_a_square() -> None:
    y, x = np.mgrid[:60, :60]
    disc = (y - 30) ** 2 + (x - 30) ** 2 < 400
    rod = ((y - 30) / 5) ** 2 + ((x - 30) / 28) ** 2 < 1
    square = (abs(y - 30) < 20) & (abs(x - 30) < 20)
    assert [shape_word(components(m)[0]) for m in (disc, rod, square)] == [
        "round",
        "elongated",
        "rectangular",
    ]


def test_colour_is_the_nearest_stain_colour_under_the_mask() -> None:
    image = np.full((20, 20, 3), 255, dtype=np.uint8)
    image[5:15, 5:15] = (120, 80, 160)
    mask = np.zeros((20, 20), dtype=bool)
    mask[5:15, 5:15] = True
    assert attributes_of(mask, GLAND, image).color == "purple"


def test_the_prompts_grow_by_one_attribute() -> None:
    mask = np.zeros((90, 90), dtype=bool)
    mask[40:50, 40:50] = True
    found = attributes_of(mask, GLAND)
    prompts = {name: attribute_prompt(name, found, GLAND) for name in PROMPT_IDS}
    assert prompts["P0"] == "" and prompts["P1"] == "glands"
    assert prompts["P5"] == "one small rectangular glands" or prompts["P5"].startswith("one small")
    assert prompts["P6"].endswith("located in center of the image")
    assert prompts["P9"].endswith("located in center of the image") and "which is" in prompts["P9"]
    assert prompts["P10"] == "tissue-level gland in colon pathology"


def test_a_missing_attribute_goes_with_its_clause() -> None:
    nothing = attributes_of(np.zeros((9, 9), dtype=bool), GLAND)
    assert attribute_prompt("P6", nothing, GLAND) == "glands"


def test_there_are_five_descriptions_and_they_differ() -> None:
    assert len(set(descriptions_of(GLAND))) == 5
