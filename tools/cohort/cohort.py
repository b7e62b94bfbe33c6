"""Many slides, one request: a broken slide never stops the others, and finished ones are not done again.

OUT/cohort.json, cohort.csv   the table, rewritten whenever a slide ends
OUT/slides/NAME/              the result of a slide, as ``segment`` writes it
OUT/slides/NAME.json          its row, written last: what makes it finished
OUT/learned/                  the taught targets that were asked for
OUT/.unfinished/NAME/         the workspace of a slide that is not finished; work goes on there
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from tissuetalk.models.by_example import Learned
from tissuetalk.models.control import Control
from tissuetalk.models.errors import (
    BusyError,
    InvalidArgumentError,
    ResourceError,
    TissuetalkError,
    UnknownImageError,
)
from tissuetalk.models.writing import disk_errors, remove, write_whole
from tissuetalk.tools.cohort.table import (
    CohortSlide,
    CohortTable,
    cohort_of,
    failed_row,
    row_of,
    write_tables,
)
from tissuetalk.tools.masks.stored import tissue_mm2
from tissuetalk.tools.segment.ray_runner import Cluster
from tissuetalk.tools.segment.request import SegmentRequest
from tissuetalk.tools.segment.segment import segment
from tissuetalk.tools.session import Session
from tissuetalk.tools.storage import addresses
from tissuetalk.tools.storage.targets import read_learned

log = logging.getLogger(__name__)
_LONGEST_NAME = 80


@dataclass(frozen=True)
class SlideJob:
    """One slide of a cohort, as plain values: it can be done by any process that sees the folders.

    slide: path or address. out: the cohort's folder. address: where results go in the end, if not there.
    """

    name: str
    slide: str
    out: Path
    order: Mapping[str, Any]
    address: str | None = None

    @property
    def workspace(self) -> Path:
        return self.out / ".unfinished" / self.name

    @property
    def result(self) -> Path:
        return self.out / "slides" / self.name

    @property
    def row(self) -> Path:
        return self.out / "slides" / f"{self.name}.json"


def asked_of(order: SegmentRequest) -> dict[str, Any]:
    """What is the same for every slide."""
    return {key: value for key, value in order.as_json().items() if key != "image"}


Outcome = tuple[SlideJob, "CohortSlide | BaseException"]
Work = Callable[[Sequence[SlideJob], Control], Iterator[Outcome]]
"""Does the jobs in any order, anywhere; ends early when told to stop."""


def run_slide(job: SlideJob, control: Control = Control(), **bench_options: Any) -> CohortSlide:
    """Segment one slide into its folder and write its row. Raises any of the contract's errors.

    bench_options: how slides are worked on, as ``Session`` takes it.
    """
    started = time.monotonic()
    stamp = addresses.stamp(job.slide)
    copies = job.out / ".unfinished" / f"{job.name}.copy"
    path = addresses.fetch(job.slide, copies)
    with Session(path.parent, job.workspace, **bench_options) as bench:
        for file in sorted((job.out / "learned").glob("*.safetensors")):
            bench.workspace.targets.keep(read_learned(file))
        order = SegmentRequest.from_json({**job.order, "image": str(path)})
        result = segment(bench, order, control)
        # the row is written last, so a result without one is done again and may be replaced
        with disk_errors(job.out):
            remove(job.result)
            bench.workspace.save(result.result_id, job.result, within=job.out)
        with bench.open(str(path)) as source:
            tissue = tissue_mm2(job.result, result, source)
        row = row_of(job.name, job.slide, stamp, result, tissue, time.monotonic() - started)
    if job.address is not None:
        addresses.put(job.result, f"{job.address}/slides/{job.name}")
    with disk_errors(job.out):
        write_whole(job.row, row.model_dump_json(indent=1), within=job.out)
    if job.address is not None:
        addresses.put(job.row, f"{job.address}/slides/{job.name}.json")
    remove(job.workspace)
    remove(copies)
    return row


def here(jobs: Sequence[SlideJob], control: Control, **bench_options: Any) -> Iterator[Outcome]:
    """One slide after the other from this process; the engine itself uses all cores, or whoever does its blocks."""
    interrupted = Event()
    with ThreadPoolExecutor(1, thread_name_prefix="cohort") as pool:
        try:
            for number, job in enumerate(jobs):
                if control.stop():
                    return
                part = control.part(number / len(jobs), (number + 1) / len(jobs))
                watched = _watched(part, job.name, interrupted)
                yield job, outcome_of(pool.submit(run_slide, job, watched, **bench_options))
        finally:
            # the generator may be dropped halfway: the slide in work stops at its next safe point
            interrupted.set()


def _watched(control: Control, name: str, interrupted: Event) -> Control:
    return Control(
        lambda done, what: control.report(done, f"{name}: {what}"),
        lambda: control.stop() or interrupted.is_set(),
    )


def outcome_of(future: Future[CohortSlide]) -> CohortSlide | BaseException:
    """The row, or whatever ended the work."""
    return future.exception() or future.result()


def over_ray(address: str | None = None) -> Work:
    """A cohort on a Ray cluster, which is connected to when there is a slide to do."""

    def work(jobs: Sequence[SlideJob], control: Control) -> Iterator[Outcome]:
        if jobs:
            with Cluster(address) as cluster:
                yield from work_on(cluster, jobs, control)

    return work


def work_on(cluster: Cluster, jobs: Sequence[SlideJob], control: Control) -> Iterator[Outcome]:
    """A slide per worker while there are enough slides, the rest block by block on all workers."""
    # the last, incomplete round would leave workers idle
    whole = len(jobs) - len(jobs) % cluster.workers
    done = 0
    for outcome in _slides(cluster, jobs[:whole], control):
        done += 1
        control.report(done / len(jobs), f"{done} of {len(jobs)} slides")
        yield outcome
    yield from here(jobs[whole:], control.part(done / len(jobs), 1.0), runner=cluster.runner)


def _slides(cluster: Cluster, jobs: Sequence[SlideJob], control: Control) -> Iterator[Outcome]:
    """Whole slides, as many at once as there are workers, in the order they end."""
    waiting, running = list(reversed(jobs)), dict[Future[CohortSlide], SlideJob]()
    while running or (waiting and not control.stop()):
        # never more than can run: a slide that only waits would have to be done when told to stop
        while waiting and len(running) < cluster.workers and not control.stop():
            job = waiting.pop()
            running[cluster.models.submit(run_slide, job)] = job
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), outcome_of(future)


def run_cohort(
    slides: Sequence[str],
    order: SegmentRequest,
    out: Path,
    *,
    address: str | None = None,
    work: Work = here,
    control: Control = Control(),
    learned: Sequence[Learned] = (),
) -> CohortTable:
    """Every slide that is not finished yet; the table is on disk whenever this returns or raises.

    slides: paths and addresses. order: names no image. out: a new folder, or one of an earlier run of the
    same request. learned: what its targets mean, where that was taught. address: where results are copied to when they are finished, read when ``out`` does not know them.

    Raises InvalidArgumentError for a folder in other use, BusyError while another run writes to it, and
    WorkspaceFullError or WorkspaceUnwritableError when it cannot be written.
    """
    out = Path(os.path.realpath(out))
    with _own(out):
        rows = _known_rows(slides, order, out, address)
        todo = [row for row in rows.values() if row.state != "done"]
        jobs = [SlideJob(row.name, row.slide, out, asked_of(order), address) for row in todo]
        stopping = Event()
        for each in learned:
            with disk_errors(out):
                (out / "learned").mkdir(exist_ok=True)
                write_whole(out / "learned" / f"{each.sha256}.safetensors", each.to_bytes(), within=out)
        try:
            _write(rows, order, out, address)
            for job, outcome in work(
                jobs, Control(control.progress, lambda: control.stop() or stopping.is_set())
            ):
                if isinstance(outcome, CohortSlide):
                    rows[job.slide] = outcome
                else:
                    rows[job.slide] = failed_row(job.name, job.slide, outcome)
                    if not isinstance(outcome, TissuetalkError):
                        log.error("the work on a slide crashed; cohort.csv names it", exc_info=outcome)
                # a full disk or missing weights would fail every other slide, too
                if isinstance(outcome, ResourceError):
                    stopping.set()
                _write(rows, order, out, address)
        finally:
            stopping.set()
        with suppress(OSError):  # something unfinished is left, or there never was any
            (out / ".unfinished").rmdir()
        return _cohort(rows, order)


def _known_rows(
    slides: Sequence[str], order: SegmentRequest, out: Path, address: str | None
) -> dict[str, CohortSlide]:
    """A row per slide: the finished one of an earlier run where the slide is still the same, else a pending one."""
    named = {row.slide: row.name for row in _earlier(order, out, address)}
    taken = set(named.values())
    rows = {}
    for slide in slides:
        name = named.get(slide) or _free_name(slide, taken)
        taken.add(name)
        job = SlideJob(name, slide, out, {}, address)
        rows[slide] = _finished(job) or CohortSlide(name=name, slide=slide, state="pending")
    return rows


def _written(out: Path, name: str, address: str | None) -> bytes | None:
    """A file of an earlier run: from its folder, else from the address its results were copied to."""
    if (out / name).is_file():
        return (out / name).read_bytes()
    return None if address is None else addresses.content(f"{address}/{name}")


def _finished(job: SlideJob) -> CohortSlide | None:
    """The row of a slide that is done, unless its file has changed since."""
    content = _written(job.out, f"slides/{job.name}.json", job.address)
    if content is None:
        return None
    try:
        row = CohortSlide.model_validate_json(content)
        return row if row.stamp == addresses.stamp(job.slide) else None
    except (ValidationError, UnknownImageError):
        return None


def _earlier(order: SegmentRequest, out: Path, address: str | None) -> list[CohortSlide]:
    """Rows of the table of an earlier run. Raises InvalidArgumentError when that was another request."""
    content = _written(out, "cohort.json", address)
    if content is None:
        return []
    where = address or out
    try:
        cohort = CohortTable.model_validate_json(content)
    except ValueError as error:
        raise InvalidArgumentError(f"{where} holds a damaged cohort.json; choose a new folder.") from error
    if cohort.request != asked_of(order):
        raise InvalidArgumentError(
            f"{where} holds a cohort of another request; choose a new folder, or ask for the same again."
        )
    return cohort.slides


def _free_name(slide: str, taken: set[str]) -> str:
    """A name for files: the slide's own, with a few digits of its path where two are called the same."""
    last = slide.split("::", 1)[0].rstrip("/").replace("\\", "/").rsplit("/", 1)[-1]
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", last.rsplit(".", 1)[0]).lstrip(".")[:_LONGEST_NAME] or "slide"
    return stem if stem not in taken else f"{stem}-{sha256(slide.encode()).hexdigest()[:8]}"


def _write(rows: Mapping[str, CohortSlide], order: SegmentRequest, out: Path, address: str | None) -> None:
    with disk_errors(out):
        write_tables(_cohort(rows, order), out)
    if address is not None:
        for name in ("cohort.json", "cohort.csv"):
            addresses.put(out / name, f"{address}/{name}")


def _cohort(rows: Mapping[str, CohortSlide], order: SegmentRequest) -> CohortTable:
    return cohort_of(version("tissuetalk"), asked_of(order), list(rows.values()))


@contextmanager
def _own(out: Path) -> Iterator[None]:
    """The folder, made when missing, for this run alone."""
    with disk_errors(out):
        # our lock file tells a cohort's folder from somebody else's
        if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / ".lock").exists())):
            raise InvalidArgumentError(f"{out} is in use by something else; choose a new folder.")
        (out / "slides").mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise BusyError(
                f"another run is writing to {out}; wait for it, or choose another folder."
            ) from error
    try:
        yield
    finally:
        lock.release()
