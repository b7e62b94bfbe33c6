"""What the tools take, written once: the server publishes these as schemas, the Python API takes them as keywords."""

from __future__ import annotations

from typing import Annotated, Literal, Required, TypedDict

from pydantic import Field

from tissuetalk.tools.answers.results import TargetArgument

ImagePath = Annotated[
    str, Field(description="Path inside an allowed folder (relative to the first), or image:// URI")
]
ResultId = Annotated[str, Field(description="result_id from segment (res_…)")]
MaskIds = Annotated[list[str] | None, Field(description="mask_id values (msk_…); all masks when left out")]
Region = Annotated[
    list[float] | None,
    Field(
        min_length=4,
        max_length=4,
        description="[x0, y0, x1, y1] in full-resolution pixels, half-open; default all",
    ),
]
XY = Annotated[list[float], Field(min_length=2, max_length=2)]
XYXY = Annotated[list[float], Field(min_length=4, max_length=4)]
MAX_UPLOAD_BYTES = 512 * 2**20
DEFAULTS = {"grid": False, "dry_run": False}
"""Of arguments that may be left out; None for all others."""


class _ImageAndWords(TypedDict, total=False):
    image: Required[ImagePath]
    words: Annotated[
        str | None,
        Field(max_length=1_000_000, description="A report, a request or a question, as it was said"),
    ]


class SegmentOptions(TypedDict, total=False):
    """How ``segment`` may be asked beyond an image and words."""

    targets: Annotated[
        list[TargetArgument] | None,
        Field(description="Targets chosen by you instead of words; labels are in taxonomy://labels"),
    ]
    points: Annotated[list[XY] | None, Field(description="[x, y] pixels: only the objects there")]
    boxes: Annotated[list[XYXY] | None, Field(description="[x0, y0, x1, y1] pixels: only what lies inside")]
    region: Region
    organ: Annotated[str | None, Field(max_length=100, description="Organ, if known and not in the words")]
    mpp: Annotated[
        float | None, Field(description="µm per pixel, only if the file does not say and you know it")
    ]
    model: Annotated[
        str | None,
        Field(
            max_length=100,
            description="A name from model://models; default the shipped one. litemedsam, medsam, sam2 outline what a box holds",
        ),
    ]


class SegmentCall(_ImageAndWords, SegmentOptions, total=False):
    """All of ``segment``'s arguments, image and words first."""

    dry_run: Annotated[
        bool, Field(description="Only read the words: what would be looked for, and how it was read")
    ]


class MeasureCall(TypedDict, total=False):
    result_id: Required[ResultId]
    metrics: Annotated[list[str] | None, Field(description="Metric names; default: all that need no pixels")]
    mask_ids: MaskIds


class ExplainCall(TypedDict, total=False):
    result_id: Required[ResultId]
    question: Annotated[
        str | None,
        Field(
            max_length=2000,
            description="Why, how sure, what else, what does it mean, what if it were not there, what did the "
            "classifier rely on; it may name a mask. Default: the overview",
        ),
    ]
    classifier: Annotated[
        str | None,
        Field(
            max_length=100, description="Name of a diagnosis classifier to explain, from model://classifiers"
        ),
    ]


class ViewCall(TypedDict, total=False):
    image: Annotated[str | None, Field(description="Image to look at: a path or image:// URI")]
    result_id: Annotated[str | None, Field(description="Result to look at, with its masks")]
    region: Region
    mask_ids: MaskIds
    grid: Annotated[bool, Field(description="Draw lines labelled in image pixels, to name points")]


class JobCall(TypedDict):
    job_id: Annotated[str, Field(description="job_id from segment (job_…)")]
    action: Literal["status", "wait", "cancel"]


LibraryAction = Literal["images", "results", "labels", "save", "delete"]


class LibraryCall(TypedDict, total=False):
    action: Required[LibraryAction]
    result_id: Annotated[str | None, Field(description="Which result to save or delete")]
    format: Annotated[
        str | None, Field(description="For save: folder (default, everything) or another format, see above")
    ]
    folder: Annotated[str | None, Field(description="For save: a new folder inside an allowed folder")]
    organ: Annotated[str | None, Field(max_length=100, description="For labels: only those of this organ")]
