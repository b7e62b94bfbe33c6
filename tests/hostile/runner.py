"""Runs cases against servers of their own and says what was wrong with each."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from hostile.case import PLANTED, SECRET_SIZE, Answer, Case
from hostile.ground import CANARY, Ground
from hostile.server import HttpServer, Server, StdioServer

MOST_STALL_S = 3.0
"""How long a health question may wait while a case is worked on; the machine does other things, too."""
OVER_HTTP = frozenset({"HTTP"})


@dataclass
class Outcome:
    """How a case ended. problems: what is wrong with it, empty when nothing is.

    load: how many want a core of this machine, at least 1: budgets of time are for a quiet one.
    """

    case: Case
    code: str
    text: str
    seconds: float
    peak_mb: float
    stalled_s: float
    load: float = 1.0
    died: bool = False
    escaped: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return self.code in self.case.codes

    @property
    def problems(self) -> list[str]:
        found = [] if self.right else [f"{self.code} instead of {self.case.expected}: {self.text[:300]!r}"]
        found += ["the server died"] if self.died else []
        found += self.escaped + self.said
        if self.peak_mb > self.case.mb:
            found.append(f"{self.peak_mb:.0f} MB of {self.case.mb:.0f}")
        if self.seconds > self.case.seconds * self.load:
            found.append(f"{self.seconds:.1f} s of {self.case.seconds:.0f}")
        if self.stalled_s > MOST_STALL_S * self.load:
            found.append(f"health waited {self.stalled_s:.1f} s")
        return found


class Run:
    """Cases on one ground; the server is started when needed, and again when it died."""

    def __init__(self, folder: Path, *, http: bool) -> None:
        self.ground = Ground(folder)
        self.http = http
        self.number = 0

    def server(self) -> Server:
        ground = self.ground
        if ground.server is None:
            kind = HttpServer if self.http else StdioServer
            ground.server = kind(ground.folder, [ground.root], ground.workspace)
            ground.tool("view", image="good.png")  # what is imported on first use is not the case's cost
        return ground.server

    def case(self, case: Case) -> Outcome:
        server = self.server()
        self.number += 1
        self.ground.begin(self.number)
        log_at = server.log.stat().st_size
        server.meter.reset()
        server.stalled_s = 0.0
        before, answer, seconds = self._asked(case)
        healthy = answer.code != "died" and server.healthy(20)
        peak_mb, stalled_s = server.meter.peak_mb(), server.stalled_s
        load = server.meter.load()
        outcome = Outcome(case, answer.code, answer.text, seconds, peak_mb, stalled_s, load)
        outcome.died = not healthy
        outcome.escaped = self._escaped(case, before, answer) if before else []
        log = server.log.read_bytes()[log_at:].decode("utf-8", "replace")
        # whoever must mend a workspace is told which one
        told = (
            answer.text.replace(str(self.ground.folder), "")
            if answer.code.startswith("workspace")
            else answer.text
        )
        outcome.said = self._said(told, log)
        if server.meter.burst:
            outcome.said.append(f"ended at {server.meter.most_mb:.0f} MB")
        if not healthy:
            server.kill()
            self.ground.server = None
        self.ground.end()
        return outcome

    def _asked(self, case: Case) -> tuple[dict[str, tuple[int, int]], Answer, float]:
        """What lay there before the call, its answer and how long it took."""
        before: dict[str, tuple[int, int]] = {}
        started = time.monotonic()
        try:
            case.write(self.ground.here)
            before, started = self.ground.files(), time.monotonic()
            answer = case.call(self.ground)
        except TimeoutError as error:
            answer = Answer("timeout", str(error))
        except ConnectionError as error:
            answer = Answer("died", str(error))
        except Exception as error:  # noqa: BLE001  # a case that is broken itself; the others go on
            answer = Answer(f"broken case {type(error).__name__}", str(error))
        return before, answer, time.monotonic() - started

    def _escaped(self, case: Case, before: dict[str, tuple[int, int]], answer: Answer) -> list[str]:
        """Files that came, went or changed, and what came out that was never to be read."""
        found = []
        changed = set(before.items()) ^ set(self.ground.files().items())
        inside = str(self.ground.here)
        for path in sorted({path for path, _ in changed}):
            if not (case.writes and path.startswith(inside)):
                found.append(f"touched {path.removeprefix(str(self.ground.folder))}")
        if CANARY in answer.text or str(SECRET_SIZE[0]) in answer.text or "root:x:" in answer.text:
            found.append("a file outside was read")
        return found[:4]

    def _said(self, text: str, log: str) -> list[str]:
        """What may stand in no answer and no log."""
        sent = self.ground.sent
        found = [f"{word} in the answer" for word in PLANTED if word in text and word not in sent]
        found += [f"{word} in the log" for word in PLANTED if word in log]
        if "Traceback" in text:
            found.append("a traceback in the answer")
        if "Traceback" in log:
            found.append("a traceback in the log")
        if str(self.ground.folder) in text and str(self.ground.folder) not in sent:
            found.append("an absolute path in the answer")
        return found

    def close(self) -> None:
        if self.ground.server is not None:
            self.ground.server.close()


def run(
    cases: Iterable[Case],
    *,
    together: bool = False,
    at_once: int = 1,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Every family on a server of its own, some at once; ``together``: one server for all over stdio, one for HTTP."""

    def place(case: Case) -> tuple[bool, str]:
        return case.family in OVER_HTTP, "" if together else case.family

    groups = [list(members) for _, members in groupby(cases, key=place)]
    with ThreadPoolExecutor(at_once) as pool:
        return [
            outcome for group in pool.map(lambda group: _run_group(group, tell), groups) for outcome in group
        ]


def _run_group(cases: Sequence[Case], tell: Callable[[Outcome], None]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as folder:
        running = Run(Path(folder).resolve(), http=cases[0].family in OVER_HTTP)
        try:
            for case in cases:
                outcomes.append(running.case(case))
                tell(outcomes[-1])
        finally:
            running.close()
        if left := running.ground.left_behind():
            outcomes[-1].said.append(f"left in the temporary folder: {', '.join(left[:5])}")
            tell(outcomes[-1])
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """By family, as Markdown."""
    rows = [
        "| family | cases | right | peak MB | median s | slowest s | deaths | escapes | identifiers, traces |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    families = list(dict.fromkeys(outcome.case.family for outcome in outcomes))
    for family in [*families, "all"]:
        some = [one for one in outcomes if family in ("all", one.case.family)]
        rows.append(
            f"| {family} | {len(some)} | {sum(one.right for one in some)} | {max(one.peak_mb for one in some):.0f} "
            f"| {statistics.median(one.seconds for one in some):.2f} | {max(one.seconds for one in some):.1f} "
            f"| {sum(one.died for one in some)} | {sum(bool(one.escaped) for one in some)} "
            f"| {sum(bool(one.said) for one in some)} |"
        )
    return "\n".join(rows)
