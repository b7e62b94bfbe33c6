"""Prompts of X-rays and ultrasound: the stated attributes in the stated order, a missing one dropped with its clause."""

from __future__ import annotations

from pathlib import Path

import pytest

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.prompts.attributes import Attributes
from tissuetalk.prompts.studies import Study, prompts_of, study_prompt
from tissuetalk.tools.train.reproduce.drawn import draw_set
from tissuetalk.tools.train.vlsm_data import DataSet, items_of, prompt_text

SEEN = Attributes("lung lesion", "unspecified", "few", ("small",), ("top left", "center"), "oval")
ROW = {"view": "frontal", "pathology": "lung lesion; edema", "cycle": "end of systole", "gender": "female"}
ROW |= {"age": "sixty years old", "quality": "good", "tumour": "malignant", "report": "A mass. No effusion."}
STUDY = Study.of(ROW)


def test_chest_prompts_say_more_and_more() -> None:
    said = {name: study_prompt("chest", name, SEEN, STUDY) for name in prompts_of("chest")}
    assert said["P0"] == ""
    assert said["P1"] == "lung lesion on a chest X-ray"
    assert said["P2"] == "lung lesion on a frontal chest X-ray"
    assert said["P3"] == "lung lesion of oval shape on a frontal chest X-ray"
    assert (
        said["P4"] == "lung lesion of oval shape in top left and center of the image on a frontal chest X-ray"
    )
    assert said["P5"] == said["P4"] + ". The study shows lung lesion and edema"
    assert said["P6"] == said["P1"] + ". The study shows lung lesion and edema"


def test_heart_prompts_have_two_forms_and_drop_what_is_not_known() -> None:
    seen = Attributes("myocardium", "unspecified", "one", shape="round")
    study = Study.of(ROW | {"view": "two-chamber"})
    assert study_prompt("heart", "P2", seen, study) == "myocardium in the two-chamber view of the heart"
    assert study_prompt("heart", "P2", seen, study, 1) == "myocardium on two-chamber cardiac ultrasound"
    full = "myocardium of round shape in the two-chamber view of the heart at end of systole of a sixty years old female patient"
    assert study_prompt("heart", "P7", seen, study) == full + ", image quality good"
    assert study_prompt("heart", "P7", seen, Study()) == "myocardium of round shape in the view of the heart"


def test_breast_prompts_count_and_name_the_tumour_or_its_shape() -> None:
    seen = Attributes("tumor", "breast", "few", ("small",), ("left",), "irregular")
    assert study_prompt("breast", "P1", seen, STUDY) == "tumor"
    assert study_prompt("breast", "P2", seen, STUDY) == "malignant tumor"
    assert study_prompt("breast", "P2", seen, STUDY, 1) == "irregular-shaped tumor"
    assert study_prompt("breast", "P3", seen, STUDY) == "few malignant tumors"
    assert (
        study_prompt("breast", "P5", seen, STUDY)
        == "few small malignant tumors, located in left of the image"
    )
    assert (
        study_prompt("breast", "P6", Attributes("tumor", "breast"), STUDY) == "no tumor on breast ultrasound"
    )


def test_a_report_is_a_prompt_and_a_prompt_that_a_kind_has_not_is_refused() -> None:
    assert study_prompt("report", "P1", SEEN, STUDY) == "A mass. No effusion."
    assert study_prompt("report", "P0", SEEN, STUDY) == ""
    with pytest.raises(InvalidArgumentError, match=r"chest has the prompts P0, .*, P6, not P9"):
        study_prompt("chest", "P9", SEEN, STUDY)


def test_a_set_brings_its_table(tmp_path: Path) -> None:
    draw_set(tmp_path, [("a", "test")], ("tumor", "other"), seed=1)
    values = {"manifest": tmp_path, "label": "tumor", "kind": "breast"}
    with pytest.raises(InvalidArgumentError, match="need a table; set `studies`"):
        items_of(DataSet.model_validate(values), "test")
    table = tmp_path / "studies.csv"
    table.write_text("file,tumour,shape\na.png,benign,heart-shaped\n")
    (item, *_) = items_of(DataSet.model_validate(values | {"studies": table}), "test")
    said = prompt_text(item, "P6")
    assert "benign heart-shaped tumour" in said and prompt_text(item, "random") == said
    table.write_text("name\na\n")
    with pytest.raises(InvalidArgumentError, match="no column file"):
        items_of(DataSet.model_validate(values | {"studies": table}), "test")
