"""segment and measure on drawn nuclei, where count, size and distance are known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from drawn import STROMA, discs, lattice, save

from tissuetalk.models import registry
from tissuetalk.models.errors import ImageChangedError, PointOutsideImageError
from tissuetalk.tools.answers.results import Answer, Mask, SegmentResult, TargetArgument
from tissuetalk.tools.segment.request import SegmentRequest
from tissuetalk.tools.session import Session
from tissuetalk.tools.storage.result_folder import ResultFolder

NUCLEI = (TargetArgument(words="nuclei"),)
CENTRES = [(50, 50), (110, 50), (50, 130), (200, 180)]
RADIUS_PX = 12.5


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    root = tmp_path / "images"
    root.mkdir()
    save(root / "discs.png", discs(260, 240, CENTRES, RADIUS_PX, STROMA))
    save(root / "glass.png", np.full((120, 160, 3), 255, np.uint8))
    with Session(root, tmp_path / "workspace") as session:
        yield session


def answer(session: Session, image: str = "discs.png", **asked: object) -> Answer[SegmentResult]:
    asked = {"targets": NUCLEI, "mpp": 0.5, "model": "classical-nuclei"} | asked
    return session.segment(image=image, **asked)


def ask(session: Session, image: str = "discs.png", **asked: object) -> SegmentResult:
    return answer(session, image, **asked).result


def folder_of(session: Session, result: SegmentResult) -> ResultFolder:
    return ResultFolder(session.workspace.result(result.result_id).folder)


def numbers(session: Session, result: SegmentResult, *metrics: str) -> dict[str, float]:
    return {row.metric: row.value for row in session.measure(result.result_id, metrics).result.measurements}


def one(result: SegmentResult) -> Mask:
    (mask,) = result.masks
    return mask


def test_drawn_nuclei_are_counted_placed_and_measured(session: Session) -> None:
    result = ask(session)
    mask = one(result)
    assert mask.found and mask.count == len(CENTRES)
    found = numbers(session, result, "count", "density", "size", "shape", "distance")
    assert found["density"] == pytest.approx(4 / (260 * 240 * 0.25 / 1e6))
    assert found["size.mean"] == pytest.approx(math.pi * (RADIUS_PX * 0.5) ** 2, rel=0.06)
    assert found["size.sd"] < 1.0
    assert found["shape.mean_circularity"] > 0.95
    gaps = [60, 60, 80, math.hypot(90, 130)]
    assert found["distance.mean"] == pytest.approx(np.mean(gaps) * 0.5, abs=0.1)
    x0, y0, x1, y1 = mask.bbox
    assert abs(x0 - 37.5) <= 1.5 and abs(y0 - 37.5) <= 1.5 and abs(x1 - 213) <= 1.5 and abs(y1 - 193) <= 1.5


def test_the_same_tissue_at_twice_the_resolution_has_the_same_sizes(session: Session) -> None:
    doubled = [(2 * x, 2 * y) for x, y in CENTRES]
    save(session.roots.paths[0] / "fine.png", discs(520, 480, doubled, 2 * RADIUS_PX, STROMA))
    coarse, fine = ask(session), ask(session, "fine.png", mpp=0.25)
    assert one(fine).count == one(coarse).count == 4
    assert one(fine).area_um2 == pytest.approx(one(coarse).area_um2, rel=0.08)
    assert numbers(session, fine, "density")["density"] == pytest.approx(
        numbers(session, coarse, "density")["density"]
    )


def test_files_agree_with_the_record(session: Session) -> None:
    result = ask(session)
    mask, folder = one(result), folder_of(session, result)
    pixels, labels = folder.mask(mask.mask_id), folder.instances(mask.mask_id)
    assert pixels.shape == (240, 260) and pixels.sum() == mask.area_px
    assert np.array_equal(labels > 0, pixels) and labels.max() == mask.count
    assert mask.area_um2 == mask.area_px * 0.25 and mask.area_fraction == mask.area_px / pixels.size


def test_asking_again_from_the_stored_request_gives_the_identical_mask(session: Session) -> None:
    first = ask(session, points=[(50, 50), (110, 50)], region=[10, 10, 250, 200])
    again = session.segment_request(SegmentRequest.from_json(folder_of(session, first).request())).result
    assert one(again).count == 2
    assert_same_masks(session, first, again)


def test_asking_again_from_the_record_of_a_mask_gives_the_identical_mask(session: Session) -> None:
    first = ask(session, boxes=[(0, 0, 130, 100)])
    record = one(first).provenance
    again = ask(
        session,
        f"image://{first.image.image_id}",
        targets=(TargetArgument(label=record.label, words=record.words, relation=record.relation),),
        points=record.points,
        boxes=record.boxes,
        region=record.region,
        mpp=record.mpp,
        model=record.model,
    )
    assert one(again).count == 2
    assert_same_masks(session, first, again)
    assert one(again).provenance == record


def assert_same_masks(session: Session, first: SegmentResult, again: SegmentResult) -> None:
    for before, after in zip(first.masks, again.masks, strict=True):
        pairs = [
            (folder_of(session, result), mask.mask_id) for result, mask in ((first, before), (again, after))
        ]
        (one_, id_), (other, other_id) = pairs
        assert np.array_equal(one_.mask(id_), other.mask(other_id))
        assert np.array_equal(one_.instances(id_), other.instances(other_id))


def test_the_record_says_everything_about_the_mask(session: Session) -> None:
    result = ask(session)
    record = one(result).provenance
    assert (record.model, record.mpp, record.mpp_source, record.model_mpp) == (
        "classical-nuclei",
        0.5,
        "given",
        0.5,
    )
    assert record.words == "nuclei" and record.region == [0, 0, 260, 240]
    assert len(record.weights_sha256) == len(record.image_sha256) == 64 and record.version


def test_a_region_is_answered_in_full_resolution_pixels_of_the_image(session: Session) -> None:
    result = ask(session, region=[20, 20, 140, 100])
    mask = one(result)
    assert result.image.region == [20, 20, 140, 100] and mask.count == 2
    assert folder_of(session, result).mask(mask.mask_id).shape == (80, 120)
    assert abs(mask.bbox[0] - 37.5) <= 1.5 and abs(mask.bbox[2] - 123) <= 1.5


def test_a_point_keeps_one_nucleus_and_a_box_keeps_those_inside(session: Session) -> None:
    pointed = one(ask(session, points=[(203, 178)]))
    assert pointed.count == 1 and pointed.bbox[0] > 180
    assert one(ask(session, boxes=[(0, 0, 130, 240)])).count == 3
    with pytest.raises(PointOutsideImageError, match="260 x 240"):
        ask(session, points=[(260, 10)])


def test_points_and_boxes_outside_the_region_are_out_of_view(session: Session) -> None:
    result = ask(session, region=[0, 0, 100, 100], points=[(200, 180)])
    assert result.masks == [] and [item.code for item in result.not_segmented] == ["out_of_view"]


def test_an_unknown_scale_is_assumed_and_measured_in_pixels(session: Session) -> None:
    said = answer(session, mpp=None)
    result = said.result
    assert result.image.mpp_source == "assumed" and one(result).area_um2 is None
    assert "scale_unknown" in [warning.code for warning in result.warnings] and "scale_unknown" in said.text
    measured = session.measure(result.result_id, ["area", "size", "density"]).result
    assert {row.unit for row in measured.measurements} == {"px", "per 10⁶ px"}


def test_nothing_found_and_not_looked_for_are_different_answers(session: Session) -> None:
    result = ask(session, "glass.png", targets=(*NUCLEI, TargetArgument(words="renal tubule brush border")))
    mask = one(result)
    assert not mask.found and mask.count == 0 and mask.bbox is None and mask.area_px == 0
    assert "looked for, not found" in mask.verdict
    (refused,) = result.not_segmented
    assert refused.code == "unsupported" and refused.free_form == "renal tubule brush border"
    assert refused.nearest == ["nuclei"]


def test_words_that_rule_something_out_leave_it_alone(session: Session) -> None:
    said = answer(session, targets=(), words="Please outline all nuclei. No glands are seen.")
    assert one(said.result).count == 4
    (absent,) = said.result.not_segmented
    assert absent.code == "absent" and absent.evidence in "No glands are seen."
    assert "not segmented (absent)" in said.text


def test_a_result_may_consist_of_refusals_only(session: Session) -> None:
    result = ask(session, targets=(TargetArgument(words="Schwann cells"), TargetArgument(words="amyloid")))
    assert result.masks == [] and [item.code for item in result.not_segmented] == ["unsupported"] * 2
    assert session.measure(result.result_id).result.measurements == []
    assert session.explain(result.result_id).result.evidence[0].mask_id is None


def test_a_relation_needs_a_reference_the_model_knows(session: Session) -> None:
    related = TargetArgument.model_validate(
        {"words": "nuclei", "relation": {"op": "inside", "reference": "colon-tissue-gland"}}
    )
    result = ask(session, targets=(related,))
    assert result.masks == [] and {item.code for item in result.not_segmented} == {"unsupported"}
    assert any("needs" in item.reason for item in result.not_segmented)


def test_an_image_that_changed_is_not_measured_as_if_it_had_not(session: Session) -> None:
    result = ask(session)
    save(session.roots.paths[0] / "discs.png", discs(260, 240, lattice(3)))
    assert numbers(session, result, "count")["count"] == 4
    with pytest.raises(ImageChangedError):
        session.measure(result.result_id, ["intensity"])
    with pytest.raises(ImageChangedError):
        session.view(result_id=result.result_id)


def test_text_has_one_line_per_mask_and_links_lead_to_files(session: Session) -> None:
    said = answer(session)
    mask = one(said.result)
    (line,) = [line for line in said.text.split("\n") if mask.mask_id in line]
    assert mask.verdict in line
    for uri, _, _ in said.links:
        scheme, rest = uri.split("://")
        result_id, path = rest.split("/", 1)
        assert scheme == "result" and result_id == said.result.result_id
        assert session.file(result_id, path)


def test_the_text_of_a_report_is_not_kept(session: Session) -> None:
    result = ask(session, targets=(), words="Patient Erika Mustermann, 4711. Please outline all nuclei.")
    for path in folder_of(session, result).path.rglob("*"):
        assert not path.is_file() or b"Mustermann" not in path.read_bytes()


def test_refusing_everything_loads_no_model_and_assumes_no_scale(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "load", lambda name=None: pytest.fail("a model was loaded"))
    for model in (None, "classical-nuclei"):
        result = session.segment("discs.png", targets=[TargetArgument(words="amyloid")], model=model).result
        assert [item.code for item in result.not_segmented] == ["unsupported"]
        assert result.image.mpp is None and result.image.mpp_source == "unknown"
        assert "scale_unknown" in [warning.code for warning in result.warnings]
