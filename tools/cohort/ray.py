"""A cohort on a Ray cluster: a slide per worker while there are enough slides, the rest block by block on all workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

from tissuetalk.models.control import Control
from tissuetalk.tools.cohort.cohort import Outcome, SlideJob, Work, here, outcome_of, run_slide
from tissuetalk.tools.cohort.table import CohortSlide
from tissuetalk.tools.segment.ray_runner import Cluster


def over_ray(address: str | None = None, workers: int | None = None) -> Work:
    """A cohort on Ray, which is connected to when there is a slide to do."""

    def work(jobs: Sequence[SlideJob], control: Control) -> Iterator[Outcome]:
        if jobs:
            with Cluster(address, workers) as cluster:
                yield from work_on(cluster)(jobs, control)

    return work


def work_on(cluster: Cluster) -> Work:
    def work(jobs: Sequence[SlideJob], control: Control) -> Iterator[Outcome]:
        # the last, incomplete round would leave workers idle
        whole = len(jobs) - len(jobs) % cluster.workers
        done = 0
        for outcome in _slides(cluster, jobs[:whole], control):
            done += 1
            control.report(done / len(jobs), f"{done} of {len(jobs)} slides")
            yield outcome
        yield from here(jobs[whole:], control.part(done / len(jobs), 1.0), runner=cluster.runner)

    return work


def _slides(cluster: Cluster, jobs: Sequence[SlideJob], control: Control) -> Iterator[Outcome]:
    """Whole slides, as many at once as there are workers, in the order they end."""
    waiting, running = list(reversed(jobs)), dict[Future[CohortSlide], SlideJob]()
    while running or (waiting and not control.stop()):
        while waiting and len(running) < cluster.workers and not control.stop():
            job = waiting.pop()
            running[cluster.models.submit(run_slide, job)] = job
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), outcome_of(future)
