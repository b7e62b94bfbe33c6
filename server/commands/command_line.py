"""The `tissuetalk` command: the tools without a server, and the server itself.

Exit status: 0 done, 2 the request was wrong (one line on stderr), 3 something the operator must fix.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from tissuetalk.models.errors import BadRequestError, InvalidArgumentError, TissuetalkError
from tissuetalk.server.commands import more_commands
from tissuetalk.server.commands.printing import (
    as_json,
    explain_table,
    image_progress,
    measure_table,
    segment_table,
)

if TYPE_CHECKING:
    from tissuetalk.tools.answers.results import SegmentResult
    from tissuetalk.tools.segment.request import SegmentArguments

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Segment, measure and explain H&E images from words. Research use only.",
)
JSON = Annotated[bool, typer.Option("--json", help="Print the structured result and nothing else.")]
Workspace = Annotated[Path | None, typer.Option(help="Where results are kept.")]


def main() -> NoReturn:
    """Run the command; our own errors become one line and an exit status, anything else stays a crash."""
    try:
        status = app(standalone_mode=False)
    except TissuetalkError as error:
        print(f"tissuetalk: {error.code}: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, BadRequestError) else 3)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        if (wrong_usage := getattr(error, "format_message", None)) is None:
            raise
        if said := wrong_usage():  # empty when help was shown because nothing was asked
            print(f"tissuetalk: invalid_argument: {said} See --help.", file=sys.stderr)
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)


def default_workspace() -> Path:
    """TISSUETALK_WORKSPACE, or the user's data folder."""
    import platformdirs

    named = os.environ.get("TISSUETALK_WORKSPACE")
    return Path(named) if named else Path(platformdirs.user_data_dir("tissuetalk")) / "workspace"


@app.command()
def serve(
    root: Annotated[
        list[Path] | None, typer.Option(help="Folder images may be read from; repeatable.")
    ] = None,
    http: Annotated[str | None, typer.Option(help="HOST:PORT for streamable HTTP; stdio without it.")] = None,
    workspace: Workspace = None,
    reader: Annotated[str, typer.Option(help="How words are read: rules, llm or hybrid.")] = "rules",
) -> None:
    """Serve MCP over stdio, or over HTTP with --http."""
    from tissuetalk.server.app import serve_stdio
    from tissuetalk.server.service import Settings

    settings = Settings(
        roots=tuple(root) if root else None,
        workspace=workspace or default_workspace(),
        reader=reader,
    )
    if http is None:
        serve_stdio(settings)
    else:
        from tissuetalk.server.http import serve_http

        serve_http(settings, http)


@app.command()
def segment(
    image: Annotated[str | None, typer.Argument(help="H&E image or slide; not with --cohort.")] = None,
    words: Annotated[list[str] | None, typer.Argument(help="What to segment, in words.")] = None,
    out: Annotated[str | None, typer.Option(help="New folder for the result.")] = None,
    mpp: Annotated[float | None, typer.Option(help="µm per pixel, if the file does not say.")] = None,
    model: Annotated[str | None, typer.Option(help="See `tissuetalk models`.")] = None,
    organ: Annotated[str | None, typer.Option(help="Organ, if the words do not say.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Canonical label or plain words; repeatable.")
    ] = None,
    point: Annotated[list[str] | None, typer.Option(help="X,Y in pixels; repeatable.")] = None,
    box: Annotated[list[str] | None, typer.Option(help="X0,Y0,X1,Y1 in pixels; repeatable.")] = None,
    region: Annotated[str | None, typer.Option(help="X0,Y0,X1,Y1 in pixels.")] = None,
    reader: Annotated[str, typer.Option(help="How words are read: rules, llm or hybrid.")] = "rules",
    cohort: Annotated[
        list[str] | None, typer.Option(help="Slides by path, pattern or fsspec address; repeatable.")
    ] = None,
    engine: Annotated[str, typer.Option(help="What does the work on slides: local or ray.")] = "local",
    ray_address: Annotated[str | None, typer.Option(help="A running Ray cluster; else one here.")] = None,
    json_: JSON = False,
) -> None:
    """Outline what the words name; writes result.json, masks, instances, overlay.png and objects.geojson to --out.

    With --cohort, on many slides: a table (cohort.csv, cohort.json) and a result per slide; finished ones are skipped.
    """
    from tissuetalk.tools.segment.request import SegmentArguments, target_from_text

    if out is None:
        raise InvalidArgumentError("pass --out DIR: a new folder for the result.")
    if cohort:
        image, words = "", [*([image] if image else []), *(words or ())]  # all that is said is words
    elif image is None:
        raise InvalidArgumentError("pass an image, or --cohort with slides.")
    asked = SegmentArguments(
        image=str(Path(image).resolve()),
        words=" ".join(words or ()) or None,
        targets=[target_from_text(name) for name in target or ()],
        points=[numbers(text, 2, "--point") for text in point or ()],
        boxes=[numbers(text, 4, "--box") for text in box or ()],
        region=None if region is None else numbers(region, 4, "--region"),
        organ=organ,
        mpp=mpp,
        model=model,
    )
    if cohort:
        from tissuetalk.server.commands.cohort_command import segment_cohort

        raise typer.Exit(segment_cohort(cohort, asked, out, reader, engine, ray_address, json=json_))
    result = segment_to_folder(asked, Path(out), reader, quiet=json_, engine=engine, ray_address=ray_address)
    if json_:
        as_json(result)
    else:
        segment_table(result, Path(out))


def segment_to_folder(
    asked: SegmentArguments,
    out: Path,
    reader: str,
    *,
    quiet: bool,
    engine: str = "local",
    ray_address: str | None = None,
) -> SegmentResult:
    """The core of `segment` and `demo`: a workspace of its own for the run, the result copied out.

    A slide's unfinished work stays in ``OUT.unfinished``; the same command goes on there. engine: who does its blocks.
    """
    from tissuetalk.models.control import Control
    from tissuetalk.server.commands.cohort_command import blocks_by
    from tissuetalk.tools.session import Session
    from tissuetalk.tools.storage.files import unfinished_workspace

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidArgumentError(f"{out} exists and is not an empty folder; choose a new one.")
    with (
        blocks_by(engine, ray_address) as runner,
        unfinished_workspace(out) as scratch,
        Session(Path(asked.image).parent, scratch, reader=reader, runner=runner) as session,
        image_progress(quiet) as progress,
    ):
        found = session.segment_request(session.understand(asked), Control(progress))
        return found.save(out).result


@app.command()
def measure(
    result_dir: Annotated[Path, typer.Argument(help="Folder written by segment.")],
    metric: Annotated[list[str] | None, typer.Option(help="Metric name; repeatable.")] = None,
    format: Annotated[str, typer.Option(help="table, json or csv.")] = "table",
    json_: JSON = False,
) -> None:
    """Numbers for a result, each with its unit and rule."""
    from tissuetalk.tools.session import Session

    with Session() as session:
        result = session.measure(result_dir, metric).result
    if json_ or format == "json":
        as_json(result)
    elif format in ("table", "csv"):
        measure_table(result, as_csv=format == "csv")
    else:
        raise InvalidArgumentError(f"unknown format {format!r}; choose table, json or csv.")


@app.command()
def explain(
    result_dir: Annotated[Path, typer.Argument(help="Folder written by segment.")],
    question: Annotated[list[str] | None, typer.Argument(help="What to explain.")] = None,
    classifier: Annotated[
        str | None, typer.Option(help="A diagnosis classifier to explain, by name.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Where the picture goes; default explanation.png in the folder.")
    ] = None,
    json_: JSON = False,
) -> None:
    """Evidence for a result: which words led to which mask, how sure it is, what it means, what a classifier used."""
    from tissuetalk.tools.session import Session

    with Session() as session:
        asked = " ".join(question or ()) or None
        result = session.explain(result_dir, asked, classifier, picture=picture).result
    if json_:
        as_json(result)
    else:
        explain_table(result)


@app.command()
def models(json_: JSON = False) -> None:
    """Which models are here, what each may be used for, and why others cannot be used."""
    from tissuetalk.server.commands.printing import models_table
    from tissuetalk.tools.doctor import model_list

    listed = model_list()
    if json_:
        print(json.dumps(listed, indent=1))
    else:
        models_table(listed)


@app.command(name="version")
def version_() -> None:
    """The installed version."""
    print(version("tissuetalk"))


def numbers(text: str, count: int, option: str) -> list[float]:
    """Comma-separated numbers of an option. Raises InvalidArgumentError."""
    parts = text.replace(" ", "").split(",")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != count:
        raise InvalidArgumentError(f"{option} {text!r} is not {count} numbers with commas between them.")
    return values


more_commands.add_to(app)
