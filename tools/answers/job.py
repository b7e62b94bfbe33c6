"""What ``job`` gives back."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tissuetalk.tools.answers.explained import ExplainResult
from tissuetalk.tools.answers.preliminary import Preliminary
from tissuetalk.tools.answers.results import Closed, SegmentResult


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
