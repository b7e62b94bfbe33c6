"""What ``explain`` and ``job`` give back, and what can be said of a slide before it is finished: closed shapes as in ``results``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tissuetalk.tools.answers.results import Assertion, BoxXYXY, Closed, Provenance, SegmentResult, ToolAnswer

NOTICE = "Research use only: masks and numbers are a model's output, not a diagnosis. A pathologist has to confirm them."
"""Stated in every explanation."""


class Evidence(Closed):
    """One finding: the words, the mask they led to, or why there is none."""

    number: int | None
    words: str
    assertion: Assertion
    name: str
    mask_id: str | None
    statement: str


class Observation(Closed):
    """Something the words do not mention that the model was asked for too: seen, never concluded from.

    Without ``found`` it was looked for and not found, or, where presence is null, not looked for.
    """

    number: int | None
    name: str
    found: bool
    presence: float | None
    area_px: int
    area_um2: float | None
    area_fraction: float
    count: int | None
    bbox: BoxXYXY | None
    colour: str | None
    statement: str


class Meaning(Closed):
    """A label in plain language."""

    name: str
    what: str
    looks_like: str
    why_it_matters: str
    confused_with: str
    reference: str = Field(default="", description="Where a reviewer can check the card")
    mask_id: str | None = None
    example_box: BoxXYXY | None = Field(
        default=None, description="The part of this image that shows it best, in image pixels"
    )


class Wording(Closed):
    """One other way to say the target, and how far its mask agrees with the stored one."""

    quality: Literal["low", "medium", "high"]
    sentence: str
    dice: float


class PictureChange(Closed):
    """One mild change of the picture, and how far the mask of the changed picture agrees with the stored one."""

    kind: str
    change: str
    region: BoxXYXY
    dice: float


class UnsurePlace(Closed):
    """Where the answers differ most. share: of its pixels that only some answers mark."""

    box: BoxXYXY
    share: float
    why: str


class Stability(Closed):
    """How much a mask depends on how it was asked for and on how the picture was taken."""

    mask_id: str
    name: str
    reliability: float | None = Field(
        description="Expected Dice with an expert's outline, 0..1; null where it was never calibrated"
    )
    level: Literal["high", "medium", "low"] | None = None
    agreement: float | None = Field(
        default=None, description="Mean Dice of the mask with those of other wordings and of changed pictures"
    )
    wordings: list[Wording]
    wording_agreement: float | None = None
    changes: list[PictureChange] = Field(default_factory=list)
    most_sensitive_to: str | None = None
    disputed_fraction: float | None = Field(
        description="Share of the checked region that only some answers mark"
    )
    unsure: list[UnsurePlace] = Field(default_factory=list)
    checked_region: BoxXYXY | None = None
    map: str | None = Field(
        default=None,
        description="8-bit picture of checked_region: 0 all answers agree, 255 they split in half",
    )
    statement: str


class ScoreChange(Closed):
    """What a classifier says of a picture, and of the changed one."""

    label: str
    before: float
    after: float


class Counterfactual(Closed):
    """The same crop without one kind of object."""

    mask_id: str
    name: str
    change: Literal["blurred", "removed"]
    region: BoxXYXY
    changed_fraction: float
    scores: list[ScoreChange]
    statement: str


class ObjectEvidence(Closed):
    """What one kind of object, or one patch, adds to a classifier's answer.

    contribution: its share of the predicted class's logit; all of them and the classifier's ``bias`` add up to ``logit``.
    probability_after: of the predicted class with it blurred; importance: loss with it blurred / loss as it is, both at
    least that of a probability of 0.99 (1 = no effect); control: the same for as many pixels blurred at random.
    """

    name: str
    contribution: float | None
    importance: float | None
    control: float | None
    probability_after: float | None = None
    control_probability_after: float | None = None
    area_fraction: float
    rank: int


class PatchEvidence(Closed):
    """What one patch adds to the predicted class's logit.

    attention: its weight, all of which add up to 1; null where every object has weights of its own.
    """

    box: BoxXYXY
    attention: float | None
    contribution: float


class ClassifierEvidence(Closed):
    """What a diagnosis classifier said and what it relied on. It is a research model, not a diagnosis."""

    classifier: str
    predicted: str
    probabilities: dict[str, float]
    patches: int
    objects: list[ObjectEvidence]
    strongest_patches: list[PatchEvidence] = Field(
        default_factory=list,
        description="At most 20: by attention, else by what they add; boxes in image pixels",
    )
    logit: float | None = Field(
        default=None, description="Of the predicted class, where objects have shares of it"
    )
    bias: float | None = Field(default=None, description="The classifier's offset, the part no object has")
    method: str
    trained_on: str
    metrics: dict[str, str]
    statement: str


class ExplainResult(ToolAnswer):
    """Answer of ``explain``. While a job is running everything but ``job_id`` is empty."""

    result_id: str
    kinds: list[
        Literal[
            "grounding",
            "observations",
            "meaning",
            "reliability",
            "provenance",
            "counterfactual",
            "classifier",
        ]
    ]
    evidence: list[Evidence]
    observations: list[Observation] = Field(default_factory=list)
    meanings: list[Meaning]
    stability: list[Stability]
    counterfactuals: list[Counterfactual] = Field(default_factory=list)
    classifier: ClassifierEvidence | None = None
    provenance: list[Provenance]
    overlay: str | None
    picture: str | None = Field(default=None, description="The attached picture in full size")
    notice: str
    job_id: str | None = None


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


class JobStatus(ToolAnswer):
    """Answer of ``job``."""

    job_id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    progress: float = Field(ge=0, le=1)
    eta_s: float | None
    queue_place: int | None = Field(
        default=None, description="1 for the next to begin; null once it has begun"
    )
    result: SegmentResult | ExplainResult | None
    preliminary: Preliminary | None = Field(
        default=None, description="What is known of a slide while the work goes on; never a result"
    )
    error: JobError | None
