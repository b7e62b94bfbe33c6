"""What is kept of a text: the words of a finding, never a name beside them and never a sentence of a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Place
from drawn import disc_image

from tissuetalk.prompts.llm import LanguageModelReader, ScriptedModel
from tissuetalk.prompts.readers import rule_reader
from tissuetalk.tools.segment.request import SegmentArguments, SegmentRequest
from tissuetalk.tools.session import Session

SURNAMES = ("Quenneville", "Brown", "O'Shaughnessy", "Nguyen", "Łukasiewicz", "Martin", "Ostrowicki-Pell")
REPORT = (
    "COLON, BIOPSY. History of {0} carcinoma. No evidence of {0}, necrosis. "
    "Suspicious, says {0}, for lymphovascular invasion. Lymphocytes are seen beside {0} and glands."
)


@pytest.mark.parametrize("surname", SURNAMES)
def test_evidence_of_a_report_is_the_findings_words_only(surname: str) -> None:
    request = rule_reader().translate(REPORT.format(surname))
    kept = " ".join(f"{target.evidence} {target.words}" for target in request.targets)
    assert len(request.targets) >= 3
    assert not any(part in kept for part in surname.split("-"))


def test_the_words_that_decided_are_kept_where_nobody_is_named() -> None:
    text = "Colon, biopsy: there is no evidence of necrosis. Invasive carcinoma cannot be excluded."
    evidence = {target.evidence for target in rule_reader().translate(text).targets}
    assert evidence == {"no evidence of necrosis", "Invasive carcinoma cannot be excluded"}


@pytest.mark.parametrize("surname", SURNAMES)
def test_evidence_of_a_language_model_is_cut_the_same_way(surname: str) -> None:
    named = {"evidence": f"History of {surname} carcinoma", "words": "carcinoma", "label": None}
    answer = {"kind": "report", "organ": "colon", "targets": [{**named, "assertion": "historical"}]}
    (target,) = LanguageModelReader(ScriptedModel([answer])).translate(REPORT.format(surname)).targets
    assert target.evidence == "carcinoma"


SENTENCE = "Marked chronic inflammation with lymphocytes surrounds the crypts in every fragment examined."


def test_a_report_comes_back_by_the_sentence_and_is_not_kept(place: Place) -> None:
    disc_image(place.root / "discs.png", 4)
    words = f"Colon, biopsy. {SENTENCE} No necrosis is identified anywhere in this material."
    with Session(place.root, place.workspace) as session:
        found = session.segment("discs.png", words, mpp=0.5)
        assert SENTENCE.rstrip(".") in {line.sentence.rstrip(".") for line in found.result.read_as}
        assert all(words[slice(*line.span)] == line.sentence for line in found.result.read_as)
        assert SENTENCE.rstrip(".") in found.text
        saved = found.save(place.root.parent / "saved")
        assert saved.result.read_as == found.result.read_as
        again = session.result(found.result.result_id)
        assert [line.span for line in again.result.read_as] == [line.span for line in found.result.read_as]
    for folder in (place.workspace, place.root.parent / "saved"):
        for path in filter(Path.is_file, folder.rglob("*")):
            content = path.read_bytes()
            assert b"surrounds the crypts" not in content and b"anywhere in this" not in content, path


def test_what_is_kept_is_enough_to_do_it_again(place: Place) -> None:
    disc_image(place.root / "discs.png", 4)
    with Session(place.root, place.workspace) as session:
        asked = session.understand(SegmentArguments("discs.png", f"Colon. {SENTENCE}", mpp=0.5))
        first = session.segment_request(asked)
        stored = json.loads(json.dumps(asked.as_json()))
        second = session.segment_request(SegmentRequest.from_json(stored))
        assert SegmentRequest.from_json(stored).as_json() == stored
    one, other = (
        [(mask.label, mask.area_px, mask.bbox) for mask in each.result.masks] for each in (first, second)
    )
    assert one == other and len(one) >= 1
