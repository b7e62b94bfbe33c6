"""Commands that segment: one image or slide, a cohort of slides, the bundled demo."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.server.commands.options import JSON, EngineName, Model, Reader, numbers

if TYPE_CHECKING:
    from tissuetalk.tools.segment.request import SegmentArguments
    from tissuetalk.tools.session import Segmentation

DEMO_WORDS = (
    "Colon biopsy: crowded adenomatous glands with low-grade dysplasia. No invasive carcinoma is seen."
)


def segment(
    image: Annotated[str | None, typer.Argument(help="H&E image or slide; not with --cohort.")] = None,
    words: Annotated[list[str] | None, typer.Argument(help="What to segment, in words.")] = None,
    out: Annotated[str | None, typer.Option(help="New folder for the result.")] = None,
    mpp: Annotated[float | None, typer.Option(help="µm per pixel, if the file does not say.")] = None,
    model: Model = None,
    organ: Annotated[str | None, typer.Option(help="Organ, if the words do not say.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Canonical label or plain words; repeatable.")
    ] = None,
    point: Annotated[list[str] | None, typer.Option(help="X,Y in pixels; repeatable.")] = None,
    box: Annotated[list[str] | None, typer.Option(help="X0,Y0,X1,Y1 in pixels; repeatable.")] = None,
    region: Annotated[str | None, typer.Option(help="X0,Y0,X1,Y1 in pixels.")] = None,
    reader: Reader = "rules",
    cohort: Annotated[
        list[str] | None, typer.Option(help="Slides by path, pattern or fsspec address; repeatable.")
    ] = None,
    engine: Annotated[EngineName, typer.Option(help="What does the work on slides.")] = "local",
    ray_address: Annotated[str | None, typer.Option(help="A running Ray cluster; else one here.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only read the words; nothing is segmented.")] = False,
    json_: JSON = False,
) -> None:
    """Outline what the words name; writes result.json, masks, instances, overlay.png and objects.geojson to --out.

    With --cohort, on many slides: a table (cohort.csv, cohort.json) and a result per slide; finished ones are skipped.
    """
    from tissuetalk.tools.segment.request import SegmentArguments, target_from_text

    if out is None and not dry_run:
        raise InvalidArgumentError("pass --out DIR: a new folder for the result.")
    if cohort:
        image, words = "", [*([image] if image else []), *(words or ())]  # all that is said is words
    elif image is None:
        raise InvalidArgumentError("pass an image, or --cohort with slides.")
    asked = SegmentArguments(
        image=str(Path(image).resolve()),
        words=" ".join(words or ()) or None,
        targets=[target_from_text(name) for name in target or ()],
        points=[numbers(text, "--point", 2) for text in point or ()],
        boxes=[numbers(text, "--box", 4) for text in box or ()],
        region=None if region is None else numbers(region, "--region", 4),
        organ=organ,
        mpp=mpp,
        model=model,
    )
    if dry_run:
        _say_reading(asked, reader, json_)
        return
    assert out is not None, "asked for above"
    if cohort:
        from tissuetalk.server.commands.cohort import segment_cohort

        raise typer.Exit(segment_cohort(cohort, asked, out, reader, engine, ray_address, json=json_))
    found = segment_to_folder(asked, Path(out), reader, engine, ray_address, quiet=json_)
    _say(found, Path(out), json_)


def _say_reading(asked: SegmentArguments, reader: str, as_json: bool) -> None:
    """What the words mean; nothing is segmented or kept."""
    import tempfile

    from tissuetalk.tools.session import Session

    with (
        tempfile.TemporaryDirectory() as scratch,
        Session(Path(asked.image).parent, Path(scratch), reader=reader) as session,
    ):
        answer = session.read_request(session.understand(asked))
    print(answer.to_json() if as_json else answer.text)


def segment_to_folder(
    asked: SegmentArguments,
    out: Path,
    reader: str,
    engine: EngineName = "local",
    ray_address: str | None = None,
    *,
    quiet: bool,
) -> Segmentation:
    """A session with a workspace of its own for the run, the result copied out.

    A slide's unfinished work stays in ``OUT.unfinished``; the same command goes on there. engine: who does its blocks.
    """
    from tissuetalk.models.control import Control
    from tissuetalk.server.commands.cohort import blocks_by
    from tissuetalk.server.commands.printing import image_progress
    from tissuetalk.tools.segment.unfinished import unfinished_workspace
    from tissuetalk.tools.session import Session

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidArgumentError(f"{out} exists and is not an empty folder; choose a new one.")
    with (
        blocks_by(engine, ray_address) as runner,
        unfinished_workspace(out) as scratch,
        Session(Path(asked.image).parent, scratch, reader=reader, runner=runner) as session,
        image_progress(quiet) as progress,
    ):
        return session.segment_request(session.understand(asked), Control(progress)).save(out)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the result; replaced if a demo wrote it.")] = Path(
        "demo-out"
    ),
    json_: JSON = False,
) -> None:
    """The main job on a bundled real H&E image: a report sentence in, masks, a table and an overlay out."""
    from tissuetalk.tools.segment.request import SegmentArguments

    marker = out / ".tissuetalk-demo"
    if marker.is_file():
        shutil.rmtree(out)
    with resources.as_file(resources.files("tissuetalk.models").joinpath("samples", "colon.jpg")) as image:
        if not json_:
            print(f"image: {image}\nwords: {DEMO_WORDS}\n")
        found = segment_to_folder(SegmentArguments(str(image), DEMO_WORDS), out, "rules", quiet=json_)
    marker.touch()
    _say(found, out, json_)
    if not json_:
        print((out / "overlay.png").resolve())


def _say(found: Segmentation, out: Path, as_json: bool) -> None:
    from tissuetalk.server.commands.printing import segment_table

    if as_json:
        print(found.to_json())
    else:
        segment_table(found.result, out)
