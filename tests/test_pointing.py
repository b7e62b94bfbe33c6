"""Box- and point-prompted models through the same tool as all others, on tiny models saved to disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from drawn import discs, lattice, save
from test_backends_boxes import tiny_medsam, tiny_sam2

from tissuetalk.models import registry
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import Box
from tissuetalk.prompts.target import Request
from tissuetalk.tools.answers.results import Mask, SegmentResult
from tissuetalk.tools.doctor import model_list
from tissuetalk.tools.segment.pointing import (
    FINEST_SHARE,
    LARGEST_SHARE,
    PointedPlace,
    _Drawn,
    _painted,
    crop_around,
    narrowed,
)
from tissuetalk.tools.segment.request import SegmentRequest
from tissuetalk.tools.session import Session
from tissuetalk.tools.storage.result_folder import ResultFolder

BOXES = [(20, 20, 50, 50), (90, 20, 130, 60), (60, 120, 200, 170)]


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setattr(registry, "_loaded", {})
    monkeypatch.setenv("TISSUETALK_MEDSAM", str(tiny_medsam(tmp_path / "medsam")))
    monkeypatch.setenv("TISSUETALK_SAM2", str(tiny_sam2(tmp_path / "sam2")))
    root = tmp_path / "images"
    root.mkdir()
    save(root / "discs.png", discs(260, 240, lattice(3)))
    with Session(root, tmp_path / "workspace") as session:
        yield session


def ask(session: Session, **asked: object) -> SegmentResult:
    asked = {"image": "discs.png", "words": "nuclei", "mpp": 0.5, "model": "medsam"} | asked
    return session.segment(**asked).result


def objects(session: Session, result: SegmentResult) -> tuple[Mask, np.ndarray]:
    (mask,) = result.masks
    labels = ResultFolder(session.workspace.result(result.result_id).folder).instances(mask.mask_id)
    assert labels is not None
    return mask, labels


def test_boxes_become_objects_named_by_the_words(session: Session) -> None:
    result = ask(session, boxes=BOXES)
    mask, labels = objects(session, result)
    assert mask.target == mask.free_form == "nuclei" and mask.prompt == ""
    assert mask.count == labels.max() <= len(BOXES)
    assert "outlined in the 3 boxes given; medsam does not judge what is there" in mask.verdict
    record = mask.provenance
    assert (record.model, record.boxes) == ("medsam", [list(map(float, box)) for box in BOXES])
    assert len(record.weights_sha256) == 64


def test_asking_again_gives_the_identical_objects_from_the_same_features(session: Session) -> None:
    first = ask(session, boxes=BOXES)
    request = ResultFolder(session.workspace.result(first.result_id).folder).request()
    again = session.segment_request(SegmentRequest.from_json(request)).result
    assert np.array_equal(objects(session, first)[1], objects(session, again)[1])


def test_no_box_and_no_region_changes_what_another_box_gives(session: Session) -> None:
    alone = objects(session, ask(session, boxes=BOXES[:1]))[1] > 0
    cut = objects(session, ask(session, boxes=BOXES[:1], region=(10, 10, 100, 90)))[1] > 0
    assert np.array_equal(cut, alone[10:90, 10:100])
    together = objects(session, ask(session, boxes=BOXES))[1] > 0
    assert together[alone].all()


def test_points_go_to_the_model_made_for_them(session: Session) -> None:
    mask, _ = objects(session, ask(session, points=[(60, 60)], model="sam2"))
    assert "the 1 point given" in mask.verdict
    with pytest.raises(
        InvalidArgumentError, match=r"medsam is told where.*: pass boxes,.*points are for sam2"
    ):
        ask(session, points=[(60, 60)])


@pytest.mark.parametrize("model", ["medsam", "sam2"])
def test_words_alone_are_refused_with_what_to_pass(session: Session, model: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"pass boxes.*--box.*leave model out"):
        ask(session, model=model)


def test_several_targets_and_boxes_are_ambiguous(session: Session) -> None:
    result = ask(session, words="nuclei inside the glands", boxes=BOXES)
    assert result.masks == [] and {item.code for item in result.not_segmented} == {"ambiguous"}
    assert "ask for one target" in result.not_segmented[0].reason


def test_boxes_outside_the_region_are_out_of_view(session: Session) -> None:
    result = ask(session, boxes=BOXES[:1], region=(100, 100, 240, 230))
    assert [item.code for item in result.not_segmented] == ["out_of_view"]


def test_what_words_say_about_absence_holds_here_too(session: Session) -> None:
    result = ask(session, words="Please outline all nuclei. No glands are seen.", boxes=BOXES)
    assert len(result.masks) == 1 and [item.code for item in result.not_segmented] == ["absent"]


def test_the_list_of_models_says_what_is_usable_and_what_it_takes(session: Session) -> None:
    listed = {model["name"]: model for model in model_list()}
    assert listed["medsam"]["missing"] is None and listed["medsam"]["prompts"] == "boxes and points"
    assert "hf download" in listed["sam3"]["missing"]


@pytest.mark.parametrize("longest_px", [3, 40, 300, 5000])
def test_a_crop_shows_the_whole_box_with_surroundings(longest_px: int) -> None:
    side_px = 256
    rng = np.random.default_rng(longest_px)
    for x, y in rng.integers(0, 20_000 - longest_px, (200, 2)).tolist():
        crop = crop_around(PointedPlace(box=(x, y, x + longest_px, y + longest_px)), side_px, 20_000, 20_000)
        assert crop.x0 <= x and crop.y0 <= y and crop.x1 >= x + longest_px and crop.y1 >= y + longest_px
        assert crop.width == crop.height >= max(side_px * FINEST_SHARE, longest_px / LARGEST_SHARE)
        assert crop.x1 <= 20_000 and crop.y1 <= 20_000


def test_neighbours_share_a_crop() -> None:
    crops = {
        crop_around(PointedPlace(box=(x, 400, x + 20, 420)), 256, 2000, 2000) for x in range(400, 440, 5)
    }
    assert len(crops) <= 2


def test_a_crop_of_a_small_image_is_the_image() -> None:
    assert crop_around(PointedPlace(box=(5, 5, 60, 60)), 256, 100, 80) == Box(0, 0, 100, 80)
    assert crop_around(PointedPlace(point=(5, 5)), 1024, 100, 80) == Box(0, 0, 100, 80)


def test_of_overlapping_objects_the_smaller_is_on_top_and_numbers_follow_the_boxes() -> None:
    drawn = {0: _Drawn(12, 12, np.ones((2, 2), bool)), 1: _Drawn(8, 8, np.ones((10, 10), bool))}
    labels = _painted(drawn, Box(10, 10, 20, 20))
    assert (labels == 1).sum() == 4 and labels[2, 2] == 1
    assert (labels == 2).sum() == 8 * 8 - 4


def test_of_a_large_region_only_the_surroundings_of_the_places_are_kept() -> None:
    slide = Box(0, 0, 100_000, 80_000)
    near = narrowed(
        Request("request", boxes=((50_000, 40_000, 51_000, 40_100), (50_500, 41_000, 50_600, 41_200))), slide
    )
    assert near == Box(49_500, 39_400, 51_500, 41_800)
    assert narrowed(Request("request", points=((5, 5),)), slide) == Box(0, 0, 262, 262)
    assert narrowed(Request("request"), slide) == slide
    small = Box(0, 0, 1000, 1000)
    assert narrowed(Request("request", points=((5, 5),)), small) == small
    assert narrowed(Request("request", points=((200_000, 5),)), slide) == slide


def test_boxes_on_a_slide_are_answered_beside_them(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tissuetalk.tools.segment.pointing.LARGE_PX", 1000)
    result = ask(session, boxes=[(100, 100, 110, 110)])
    assert result.image.region == [0, 0, 260, 240]
    assert len(result.masks) == 1
