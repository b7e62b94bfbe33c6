"""Pixels: what is shown is found again elsewhere, and what cannot be learned from is refused in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from tissuetalk.models import registry
from tissuetalk.models.by_example import Learned, Place, Shown, far_from, prompt_for, teach, with_examples
from tissuetalk.models.by_example.objects import NUCLEI
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import ImageSource, open_image
from tissuetalk.models.segmenter import Segmenter

SIDE = 512


def two_tissues(seed: int = 0) -> np.ndarray:
    """[512, 512, 3]: pink with purple specks on the left, purple with pale ones on the right; noise everywhere."""
    rng = np.random.default_rng(seed)
    picture = np.empty((SIDE, SIDE, 3), np.float32)
    picture[:, : SIDE // 2] = (225, 150, 190)
    picture[:, SIDE // 2 :] = (150, 110, 180)
    for x, y in rng.integers(0, SIDE, (60, 2)):
        cv2.circle(picture, (int(x), int(y)), 5, (110, 70, 150), -1)
    return np.clip(picture + rng.normal(0, 8, picture.shape), 0, 255).astype(np.uint8)


def opened(folder: Path, pixels: np.ndarray, name: str = "two.png") -> ImageSource:
    Image.fromarray(pixels).save(folder / name)
    return open_image(folder / name, name=name)


LEFT, RIGHT = (60, 60, 120, 120), (380, 380, 440, 440)


def places(*boxes: tuple[bool, tuple[int, int, int, int]]) -> list[Place]:
    return [Place(is_positive, box=box) for is_positive, box in boxes]


def mask_of(taught: Segmenter, learned: Learned, source: ImageSource, mpp: float = 0.5) -> np.ndarray:
    """[H, W] in full-resolution pixels."""
    tile = source.read_scaled(source.box, mpp / learned.mpp)
    context, prompt = taught.prepare(tile), prompt_for(learned)
    (decoded,) = taught.decode(taught.encode(tile, context), [prompt])
    mask = taught.finish(decoded, prompt, context).mask.astype(np.uint8)
    return cv2.resize(mask, (source.width, source.height), interpolation=cv2.INTER_NEAREST) > 0


@pytest.fixture(scope="module")
def plain() -> Segmenter:
    """A model that offers no maps: colour and texture have to do."""
    return registry.load("classical-nuclei")


@pytest.fixture(scope="module")
def default() -> Segmenter:
    return registry.load()


@pytest.mark.parametrize("which", ["plain", "default"])
def test_what_was_shown_is_found_elsewhere(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model: Segmenter = request.getfixturevalue(which)
    with opened(tmp_path, two_tissues()) as source:
        learned = teach(model, [Shown(source, 0.5, places((True, LEFT), (False, RIGHT)))], name="pink stroma")
    assert (learned.card.positive, learned.card.negative) == (1, 1)
    assert learned.card.expected_dice is None and learned.card.interval is None
    with opened(tmp_path, two_tissues(seed=1), "other.png") as other:
        mask = mask_of(with_examples(model, [learned]), learned, other)
    assert mask[:, :236].mean() > 0.8
    assert mask[:, 276:].mean() < 0.1


def test_without_a_negative_what_is_least_alike_stands_for_it(plain: Segmenter, tmp_path: Path) -> None:
    with opened(tmp_path, two_tissues()) as source:
        learned = teach(plain, [Shown(source, 0.5, places((True, LEFT)))], name="pink stroma")
        mask = mask_of(with_examples(plain, [learned]), learned, source)
    assert (learned.card.positive, learned.card.negative, learned.card.expected_dice) == (1, 0, None)
    assert mask[:, :236].mean() > mask[:, 276:].mean() + 0.5


def test_another_name_changes_neither_mask_nor_hash_and_a_flipped_bit_is_refused(
    plain: Segmenter, tmp_path: Path
) -> None:
    with opened(tmp_path, two_tissues()) as source:
        learned = teach(plain, [Shown(source, 0.5, places((True, LEFT), (False, RIGHT)))], name="pink stroma")
    assert replace(learned, name="necrosis").sha256 == learned.sha256
    content = bytearray(learned.to_bytes())
    content[-5] ^= 1
    with pytest.raises(InvalidArgumentError, match="learned target"):
        Learned.from_bytes(bytes(content))


def test_something_white_ends_where_the_white_ends(default: Segmenter, tmp_path: Path) -> None:
    pixels = np.full((512, 512, 3), (222, 150, 190), np.uint8)
    rng = np.random.default_rng(0)
    white = np.zeros((512, 512), np.uint8)
    for y in range(40, 512, 72):
        for x in range(40, 512, 72):
            cv2.circle(white, (x, y), 30, 1, -1)
    pixels[white > 0] = (246, 245, 247)
    pixels = np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
    shown = places((True, (28, 28, 52, 52)), (True, (316, 316, 340, 340)), (False, (72, 72, 80, 80)))
    with opened(tmp_path, pixels) as source:
        learned = teach(default, [Shown(source, 0.5, shown)], name="fat cells")
        mask = mask_of(with_examples(default, [learned]), learned, source)
    assert learned.kind == "object"
    assert 2 * (mask & (white > 0)).sum() / (mask.sum() + white.sum()) > 0.97


def test_the_same_examples_give_the_same_bytes_and_survive_a_file(plain: Segmenter, tmp_path: Path) -> None:
    with opened(tmp_path, two_tissues()) as source:
        shown = [Shown(source, 0.5, places((True, LEFT), (False, RIGHT)))]
        first, second = (teach(plain, shown, name="pink") for _ in range(2))
    assert first.to_bytes() == second.to_bytes()
    again = Learned.from_bytes(first.to_bytes())
    assert again.sha256 == first.sha256 and again.card == first.card


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        ([(False, LEFT)], "is: true"),
        ([(True, LEFT), (False, (100, 100, 160, 160))], "contradict"),
        ([(True, LEFT), (False, (600, 600, 700, 700))], "outside the image"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    plain: Segmenter, tmp_path: Path, shown: list[tuple[bool, tuple[int, int, int, int]]], says: str
) -> None:
    with opened(tmp_path, two_tissues()) as source, pytest.raises(InvalidArgumentError, match=says):
        teach(plain, [Shown(source, 0.5, places(*shown))], name="pink")


def test_foreign_and_damaged_files_are_refused(plain: Segmenter, tmp_path: Path) -> None:
    with opened(tmp_path, two_tissues()) as source:
        learned = teach(plain, [Shown(source, 0.5, places((True, LEFT), (False, RIGHT)))], name="pink")
    content = learned.to_bytes()
    nothing = {"weights": np.zeros(3, np.float32)}
    bomb = (2**62).to_bytes(8, "little") + b"{" * 64
    for damaged in (
        b"",
        content[:-7],
        content[:40],
        b"\x80\x04cos\nsystem",
        bomb,
        save(nothing),
        bytes(5 * 2**20),
    ):
        with pytest.raises(InvalidArgumentError, match="learned target"):
            Learned.from_bytes(damaged)


def test_other_weights_are_named(plain: Segmenter, default: Segmenter, tmp_path: Path) -> None:
    with opened(tmp_path, two_tissues()) as source:
        learned = teach(plain, [Shown(source, 0.5, places((True, LEFT), (False, RIGHT)))], name="pink")
    with pytest.raises(InvalidArgumentError, match="other weights"):
        with_examples(default, [learned])


def test_an_image_of_another_stain_is_said_to_be_far(plain: Segmenter, tmp_path: Path) -> None:
    pixels = two_tissues()
    with opened(tmp_path, pixels) as source:
        learned = teach(plain, [Shown(source, 0.5, places((True, LEFT), (False, RIGHT)))], name="pink")
        assert far_from(learned, source) is None
    with opened(tmp_path, 255 - (255 - pixels) // 3, "pale.png") as pale:
        assert far_from(learned, pale) is not None


def test_one_kind_of_nuclei_is_told_from_another_by_pointing_at_a_few(
    plain: Segmenter, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    pixels, dark = np.full((512, 512, 3), (230, 170, 200), np.uint8), np.zeros((512, 512), bool)
    points: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for y in range(24, 500, 40):
        for x in range(24, 500, 40):
            is_dark = bool(rng.random() < 0.4)
            disc = np.zeros((512, 512), np.uint8)
            cv2.circle(disc, (x, y), 6 if is_dark else 10, 1, -1)
            pixels[disc > 0] = (60, 30, 110) if is_dark else (120, 90, 170)
            dark |= (disc > 0) & is_dark
            points[is_dark].append((x + 0.5, y + 0.5))
    shown = [Place(is_dark, point=at) for is_dark in (True, False) for at in points[is_dark][:3]]
    with opened(tmp_path, pixels) as source:
        learned = teach(plain, [Shown(source, 0.5, shown)], name="lymphocytes")
        mask = mask_of(with_examples(plain, [learned]), learned, source)
        region = teach(plain, [Shown(source, 0.5, shown)], name="lymphocytes", kind="region")
    assert (learned.kind, learned.objects_of) == ("object", "nuclei")
    assert (region.kind, region.objects_of) == ("region", None)
    found = [bool(mask[int(y), int(x)]) for is_dark in (True, False) for x, y in points[is_dark]]
    told = [True] * len(points[True]) + [False] * len(points[False])
    assert np.mean(np.array(found) == np.array(told)) > 0.95
    assert Learned.from_bytes(learned.to_bytes()).sha256 == learned.sha256


def test_what_the_model_knows_is_corrected_and_what_it_has_wrong_is_left_aside(
    plain: Segmenter, tmp_path: Path
) -> None:
    pixels = np.full((512, 512, 3), (230, 170, 200), np.uint8)
    rng = np.random.default_rng(0)
    middles = [(x, y) for y in range(40, 500, 60) for x in range(40, 500, 60)]
    for x, y in middles:
        cv2.circle(pixels, (x, y), 12, (90, 50, 140), -1)
    pixels = np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
    on = [(x - 6, y - 6, x + 6, y + 6) for x, y in middles[:3]]
    off = [(x + 20, y + 20, x + 40, y + 40) for x, y in middles[:3]]
    right = places(*[(True, box) for box in on], *[(False, box) for box in off])
    wrong = places(*[(False, box) for box in on], *[(True, box) for box in off])
    with opened(tmp_path, pixels) as source:
        learned, other = (
            teach(plain, [Shown(source, 0.5, shown)], name="nuclei", kind="region", like=NUCLEI)
            for shown in (right, wrong)
        )
        mask = mask_of(with_examples(plain, [learned]), learned, source)
        tile = source.read_scaled(source.box, 0.5 / learned.mpp)
    context = plain.prepare(tile)
    (decoded,) = plain.decode(plain.encode(tile, context), [NUCLEI])
    own = cv2.resize(plain.finish(decoded, NUCLEI, context).mask.astype(np.uint8), (512, 512)) > 0
    assert own.any() and 2 * (mask & own).sum() / (mask.sum() + own.sum()) > 0.97
    assert learned.like == NUCLEI and other.like is None
    again = Learned.from_bytes(learned.to_bytes())
    assert (again.like, again.sha256) == (NUCLEI, learned.sha256)
    # a cut that examples moved decides where the target ends, never whether it is there
    moved = replace(learned, rules={**learned.rules, "answer_shift": -1000.0})
    taught = with_examples(plain, [moved])
    (answer,) = taught.decode(taught.encode(tile, context), [prompt_for(moved)])
    done = taught.finish(answer, prompt_for(moved), context)
    assert learned.rules["answer_present"] and not done.mask.any() and done.presence >= 0.5
