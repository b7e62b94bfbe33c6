"""Open and lay questions: from an organ to what is worth showing in it."""

from __future__ import annotations

import pytest

from tissuetalk.prompts.readers import rule_reader
from tissuetalk.prompts.taxonomy import REGIONS, labels_of


def labels(text: str, organ: str | None = None) -> list[str | None]:
    request = rule_reader().translate(text, organ=organ)
    assert request.kind == "exploratory"
    return [target.label for target in request.targets]


@pytest.mark.parametrize("organ", [region for region in REGIONS if region != "unspecified"])
def test_an_open_question_lists_one_label_per_kind_of_object(organ: str) -> None:
    request = rule_reader().translate("What am I looking at?", organ=organ)
    shown = [target.label for target in request.targets]
    assert len(shown) == len(set(shown)) >= 3
    assert set(shown) <= {str(label) for label in labels_of(organ)}
    covered = set(shown) | {name for target in request.targets for name in target.alternatives}
    assert covered == {str(label) for label in labels_of(organ)} or organ == "breast"


def test_the_tumour_comes_first_and_every_target_has_a_plain_line() -> None:
    request = rule_reader().translate("Show me everything in this colon picture")
    assert request.targets[0].label == "colon-tissue-malignant lesion"
    assert all(target.plain.endswith(".") and "\n" not in target.plain for target in request.targets)


def test_cell_types_are_cells_only() -> None:
    found = labels("Can you colour in all the different cell types? It's from the colon")
    assert found and all(label is not None and "-tissue-" not in label for label in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("what are the purple dots in the breast?", "breast-nuclei-nuclei"),
        (
            "what is the stringy pink stuff in this lung picture?",
            "lung-tissue-tumor associated stroma tissue",
        ),
        ("what are those white bubbles? it's breast", "breast-tissue-fat"),
        ("what are the little red donuts?", "unspecified-cell-red blood cells"),
        ("is my liver inflamed?", "liver-nuclei-inflammatory"),
        ("is there anything bad in this kidney?", "kidney-nuclei-neoplastic"),
        ("which part of the prostate looks healthy?", "prostate-tissue-prostate healthy glands"),
        ("are there dying cells in the cervix sample?", "cervix-nuclei-dead"),
    ],
)
def test_a_question_about_one_thing_has_that_thing_only(text: str, expected: str) -> None:
    assert labels(text) == [expected]


def test_without_an_organ_purple_dots_are_nuclei() -> None:
    target = rule_reader().translate("what are the purple dots?").targets[0]
    assert (target.label, target.words) == (None, "nuclei")


def test_everything_but_one_thing_leaves_that_thing_out() -> None:
    request = rule_reader().translate("show me everything except the fat in this breast section")
    found = {target.label: target.assertion for target in request.targets}
    assert found["breast-tissue-fat"] == "absent"
    assert found["breast-tissue-tumor"] == "present" and len(found) > 5
