"""What the tools take, written once: the server publishes these as schemas, the Python API takes them as keywords."""

from __future__ import annotations

from typing import Annotated, Literal, Required, TypedDict

from pydantic import Field, WithJsonSchema

from tissuetalk.tools.answers.results import ExamplePlace, TargetArgument

MAX_UPLOAD_BYTES = 512 * 2**20
LONGEST_WORDS = 1_000_000
LONGEST_PATH = 4096
LONGEST_FOLDER_BYTES = 250
"""One name of a path may have 255 on any file system in use."""
MOST_TARGETS = 40
MOST_POINTS = 100
"""Of points and boxes together."""
MOST_IDS = 200
MOST_EXAMPLES = 200
"""In one call; a file of annotations may have more, of which as many are used."""
MOST_CORNERS = 2_000
"""Of one example's polygon."""
FARTHEST_PX = 10**9
FINEST_MPP, COARSEST_MPP = 0.02, 50.0


def _published(least: float, most: float) -> WithJsonSchema:
    """Bounds that hosts read; beyond them the tool itself says what is wrong, which knows the image."""
    return WithJsonSchema({"type": "number", "minimum": least, "maximum": most})


Pixels = Annotated[float, _published(-FARTHEST_PX, FARTHEST_PX)]
Id = Annotated[str, Field(max_length=100)]
Name = Annotated[str, Field(max_length=100)]
ImagePath = Annotated[
    str,
    Field(
        max_length=LONGEST_PATH,
        description="Path inside an allowed folder (relative to the first), image:// URI, or dicomweb: address from library",
    ),
]
ResultId = Annotated[Id, Field(description="result_id from segment (res_…)")]
MaskIds = Annotated[
    list[Id] | None,
    Field(max_length=MOST_IDS, description="mask_id values (msk_…); all masks when left out"),
]
Region = Annotated[
    list[Pixels] | None,
    Field(
        min_length=4,
        max_length=4,
        description="[x0, y0, x1, y1] in full-resolution pixels, half-open; default all",
    ),
]
XY = Annotated[list[Pixels], Field(min_length=2, max_length=2)]
XYXY = Annotated[list[Pixels], Field(min_length=4, max_length=4)]


class ExampleArgument(ExamplePlace):
    """One place that shows what is meant, or what is not: exactly one of box, point, polygon and mask_id."""

    box: XYXY | None = Field(default=None, description="[x0, y0, x1, y1] wholly inside it")
    point: XY | None = Field(default=None, description="[x, y]: a disc of 8 µm")
    polygon: Annotated[list[XY], Field(min_length=3, max_length=MOST_CORNERS)] | None = None
    mask_id: Id | None = Field(default=None, description="A mask of an earlier result: all of it")
    image: Annotated[str, Field(max_length=LONGEST_PATH)] | None = Field(
        default=None, description="Where it lies, when not on the call's image"
    )


DEFAULTS = {"grid": False, "dry_run": False, "offset": 0}
"""Of arguments that may be left out; None for all others."""


class _ImageAndWords(TypedDict, total=False):
    image: Required[ImagePath]
    words: Annotated[
        str | None,
        Field(max_length=LONGEST_WORDS, description="A report, a request or a question, as it was said"),
    ]


class SegmentOptions(TypedDict, total=False):
    """How ``segment`` may be asked beyond an image and words."""

    targets: Annotated[
        list[TargetArgument] | None,
        Field(
            max_length=MOST_TARGETS,
            description="Targets chosen by you instead of words; labels are in taxonomy://labels",
        ),
    ]
    points: Annotated[
        list[XY] | None,
        Field(max_length=MOST_POINTS, description="[[x, y], …] pixels: only the objects there"),
    ]
    boxes: Annotated[
        list[XYXY] | None,
        Field(max_length=MOST_POINTS, description="[[x0, y0, x1, y1], …] pixels: only what lies inside"),
    ]
    region: Region
    organ: Annotated[Name | None, Field(description="Organ, if known and not in the words")]
    mpp: Annotated[
        Annotated[float, _published(FINEST_MPP, COARSEST_MPP)] | None,
        Field(description="µm per pixel, only if the file does not say and you know it"),
    ]
    model: Annotated[
        Name | None,
        Field(
            description="A name from model://models; default the shipped one. litemedsam, medsam, sam2 outline what a box holds",
        ),
    ]
    examples: Annotated[
        list[ExampleArgument] | None,
        Field(
            max_length=MOST_EXAMPLES,
            description="Show what the words mean: places where it is and where it is not, one of each at least, three are good",
        ),
    ]
    name: Annotated[
        Name | None,
        Field(
            description="Keep what examples show (or base_result was taught) under this name, so that words find it later; "
            "alone: look for what is kept under it"
        ),
    ]
    base_result: Annotated[
        Id | None,
        Field(
            description="result_id to correct: examples add (is: true) or take away (is: false) objects or area; a new result"
        ),
    ]


class SegmentCall(_ImageAndWords, SegmentOptions, total=False):
    """All of ``segment``'s arguments, image and words first."""

    dry_run: Annotated[
        bool, Field(description="Only read the words: what would be looked for, and how it was read")
    ]


class MeasureCall(TypedDict, total=False):
    result_id: Required[ResultId]
    metrics: Annotated[
        list[Name] | None,
        Field(max_length=MOST_IDS, description="Metric names; default: all that need no pixels"),
    ]
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
        Name | None,
        Field(description="Name of a diagnosis classifier to explain, from model://classifiers"),
    ]


class ViewCall(TypedDict, total=False):
    image: Annotated[ImagePath | None, Field(description="Image to look at: a path or image:// URI")]
    result_id: Annotated[Id | None, Field(description="Result to look at, with its masks")]
    region: Region
    mask_ids: MaskIds
    grid: Annotated[bool, Field(description="Draw lines labelled in image pixels, to name points")]


class JobCall(TypedDict):
    job_id: Annotated[Id, Field(description="job_id from segment (job_…)")]
    action: Literal["status", "wait", "cancel"]


LibraryAction = Literal["images", "results", "labels", "targets", "save", "delete", "forget"]


class LibraryCall(TypedDict, total=False):
    action: Required[LibraryAction]
    result_id: Annotated[Id | None, Field(description="Which result to save or delete")]
    format: Annotated[
        Name | None, Field(description="For save: folder (default, everything) or another format, see above")
    ]
    folder: Annotated[
        str | None,
        Field(
            max_length=LONGEST_FOLDER_BYTES,
            description="For save: a new folder inside an allowed folder, or dicomweb:NAME",
        ),
    ]
    organ: Annotated[Name | None, Field(description="For labels: only those of this organ")]
    name: Annotated[Name | None, Field(description="For forget and save: of a taught target")]


class ViewerCall(TypedDict, total=False):
    """What the page in a chat asks for; each ``what`` needs what is named beside it."""

    what: Required[
        Annotated[
            Literal[
                "image", "result", "objects", "object", "image_tile", "cover", "outlines", "file", "look"
            ],
            Field(
                description="image (image); result, look (result_id); objects (result_id, mask_id, columns); object (… number, "
                "near); image_tile (image, tile); cover, outlines (result_id, mask_id, tile); file (result_id, path)"
            ),
        ]
    ]
    image: Annotated[ImagePath | None, Field(description="Path or URI; for tiles the image_id")]
    result_id: Annotated[Id | None, Field(description="Whose")]
    mask_id: Annotated[Id | None, Field(description="Of the result")]
    tile: Annotated[
        list[Annotated[int, Field(ge=0, le=FARTHEST_PX)]] | None,
        Field(min_length=3, max_length=3, description="[z, x, y]: level from full resolution, column, row"),
    ]
    columns: Annotated[list[Name] | None, Field(max_length=20, description="Of the object table")]
    number: Annotated[int | None, Field(ge=0, le=FARTHEST_PX, description="Of the object")]
    near: Annotated[XY | None, Field(description="A point in the object")]
    path: Annotated[Annotated[str, Field(max_length=LONGEST_PATH)] | None, Field(description="Of the file")]
    offset: Annotated[int, Field(ge=0, le=FARTHEST_PX, description="First byte wanted")]
