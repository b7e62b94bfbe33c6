"""Examples, names and corrections as callers use them: what comes back, what is refused and in which words."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from drawn import discs, lattice, save
from pydantic import TypeAdapter, ValidationError
from taught import LEFT, PINK, PLAIN, RIGHT, SIDE, shares, two_tissues

from tissuetalk.models.errors import InvalidArgumentError, TissuetalkError
from tissuetalk.tools.answers.arguments import SegmentOptions
from tissuetalk.tools.segment.grid import SlideSettings
from tissuetalk.tools.segment.request import SegmentRequest
from tissuetalk.tools.segment.tiles import BlockSpec, run_block
from tissuetalk.tools.segment.windows import WindowSpec, run_window
from tissuetalk.tools.session import Segmentation, Session

PINK_TISSUE = (225, 170, 200)
IN_BLOCKS = SlideSettings(whole_px=0, tile_px=256, window_px=256)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.png, b.png, of two tissues, and c.png of one tissue with a wide rim of glass."""
    root = tmp_path_factory.mktemp("images")
    two_tissues(root / "a.png", 0)
    two_tissues(root / "b.png", 1)
    glass = np.full((SIDE, SIDE, 3), 255, np.uint8)
    glass[150:350, 150:350] = (220, 150, 190)
    glass[230:260, 230:260] = 255
    save(root / "c.png", glass)
    return root


@pytest.fixture
def session(folder: Path, tmp_path: Path) -> Iterator[Session]:
    with Session(folder, tmp_path / "ws") as opened:
        yield opened


def taught(session: Session, words: str | None = "necrosis", **more: Any) -> Segmentation:
    return session.segment("a.png", words, **{**PLAIN, "examples": PINK, **more})


def yes(**place: Any) -> dict[str, Any]:
    return {"is": True, **place}


def no(**place: Any) -> dict[str, Any]:
    return {"is": False, **place}


CROSSING = [[100, 100], [140, 140], [140, 100], [100, 140]]
REFUSED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "only negatives": ([no(box=RIGHT)], "every example says where it is not; add"),
    "no place": ([yes(), no(box=RIGHT)], "example 1 has no place; give exactly one of"),
    "two places": ([yes(box=LEFT, point=[80, 80]), no(box=RIGHT)], "example 1 has box and point"),
    "an empty box": ([yes(box=[90, 90, 90, 120]), no(box=RIGHT)], "the box of example 1 is empty"),
    "outside": (
        [yes(box=LEFT), no(box=[600, 10, 640, 50])],
        "example 2 lies outside its image of 512 x 512 px",
    ),
    "a point outside": ([yes(point=[-3, 10]), no(box=RIGHT)], "example 1 lies outside its image"),
    "a polygon that crosses itself": (
        [yes(polygon=CROSSING), no(box=RIGHT)],
        "the polygon of example 1 crosses itself",
    ),
    "contradicting": (
        [yes(box=LEFT), no(box=RIGHT), no(box=[70, 70, 110, 110])],
        "example 1 .* and example 3 .* contradict each other",
    ),
    "the same place twice": ([yes(point=[80, 80]), no(point=[80, 80])], "contradict each other"),
    "a mask nobody has": (
        [yes(mask_id="msk_" + "0" * 32), no(box=RIGHT)],
        "example 1 names a mask that no result has",
    ),
    "no mask id": ([yes(mask_id="../../etc"), no(box=RIGHT)], "example 1 names a mask that no result has"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_examples_that_cannot_be_learned_from_are_refused_at_once(session: Session, case: str) -> None:
    examples, message = REFUSED[case]
    with pytest.raises(InvalidArgumentError, match=message):
        taught(session, examples=examples)
    assert session.workspace.results() == []


def test_the_target_is_not_on_glass_but_may_lie_in_a_hole_of_the_tissue(session: Session) -> None:
    ask = {**PLAIN, "image": "c.png", "words": "fat"}
    on_glass, in_hole, on_tissue = [20, 20, 60, 60], [235, 235, 255, 255], [160, 160, 200, 200]
    with pytest.raises(
        InvalidArgumentError, match=r"example 1 \(is: true\) lies on glass, outside the tissue"
    ):
        session.segment(**ask, examples=[yes(box=on_glass), no(box=on_tissue)])
    found = session.segment(**ask, examples=[yes(box=in_hole), no(box=on_tissue), no(box=on_glass)])
    assert found.result.masks[0].taught is not None


def test_ten_thousand_examples_are_refused_by_number(session: Session) -> None:
    published = TypeAdapter(get_type_hints(SegmentOptions, include_extras=True)["examples"])
    with pytest.raises(ValidationError, match="at most 200"):
        published.validate_python([yes(box=LEFT)] * 10_000)
    with pytest.raises(InvalidArgumentError, match="10000 examples"):
        taught(session, examples=[yes(point=[80, 80])] * 5_000 + [no(point=[400, 400])] * 5_000)


def test_places_where_it_is_suffice_with_a_warning(session: Session) -> None:
    found = taught(session, examples=[yes(box=LEFT), yes(box=[150, 300, 200, 350])])
    assert any("only places where it is were shown" in each.message for each in found.result.warnings)
    assert shares(found.masks[0].mask)[0] > 0.5


def test_an_unknown_scale_only_warns(session: Session) -> None:
    found = session.segment("a.png", "necrosis", examples=PINK, model="classical-nuclei")
    assert found.result.masks[0].taught and "scale_unknown" in [each.code for each in found.result.warnings]


@pytest.mark.parametrize(
    ("words", "name", "others"),
    [
        ("necrosis", "necrosis", []),
        ("Show me the nuclei", "nuclei", []),
        ("odd pink things", "odd pink things", []),
        (None, "what was shown", []),
        ("outline the stroma and the nuclei", "stroma", ["nuclei"]),
        ("no", "no", []),
    ],
)
def test_one_mask_for_what_was_shown_comes_first(
    session: Session, words: str | None, name: str, others: list[str]
) -> None:
    found = taught(session, words)
    first, *rest = found.result.masks
    assert first.taught is not None and first.taught.name == name and [mask.name for mask in rest] == others
    assert first.provenance.model == "classical-nuclei+examples"
    assert all(mask.taught is None and mask.provenance.model == "classical-nuclei" for mask in rest)
    pink, purple = shares(found.masks[0].mask)
    assert pink > 0.8 and purple < 0.1


def test_a_target_beside_what_was_taught_is_as_it_is_without(session: Session) -> None:
    alone = session.segment("a.png", "nuclei", **PLAIN)
    beside = taught(session, "outline the stroma and the nuclei")
    assert np.array_equal(alone.masks[0].mask, beside.masks[1].mask)
    first, second = alone.result.masks[0].provenance, beside.result.masks[1].provenance
    assert first.weights_sha256 == second.weights_sha256


def test_examples_may_lie_on_another_image_and_be_masks(session: Session) -> None:
    here = taught(session)
    mask_id = here.result.masks[0].mask_id
    there = [yes(mask_id=mask_id, image="a.png"), no(box=RIGHT, image="a.png")]
    found = session.segment("b.png", "necrosis", **PLAIN, examples=there)
    told = found.result.masks[0].taught
    assert told is not None and (told.positive, told.negative, told.images) == (1, 1, 1)
    pink, purple = shares(found.masks[0].mask)
    assert pink > 0.8 and purple < 0.1
    with pytest.raises(InvalidArgumentError, match="of another image than the example"):
        session.segment("b.png", "x", **PLAIN, examples=[yes(mask_id=mask_id), no(box=RIGHT)])


def test_the_record_makes_the_same_mask_again(session: Session) -> None:
    first = taught(session, name="necrosis")
    elsewhere = session.segment("b.png", "necrosis", **PLAIN)
    session.library("forget", name="necrosis")
    for found in (first, elsewhere):
        with session.reading(found.result.result_id) as stored:
            order = SegmentRequest.from_json(stored.folder.request())
        again = session.segment_request(order)
        assert np.array_equal(again.masks[0].mask, found.masks[0].mask)
        assert again.result.masks[0].taught == found.result.masks[0].taught
    assert not session.workspace.targets.listed(), "making it again names nothing"


def test_what_a_model_knows_wins_unless_a_name_says_otherwise(session: Session) -> None:
    taught(session, "nuclei", name="nuclei")
    assert session.segment("b.png", "nuclei", **PLAIN).result.masks[0].taught is None
    named = session.segment("b.png", **PLAIN, name="Nuclei").result.masks[0]
    assert named.taught is not None and named.taught.is_label
    with pytest.raises(InvalidArgumentError, match="nothing that was taught is called “necrosis”"):
        session.segment("b.png", **PLAIN, name="necrosis")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("Outline the necrotic areas.", True),
        ("Necrosis is present.", True),
        ("There is no necrosis.", False),
        ("colon-tissue-necrosis", None),
    ],
)
def test_words_of_requests_and_reports_find_what_was_named(
    session: Session, words: str, found: bool | None
) -> None:
    taught(session, name="necrosis")
    result = session.segment("b.png", words, **PLAIN).result
    if found is False:
        assert not result.masks and [each.code for each in result.not_segmented] == ["absent"]
    else:
        assert result.masks[0].taught is not None


def test_a_name_that_no_lexicon_has_is_found_and_ruled_out(session: Session) -> None:
    taught(session, "these", name="Zorbs")
    shown = session.segment("b.png", "show me the zorbs and the nuclei", **PLAIN).result
    assert [mask.name for mask in shown.masks if mask.taught] == ["Zorbs"] and len(shown.masks) == 2
    ruled_out = session.segment("b.png", "No zorbs are seen. Nuclei are enlarged.", **PLAIN).result
    assert [(each.free_form, each.code) for each in ruled_out.not_segmented] == [("Zorbs", "absent")]


def test_a_name_taught_again_means_the_new_one_and_old_results_stay(session: Session) -> None:
    first = taught(session, name="necrosis")
    turned = [yes(box=RIGHT), no(box=LEFT)]
    second = taught(session, name="NECROSIS", examples=turned)
    (kept,) = session.workspace.targets.listed()
    assert kept.sha256 == second.result.masks[0].taught.learned_sha256
    assert shares(session.result(first.result.result_id).masks[0].mask)[0] > 0.8


def test_two_workspaces_may_use_one_name_for_two_things(
    session: Session, folder: Path, tmp_path: Path
) -> None:
    taught(session, name="necrosis")
    with Session(folder, tmp_path / "other") as other:
        assert other.segment("b.png", "necrosis", **PLAIN).result.masks == []
        taught(other, name="necrosis", examples=[yes(box=RIGHT), no(box=LEFT)])
        here, there = (each.segment("b.png", "necrosis", **PLAIN).masks[0].mask for each in (session, other))
    assert shares(here)[0] > 0.8 and shares(there)[1] > 0.8 and not (here & there).mean() > 0.05


def test_what_was_taught_on_another_model_says_which(session: Session) -> None:
    taught(session, name="keratin")
    other = session.read("b.png", "keratin")
    assert any(
        "was taught on classical-nuclei; pass model='classical-nuclei'" in note for note in other.result.notes
    )


def test_another_stain_is_warned_of(session: Session, folder: Path) -> None:
    taught(session, name="necrosis")
    with Session(folder) as plain, plain.open("b.png") as source:
        pixels = source.read_region(source.box, width=SIDE, height=SIDE)
    save(folder / "blue.png", np.ascontiguousarray(pixels[..., ::-1] // 2))
    warned = session.segment("blue.png", "necrosis", **PLAIN).result.warnings
    assert any(each.code == "low_agreement" and "taught elsewhere" in each.message for each in warned)


def test_damaged_and_foreign_learned_files_are_named(session: Session, tmp_path: Path) -> None:
    from tissuetalk.tools.storage import verify

    taught(session, name="necrosis")
    (kept,) = session.workspace.targets.listed()
    content = bytearray(kept.path.read_bytes())
    content[-3] ^= 0x40
    kept.path.write_bytes(bytes(content))
    listed = session.library("targets").result.targets
    assert any(each.problem for each in listed)
    assert session.segment("b.png", "necrosis", **PLAIN).result.masks == []
    parts = {part.name: part for part in verify.check(session.workspace.folder)}
    assert parts["taught targets"].problems
    session.close()
    assert any("was set aside" in line for line in verify.repair(session.workspace.folder))
    assert not [problem for part in verify.check(session.workspace.folder) for problem in part.problems]


# corrections


def nine_nuclei(session: Session, folder: Path) -> Segmentation:
    save(folder / "discs.png", discs(260, 260, lattice(9), background=PINK_TISSUE))
    return session.segment("discs.png", "nuclei", **PLAIN)


@pytest.mark.parametrize("settings", [None, IN_BLOCKS], ids=["in memory", "in blocks"])
def test_objects_are_taken_away_and_added(
    folder: Path, tmp_path: Path, settings: SlideSettings | None
) -> None:
    with Session(folder, tmp_path / "ws", slides=settings) as session:
        before = nine_nuclei(session, folder)
        assert before.result.masks[0].count == 9
        triangle = [[200, 200], [240, 200], [240, 240]]
        after = session.segment(
            "discs.png",
            "that one is wrong, and you missed this",
            base_result=before.result.result_id,
            examples=[no(point=[30, 30]), no(box=[90, 10, 130, 50]), yes(polygon=triangle)],
        )
        (record,) = after.result.masks
        assert (record.count, after.result.parent) == (8, before.result.result_id)
        assert record.taught is not None and record.taught.learned_sha256 is None
        mask, old = after.masks[0].mask, before.masks[0].mask
        assert not mask[30, 30] and mask[205, 235] and np.array_equal(mask[100:180, :180], old[100:180, :180])
        assert (
            len(after.masks[0].objects) == 8
            and session.measure(after, ["count"]).result.measurements[0].value == 8
        )
        assert before.masks[0].mask[30, 30], "nothing is overwritten"
        again = session.segment(
            "discs.png", base_result=after.result.result_id, examples=[yes(box=[20, 20, 40, 40])]
        )
        assert again.masks[0].mask[20:40, 20:40].all() and again.result.masks[0].count == 9
        assert again.result.parent == after.result.result_id and again.masks[0].mask[205, 235]


def test_a_corrected_mask_has_every_positive_place_and_no_negative_one(session: Session) -> None:
    first = taught(session)
    missed, wrong = [300, 100, 340, 150], [10, 400, 60, 450]
    fixed = session.segment(
        "a.png",
        base_result=first.result.result_id,
        examples=[yes(box=missed), no(polygon=[[10, 400], [60, 400], [60, 450], [10, 450]])],
    )
    mask, told = fixed.masks[0].mask, fixed.result.masks[0].taught
    for x0, y0, x1, y1 in (missed, LEFT):
        assert mask[y0:y1, x0:x1].all()
    for x0, y0, x1, y1 in (wrong, RIGHT):
        assert not mask[y0:y1, x0:x1].any()
    assert told is not None and (told.positive, told.negative) == (2, 2)
    assert [each.is_it for each in fixed.result.masks[0].provenance.examples] == [True, False, True, False]
    later = session.segment("a.png", base_result=fixed.result.result_id, examples=[no(box=missed)])
    assert not later.masks[0].mask[100:150, 300:340].any(), "what is said later holds"
    assert later.result.masks[0].taught.positive == 1


def test_two_corrections_of_one_result_at_once_are_two_results(session: Session, folder: Path) -> None:
    base = nine_nuclei(session, folder).result.result_id
    found: list[Segmentation] = []

    def correct(x: int) -> None:
        found.append(session.segment("discs.png", base_result=base, examples=[no(point=[x, 30])]))

    threads = [threading.Thread(target=correct, args=(x,)) for x in (30, 70)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = found
    assert first.result.result_id != second.result.result_id
    assert {each.result.parent for each in found} == {base} and [
        each.result.masks[0].count for each in found
    ] == [8, 8]
    assert not np.array_equal(first.masks[0].mask, second.masks[0].mask)


def test_corrections_that_cannot_be_are_refused_in_words(session: Session, folder: Path) -> None:
    base = nine_nuclei(session, folder).result.result_id

    def refused(message: str, image: str = "discs.png", **options: Any) -> None:
        with pytest.raises(TissuetalkError, match=message):
            session.segment(image, **{"base_result": base, "examples": [no(point=[30, 30])], **options})

    refused("is of another image", "a.png")
    refused("nothing to correct: pass examples", examples=None)
    refused("nothing to correct: pass examples", examples=None, name="my nuclei")
    refused("keeps the region of its base_result", region=[0, 0, 100, 100])
    refused("a correction is said with examples", points=[[30, 30]])
    refused("there is no result", base_result="res_" + "0" * 32)


def test_the_words_say_which_mask_is_corrected(session: Session) -> None:
    base = taught(session, "outline the stroma and the nuclei")
    fixed = session.segment(
        "a.png", "the nuclei", base_result=base.result.result_id, examples=[yes(box=[300, 300, 320, 320])]
    )
    stroma, nuclei = fixed.masks
    assert np.array_equal(stroma.mask, base.masks[0].mask) and nuclei.mask[300:320, 300:320].all()
    assert nuclei.record.taught is not None and nuclei.record.taught.learned_sha256 is None


# slides


def test_a_taught_target_on_a_slide_is_the_mask_it_is_in_memory(folder: Path, tmp_path: Path) -> None:
    with (
        Session(folder, tmp_path / "one") as memory,
        Session(folder, tmp_path / "two", slides=IN_BLOCKS) as blocks,
    ):
        whole, pieces = taught(memory, name="necrosis"), taught(blocks, name="necrosis")
        first, second = whole.result.masks[0], pieces.result.masks[0]
        assert first.taught.learned_sha256 == second.taught.learned_sha256
        assert (whole.masks[0].mask != pieces.masks[0].mask).mean() < 0.01
        named = blocks.segment("b.png", "necrosis", **PLAIN)
        assert named.result.masks[0].taught.learned_sha256 == second.taught.learned_sha256
        explained = blocks.explain(named.result.result_id, "how sure are you?").result.stability[0]
        assert "too few examples" in explained.statement
        assert list((tmp_path / "two").glob("results/*/learned/*.safetensors"))


class Elsewhere:
    """Does blocks and windows as a worker of a cluster does: from what it is told, and from files."""

    in_flight = 4

    def __init__(self, *_: object) -> None:
        self._pool = ThreadPoolExecutor(1)

    def block(self, spec: BlockSpec) -> Future[str]:
        return self._pool.submit(run_block, pickle.loads(pickle.dumps(spec)))

    def window(self, spec: WindowSpec) -> Future[str]:
        return self._pool.submit(run_window, pickle.loads(pickle.dumps(spec)))

    def close(self) -> None:
        self._pool.shutdown()


def test_workers_elsewhere_get_what_was_taught_as_a_file(folder: Path, tmp_path: Path) -> None:
    with (
        Session(folder, tmp_path / "here", slides=IN_BLOCKS) as near,
        Session(folder, tmp_path / "there", slides=IN_BLOCKS, runner=Elsewhere) as far,
    ):
        first, second = taught(near), taught(far)
        assert np.array_equal(first.masks[0].mask, second.masks[0].mask)
        assert second.result.masks[0].taught == first.result.masks[0].taught
