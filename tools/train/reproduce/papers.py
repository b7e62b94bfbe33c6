"""Which papers can be reproduced, by the name on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.tools.train.reproduce.diagnosis import DiagnosisPaper
from tissuetalk.tools.train.reproduce.grid import Paper
from tissuetalk.tools.train.reproduce.pathsegmentor import PathSegmentorPaper
from tissuetalk.tools.train.reproduce.pfps import PfpsPaper
from tissuetalk.tools.train.reproduce.prompt_groups import PromptGroupsPaper
from tissuetalk.tools.train.reproduce.vlsm import VlsmPaper

PAPERS: Final[Mapping[str, type[Paper]]] = {
    paper.name: paper
    for paper in (PathSegmentorPaper, DiagnosisPaper, PfpsPaper, VlsmPaper, PromptGroupsPaper)
}


def paper_named(name: str) -> Paper:
    """Raises InvalidArgumentError that says what there is instead."""
    if name in PAPERS:
        return PAPERS[name]()
    raise InvalidArgumentError(f"no paper {name!r}; choose {', '.join(PAPERS)}.")
