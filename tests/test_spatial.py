"""Points, boxes and relations, on drawn objects."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import rectangles

from tissuetalk.models.images import Box
from tissuetalk.models.segmenter import Capability, Prompt
from tissuetalk.prompts.target import Relation, Request, Target
from tissuetalk.tools.segment.algebra import SLACK_UM
from tissuetalk.tools.segment.engine import FoundMask
from tissuetalk.tools.segment.field import FieldOfView, Scale
from tissuetalk.tools.segment.request import Wanted, with_references
from tissuetalk.tools.segment.segment import placed

REGION = Box(1000, 500, 1100, 580)
"""Deliberately not at the origin: points and boxes are pixels of the source image."""
NUCLEI = Target(None, "nuclei", evidence="nuclei")
ANY = Capability("anything", 0.5, True)
GLAND = Target("colon-tissue-gland", "gland", evidence="glands")


def found(labels: np.ndarray, *, objects: bool = True, mpp: float = 0.5) -> FoundMask:
    return FoundMask(labels, objects, 0.9, mpp)


def four_objects() -> FoundMask:
    """10 x 10 px each: top left, top right, bottom left, bottom right."""
    return found(
        rectangles((80, 100), [(10, 10, 20, 20), (60, 10, 70, 20), (10, 50, 20, 60), (60, 50, 70, 60)])
    )


def apply(request: Request, targets: list[Target], maps: list[FoundMask]) -> list[FoundMask]:
    asked = [Wanted(target, Prompt(None, target.words, target.words), ANY) for target in targets]
    field = FieldOfView(
        None, None, REGION, Scale(0.5, "given")
    )  # nothing looks at the image or asks the model
    return placed(request, asked, maps, field)


def only(**places: object) -> Request:
    return Request("request", **places)


def test_a_point_chooses_the_object_under_it() -> None:
    (chosen,) = apply(only(points=((1065.0, 515.0),)), [NUCLEI], [four_objects()])
    assert np.array_equal(chosen.mask, rectangles((80, 100), [(60, 10, 70, 20)]) > 0)
    assert np.array_equal(np.unique(chosen.instances), [0, 1])


def test_a_point_just_beside_an_object_means_the_nearest_one() -> None:
    reach_px = SLACK_UM / 0.5
    (near,) = apply(only(points=((1019.0 + reach_px, 515.0),)), [NUCLEI], [four_objects()])
    assert near.mask.sum() == 100 and near.mask[15, 15]
    (far,) = apply(only(points=((1019.0 + reach_px + 2, 515.0),)), [NUCLEI], [four_objects()])
    assert not far.mask.any()


def test_several_points_choose_several_objects() -> None:
    points = ((1012.0, 512.0), (1013.0, 513.0), (1065.0, 555.0))
    (chosen,) = apply(only(points=points), [NUCLEI], [four_objects()])
    assert len(np.unique(chosen.instances)) - 1 == 2


def test_a_point_on_a_region_chooses_the_connected_part() -> None:
    parts = found(rectangles((80, 100), [(0, 0, 30, 30), (50, 0, 90, 40)]), objects=False)
    (chosen,) = apply(only(points=((1060.0, 520.0),)), [GLAND], [parts])
    assert chosen.mask.sum() == 40 * 40 and chosen.instances is None


def test_a_box_keeps_objects_whose_centre_lies_in_it_whole() -> None:
    (chosen,) = apply(only(boxes=((1000.0, 500.0, 1016.0, 580.0),)), [NUCLEI], [four_objects()])
    assert chosen.mask.sum() == 200 and chosen.mask[:, 16:20].any()
    (none,) = apply(only(boxes=((1000.0, 500.0, 1012.0, 580.0),)), [NUCLEI], [four_objects()])
    assert not none.mask.any()


def test_a_box_cuts_a_region() -> None:
    everything = found(np.ones((80, 100), np.int32), objects=False)
    (chosen,) = apply(only(boxes=((990.0, 490.0, 1010.0, 520.0),)), [GLAND], [everything])
    assert chosen.mask.sum() == 10 * 20 and chosen.mask[:20, :10].all()


@pytest.mark.parametrize(
    ("op", "area_px"), [("inside", 60), ("outside", 340), ("union", 1340), ("intersection", 60)]
)
def test_a_relation_is_pixel_algebra_and_its_subject_is_the_target_that_carries_it(
    op: str, area_px: int
) -> None:
    gland = found(
        rectangles((80, 100), [(14, 0, 44, 30)]), objects=False
    )  # 900 px, 60 of them in one nucleus
    if op == "union":
        gland = found(rectangles((80, 100), [(14, 0, 44, 30), (0, 70, 5, 78)]), objects=False)
        area_px = 400 + 900 - 60 + 40
    related = Target(None, "nuclei", relation=Relation(op, "glands"))
    subject, reference = apply(only(), [related, GLAND], [four_objects(), gland])
    assert subject.mask.sum() == area_px
    assert np.array_equal(reference.mask, gland.mask)


def test_objects_after_a_relation_are_numbered_without_gaps() -> None:
    gland = found(rectangles((80, 100), [(50, 0, 100, 80)]), objects=False)
    related = Target(None, "nuclei", relation=Relation("inside", "gland"))
    subject, _ = apply(only(), [related, GLAND], [four_objects(), gland])
    assert np.unique(subject.instances).tolist() == [0, 1, 2]


def test_a_point_on_the_reference_picks_the_reference_object() -> None:
    """“Nuclei inside this gland”, with a point on the gland."""
    glands = found(rectangles((80, 100), [(0, 0, 30, 30), (50, 0, 80, 30)]))
    related = Target(None, "nuclei", relation=Relation("inside", "colon-tissue-gland"))
    subject, reference = apply(only(points=((1055.0, 505.0),)), [related, GLAND], [four_objects(), glands])
    assert subject.mask.sum() == 100 and subject.mask[15, 65]
    assert reference.mask.sum() == 900


def test_a_missing_reference_is_added_to_the_plan_once() -> None:
    inside = Target(None, "nuclei", evidence="nuclei", relation=Relation("inside", "gland"))
    planned = with_references([inside, Target(None, "lymphocytes", relation=Relation("outside", "gland"))])
    assert [target.words for target in planned] == ["nuclei", "lymphocytes", "gland"]
    assert planned[2].relation is None
    assert with_references([inside, GLAND]) == [inside, GLAND]


def test_a_reference_that_is_a_label_keeps_its_label() -> None:
    planned = with_references([Target(None, "nuclei", relation=Relation("inside", "colon-tissue-gland"))])
    assert planned[1].label == "colon-tissue-gland" and planned[1].words == "gland"


def test_selected_needs_no_reference() -> None:
    picked = Target(None, "nuclei", relation=Relation("selected", "point"))
    assert with_references([picked]) == [picked]
    (chosen,) = apply(only(points=((1065.0, 515.0),)), [picked], [four_objects()])
    assert chosen.mask.sum() == 100


def test_a_point_belongs_to_the_target_whose_words_tie_it_to_it() -> None:
    """“The gland at (x, y) and all nuclei”."""
    gland = Target("colon-tissue-gland", "gland", relation=Relation("selected", "point"))
    glands = found(rectangles((80, 100), [(0, 0, 30, 30), (50, 0, 80, 30)]))
    request = only(points=((1055.0, 505.0),))
    chosen, nuclei = apply(request, [gland, NUCLEI], [glands, four_objects()])
    assert chosen.mask.sum() == 900 and nuclei.mask.sum() == 400


def test_a_box_belongs_to_the_target_whose_words_tie_it_to_it() -> None:
    boxed = Target(None, "nuclei", relation=Relation("selected", "box"))
    whole = found(np.ones((80, 100), np.int32), objects=False)
    nuclei, gland = apply(
        only(boxes=((1000.0, 500.0, 1030.0, 530.0),)), [boxed, GLAND], [four_objects(), whole]
    )
    assert nuclei.mask.sum() == 100 and gland.mask.all()


def test_a_box_drawn_inside_an_object_means_that_object() -> None:
    glands = found(rectangles((80, 100), [(0, 0, 40, 40), (60, 0, 100, 40)]))
    (chosen,) = apply(only(boxes=((1002.0, 502.0, 1012.0, 512.0),)), [GLAND], [glands])
    assert np.array_equal(chosen.mask, rectangles((80, 100), [(0, 0, 40, 40)]) > 0)


def test_a_box_beside_all_centres_that_barely_touches_an_object_chooses_none() -> None:
    glands = found(rectangles((80, 100), [(0, 0, 40, 40)]))
    (chosen,) = apply(only(boxes=((1035.0, 500.0, 1060.0, 540.0),)), [GLAND], [glands])
    assert not chosen.mask.any()


def test_several_boxes_choose_the_objects_of_each() -> None:
    boxes = ((1005.0, 505.0, 1025.0, 525.0), (1055.0, 545.0, 1075.0, 565.0))
    (chosen,) = apply(only(boxes=boxes), [NUCLEI], [four_objects()])
    assert np.array_equal(chosen.mask, rectangles((80, 100), [(10, 10, 20, 20), (60, 50, 70, 60)]) > 0)
    assert np.unique(chosen.instances).tolist() == [0, 1, 2]


def test_found_elsewhere_is_not_the_same_as_not_found() -> None:
    (missed,) = apply(only(points=((1040.0, 540.0),)), [NUCLEI], [four_objects()])
    assert (
        not missed.mask.any()
        and missed.note == "it is in the region (presence 0.90), but not at the points given"
    )
    (hit,) = apply(only(points=((1065.0, 515.0),)), [NUCLEI], [four_objects()])
    assert hit.note == ""
    nothing = found(np.zeros((80, 100), np.int32))
    (absent,) = apply(only(points=((1040.0, 540.0),)), [NUCLEI], [nothing])
    assert absent.note == ""


def test_inside_and_outside_one_gland_part_the_nuclei() -> None:
    """PFPs tasks 8 and 9: the point names the gland, the two answers add up to all nuclei."""
    glands = found(rectangles((80, 100), [(0, 0, 15, 80), (50, 0, 80, 30)]))
    parts = []
    for op in ("inside", "outside"):
        related = Target(None, "nuclei", relation=Relation(op, "colon-tissue-gland"))
        nuclei, gland = apply(only(points=((1005.0, 540.0),)), [related, GLAND], [four_objects(), glands])
        assert gland.mask.sum() == 15 * 80
        parts.append(nuclei.mask)
    assert not (parts[0] & parts[1]).any()
    assert np.array_equal(parts[0] | parts[1], four_objects().mask)
    assert parts[0].sum() == 2 * 50
