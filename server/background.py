"""Work off the event loop: progress while it runs, a stop when the caller cancels, a job when it takes long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mcp.server.mcpserver import Context

from tissuetalk.server.lazy import LazyDesk

if TYPE_CHECKING:
    from tissuetalk.tools.answers.explained import ExplainResult
    from tissuetalk.tools.answers.jobs import JobStatus
    from tissuetalk.tools.answers.results import Answer, SegmentAnswer, SegmentResult
    from tissuetalk.tools.explain.request import ExplainRequest
    from tissuetalk.tools.segment.request import SegmentRequest
    from tissuetalk.tools.work import Progress, Stop, Task

R = TypeVar("R")
REPORT_AFTER_S = 1.0
REPORT_EVERY_S = 0.5


class Background:
    """One per server. ``patience_s``: how long a caller waits before the work goes on as a job."""

    def __init__(self, lazy: LazyDesk, patience_s: float) -> None:
        self._lazy = lazy
        self._patience_s = patience_s

    async def run(self, work: Callable[[Progress, Stop], R], ctx: Context | None) -> R:
        """The answer, however long it takes. Cancelling this coroutine stops the work."""
        task = await asyncio.to_thread(self._submit, work)
        try:
            await _watch(task, ctx, None)
            return task.future.result()
        except asyncio.CancelledError:
            task.stop()
            raise

    async def segment(
        self, arguments: dict[str, Any], ctx: Context
    ) -> Answer[SegmentResult] | Answer[SegmentAnswer]:
        """The answer, or after ``patience_s`` a job that goes on."""
        order = await self.run(lambda progress, stop: self._understand(arguments), ctx)
        task = await asyncio.to_thread(
            self._submit, lambda progress, stop: self._segment(order, progress, stop)
        )
        try:
            if await _watch(task, ctx, self._patience_s):
                return task.future.result()
            return await asyncio.to_thread(self._hand_over, order, task)
        except asyncio.CancelledError:
            task.stop()
            raise

    async def explain(
        self, result_id: str, question: str | None, classifier: str | None, ctx: Context
    ) -> Answer[ExplainResult]:
        """The answer, or after ``patience_s`` a job that goes on."""
        asked = await self.run(
            lambda progress, stop: self._lazy.desk().asking(result_id, question, classifier), ctx
        )
        task = await asyncio.to_thread(
            self._submit, lambda progress, stop: self._explain(result_id, asked, progress, stop)
        )
        try:
            if await _watch(task, ctx, self._patience_s):
                return task.future.result()
            return await asyncio.to_thread(self._hand_over_explain, result_id, asked, task)
        except asyncio.CancelledError:
            task.stop()
            raise

    def _explain(
        self, result_id: str, asked: ExplainRequest, progress: Progress, stop: Stop
    ) -> Answer[ExplainResult]:
        return self._lazy.desk().explain_asked(result_id, asked, progress=progress, stop=stop)

    def _hand_over_explain(
        self, result_id: str, asked: ExplainRequest, task: Task[Answer[ExplainResult]]
    ) -> Answer[ExplainResult]:
        from tissuetalk.tools.jobs import hand_over_explain

        return hand_over_explain(self._lazy.desk(), result_id, asked, task)

    def _submit(self, work: Callable[[Progress, Stop], R]) -> Task[R]:
        return self._lazy.queue().submit(work)

    def _understand(self, arguments: dict[str, Any]) -> SegmentRequest:
        from tissuetalk.tools.segment.request import SegmentArguments

        return self._lazy.desk().understand(SegmentArguments(**arguments))

    def _segment(self, order: SegmentRequest, progress: Progress, stop: Stop) -> Answer[SegmentResult]:
        return self._lazy.desk().segment(order, progress=progress, stop=stop)

    def _hand_over(self, order: SegmentRequest, task: Task[Answer[SegmentResult]]) -> Answer[SegmentAnswer]:
        from tissuetalk.tools.jobs import hand_over

        return hand_over(self._lazy.desk(), order, task)

    async def job(
        self, job_id: str, action: Literal["status", "wait", "cancel"], ctx: Context
    ) -> Answer[JobStatus]:
        """``wait`` returns when the job ends, or after ``patience_s`` with how far it is."""
        from tissuetalk.tools.jobs import cancel, status

        desk = await asyncio.to_thread(self._lazy.desk)
        if action == "cancel":
            return await asyncio.to_thread(cancel, desk, job_id)
        answer = await asyncio.to_thread(status, desk, job_id)
        until = time.monotonic() + self._patience_s
        while action == "wait" and answer.result.state in ("queued", "running") and time.monotonic() < until:
            await ctx.report_progress(answer.result.progress, 1.0, answer.text.split("\n", 1)[0])
            await asyncio.sleep(REPORT_EVERY_S)
            answer = await asyncio.to_thread(status, desk, job_id)
        return answer


async def _watch(task: Task[Any], ctx: Context | None, patience_s: float | None) -> bool:
    """True when the work is done, False when patience ran out; reports progress on anything over a second."""
    started = time.monotonic()
    future = asyncio.wrap_future(task.future)
    future.add_done_callback(_retrieve)
    reported = -1.0
    while not future.done():
        waited = time.monotonic() - started
        if patience_s is not None and waited >= patience_s:
            return False
        await asyncio.wait(
            {future},
            timeout=REPORT_EVERY_S if patience_s is None else min(REPORT_EVERY_S, patience_s - waited + 0.01),
        )
        if ctx is not None and waited >= REPORT_AFTER_S and task.done_share > reported:
            reported = task.done_share
            await ctx.report_progress(reported, 1.0, task.doing)
    return True


def _retrieve(future: asyncio.Future[Any]) -> None:
    """The original future carries the answer; marking the wrapper's error as seen keeps the loop quiet."""
    if not future.cancelled():
        future.exception()
