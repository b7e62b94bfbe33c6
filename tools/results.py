"""What the tools give back: closed shapes, so that nothing undeclared reaches one channel and not the other.

Names and units are fixed by the product's contract. Coordinates are full-resolution pixels of the source image,
x right and y down; boxes are [x0, y0, x1, y1], half-open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from tissuetalk.tools.early_results import Preliminary

MppSource = Literal["file", "given", "assumed", "unknown"]
Assertion = Literal["present", "absent", "uncertain", "historical"]
NotSegmentedCode = Literal["absent", "historical", "unsupported", "ambiguous", "out_of_view"]
WarningCode = Literal[
    "scale_unknown",
    "not_histology",
    "blurred",
    "implausible_coverage",
    "touches_border",
    "low_agreement",
    "language",
]
BoxXYXY = Annotated[list[int], Field(min_length=4, max_length=4)]


class Closed(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageInfo(Closed):
    """Which pixels were looked at, and at which scale."""

    image_id: str
    width: int
    height: int
    mpp: float | None
    mpp_source: MppSource
    region: BoxXYXY


class RelationInfo(Closed):
    op: Literal["inside", "outside", "union", "intersection", "selected"]
    reference: str


LONGEST_NAME = 200


class TargetArgument(Closed):
    """A target the assistant names itself: a canonical label of taxonomy://, or words, or both."""

    label: str | None = Field(default=None, max_length=LONGEST_NAME)
    words: str | None = Field(default=None, max_length=LONGEST_NAME)
    organ: str | None = Field(default=None, max_length=LONGEST_NAME)
    relation: RelationInfo | None = None


class MaskResources(Closed):
    """Links to the files of one mask."""

    mask: str
    instances: str | None
    geojson: str
    table: str


class Provenance(Closed):
    """Everything needed to make the same mask again."""

    words: str
    label: str | None
    prompt: str
    model: str
    weights_sha256: str
    mpp: float
    mpp_source: MppSource
    model_mpp: float
    tile_px: int
    margin_px: int
    region: BoxXYXY
    points: list[list[float]]
    boxes: list[list[float]]
    relation: RelationInfo | None
    image_sha256: str
    version: str


class Mask(Closed):
    """One target that was looked for, found or not."""

    mask_id: str
    label: str | None
    free_form: str | None
    target: str = Field(description="The model's own name for what it segmented")
    prompt: str
    evidence: str
    assertion: Assertion
    found: bool
    presence: float = Field(ge=0, le=1)
    reliability: float | None
    area_px: int
    area_um2: float | None
    area_fraction: float
    count: int | None
    bbox: BoxXYXY | None
    relation: RelationInfo | None
    verdict: str
    plain: str
    alternatives: list[str]
    colour: str = Field(description="Outline colour in the overlay, #rrggbb")
    resources: MaskResources
    provenance: Provenance


class NotSegmented(Closed):
    """A target that was named and left alone, and why."""

    label: str | None
    free_form: str | None
    evidence: str
    code: NotSegmentedCode
    reason: str
    nearest: list[str]


class Warned(Closed):
    code: WarningCode
    message: str


class SegmentAnswer(Closed):
    """Answer of ``segment``. While a job is running ``result_id`` is null and there are no masks yet."""

    result_id: str | None
    image: ImageInfo
    masks: list[Mask]
    not_segmented: list[NotSegmented]
    warnings: list[Warned]
    overlay: str | None
    measures: list[str] = Field(description="What the words also asked to measure: pass these to measure")
    notes: list[str]
    job_id: str | None


class SegmentResult(SegmentAnswer):
    """A finished segmentation."""

    result_id: str


class Measured(Closed):
    """One number, with its unit and the rule that computed it."""

    mask_id: str
    name: str = Field(description="What the mask shows")
    metric: str
    value: float | None
    unit: str
    rule: str


class MeasureResult(Closed):
    """Answer of ``measure``."""

    result_id: str
    image: ImageInfo
    measurements: list[Measured]
    tables: dict[str, str] = Field(description="Per-object table of each mask that has objects, by mask_id")
    pictures: dict[str, str] = Field(
        default_factory=dict, description="Drawn measures (heat maps, histograms, hotspots) by title"
    )
    warnings: list[Warned]


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
    changes: list[PictureChange] = []
    most_sensitive_to: str | None = None
    disputed_fraction: float | None = Field(
        description="Share of the checked region that only some answers mark"
    )
    unsure: list[UnsurePlace] = []
    checked_region: BoxXYXY | None = None
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

    contribution: its share of the predicted class's logit; importance: loss with it blurred / loss as it is (1 = no
    effect); control: the same for as many pixels blurred at random.
    """

    name: str
    contribution: float | None
    importance: float | None
    control: float | None
    area_fraction: float
    rank: int


class ClassifierEvidence(Closed):
    """What a diagnosis classifier said and what it relied on. It is a research model, not a diagnosis."""

    classifier: str
    predicted: str
    probabilities: dict[str, float]
    patches: int
    objects: list[ObjectEvidence]
    method: str
    trained_on: str
    metrics: dict[str, str]
    statement: str


class ExplainResult(Closed):
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
    observations: list[Observation] = []
    meanings: list[Meaning]
    stability: list[Stability]
    counterfactuals: list[Counterfactual] = []
    classifier: ClassifierEvidence | None = None
    provenance: list[Provenance]
    overlay: str | None
    picture: str | None = Field(default=None, description="The attached picture in full size")
    notice: str
    job_id: str | None = None


class ViewResult(Closed):
    """Answer of ``view``: what the attached picture shows."""

    image: ImageInfo
    mask_ids: list[str]
    picture_width: int
    picture_height: int
    px_per_picture_px: float
    um_per_picture_px: float | None
    job_id: str | None = None


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


class ListedImage(Closed):
    path: str
    size_bytes: int


class ListedResult(Closed):
    result_id: str
    image_id: str
    created_at: str
    size_bytes: int
    masks: list[str]


class LibraryResult(Closed):
    """Answer of ``library``."""

    action: Literal["images", "results", "save", "delete"]
    images: list[ListedImage]
    results: list[ListedResult]
    saved: list[str]
    message: str


R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True)
class Answer(Generic[R]):
    """What a tool hands to whoever called it.

    text says in a few lines what ``result`` says in fields; picture is JPEG bytes or None.
    """

    result: R
    text: str
    picture: bytes | None = None
    links: tuple[tuple[str, str, str], ...] = ()
    """(uri, name, media type) of what can be fetched."""

    def structured(self) -> dict[str, Any]:
        return self.result.model_dump(mode="json")
