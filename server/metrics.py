"""Figures for Prometheus: requests and seconds of each tool, queues, jobs, room. No words, no ids, and no names that the operator did not give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from tissuetalk.models.errors import InvalidArgumentError, TissuetalkError

if TYPE_CHECKING:
    from tissuetalk.server.audit import Deed
    from tissuetalk.tools.jobs import Jobs
    from tissuetalk.tools.lanes import Lanes

BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80)
PATH = "/metrics"
KINDS = ("mcp", "health", "images", "look", "tiles", "files", "share", "enter", "metrics", "audit", "view")


class Watched(Protocol):
    """A service, seen from here."""

    def begun(self) -> Jobs | None: ...


class Metrics:
    """One per process. Raises InvalidArgumentError where prometheus_client is not installed."""

    def __init__(self) -> None:
        try:
            import prometheus_client as library
        except ModuleNotFoundError as error:
            raise InvalidArgumentError(
                "metrics need prometheus_client: pip install 'tissuetalk[service]'."
            ) from error
        self._library = library
        self._watched: list[tuple[str, Watched]] = []
        self.registry = library.CollectorRegistry()
        library.ProcessCollector(registry=self.registry)
        library.PlatformCollector(registry=self.registry)
        self._calls = library.Counter(
            "tissuetalk_calls",
            "Calls by tool and how they ended",
            ("tool", "outcome"),
            registry=self.registry,
        )
        self._seconds = library.Histogram(
            "tissuetalk_call_seconds",
            "Time to the answer, which for long work is that of the job it became",
            ("tool",),
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self._responses = library.Counter(
            "tissuetalk_responses", "HTTP responses", ("kind", "status"), registry=self.registry
        )
        self.registry.register(_Looked(self._watched, library))

    def watch(self, service: Watched, name: str = "") -> None:
        """name: what to call a tenant; a number where the operator's file gives no name for it."""
        self._watched.append((name or str(len(self._watched) + 1), service))

    def note(self, deed: Deed, seconds: float) -> None:
        self._calls.labels(deed.tool, deed.outcome).inc()
        self._seconds.labels(deed.tool).observe(seconds)

    def note_response(self, path: str, status: int) -> None:
        first = path.split("/")[1]
        self._responses.labels(first if first in KINDS else "other", str(status)).inc()

    def text(self) -> tuple[bytes, str]:
        """What a scrape gets, and its media type."""
        return self._library.generate_latest(self.registry), self._library.CONTENT_TYPE_LATEST

    def listen(self, host: str, port: int) -> None:
        """Answers on a port of its own, from a thread, to whoever reaches it."""
        try:
            self._library.start_http_server(port, host, self.registry)
        except OSError as error:
            raise InvalidArgumentError(f"--metrics {host}:{port}: {error.strerror}.") from error


class _Looked:
    """What is looked up when somebody asks."""

    def __init__(self, watched: list[tuple[str, Watched]], library: Any) -> None:
        self._watched, self._library = watched, library

    def describe(self) -> Iterator[Any]:
        return iter(())

    def collect(self) -> Iterator[Any]:
        gauge = self._library.metrics_core.GaugeMetricFamily
        queue = gauge(
            "tissuetalk_queue", "Pieces of work by lane, at work or waiting", labels=("lane", "state")
        )
        jobs = gauge("tissuetalk_jobs", "Jobs on record by state", labels=("tenant", "state"))
        used = gauge("tissuetalk_quota_used_ratio", "Share of the quota in use", labels=("tenant",))
        up = gauge("tissuetalk_workspace_up", "Whether a workspace in use can be read", labels=("tenant",))
        lanes: dict[int, Lanes] = {}
        for name, service in self._watched:
            if (begun := service.begun()) is None:
                continue
            lanes = {id(begun.lanes): begun.lanes} | lanes
            try:
                for state, count in begun.by_state().items():
                    jobs.add_metric((name, state), count)
                used.add_metric((name,), begun.session.workspace.used_share())
                up.add_metric((name,), 1)
            except TissuetalkError:
                up.add_metric((name,), 0)
        for shared in lanes.values():
            for lane in shared.all:
                running, waiting = lane.lengths()
                queue.add_metric((lane.name, "at work"), running)
                queue.add_metric((lane.name, "waiting"), waiting)
        yield from (queue, jobs, used, up)
