"""The MCP server: tools, resources, prompts and completions over one desk. Wiring only.

Nothing heavy is imported until a tool is called: a client connects to a server that has not loaded torch, OpenCV or SciPy.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from tissuetalk.server import guidance
from tissuetalk.server.answers import as_result
from tissuetalk.server.background import Background
from tissuetalk.server.errors import CodesFirst, readable_errors
from tissuetalk.server.lazy import LazyDesk
from tissuetalk.server.resources import add_resources
from tissuetalk.tools.answers.explained import ExplainResult
from tissuetalk.tools.answers.jobs import JobStatus
from tissuetalk.tools.answers.results import (
    LibraryResult,
    MeasureResult,
    SegmentAnswer,
    TargetArgument,
    ViewResult,
)

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


def build_server(lazy: LazyDesk) -> MCPServer:
    """A server over one desk. Several may live in one process."""
    background = Background(lazy, lazy.settings.patience_s)
    arguments: dict[str, frozenset[str]] = {}
    server: MCPServer = MCPServer(
        "tissuetalk",
        title="tissuetalk: segment, measure and explain H&E images from words",
        instructions=guidance.instructions(),
        version=version("tissuetalk"),
        lifespan=lazy.lifespan,
        middleware=[CodesFirst(arguments.get)],
        log_level="WARNING",
    )
    _add_segment(server, background)
    _add_reading_tools(server, lazy, background)
    _add_library(server, lazy, background)
    add_resources(server, lazy, background)
    guidance.add_prompts(server)
    guidance.add_completions(server)
    arguments.update(_arguments(server))
    return server


def _arguments(server: MCPServer) -> dict[str, frozenset[str]]:
    """The argument names of every tool, as its published schema lists them."""
    manager = server._tool_manager  # the SDK lists tools only to a running loop
    return {tool.name: frozenset(tool.parameters.get("properties", {})) for tool in manager.list_tools()}


def _add_segment(server: MCPServer, background: Background) -> None:
    @server.tool(
        title="Segment what the words name",
        description=guidance.text("tool_segment.txt"),
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
        ),
    )
    @readable_errors
    async def segment(
        image: ImagePath,
        ctx: Context,
        words: Annotated[
            str | None,
            Field(max_length=1_000_000, description="A report, a request or a question, as it was said"),
        ] = None,
        targets: Annotated[
            list[TargetArgument] | None,
            Field(description="Targets chosen by you instead of words; labels are in taxonomy://labels"),
        ] = None,
        points: Annotated[list[XY] | None, Field(description="[x, y] pixels: only the objects there")] = None,
        boxes: Annotated[
            list[XYXY] | None, Field(description="[x0, y0, x1, y1] pixels: only what lies inside")
        ] = None,
        region: Region = None,
        organ: Annotated[
            str | None, Field(max_length=100, description="Organ, if known and not in the words")
        ] = None,
        mpp: Annotated[
            float | None, Field(description="µm per pixel, only if the file does not say and you know it")
        ] = None,
        model: Annotated[
            str | None,
            Field(
                max_length=100,
                description="A name from model://models; default the shipped one. litemedsam, medsam, sam2 outline what a box holds",
            ),
        ] = None,
    ) -> Annotated[CallToolResult, SegmentAnswer]:
        asked = {
            "image": image,
            "words": words,
            "targets": targets or [],
            "points": points or [],
            "boxes": boxes or [],
            "region": region,
            "organ": organ,
            "mpp": mpp,
            "model": model,
        }
        return as_result(await background.segment(asked, ctx))


def _add_reading_tools(server: MCPServer, lazy: LazyDesk, background: Background) -> None:
    reading = ToolAnnotations(
        read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )

    @server.tool(title="Measure a result", description=guidance.text("tool_measure.txt"), annotations=reading)
    @readable_errors
    async def measure(
        result_id: ResultId,
        ctx: Context,
        metrics: Annotated[
            list[str] | None, Field(description="Metric names; default: all that need no pixels")
        ] = None,
        mask_ids: MaskIds = None,
    ) -> Annotated[CallToolResult, MeasureResult]:
        return as_result(
            await background.run(
                lambda progress, stop: lazy.desk().measure(result_id, metrics, mask_ids), ctx
            )
        )

    @server.tool(title="Explain a result", description=guidance.text("tool_explain.txt"), annotations=reading)
    @readable_errors
    async def explain(
        result_id: ResultId,
        ctx: Context,
        question: Annotated[
            str | None,
            Field(
                max_length=2000,
                description="Why, how sure, what else, what does it mean, what if it were not there, what did the "
                "classifier rely on; it may name a mask. Default: the overview",
            ),
        ] = None,
        classifier: Annotated[
            str | None,
            Field(
                max_length=100,
                description="Name of a diagnosis classifier to explain, from model://classifiers",
            ),
        ] = None,
    ) -> Annotated[CallToolResult, ExplainResult]:
        return as_result(await background.explain(result_id, question, classifier, ctx))

    @server.tool(
        title="Look at an image or a result", description=guidance.text("tool_view.txt"), annotations=reading
    )
    @readable_errors
    async def view(
        ctx: Context,
        image: Annotated[str | None, Field(description="Image to look at: a path or image:// URI")] = None,
        result_id: Annotated[str | None, Field(description="Result to look at, with its masks")] = None,
        region: Region = None,
        mask_ids: MaskIds = None,
        grid: Annotated[
            bool, Field(description="Draw lines labelled in image pixels, to name points")
        ] = False,
    ) -> Annotated[CallToolResult, ViewResult]:
        return as_result(
            await background.run(
                lambda progress, stop: lazy.desk().view(
                    image, result_id, region=region, mask_ids=mask_ids, grid=grid
                ),
                ctx,
            )
        )


def _add_library(server: MCPServer, lazy: LazyDesk, background: Background) -> None:
    @server.tool(
        title="Wait for, read or cancel long work",
        description=guidance.text("tool_job.txt"),
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
        ),
    )
    @readable_errors
    async def job(
        job_id: Annotated[str, Field(description="job_id from segment (job_…)")],
        action: Literal["status", "wait", "cancel"],
        ctx: Context,
    ) -> Annotated[CallToolResult, JobStatus]:
        return as_result(await background.job(job_id, action, ctx))

    @server.tool(
        title="List images and results, save or delete a result",
        description=guidance.text("tool_library.txt"),
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False
        ),
    )
    @readable_errors
    async def library(
        action: Literal["images", "results", "save", "delete"],
        ctx: Context,
        result_id: Annotated[str | None, Field(description="Which result to save or delete")] = None,
        format: Annotated[
            str | None,
            Field(
                description="For save: folder (default, everything), geojson, csv, parquet, ome-zarr, dicom-seg, dicom-ann or coco"
            ),
        ] = None,
        folder: Annotated[
            str | None, Field(description="For save: a new folder inside an allowed folder")
        ] = None,
    ) -> Annotated[CallToolResult, LibraryResult]:
        return as_result(
            await background.run(
                lambda progress, stop: lazy.desk().library(
                    action, result_id=result_id, format=format, folder=folder
                ),
                ctx,
            )
        )
