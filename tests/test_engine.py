"""Tiles, scales and blending: what comes out must not depend on how the image was cut."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from drawn import discs, lattice, save
from hypothesis import given, settings
from hypothesis import strategies as st

from tissuetalk.models.control import Control
from tissuetalk.models.errors import CancelledError, ImageTooLargeError
from tissuetalk.models.images import Box, ImageSource, open_image
from tissuetalk.models.segmentation.classical_nuclei import ClassicalNuclei
from tissuetalk.models.segmentation.pathsegmentor.card import BaseLabels
from tissuetalk.models.segmenter import Capability, Context, Decoded, Finished, Prompt
from tissuetalk.tools.segment import engine
from tissuetalk.tools.segment.field import FieldOfView, Scale
from tissuetalk.tools.segment.grid import Block, Grid, SlideSettings
from tissuetalk.tools.segment.tiles import HeldMaps, blend


def look_for(model, source, region, mpp, asked, **control):
    """``find_masks`` on a field that is described in one line."""
    field = FieldOfView(source, model, region, Scale(mpp, "given"))
    return engine.find_masks(field, asked, Control(**control))


NUCLEI = Prompt(None, "nuclei", "nuclei")
DARK = Prompt(None, "dark", "dark")


@dataclass
class Local:
    """Judges every pixel by itself: dark or not. Counts how often it was asked."""

    tile_px: int = 64
    margin_px: int = 2
    presence: float | None = None
    weights_sha256: str = "local"
    encoded: int = 0
    decoded: int = 0
    card: ClassVar = SimpleNamespace(name="local")

    def prepare(self, overview: Any) -> Context:
        return Context({"middle": 128.0})

    def encode(self, tile: Any, context: Context) -> Any:
        self.encoded += 1
        return context.values["middle"] - tile.mean(axis=2).astype(np.float32)

    def decode(self, features: Any, prompts: Any) -> list[Decoded]:
        self.decoded += 1
        sign = {"dark": 1.0, "bright": -1.0}
        return [Decoded(features * sign[prompt.words], self.presence) for prompt in prompts]

    def finish(self, stitched: Decoded, prompt: Prompt, context: Context) -> Finished:
        presence = 1.0 if stitched.presence is None else stitched.presence
        return Finished(stitched.logits > 0, None, presence)


def at(mpp: float) -> Capability:
    return Capability("dark", mpp, objects=False)


@pytest.fixture
def source(tmp_path: Path) -> ImageSource:
    picture = discs(300, 220, lattice(20), background=(225, 170, 205))
    with open_image(save(tmp_path / "discs.png", picture), name="discs.png") as opened:
        yield opened


def whole(source: ImageSource) -> Box:
    return Box.whole(source.width, source.height)


sizes = st.integers(1, 900)


@given(
    width=sizes, height=sizes, side=st.integers(96, 300), margin=st.integers(0, 40), step=st.floats(0.5, 2)
)
@settings(max_examples=100)
def test_blocks_cover_the_region_and_their_tiles_stay_inside_the_image(
    width: int, height: int, side: int, margin: int, step: float
) -> None:
    grid = grid_of(width, height, Box(0, 0, width, height), step, Local(tile_px=side, margin_px=margin))
    blocks = list(grid.blocks())
    covered = np.zeros(grid.image_px[::-1], int)
    for block in blocks:
        covered[block.core.inside(grid.box)] += 1
        assert (
            block.tile.intersection(grid.box) == block.tile
            and block.core.intersection(block.tile) == block.core
        )
        assert block.tile.width <= grid.tile_px and block.tile.height <= grid.tile_px
    assert (covered == 1).all()
    assert len(blocks) == 1 or (max(grid.image_px) > grid.tile_px)


@given(x0=st.integers(0, 300), y0=st.integers(0, 300), side=st.integers(64, 300), step=st.floats(0.5, 4))
@settings(max_examples=100)
def test_windows_share_out_every_full_resolution_pixel_once(x0: int, y0: int, side: int, step: float) -> None:
    region = Box(x0, y0, 640, 600)
    grid = grid_of(700, 650, region, step, Local(), window_px=side)
    covered = np.zeros((region.height, region.width), int)
    for window in grid.windows:
        covered[window.full.inside(region)] += 1
        assert (window.core.x0 - grid.box.x0) % 2 == (window.core.y0 - grid.box.y0) % 2 == 0
        assert window.core.width <= grid.window_px + 2 and window.core.height <= grid.window_px + 2
    assert (covered == 1).all()


def grid_of(width: int, height: int, region: Box, step: float, model: Any, **settings: Any) -> Grid:
    """Of an image of that size that nobody has drawn."""
    image = SimpleNamespace(width=width, height=height)
    return Grid.over(image, region, 1.0, step, model, SlideSettings(**settings))


@pytest.mark.parametrize("tile_px", [32, 50, 64, 300, 1024])
@pytest.mark.parametrize("margin_px", [1, 8])
def test_a_local_model_gives_the_same_mask_for_every_tile_size(
    source: ImageSource, tile_px: int, margin_px: int
) -> None:
    model = Local(tile_px=tile_px, margin_px=margin_px)
    (found,) = look_for(model, source, whole(source), 0.5, [(DARK, at(0.5))])
    pixels = source.read_region(whole(source), width=source.width, height=source.height)
    assert np.array_equal(found.mask, pixels.mean(axis=2) < 128)


def test_the_baseline_counts_the_same_nuclei_for_every_tile_size(source: ImageSource) -> None:
    masks = []
    for tile_px in (80, 128, 1024):
        model = ClassicalNuclei()
        model.tile_px = tile_px
        (found,) = look_for(
            model, source, whole(source), 0.5, [(NUCLEI, Capability("nuclei", 0.5, objects=True))]
        )
        assert found.instances is not None and len(np.unique(found.instances)) == 20 + 1
        masks.append(found.mask)
    for mask in masks:
        assert (mask & masks[-1]).sum() / (mask | masks[-1]).sum() > 0.98


def test_every_tile_is_encoded_once_however_many_prompts_share_it(source: ImageSource) -> None:
    model = Local(tile_px=100)
    bright = replace(DARK, words="bright")
    dark, light = look_for(model, source, whole(source), 0.5, [(DARK, at(0.5)), (bright, at(0.5))])
    grid = grid_of(source.width, source.height, whole(source), 1.0, model)
    assert model.encoded == model.decoded == len(list(grid.blocks())) == 40
    assert not (dark.mask & light.mask).any() and (dark.mask | light.mask).all()


class Leaning(Local):
    """Believes what is lower and further right more readily."""

    def encode(self, tile: Any, context: Context) -> Any:
        rows, columns = (np.linspace(-100, 100, side, dtype=np.float32) for side in tile.shape[:2])
        return super().encode(tile, context) + rows[:, None] + columns


def test_the_mean_of_all_mirror_images_leans_to_no_side(source: ImageSource) -> None:
    (straight,) = look_for(Local(), source, whole(source), 0.5, [(DARK, at(0.5))])
    model = Leaning()
    asked = [(DARK, at(0.5)), (DARK, replace(at(0.5), looks=4))]
    leaning, mirrored = look_for(model, source, whole(source), 0.5, asked)
    assert (mirrored.mask == straight.mask).all()
    assert (leaning.mask != straight.mask).mean() > 0.1, (
        "one look at the same tiles is not changed by the other prompt"
    )
    assert model.encoded == 4 * len(
        list(grid_of(source.width, source.height, whole(source), 1.0, model).blocks())
    )


def test_prompts_of_two_scales_come_back_in_the_order_asked(source: ImageSource) -> None:
    bright = replace(DARK, words="bright")
    asked = [(DARK, at(1.0)), (bright, at(0.5)), (DARK, at(0.5))]
    coarse, light, fine = look_for(Local(), source, whole(source), 0.5, asked)
    assert [coarse.model_mpp, light.model_mpp, fine.model_mpp] == [1.0, 0.5, 0.5]
    assert not (light.mask & fine.mask).any()
    assert coarse.mask.shape == fine.mask.shape
    assert abs(int(coarse.mask.sum()) / int(fine.mask.sum()) - 1) < 0.2


def test_a_region_is_answered_in_its_own_pixels(source: ImageSource) -> None:
    everything = look_for(Local(), source, whole(source), 0.5, [(DARK, at(0.5))])[0]
    part = look_for(Local(), source, Box(25, 40, 125, 110), 0.5, [(DARK, at(0.5))])[0]
    assert np.array_equal(part.mask, everything.mask[40:110, 25:125])


def test_a_target_the_model_does_not_believe_in_is_not_painted(source: ImageSource) -> None:
    (found,) = look_for(Local(presence=0.49), source, whole(source), 0.5, [(DARK, at(0.5))])
    assert not found.mask.any() and found.weak_px > 0
    (found,) = look_for(Local(presence=0.5), source, whole(source), 0.5, [(DARK, at(0.5))])
    assert found.mask.any() and found.weak_px == 0


def test_progress_grows_to_one_and_never_falls(source: ImageSource) -> None:
    said: list[float] = []
    asked = [(DARK, at(0.5)), (DARK, at(1.0))]
    look_for(Local(), source, whole(source), 0.5, asked, progress=lambda done, what: said.append(done))
    assert said == sorted(said) and said[-1] == pytest.approx(1.0) and len(said) > 10


def test_a_stop_ends_the_work_before_the_next_tile(source: ImageSource) -> None:
    model = Local(tile_px=32)
    with pytest.raises(CancelledError):
        look_for(model, source, whole(source), 0.5, [(DARK, at(0.5))], stop=lambda: model.encoded == 3)
    assert model.encoded == 3


def test_a_region_too_large_to_hold_is_refused_before_any_work(source: ImageSource) -> None:
    model = Local()
    with pytest.raises(ImageTooLargeError, match="region"):
        look_for(model, source, whole(source), 50.0, [(DARK, at(0.05))])
    assert model.encoded == 0


def test_specks_far_below_the_size_of_a_target_are_not_counted_and_said(tmp_path: Path) -> None:
    picture = discs(200, 120, [(50, 60), (120, 60)], 9.5, (225, 170, 205))
    picture[20:23, 20:23] = picture[60, 50]
    with open_image(save(tmp_path / "specks.png", picture), name="specks.png") as source:
        (found,) = look_for(
            Local(), source, whole(source), 0.5, [(DARK, Capability("dark", 0.5, objects=False, least_px=40))]
        )
    assert found.specks == 1 and found.labels.max() == 2 and not found.mask[20:23, 20:23].any()


@pytest.mark.parametrize("blends", ["logits", "probabilities"])
def test_what_tiles_say_where_they_overlap_is_averaged_as_the_checkpoint_says(
    blends: str, tmp_path: Path
) -> None:
    """Two tiles side by side that disagree, one of them beyond doubt."""
    said = (np.full((1, 8, 12), -1.0, np.float16), np.full((1, 8, 12), 9.0, np.float16))
    left = Block(0, 0, Box(0, 0, 8, 8), Box(0, 0, 12, 8), 4, (False, False, True, False))
    right = Block(1, 0, Box(8, 0, 16, 8), Box(4, 0, 16, 8), 4, (True, False, False, False))
    (tmp_path / "config.json").write_text(json.dumps({"blends": blends}))
    capability = BaseLabels.of(tmp_path / "model.safetensors").capability(DARK)
    assert capability is not None and capability.blends == blends
    blended = blend(
        Box(0, 0, 16, 8),
        [left, right],
        lambda block: HeldMaps((None,), (said[block.column],)),
        0,
        capability.blends,
    )
    assert blended is not None
    row = blended[0].logits[0]
    assert np.allclose(row[[0, 1, -2, -1]], [-1, -1, 9, 9], atol=1e-2)
    share = (
        (row[7:9] + 1) / 10
        if blends == "logits"
        else (_probable(row[7:9]) - _probable(-1)) / (_probable(9) - _probable(-1))
    )
    assert np.allclose(share, [0.375, 0.625], atol=1e-3)


def test_no_logit_is_too_large_for_the_mean_of_probabilities() -> None:
    block = Block(0, 0, Box(0, 0, 8, 8), Box(0, 0, 8, 8), 4, (False, False, False, False))
    said = np.full((1, 8, 8), -60_000, np.float16)
    said[0, 4:] = 60_000
    blended = blend(Box(0, 0, 8, 8), [block], lambda block: HeldMaps((None,), (said,)), 0, "probabilities")
    assert blended is not None and np.isfinite(blended[0].logits).all()
    assert np.array_equal(blended[0].logits > 0, said[0] > 0)


def _probable(logit: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(logit, np.float64)))
