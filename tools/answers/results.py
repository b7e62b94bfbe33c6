"""What the tools give back: closed shapes, so that nothing undeclared reaches one channel and not the other.

Names and units are fixed by the product's contract. Coordinates are full-resolution pixels of the source image,
x right and y down; boxes are [x0, y0, x1, y1], half-open.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from PIL import Image

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
    "region_cut",
    "language",
]
BoxXYXY = Annotated[list[int], Field(min_length=4, max_length=4)]


class Closed(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ToolAnswer(Closed):
    """Whole answer of a tool."""

    left_out: list[str] = Field(
        default_factory=list, description="What did not fit: how many of which field, and how to get them"
    )


def is_known(source: MppSource) -> bool:
    """Whether the file or the caller said the scale; one that was only assumed gives no µm."""
    return source in ("file", "given")


class ImageInfo(Closed):
    """Which pixels were looked at, and at which scale."""

    image_id: str
    width: int
    height: int
    mpp: float | None
    mpp_source: MppSource
    region: BoxXYXY

    @property
    def known_mpp(self) -> float | None:
        """µm per pixel if the file or the caller said it; None when it was only assumed: then units are pixels."""
        return self.mpp if is_known(self.mpp_source) else None


class RelationInfo(Closed):
    op: Literal["inside", "outside", "union", "intersection", "selected"]
    reference: str


LONGEST_NAME = 200


class RelationArgument(RelationInfo):
    """How a target lies to another one, as the caller says it."""

    reference: str = Field(max_length=LONGEST_NAME, description="The other one: its label or words")


class TargetArgument(Closed):
    """A target the assistant names itself: a canonical label of taxonomy://, or words, or both."""

    label: str | None = Field(default=None, max_length=LONGEST_NAME)
    words: str | None = Field(default=None, max_length=LONGEST_NAME)
    organ: str | None = Field(default=None, max_length=LONGEST_NAME)
    assertion: Literal["present", "absent", "uncertain", "historical"] = Field(
        default="present",
        description="When you have read a report yourself: absent and historical are not looked for",
    )
    relation: RelationArgument | None = None


class ExamplePlace(Closed):
    """One place that shows what is meant, or what is not, in full-resolution pixels: a box, a point, a polygon or a mask."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    is_it: bool = Field(alias="is", description="true: it is here; false: this is something else")
    box: list[float] | None = None
    point: list[float] | None = None
    polygon: list[list[float]] | None = None
    mask_id: str | None = None
    image: str | None = None


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
    rules: int = Field(
        default=1, description="Version of the rules by which maps became objects and outlines"
    )
    examples: list[ExamplePlace] = Field(
        default=[], description="In the order given; of a correction also those before"
    )
    told: bool = Field(
        default=False,
        description="Points, boxes and the relation went into the network, else they were applied to its masks",
    )
    encoder: str = Field(default="", description="What computed the features, where torch did not")


class Taught(Closed):
    """What examples taught or corrected. learned_sha256: of the file that can make the mask again; null for a correction alone."""

    name: str
    positive: int
    negative: int
    images: int
    expected_dice: float | None = Field(
        description="Of leaving one example out at a time; null with one of a kind"
    )
    interval: tuple[float, float] | None = Field(description="In which 90 % of such estimates lie")
    learned_sha256: str | None
    is_label: bool = Field(default=False, description="The name is also one of the taxonomy or the model")
    unsure: BoxXYXY | None = Field(default=None, description="Where one more example would help most")


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
    taught: Taught | None = Field(default=None, description="Of a mask that examples taught or corrected")

    @property
    def name(self) -> str:
        """What a reader calls it; a canonical label can be looser than what was looked for."""
        return self.free_form or self.target


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


class ReadAs(Closed):
    """How one sentence of a report was read; object with targets=[{label or words, assertion}] where it is wrong."""

    sentence: str = Field(description="As it stands in the words; of a stored result only the finding's name")
    span: tuple[int, int] = Field(description="Character offsets of the sentence in the words")
    finding: str
    assertion: Literal["present", "absent", "uncertain", "historical"]
    mask_id: str | None


class SegmentAnswer(ToolAnswer):
    """Answer of ``segment``. While a job is running ``result_id`` is null and there are no masks yet."""

    result_id: str | None
    image: ImageInfo | None = Field(description="Null while a slide is on its way from its archive")
    masks: list[Mask]
    not_segmented: list[NotSegmented]
    warnings: list[Warned]
    overlay: str | None
    measures: list[str] = Field(description="What the words also asked to measure: pass these to measure")
    notes: list[str]
    job_id: str | None
    read_as: list[ReadAs] = Field(
        default_factory=list, description="Of a report: every sentence with a finding"
    )
    parent: str | None = Field(default=None, description="result_id of the result that this one corrects")


class SegmentResult(SegmentAnswer):
    """A finished segmentation."""

    result_id: str
    image: ImageInfo

    def without_sentences(self) -> SegmentResult:
        """As it is kept: of each sentence of a report only the finding's name and where it stood."""
        kept = [line.model_copy(update={"sentence": line.finding}) for line in self.read_as]
        return self.model_copy(update={"read_as": kept})


class Measured(Closed):
    """One number, with its unit and the rule that computed it."""

    mask_id: str
    name: str = Field(description="What the mask shows")
    metric: str
    value: float | None
    unit: str
    rule: str


class MeasureResult(ToolAnswer):
    """Answer of ``measure``."""

    result_id: str
    image: ImageInfo
    measurements: list[Measured]
    tables: dict[str, str] = Field(description="Per-object table of each mask that has objects, by mask_id")
    pictures: dict[str, str] = Field(
        default_factory=dict, description="Drawn measures (heat maps, histograms, hotspots) by title"
    )
    warnings: list[Warned]


class ViewResult(ToolAnswer):
    """Answer of ``view``: what the attached picture shows."""

    image: ImageInfo
    mask_ids: list[str]
    picture_width: int
    picture_height: int
    px_per_picture_px: float
    um_per_picture_px: float | None
    job_id: str | None = None
    warnings: list[Warned] = Field(default_factory=list)


class ListedImage(Closed):
    path: str
    size_bytes: int | None = Field(description="null for a slide in an archive, which does not say")


class ListedResult(Closed):
    result_id: str
    image_id: str
    created_at: str
    size_bytes: int
    masks: list[str]
    problem: str | None = Field(default=None, description="Why a damaged result cannot be read")


class ListedTarget(Closed):
    """What words can find. Of a taught one: how, with which model, and how good it promised to be."""

    name: str
    source: Literal["shipped", "taught"]
    model: str
    kind: Literal["region", "object"] | None = None
    positive: int | None = None
    negative: int | None = None
    images: int | None = None
    expected_dice: float | None = None
    interval: tuple[float, float] | None = None
    learned_sha256: str | None = None
    created_at: str | None = None
    is_label: bool = False
    problem: str | None = Field(default=None, description="Why a damaged one cannot be used")

    @property
    def line(self) -> str:
        """As a list says it."""
        if self.problem is not None:
            return f"{self.name}: cannot be used: {self.problem}"
        if self.source == "shipped":
            return f"{self.name} (shipped)"
        shown = f"{self.positive} + {self.negative} examples on {self.images} image(s)"
        dice = self.expected_dice
        good = "too few to say how good it is" if dice is None else f"expected Dice {dice:.2f}"
        marked = "; a name that is known without it, too" if self.is_label else ""
        return f"{self.name} (taught by {shown}; {self.kind}; {good}{marked})"


class LibraryResult(ToolAnswer):
    """Answer of ``library``."""

    action: Literal["images", "results", "labels", "targets", "save", "delete", "forget"]
    images: list[ListedImage]
    results: list[ListedResult]
    labels: list[str] = Field(description="Canonical labels: region-structure-type")
    targets: list[ListedTarget] = Field(default=[], description="The model's own, and those that were taught")
    saved: list[str]
    removed: list[str] = Field(default=[], description="What was removed to make room, within 30 days")
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

    def to_json(self) -> str:
        return self.result.model_dump_json(indent=1)

    @property
    def image(self) -> Image.Image | None:
        """The attached picture, decoded."""
        from PIL import Image  # not when the shapes are imported: a server lists them before anybody calls

        return None if self.picture is None else Image.open(io.BytesIO(self.picture))

    def _repr_jpeg_(self) -> bytes | None:
        """What a notebook shows."""
        return self.picture
