"""The 160 labels a mask can carry, as data: `region-structure-object_type`.

Source: the label system of PathSegmentor (spec pathsegmentor.md, section 2). The table is `taxonomy.csv`; its last
column is the number of masks that were published for the label, a rough measure of how well it can be learned.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Literal, cast

from rapidfuzz import fuzz, process, utils

from tissuetalk.models.errors import UnknownLabelError

Structure = Literal["cell", "nuclei", "tissue"]


@dataclass(frozen=True)
class Label:
    """One kind of object in one organ. `str(label)` is the canonical lower-case form."""

    region: str
    structure: Structure
    object_type: str

    def __str__(self) -> str:
        return f"{self.region}-{self.structure}-{self.object_type}"

    @classmethod
    def parse(cls, text: str) -> Label:
        """Read a canonical label in any case and spacing.

        Raises:
            UnknownLabelError: it is none of the 160; the message names the nearest ones.
        """
        found = _BY_NAME.get(_normal(text))
        if found is None:
            near = ", ".join(str(label) for label in nearest_labels(text, 5))
            raise UnknownLabelError(
                f"unknown label {text[:80]!r}; nearest labels: {near}. All labels are listed at taxonomy://labels; "
                "an object without a label can be asked for in plain words instead."
            )
        return found


def _normal(text: str) -> str:
    return " ".join(text.casefold().replace("_", " ").split())


def _read() -> tuple[tuple[Label, int], ...]:
    table = resources.files("tissuetalk.prompts").joinpath("taxonomy.csv").read_text(encoding="utf-8")
    return tuple(
        (
            Label(
                row["anatomical_region"].lower(),
                cast(Structure, row["histological_structure"].lower()),
                row["object_type"].lower(),
            ),
            int(row["pathseg_masks"]),
        )
        for row in csv.DictReader(table.splitlines())
    )


_ROWS = _read()
_BY_NAME = {str(label): label for label, _ in _ROWS}
_MASKS = dict(_ROWS)

LABELS: tuple[Label, ...] = tuple(label for label, _ in _ROWS)
"""All 160 labels, in the order of the table."""

REGIONS: tuple[str, ...] = tuple(dict.fromkeys(label.region for label in LABELS))
"""The 20 anatomical regions, `unspecified` first."""

OBJECT_TYPES: tuple[str, ...] = tuple(dict.fromkeys(label.object_type for label in LABELS))
"""The 61 object types."""


def is_label(text: str) -> bool:
    """Whether the text is one of the 160 canonical labels."""
    return _normal(text) in _BY_NAME


def labels_of(region: str) -> tuple[Label, ...]:
    """The labels of one region, in the order of the table; empty for a region the taxonomy lacks."""
    wanted = _normal(region)
    return tuple(label for label in LABELS if label.region == wanted)


def labels_with(part: str) -> tuple[Label, ...]:
    """The labels of a region, a structure or an object type, in the order of the table; empty for anything else."""
    wanted = _normal(part)
    return tuple(label for label in LABELS if wanted in (label.region, label.structure, label.object_type))


def published_masks(label: Label) -> int:
    """How many masks of this label the source data had (0 for a label that is not in the table)."""
    return _MASKS.get(label, 0)


@lru_cache(maxsize=512)
def nearest_labels(text: str, limit: int = 5) -> tuple[Label, ...]:
    """The labels whose names look most like the text, best first. Spelling only: it knows no synonyms."""
    plain = _normal(text).replace("-", " ")[:200]
    names = {label: str(label).replace("-", " ") for label in LABELS}
    ranked = process.extract(
        plain, names, scorer=fuzz.token_set_ratio, processor=utils.default_process, limit=40
    )
    tie_broken = sorted(ranked, key=lambda hit: (-hit[1], -fuzz.ratio(plain, hit[0]), str(hit[2])))
    return tuple(hit[2] for hit in tie_broken[:limit])


def pathsegmentor_prompt(label: Label) -> str:
    """The sentence PathSegmentor was trained with (spec pathsegmentor.md, section 2)."""
    return f"{label.structure}-level {label.object_type} in {label.region} pathology"


def biomedparse_prompt(label: Label) -> str:
    """The sentence without the structure, as the BiomedParse baseline was given it."""
    return f"{label.object_type} in {label.region} pathology"
