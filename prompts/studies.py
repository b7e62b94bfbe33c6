"""Attribute prompts of X-rays and ultrasound (spec vlsm.md, section 5): what a study's own table says beside what the mask says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.prompts.attributes import PROMPT_IDS, Attributes, PromptId, listed

StudyKind = Literal["photograph", "chest", "heart", "breast", "report"]
RICHEST_OF: Final[Mapping[StudyKind, PromptId]] = {
    "photograph": "P6", "chest": "P5", "heart": "P7", "breast": "P6", "report": "P1",
}  # fmt: skip
"""The prompt that holds every attribute of a kind."""
LAST_OF: Final[Mapping[StudyKind, PromptId]] = {
    "photograph": "P10", "chest": "P6", "heart": "P7", "breast": "P6", "report": "P1",
}  # fmt: skip
TUMOUR_SHAPES: Final = {"benign": "regular-shaped", "malignant": "irregular-shaped"}


@dataclass(frozen=True)
class Study:
    """What a table says about one image; empty where it says nothing. shape, color: before those of the mask. report: all of it."""

    view: str = ""
    pathology: tuple[str, ...] = ()
    cycle: str = ""
    gender: str = ""
    age: str = ""
    quality: str = ""
    tumour: str = ""
    shape: str = ""
    color: str = ""
    report: str = ""

    @classmethod
    def of(cls, row: Mapping[str, str]) -> Study:
        """A row of a table; columns that are not there are empty. Several pathologies are parted by semicolons."""
        told = {
            name: (row.get(name) or "").strip() for name in cls.__dataclass_fields__ if name != "pathology"
        }
        found = tuple(part.strip() for part in (row.get("pathology") or "").split(";") if part.strip())
        return cls(pathology=found, **told)


def prompts_of(kind: StudyKind) -> tuple[PromptId, ...]:
    """The prompts that a kind has."""
    return PROMPT_IDS[: PROMPT_IDS.index(LAST_OF[kind]) + 1]


def study_prompt(kind: StudyKind, prompt: PromptId, found: Attributes, study: Study, form: int = 0) -> str:
    """One of the prompts of a kind; a missing attribute goes together with its clause.

    found: shape and colour as they are to be said, the study's own where it has them. form: training draws one at random, evaluation keeps 0. Raises InvalidArgumentError for a prompt that the kind has not.
    """
    if prompt not in prompts_of(kind):
        raise InvalidArgumentError(
            f"{kind} has the prompts {', '.join(prompts_of(kind))}, not {prompt}; choose one of them."
        )
    if prompt == "P0":
        return ""
    depth = PROMPT_IDS.index(prompt)
    if kind == "report":
        return study.report
    if kind == "chest":
        return _chest(depth, found, study)
    return _heart(depth, found, study, form) if kind == "heart" else _breast(depth, found, study, form)


def _chest(depth: int, found: Attributes, study: Study) -> str:
    alone = depth == 6  # P6 is the finding and the list of all findings
    parts = [found.object_type]
    if 3 <= depth < 6 and found.shape:
        parts.append(f"of {found.shape} shape")
    if 4 <= depth < 6 and found.locations:
        parts.append(f"in {listed(found.locations)} of the image")
    view = f"{study.view} " if study.view and depth >= 2 and not alone else ""
    said = " ".join([*parts, f"on a {view}chest X-ray"])
    if depth >= 5 and study.pathology:
        said += f". The study shows {listed(study.pathology)}"
    return said


def _heart(depth: int, found: Attributes, study: Study, form: int) -> str:
    head = f"{found.object_type} of {found.shape} shape" if depth >= 7 and found.shape else found.object_type
    view = f"{study.view} " if depth >= 2 and study.view else ""
    # the organ or the way it was imaged, as the two forms of the paper end
    said = (
        f"{head} in the {view}view of the heart" if form % 2 == 0 else f"{head} on {view}cardiac ultrasound"
    )
    if depth >= 3 and study.cycle:
        said += f" at {study.cycle}"
    person = " ".join(word for word, since in ((study.age, 5), (study.gender, 4)) if word and depth >= since)
    if person:
        said += f" of a {person} patient"
    if depth >= 6 and study.quality:
        said += f", image quality {study.quality}"
    return said


def _breast(depth: int, found: Attributes, study: Study, form: int) -> str:
    if not found.number:
        return "no tumor on breast ultrasound"
    kind = study.tumour if form % 2 == 0 else TUMOUR_SHAPES.get(study.tumour, study.tumour)
    words = [
        found.number if depth >= 3 else "",
        ", ".join(found.sizes) if depth >= 4 else "",
        kind if depth >= 2 else "",
        found.shape if depth >= 6 else "",
    ]
    several = depth >= 3 and found.number != "one"
    noun = f"{found.object_type}s" if several else found.object_type
    said = " ".join([word for word in words if word] + [noun])
    if depth >= 5 and found.locations:
        said += f", located in {listed(found.locations)} of the image"
    return said
