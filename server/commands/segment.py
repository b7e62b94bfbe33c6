"""Commands that segment: one image or slide, a cohort of slides, the bundled demo."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tissuetalk.models import worker
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.memory import keep_memory
from tissuetalk.server.commands.terminal import (
    JSON,
    ArchivesGiven,
    CredentialsGiven,
    EngineName,
    Model,
    Reader,
    archives_from,
    image_progress,
    numbers,
    show,
    table,
)

if TYPE_CHECKING:
    from tissuetalk.models.by_example import Learned
    from tissuetalk.tools.answers.results import Answer, SegmentAnswer
    from tissuetalk.tools.cohort.table import CohortTable
    from tissuetalk.tools.segment.request import SegmentArguments
    from tissuetalk.tools.segment.schedule import MakeRunner
    from tissuetalk.tools.session import Segmentation, Session
    from tissuetalk.tools.storage.archives import Archive

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
    examples: Annotated[Path | None, typer.Option(help="GeoJSON that shows it, as `teach` reads it.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call what the examples show.")] = None,
    base_result: Annotated[Path | None, typer.Option(help="Result folder that the examples correct.")] = None,
    learned: Annotated[list[Path] | None, typer.Option(help="A target from `teach`; repeatable.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only read the words; nothing is segmented.")] = False,
    archive: ArchivesGiven = None,
    archive_credentials: CredentialsGiven = None,
    json_: JSON = False,
) -> None:
    """Outline what the words name; writes result.json, masks, instances, overlay.png and objects.geojson to --out.

    With --cohort, on many slides: a table (cohort.csv, cohort.json) and a result per slide; finished ones are skipped.
    """
    if out is None and not dry_run:
        raise InvalidArgumentError("pass --out DIR: a new folder for the result.")
    if engine == "local" and ray_address is not None and not dry_run:
        raise InvalidArgumentError("--ray-address needs --engine ray.")
    if cohort:
        image, words = "", [*([image] if image else []), *(words or ())]  # all that is said is words
    elif image is None:
        raise InvalidArgumentError("pass an image, or --cohort with slides.")
    asked = replace(
        _asked(image, words, target, point, box, region), organ=organ, mpp=mpp, model=model, name=name
    )
    given = TaughtFiles(examples, base_result, tuple(learned or ()))
    keep_memory()
    if out is None or dry_run:
        reading = _reading(asked, reader, given)
        show(json_, reading.to_json(), reading.text)
    elif cohort:
        made = _cohort(cohort, asked, out, reader, engine, ray_address, given, quiet=json_)
        _say_cohort(made, out, json_)
        raise typer.Exit(made.exit_status)
    else:
        worker.start()  # it warms while the model is loaded
        with _blocks_by(engine, ray_address) as runner:
            archives = archives_from(archive, archive_credentials)
            found = _to_folder(asked, Path(out), reader, runner, given, archives, quiet=json_)
        show(json_, found.to_json(), *_found(found, Path(out)))


def _asked(
    image: str,
    words: list[str] | None,
    target: list[str] | None,
    point: list[str] | None,
    box: list[str] | None,
    region: str | None,
) -> SegmentArguments:
    """What was typed, as arguments. Raises InvalidArgumentError."""
    from tissuetalk.tools.segment.request import SegmentArguments, target_from_text
    from tissuetalk.tools.storage.archives import in_archive

    return SegmentArguments(
        image=image if in_archive(image) else str(Path(image).resolve()),
        words=" ".join(words or ()) or None,
        targets=[target_from_text(each) for each in target or ()],
        points=[numbers(text, "--point", 2) for text in point or ()],
        boxes=[numbers(text, "--box", 4) for text in box or ()],
        region=None if region is None else numbers(region, "--region", 4),
    )


@dataclass(frozen=True)
class TaughtFiles:
    """What was passed as files: annotations, the folder of a result to correct, targets that were taught."""

    examples: Path | None = None
    base_result: Path | None = None
    learned: tuple[Path, ...] = ()

    def into(self, asked: SegmentArguments, session: Session) -> SegmentArguments:
        """The arguments with what the files say. Raises InvalidArgumentError and UnknownResultError."""
        from tissuetalk.tools.storage.targets import read_learned
        from tissuetalk.tools.teach.teach import examples_on

        targets = [read_learned(path) for path in self.learned]
        asked = _with_targets(asked, targets)
        for each in targets:
            session.workspace.targets.keep(each)
        if self.base_result is not None:
            asked = replace(asked, base_result=session.adopt(self.base_result))
        if self.examples is not None:
            said = asked.name or asked.words or ""
            asked = replace(asked, examples=examples_on(self.examples, said, asked.image, session))
        return asked


def _with_targets(asked: SegmentArguments, learned: Sequence[Learned]) -> SegmentArguments:
    """The arguments with targets that were taught, and the model they were taught on. Raises InvalidArgumentError."""
    bases = dict.fromkeys([*([asked.model] if asked.model else []), *(each.base for each in learned)])
    if learned and len(bases) > 1:
        raise InvalidArgumentError(
            f"the targets were taught on different models ({', '.join(bases)}); use them apart."
        )
    return replace(asked, model=next(iter(bases), None), learned=[each.sha256 for each in learned])


def _reading(asked: SegmentArguments, reader: str, given: TaughtFiles) -> Answer[SegmentAnswer]:
    """What the words mean; nothing is segmented or kept."""
    from tissuetalk.tools.session import Session

    with Session(_root_of(asked.image), reader=reader) as session:
        return session.read_request(session.understand(given.into(asked, session)))


def _root_of(image: str) -> Path:
    from tissuetalk.tools.storage.archives import in_archive

    return Path.cwd() if in_archive(image) else Path(image).parent


@contextmanager
def _blocks_by(engine: EngineName, ray_address: str | None) -> Iterator[MakeRunner | None]:
    """Who does the blocks of one slide; None for threads here. Ray is started only if there is a slide to work on."""
    if engine == "local":
        yield None
        return
    from tissuetalk.tools.segment.ray_runner import Cluster

    with ExitStack() as stack:
        yield lambda *slide: stack.enter_context(Cluster(ray_address)).runner(*slide)


def _to_folder(
    asked: SegmentArguments,
    out: Path,
    reader: str,
    runner: MakeRunner | None = None,
    given: TaughtFiles = TaughtFiles(),
    archives: Sequence[Archive] = (),
    *,
    quiet: bool,
) -> Segmentation:
    """A session with a workspace of its own for the run, the result copied out.

    A slide's unfinished work stays in ``OUT.unfinished``; the same command goes on there.
    """
    from tissuetalk.models.control import Control
    from tissuetalk.tools.segment.unfinished import unfinished_workspace
    from tissuetalk.tools.session import Session

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidArgumentError(f"{out} exists and is not an empty folder; choose a new one.")
    # settled now: a folder on the way that is a link when the work is done was swapped in
    place = Path(os.path.realpath(out))
    with (
        unfinished_workspace(out) as scratch,
        Session(
            _root_of(asked.image),
            scratch,
            reader=reader,
            runner=runner,
            archives=archives,
        ) as session,
        image_progress(quiet) as progress,
    ):
        order = session.understand(given.into(asked, session))
        return session.segment_request(order, Control(progress)).save(place, within=Path(place.anchor))


def _found(found: Segmentation, out: Path) -> list[Any]:
    """What was found and what was not, and where it lies, for the terminal."""
    rows, number = [], 0
    for mask in found.result.masks:
        number += mask.found
        shown = str(number) if mask.found else "-"
        rows.append((shown, mask.label or mask.free_form or "", mask.evidence, mask.verdict))
    for item in found.result.not_segmented:
        why = f"not segmented ({item.code}): {item.reason}"
        rows.append(("", item.label or item.free_form or "", item.evidence, why))
    files = [mask.taught.learned_sha256 for mask in found.result.masks if mask.taught is not None]
    taught = sorted({sha256 for sha256 in files if sha256 is not None})
    return [
        table(("#", "target", "words", "verdict"), rows),
        *(f"for --learned: {out / 'learned' / f'{sha256}.safetensors'}" for sha256 in taught),
        *(f"warning {warning.code}: {warning.message}" for warning in found.result.warnings),
        f"written to {out}: result.json, masks, instances, objects.geojson, overlay.png",
    ]


def _cohort(
    patterns: Sequence[str],
    asked: SegmentArguments,
    out: str,
    reader: str,
    engine: EngineName,
    ray_address: str | None,
    given: TaughtFiles,
    *,
    quiet: bool,
) -> CohortTable:
    """Segment every slide the patterns name. ``asked`` names no image.

    Raises InvalidArgumentError for what cannot be asked of many slides, and everything ``run_cohort`` raises.
    """
    import platformdirs

    from tissuetalk.models import registry
    from tissuetalk.models.control import Control
    from tissuetalk.prompts.readers import make_reader
    from tissuetalk.tools.cohort.cohort import here, over_ray, run_cohort
    from tissuetalk.tools.segment.lessons import read_with_names
    from tissuetalk.tools.segment.request import SegmentRequest
    from tissuetalk.tools.storage.addresses import expand, is_address, local_path
    from tissuetalk.tools.storage.targets import read_learned

    if asked.points or asked.boxes or asked.region:
        raise InvalidArgumentError(
            "--point, --box and --region belong to one image; leave them out of a cohort."
        )
    if given.examples is not None or given.base_result is not None or asked.name is not None:
        raise InvalidArgumentError(
            "--examples, --name and --base-result belong to one image; teach first and pass --learned."
        )
    learned = [read_learned(path) for path in given.learned]
    asked = _with_targets(asked, learned)
    request = read_with_names(make_reader(reader), asked, registry.repertoire(asked.model), learned)
    slides, folder = expand(patterns), local_path(out)
    if folder is None:  # results go to an address: they are worked on in the cache
        name = sha256(out.encode()).hexdigest()[:16]
        folder = platformdirs.user_cache_path("tissuetalk") / "cohorts" / name
    with image_progress(quiet) as progress:
        return run_cohort(
            slides,
            SegmentRequest("", request, mpp=asked.mpp, model=asked.model),
            folder,
            address=out.rstrip("/") if is_address(out) and not out.startswith("file://") else None,
            work=here if engine == "local" else over_ray(ray_address),
            control=Control(progress),
            learned=learned,
        )


def _say_cohort(cohort: CohortTable, out: str, as_json: bool) -> None:
    """A line per slide and target, where everything lies, and one clear line on stderr when not all slides are done."""
    rows = []
    for slide in cohort.slides:
        state = slide.error.code if slide.error else slide.state
        tissue = "" if slide.tissue_mm2 is None else f"{slide.tissue_mm2:.3g} mm²"
        for mask in slide.masks:
            area = f"{mask.area_px} px" if mask.area_mm2 is None else f"{mask.area_mm2:.3g} mm²"
            density = "" if mask.density_per_mm2 is None else f"{mask.density_per_mm2:.4g}"
            count = "" if mask.count is None else str(mask.count)
            rows.append((slide.name, state, mask.name, count, area, density, tissue))
        if not slide.masks:
            rows.append((slide.name, state, "; ".join(slide.not_segmented), "", "", "", tissue))
    columns = ("slide", "state", "target", "count", "area", "per mm² tissue", "tissue")
    written = f"written to {out}: cohort.csv, cohort.json, slides/"
    show(as_json, cohort.model_dump_json(indent=1), table(columns, rows), written)
    if left := sum(count for state, count in cohort.states.items() if state != "done"):
        failed = ", ".join(f"{code} {count}" for code, count in cohort.errors.items()) or "stopped"
        print(
            f"tissuetalk: {left} of {len(cohort.slides)} slides are not done ({failed}); "
            "see cohort.csv, mend them and run the same command again.",
            file=sys.stderr,
        )


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
        found = _to_folder(SegmentArguments(str(image), DEMO_WORDS), out, "rules", quiet=json_)
    marker.touch()
    look = f"to look at it in a browser: tissuetalk view {out}"
    show(json_, found.to_json(), *_found(found, out), (out / "overlay.png").resolve(), look)
