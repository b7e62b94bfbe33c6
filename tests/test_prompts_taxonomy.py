"""The taxonomy is data: 160 labels that read back as they are written."""

from __future__ import annotations

import pytest

from tissuetalk.models.errors import UnknownLabelError
from tissuetalk.prompts.taxonomy import (
    LABELS,
    OBJECT_TYPES,
    REGIONS,
    Label,
    biomedparse_prompt,
    is_label,
    labels_of,
    nearest_labels,
    pathsegmentor_prompt,
    published_masks,
)


def test_the_table_has_the_published_numbers_of_labels_regions_types_and_masks() -> None:
    assert (len(LABELS), len(set(LABELS)), len(REGIONS), len(OBJECT_TYPES)) == (160, 160, 20, 61)
    assert sum(published_masks(label) for label in LABELS) == 274_853


@pytest.mark.parametrize("label", LABELS, ids=str)
def test_every_label_reads_back_from_its_canonical_form(label: Label) -> None:
    assert Label.parse(str(label)) == label
    assert str(label) == str(label).lower()
    assert label in labels_of(label.region)


def test_case_and_spacing_do_not_matter() -> None:
    assert str(Label.parse("  Bile  Duct-NUCLEI-dead ")) == "bile duct-nuclei-dead"
    assert Label.parse("head_neck-nuclei-epithelial").region == "head neck"


def test_an_unknown_label_names_the_nearest_ones() -> None:
    with pytest.raises(UnknownLabelError, match="breast-nuclei-mitotic figure"):
        Label.parse("breast-nuclei-mitotic figures")
    assert not is_label("colon-tissue-dragon")


def test_nearest_labels_are_few_and_close() -> None:
    near = [str(label) for label in nearest_labels("healthy prostate glands", 3)]
    assert near[0] == "prostate-tissue-prostate healthy glands"
    assert len(near) == 3


def test_prompt_templates() -> None:
    label = Label.parse("colon-tissue-gland")
    assert pathsegmentor_prompt(label) == "tissue-level gland in colon pathology"
    assert biomedparse_prompt(label) == "gland in colon pathology"


def test_a_region_outside_the_taxonomy_has_no_labels() -> None:
    assert labels_of("spleen") == ()
