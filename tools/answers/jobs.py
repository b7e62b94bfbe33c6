"""What ``job`` gives back, and what can be said of a slide before it is finished."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tissuetalk.tools.answers.explained import ExplainResult
from tissuetalk.tools.answers.results import Closed, SegmentResult


class EarlyFinding(Closed):
    """One target, as far as it is known.

    estimates come from the first look, ``so_far`` from finished parts of the slide.
    """

    name: str
    presence: float = Field(ge=0, le=1)
    estimated_tissue_share: float | None = Field(description="Part of the tissue it covers, from a sample")
    estimated_per_mm2: float | None = Field(description="Objects per mm² of tissue, from a sample")
    count_so_far: int | None
    area_px_so_far: int
    statement: str


class Preliminary(Closed):
    """An overview while the work goes on; never a result."""

    tissue_area_mm2: float | None
    done_share: float = Field(ge=0, le=1)
    findings: list[EarlyFinding]
    caveat: str


class JobError(Closed):
    code: str
    message: str


class JobStatus(Closed):
    """Answer of ``job``."""

    job_id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    progress: float = Field(ge=0, le=1)
    eta_s: float | None
    result: SegmentResult | ExplainResult | None
    preliminary: Preliminary | None = Field(
        default=None, description="What is known of a slide while the work goes on; never a result"
    )
    error: JobError | None
