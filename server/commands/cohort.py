"""`tissuetalk segment --cohort`: many slides, one table, an exit status that says whether all of them are done."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.server.commands.options import EngineName

if TYPE_CHECKING:
    from tissuetalk.tools.cohort.cohort import Work
    from tissuetalk.tools.cohort.table import CohortTable
    from tissuetalk.tools.segment.request import SegmentArguments
    from tissuetalk.tools.segment.schedule import MakeRunner


def segment_cohort(
    patterns: Sequence[str],
    asked: SegmentArguments,
    out: str,
    reader: str,
    engine: EngineName,
    ray_address: str | None,
    *,
    json: bool,
) -> int:
    """Segment every slide the patterns name; returns the exit status. ``asked`` names no image.

    Raises InvalidArgumentError for what cannot be asked of many slides, and everything ``run_cohort`` raises.
    """
    from tissuetalk.models.control import Control
    from tissuetalk.prompts.readers import make_reader
    from tissuetalk.server.commands.printing import cohort_table, image_progress
    from tissuetalk.tools.cohort.cohort import run_cohort
    from tissuetalk.tools.segment.request import SegmentRequest, read_request
    from tissuetalk.tools.storage.addresses import expand, is_address

    if asked.points or asked.boxes or asked.region:
        raise InvalidArgumentError(
            "--point, --box and --region belong to one image; leave them out of a cohort."
        )
    request = read_request(
        make_reader(reader), words=asked.words, targets=asked.targets, points=(), boxes=(), organ=asked.organ
    )
    slides = expand(patterns)
    folder = working_folder(out)
    with image_progress(json) as progress:
        cohort = run_cohort(
            slides,
            SegmentRequest("", request, mpp=asked.mpp, model=asked.model),
            folder,
            address=out.rstrip("/") if is_address(out) and not out.startswith("file://") else None,
            work=work_of(engine, ray_address),
            control=Control(progress),
        )
    if json:
        print(cohort.model_dump_json(indent=1))
    else:
        cohort_table(cohort, out)
    return _said(cohort)


def working_folder(out: str) -> Path:
    """Where a cohort is worked on: its own folder, or one in the cache for results that go to an address."""
    from hashlib import sha256

    import platformdirs

    from tissuetalk.tools.storage.addresses import local_path

    here = local_path(out)
    if here is not None:
        return here
    return Path(platformdirs.user_cache_dir("tissuetalk")) / "cohorts" / sha256(out.encode()).hexdigest()[:16]


def work_of(engine: EngineName, ray_address: str | None) -> Work:
    """What does the slides. Raises InvalidArgumentError for an address that the engine has no use for."""
    if _check(engine, ray_address) == "local":
        from tissuetalk.tools.cohort.cohort import here

        return here
    from tissuetalk.tools.cohort.ray import over_ray

    return over_ray(ray_address)


@contextmanager
def blocks_by(engine: EngineName, ray_address: str | None) -> Iterator[MakeRunner | None]:
    """Who does the blocks of one slide; None for threads here. Ray is started only if there is a slide to work on."""
    if _check(engine, ray_address) == "local":
        yield None
        return
    from tissuetalk.tools.segment.ray_runner import Cluster

    with ExitStack() as stack:
        yield lambda *slide: stack.enter_context(Cluster(ray_address)).runner(*slide)


def _check(engine: EngineName, ray_address: str | None) -> EngineName:
    if engine == "local" and ray_address is not None:
        raise InvalidArgumentError("--ray-address needs --engine ray.")
    return engine


def _said(cohort: CohortTable) -> int:
    """One clear line on stderr when not all slides are done."""
    left = {state: count for state, count in cohort.states.items() if state != "done"}
    if left:
        failed = ", ".join(f"{code} {count}" for code, count in cohort.errors.items())
        number = sum(left.values())
        print(
            f"tissuetalk: {number} of {len(cohort.slides)} slides are not done ({failed or 'stopped'}); "
            "see cohort.csv, mend them and run the same command again.",
            file=sys.stderr,
        )
    return cohort.exit_status
