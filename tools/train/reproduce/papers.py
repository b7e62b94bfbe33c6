"""Which papers can be reproduced, by the name on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.tools.train.reproduce.grid import Paper
from tissuetalk.tools.train.reproduce.pfps import PfpsPaper
from tissuetalk.tools.train.reproduce.prompt_groups import PromptGroupsPaper
from tissuetalk.tools.train.reproduce.vlsm import VlsmPaper

PAPERS: Final[Mapping[str, type[Paper]]] = {
    paper.name: paper for paper in (PfpsPaper, VlsmPaper, PromptGroupsPaper)
}
NOT_YET: Final[Mapping[str, str]] = {
    "pathsegmentor": "train models/recipes/base/pathseg.yaml, then `tissuetalk evaluate` each source's test.csv",
    "diagnosis": "train the recipes of docs/diagnosis.md cohort by cohort",
}
"""Papers without a grid here, and how far one gets by hand."""


def paper_named(name: str) -> Paper:
    """Raises InvalidArgumentError that says what there is instead."""
    if name in PAPERS:
        return PAPERS[name]()
    if name in NOT_YET:
        raise InvalidArgumentError(f"{name} has no grid of its own yet; by hand: {NOT_YET[name]}.")
    raise InvalidArgumentError(f"no paper {name!r}; choose {', '.join((*PAPERS, *NOT_YET))}.")
