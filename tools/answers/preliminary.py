"""What can be said of a slide before it is finished; never a result."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EarlyFinding(_Closed):
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


class Preliminary(_Closed):
    """An overview while the work goes on."""

    tissue_area_mm2: float | None
    done_share: float = Field(ge=0, le=1)
    findings: list[EarlyFinding]
    caveat: str
