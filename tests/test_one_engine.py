"""A picture is a slide with one window kept in memory: the same words on the same region give the same result both ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from drawn import HAEMATOXYLIN, save
from slide_runs import SlideRun, bench_at, order_of, register, run

from tissuetalk.models import registry
from tissuetalk.prompts.target import Relation, Target
from tissuetalk.tools.segment.grid import SlideSettings
from tissuetalk.tools.storage.result_folder import ResultFolder

REAL = Path(__file__).parent / "data" / "images" / "HE_example.ome.tif"
MEMORY = SlideSettings(tile_px=192)
DISK = SlideSettings(whole_px=0, tile_px=192, window_px=200)


@dataclass(frozen=True)
class Both:
    """The same question, answered in memory and on disk."""

    held: Any
    folder: ResultFolder
    slide: SlideRun

    def names(self) -> list[str]:
        return [str(mask.free_form) for mask in self.held.masks]

    def pixels(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """[H, W] objects (of a region: 1), from the PNG and from level 0 of the pyramid."""
        (mask,) = (mask for mask in self.held.masks if mask.free_form == name)
        labels = self.folder.instances(mask.mask_id)
        if labels is None:
            labels = self.folder.mask(mask.mask_id)
        return np.asarray(labels, np.int32), np.asarray(self.slide.labels(name), np.int32)

    def check(self) -> None:
        """Everything a reader can see is equal, pixel by pixel and figure by figure."""
        assert [m.free_form for m in self.slide.result.masks] == self.names()
        assert self.slide.result.warnings == self.held.warnings
        assert self.slide.result.not_segmented == self.held.not_segmented
        for held, stored in zip(self.held.masks, self.slide.result.masks, strict=True):
            own = {"mask_id", "resources", "provenance"}
            assert stored.model_dump(exclude=own) == held.model_dump(exclude=own)
            kept, painted = self.pixels(str(held.free_form))
            assert np.array_equal(kept, painted)


@pytest.fixture(scope="module", autouse=True)
def models() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real tissue on glass, and a drawn picture of regions with parts in and beside them."""
    folder = tmp_path_factory.mktemp("images")
    picture = np.full((560, 700, 3), 244, np.uint8)
    picture[60:500, 110:590] = tifffile.imread(REAL)[350:790, 300:780, :3]
    save(folder / "tissue.png", picture)
    drawn = np.full((500, 700, 3), (225, 170, 205), np.uint8)
    drawn[50:450, 50:350] = (200, 160, 190)
    drawn[20:120, 420:660] = (200, 160, 190)
    for x, y in ((100, 100), (340, 200), (200, 400), (355, 300), (600, 200), (630, 60)):
        drawn[y : y + 16, x : x + 16] = HAEMATOXYLIN
    save(folder / "bars.png", drawn)
    return folder


def both(root: Path, tmp_path: Path, image: str, disk: SlideSettings = DISK, **asked: Any) -> Both:
    found = []
    for name, settings in (("memory", replace(MEMORY, tile_px=disk.tile_px)), ("disk", disk)):
        bench = bench_at(root, tmp_path / name, settings)
        found.append(run(bench, order_of(root / image, **asked)))
        bench.close()
    held, slide = found
    assert not (held.folder / "slide").exists() and (slide.folder / "slide").exists()
    return Both(held.result, ResultFolder(held.folder), slide)


@pytest.mark.parametrize("mpp", [0.5, 0.263, 0.25, 0.125, 0.8])
def test_the_classical_model_gives_the_same_pixels_and_objects_at_every_scale(
    root: Path, tmp_path: Path, mpp: float
) -> None:
    asked = both(root, tmp_path, "tissue.png", replace(DISK, window_px=128), mpp=mpp)
    asked.check()
    assert asked.held.masks[0].count or mpp < 0.2


@pytest.mark.parametrize(("tile_px", "window_px"), [(128, 256), (320, 128), (None, 96), (192, 2048)])
def test_neither_tiles_nor_windows_make_a_difference(
    root: Path, tmp_path: Path, tile_px: int | None, window_px: int
) -> None:
    settings = replace(DISK, tile_px=tile_px, window_px=window_px)
    both(root, tmp_path, "tissue.png", settings, region=(31, 17, 655, 541)).check()


@pytest.mark.parametrize("mpp", [0.5, 0.263, 0.25])
@pytest.mark.parametrize(
    "places",
    [
        {"points": ((300.0, 300.0), (402.0, 250.0))},
        {"boxes": ((250.0, 200.0, 420.5, 390.0), (500.0, 100.0, 510.0, 105.0))},
    ],
)
def test_points_and_boxes_choose_the_same_objects(
    root: Path, tmp_path: Path, mpp: float, places: dict[str, Any]
) -> None:
    both(root, tmp_path, "tissue.png", mpp=mpp, **places).check()


PARTS, DARK = Target(None, "parts"), Target(None, "dark")


@pytest.mark.parametrize("mpp", [0.5, 0.263])
@pytest.mark.parametrize(
    ("target", "places"),
    [
        *[(replace(PARTS, relation=Relation(op, "dark")), {}) for op in ("inside", "outside", "union")],
        *[
            (replace(DARK, relation=Relation(op, "parts")), {})
            for op in ("intersection", "outside", "inside")
        ],
        (DARK, {"boxes": ((300.0, 30.0, 520.0, 210.0),)}),
        (DARK, {"points": ((500.0, 60.0),)}),
        (replace(PARTS, relation=Relation("inside", "dark")), {"points": ((500.0, 60.0),)}),
        (replace(PARTS, relation=Relation("outside", "dark")), {"boxes": ((300.0, 100.0, 400.0, 320.0),)}),
        (PARTS, {"points": ((20.0, 480.0),)}),
    ],
)
def test_regions_and_objects_are_cut_and_joined_the_same_way(
    root: Path, tmp_path: Path, mpp: float, target: Target, places: dict[str, Any]
) -> None:
    reference = PARTS if target.words == "dark" else DARK
    targets = (target, reference) if target.relation else (target,)
    asked = both(root, tmp_path, "bars.png", model="dark-parts", targets=targets, mpp=mpp, **places)
    asked.check()
    if target.words == "parts" and (target.relation is None or target.relation.op != "union"):
        rows = asked.slide.rows("parts").sort_by("object_id")
        areas = np.bincount(asked.pixels("parts")[0].ravel())[1:]
        assert rows["object_id"].to_pylist() == list(range(1, len(areas) + 1))
        assert np.array_equal(rows["area_px"].to_numpy(), areas)


@pytest.mark.parametrize("encoder", ["torch", "openvino"])
def test_the_default_model_gives_the_same_pixels_and_reliability(
    encoder: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if encoder == "openvino" and find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed: pip install 'tissuetalk[openvino]'")
    monkeypatch.setenv("TISSUETALK_ENCODER", encoder)
    monkeypatch.setattr(registry, "_loaded", {})
    settings = replace(DISK, tile_px=640, window_px=384)
    asked = both(root, tmp_path, "tissue.png", settings, model="tissuetalk-mini", mpp=0.263)
    asked.check()
    (mask,) = asked.held.masks
    assert mask.count and mask.reliability is not None
