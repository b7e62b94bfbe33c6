"""What explain answers to each kind of question, asked through the session on real images."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tissuetalk.models import registry
from tissuetalk.models.errors import (
    InvalidArgumentError,
    ModelUnavailableError,
    OutsideRootsError,
    TissuetalkError,
    UnknownImageError,
    UnknownMaskError,
)
from tissuetalk.tools.answers.explained import ExplainResult
from tissuetalk.tools.answers.results import Answer
from tissuetalk.tools.explain.explain import MOST_LINES
from tissuetalk.tools.session import Session
from tissuetalk.tools.storage.result_folder import ResultFolder

SAMPLES = Path(__file__).parent.parent / "models" / "samples"
REPORT = "Colon biopsy: crowded adenomatous glands with low-grade dysplasia. Previously polyps."


class Case:
    """A session over a copy of one sample, with the sample segmented once."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "images"
        self.root.mkdir()
        (self.root / "colon.jpg").write_bytes((SAMPLES / "colon.jpg").read_bytes())
        self.session = Session(self.root, folder / "workspace")
        self.result = self.session.segment("colon.jpg", REPORT, mpp=1.2).result

    def ask(self, question: str | None = None, classifier: str | None = None) -> Answer[ExplainResult]:
        return self.session.explain(self.result.result_id, question, classifier)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    case = Case(tmp_path_factory.mktemp("explain"))
    yield case
    case.session.close()


def picture(answer: Answer[ExplainResult]) -> Image.Image:
    assert answer.picture is not None
    return Image.open(io.BytesIO(answer.picture))


def test_without_a_question_words_masks_observations_and_meanings_come_together(case: Case) -> None:
    answer = case.ask()
    result = answer.result
    assert result.kinds == ["grounding", "observations", "meaning"]
    assert result.evidence[0].number == 1 and result.evidence[0].mask_id == case.result.masks[0].mask_id
    assert {item.mask_id for item in result.evidence[1:]} == {None}
    assert len(answer.text.splitlines()) <= MOST_LINES and "esearch use only" in answer.text
    assert max(picture(answer).size) <= 1024
    assert answer.links[0][0].startswith(f"result://{result.result_id}/explanations/")


def test_the_full_picture_is_a_file_of_the_result(case: Case) -> None:
    answer = case.ask("what does it mean?")
    assert answer.result.picture is not None
    path = answer.result.picture.split("/", 3)[3]
    full = Image.open(io.BytesIO(case.session.file(case.result.result_id, path)))
    assert full.format == "PNG" and full.size >= picture(answer).size
    with pytest.raises(TissuetalkError, match="no explanation"):
        case.session.file(case.result.result_id, "explanations/../../workspace.sqlite")


def test_what_the_words_do_not_mention_is_listed_apart_and_is_no_diagnosis(case: Case) -> None:
    result = case.ask("what else is in the picture?").result
    assert result.kinds == ["observations"]
    named = {mask.target for mask in case.result.masks}
    assert result.observations and not named & {each.name for each in result.observations}
    for each in result.observations:
        assert (each.number is None) == (not each.found) and each.statement
        assert "not a diagnosis" in each.statement or not each.found
    too_coarse = [each for each in result.observations if each.presence is None]
    assert [each.name for each in too_coarse] == ["nuclei"] and "too coarse" in too_coarse[0].statement


def test_a_mask_is_chosen_by_number_by_id_and_by_name(case: Case) -> None:
    mask = case.result.masks[0]
    for question in ("why mask 1?", f"why {mask.mask_id}?", "why the glands?"):
        assert [item.mask_id for item in case.ask(question).result.evidence] == [mask.mask_id]


def test_a_question_about_what_was_never_segmented_says_what_there_is(case: Case) -> None:
    for question in ("how sure are you of the mitoses?", "what if the stroma were removed?", "why mask 7?"):
        with pytest.raises(UnknownMaskError, match="it has: 1 gland"):
            case.ask(question)


def test_any_object_has_a_card_whether_it_was_segmented_or_not(case: Case) -> None:
    (meaning,) = case.ask("what does granuloma mean?").result.meanings
    assert meaning.name == "granulomas" and meaning.reference and meaning.example_box is None


def test_a_meaning_points_at_the_place_that_shows_it(case: Case) -> None:
    answer = case.ask("what are the glands?")
    (meaning,) = answer.result.meanings
    mask = case.result.masks[0]
    assert meaning.mask_id == mask.mask_id and meaning.example_box is not None
    x0, y0, x1, y1 = meaning.example_box
    with case.session.workspace.reading(case.result.result_id) as stored:
        painted = ResultFolder(stored.folder).mask(mask.mask_id)[y0:y1, x0:x1]
    assert 0.05 < painted.mean() < 1
    assert answer.picture is not None


def test_the_picture_without_an_object_is_shown_blurred_and_painted_over(case: Case) -> None:
    answer = case.ask("what if the glands were not there?")
    assert [each.change for each in answer.result.counterfactuals] == ["blurred", "removed"]
    assert all(each.scores == [] for each in answer.result.counterfactuals)
    assert picture(answer).width > picture(answer).height


def test_a_question_for_a_diagnosis_gets_evidence_and_the_research_note(case: Case) -> None:
    for question in ("Is it cancer?", "What is the diagnosis?", "Do I have a tumour?", "what treatment?"):
        answer = case.ask(question)
        assert "cannot answer for a diagnosis" in answer.text and "esearch use only" in answer.text
        assert answer.result.evidence


def test_no_classifier_is_made_up(case: Case) -> None:
    assert "No classifier was named" in case.ask("what did the classifier rely on?").text
    with pytest.raises(ModelUnavailableError, match="no classifier is called 'oracle'"):
        case.ask("why?", "oracle")
    with pytest.raises(OutsideRootsError):
        case.ask("why?", "../../oracle.safetensors")
    with pytest.raises(ModelUnavailableError, match="no classifier file"):
        case.ask("why?", "oracle.safetensors")


def test_a_deleted_image_and_a_changed_one_are_named(tmp_path: Path) -> None:
    case = Case(tmp_path)
    file = case.root / "colon.jpg"
    assert case.ask("which model and settings?").result.provenance
    file.unlink()
    with pytest.raises(UnknownImageError):
        case.ask()
    assert case.ask("which model and settings?").result.provenance, "needs no pixels"
    Image.fromarray(np.full((224, 224, 3), 200, np.uint8)).save(file)
    with pytest.raises(TissuetalkError) as caught:
        case.ask("how sure are you?")
    assert caught.value.code == "image_changed"
    case.session.close()


def test_a_result_of_other_weights_is_not_asked_again(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.load(), "weights_sha256", "0" * 64)
    with pytest.raises(InvalidArgumentError, match="other weights"):
        case.ask("how sure are you?")


def test_nothing_of_the_question_itself_is_written_down(case: Case) -> None:
    case.ask("why the glands of Mrs. Miriam Okonkwo?")
    for path in case.session.workspace.folder.rglob("*"):
        assert not path.is_file() or b"Okonkwo" not in path.read_bytes()
