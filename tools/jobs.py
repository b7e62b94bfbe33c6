"""Long work that outlives the call that started it, and the server that ran it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tissuetalk.models.errors import CancelledError, TissuetalkError
from tissuetalk.tools.answers.explained import NOTICE, ExplainResult
from tissuetalk.tools.answers.jobs import JobError, JobStatus, Preliminary
from tissuetalk.tools.answers.results import Answer, SegmentAnswer, SegmentResult
from tissuetalk.tools.explain.request import ExplainRequest
from tissuetalk.tools.segment.field import image_info, region_of
from tissuetalk.tools.segment.first_look import JSON_NAME, PICTURE_NAME
from tissuetalk.tools.segment.request import SegmentRequest
from tissuetalk.tools.segment.unfinished import folder_of
from tissuetalk.tools.storage.workspace.jobs import JobRow, JobStore
from tissuetalk.tools.work import Task, WorkQueue

if TYPE_CHECKING:
    from tissuetalk.tools.desk import Desk

LOOK_EVERY_S = 0.3
OWNER = "segment"
AnyAnswer = Answer[SegmentResult] | Answer[ExplainResult]
"""What a job comes to."""


def hand_over(desk: Desk, order: SegmentRequest, task: Task[Answer[SegmentResult]]) -> Answer[SegmentAnswer]:
    """Turn running work into a job and say so. The answer has no masks yet."""
    job_id = desk.jobs.create("segment", order.as_json(), OWNER)
    desk.jobs.claim(job_id)
    _follow(desk.jobs, desk.followers, job_id, task)
    with desk.bench.open(order.image) as source:
        info = image_info(source, region_of(source, order.region), None)
    result = SegmentAnswer(
        result_id=None,
        image=info,
        masks=[],
        not_segmented=[],
        warnings=[],
        overlay=None,
        measures=[],
        notes=["still running; nothing is known yet"],
        job_id=job_id,
    )
    return Answer(result, _still_running(job_id, task.done_share))


def hand_over_explain(
    desk: Desk, result_id: str, asked: ExplainRequest, task: Task[Answer[ExplainResult]]
) -> Answer[ExplainResult]:
    """Turn a running explain into a job and say so. The answer has no evidence yet."""
    request = {"result_id": result_id, "asked": asked.model_dump(mode="json")}
    job_id = desk.jobs.create("explain", request, OWNER)
    desk.jobs.claim(job_id)
    _follow(desk.jobs, desk.followers, job_id, task)
    result = ExplainResult(
        result_id=result_id,
        kinds=list(asked.kinds),
        evidence=[],
        meanings=[],
        stability=[],
        provenance=[],
        overlay=None,
        notice=f"Still running; nothing is known yet. {NOTICE}",
        job_id=job_id,
    )
    return Answer(result, _still_running(job_id, task.done_share))


def _still_running(job_id: str, done_share: float) -> str:
    return f"{job_id}: still running ({done_share:.0%}). Call job(job_id, action='wait') for the result."


def _follow(
    jobs: JobStore,
    followers: set[threading.Thread],
    job_id: str,
    task: Task[Answer[SegmentResult]] | Task[Answer[ExplainResult]] | Task[AnyAnswer],
) -> None:
    """Writes progress, listens for a cancel, records the end. The thread ends with the work."""

    def watch() -> None:
        while not task.future.done():
            if not jobs.progress(job_id, task.done_share, task.eta_s(), task.doing) or jobs.cancel_requested(
                job_id
            ):
                task.stop()
            time.sleep(LOOK_EVERY_S)
        _record_end(jobs, job_id, task)
        followers.discard(threading.current_thread())

    thread = threading.Thread(target=watch, name=f"follow {job_id}", daemon=True)
    followers.add(thread)
    thread.start()


def _record_end(
    jobs: JobStore,
    job_id: str,
    task: Task[Answer[SegmentResult]] | Task[Answer[ExplainResult]] | Task[AnyAnswer],
) -> None:
    error = CancelledError() if task.future.cancelled() else task.future.exception()
    if error is None:
        jobs.finish(job_id, {"result_id": task.future.result().result.result_id})
    elif isinstance(error, CancelledError) and jobs.cancel_requested(job_id):
        jobs.cancelled(job_id)
    elif isinstance(error, CancelledError):
        return  # the server is closing: the job stays claimable and goes on when a server is back
    elif isinstance(error, TissuetalkError):
        jobs.fail(job_id, error.code, str(error))
    else:
        jobs.fail(job_id, "error", "the work crashed; the server's log has the details.")


def resume(desk: Desk, queue: WorkQueue) -> list[str]:
    """Take up the jobs nobody is running. Returns their ids."""
    taken = []
    for row in desk.jobs.unfinished():
        if desk.jobs.claim(row.job_id):
            _follow(desk.jobs, desk.followers, row.job_id, queue.submit(_again(desk, row)))
            taken.append(row.job_id)
    return taken


def _again(desk: Desk, row: JobRow) -> Callable[..., AnyAnswer]:
    if row.kind == "explain":
        result_id, asked = row.request["result_id"], ExplainRequest.model_validate(row.request["asked"])
        return lambda progress, stop: desk.explain_asked(result_id, asked, progress=progress, stop=stop)
    order = SegmentRequest.from_json(row.request)
    return lambda progress, stop: desk.segment(order, progress=progress, stop=stop)


def status(desk: Desk, job_id: str) -> Answer[JobStatus]:
    """How far the job is, with the result when it is done and what is known of a slide before. Raises UnknownJobError."""
    row = desk.jobs.get(job_id)
    done = _answer_of(desk, row) if row.state == "done" else None
    error = None
    if row.state == "failed":
        error = JobError(code=row.error_code or "error", message=row.error_message or "")
    early, picture = _early(desk, row)
    result = JobStatus(
        job_id=job_id,
        state=row.state,
        progress=row.progress,
        eta_s=row.eta_s,
        result=None if done is None else done.result,
        preliminary=early,
        error=error,
    )
    if done is not None:
        return Answer(result, f"{job_id}: done.\n{done.text}", done.picture, done.links)
    left = "" if row.eta_s is None else f", about {row.eta_s:.0f} s left"
    because = "" if error is None else f" {error.code}: {error.message}"
    lines = [f"{job_id}: {row.state}, {row.progress:.0%} done{left}.{because}"]
    if early is not None:
        lines += [f"{each.name}: {each.statement}" for each in early.findings] + [early.caveat]
    return Answer(result, "\n".join(lines), picture)


def _early(desk: Desk, row: JobRow) -> tuple[Preliminary | None, bytes | None]:
    """What a slide's run has said of itself so far, in whatever process it runs."""
    if row.state != "running":
        return None, None
    folder = folder_of(desk.bench.workspace.folder, row.request)
    try:
        early = Preliminary.model_validate_json((folder / JSON_NAME).read_bytes())
        return early, (folder / PICTURE_NAME).read_bytes()
    except FileNotFoundError:
        return None, None


def _answer_of(desk: Desk, row: JobRow) -> AnyAnswer:
    if row.kind == "explain":
        return desk.explained(row.request["result_id"], ExplainRequest.model_validate(row.request["asked"]))
    return desk.stored(row.result["result_id"])


def cancel(desk: Desk, job_id: str) -> Answer[JobStatus]:
    """Ask the job to stop; one that has ended stays as it is."""
    outcome = desk.jobs.request_cancel(job_id)
    until = time.monotonic() + 1.0
    while outcome == "requested" and not desk.jobs.get(job_id).ended and time.monotonic() < until:
        time.sleep(0.05)
    return status(desk, job_id)
