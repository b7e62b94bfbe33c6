"""OpenTelemetry traces, where the operator set an endpoint: which tool, which stage, how long; no words, names or ids.

The SDK of the protocol makes a span of each request, and puts names and messages of callers into it. What leaves this process is
rebuilt from what is known here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span

from tissuetalk.models.errors import InvalidArgumentError

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
STAGES = ("understand", "work", "answer", "hand over")
METHODS = frozenset(
    [
        "initialize",
        "ping",
        "tools/call",
        "tools/list",
        "resources/read",
        "resources/list",
        "resources/templates/list",
        "prompts/get",
        "prompts/list",
        "completion/complete",
        "logging/setLevel",
        "notifications/initialized",
        "notifications/cancelled",
        "server/discover",
    ]
)
TOOLS = frozenset(("segment", "measure", "explain", "view", "job", "library", "viewer"))
_KEPT = frozenset(("mcp.protocol.version", "gen_ai.operation.name", "rpc.response.status_code"))
"""Attributes whose values the protocol or we write."""


@contextmanager
def stage(name: str) -> Iterator[Span]:
    """A part of a call, of STAGES; costs nothing where nobody traces."""
    tracer = trace.get_tracer("tissuetalk")
    with tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as span:
        yield span


def start_where_asked() -> None:
    """By the environment's standard variables. Raises InvalidArgumentError where they are set and the library is missing."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(map(os.environ.get, ENDPOINTS)):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError as error:
        raise InvalidArgumentError(
            f"{ENDPOINTS[0]} is set, and traces need pip install 'tissuetalk[service]'."
        ) from error
    start(OTLPSpanExporter())


def start(exporter: Any) -> None:
    """exporter: takes the spans once they hold nothing of anybody's."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {"service.name": "tissuetalk", "service.version": version("tissuetalk")}
    if "OTEL_SERVICE_NAME" in os.environ:
        del named["service.name"]
    provider = TracerProvider(resource=Resource.create(named))
    cleaned: Any = _Cleaned(exporter)
    provider.add_span_processor(BatchSpanProcessor(cleaned))
    trace.set_tracer_provider(provider)


class _Cleaned:
    """An exporter before the real one."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[Any]) -> Any:
        return self._exporter.export([_clean(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))


def _clean(span: Any) -> Any:
    """The same span with nothing in it that a caller wrote: name, attributes, messages, events, the state of a trace."""
    from opentelemetry.sdk.trace import ReadableSpan

    given = dict(span.attributes or {})
    kept = {name: value for name, value in given.items() if name in _KEPT}
    method, tool = given.get("mcp.method.name"), given.get("gen_ai.tool.name")
    if span.name in STAGES:
        name = span.name
    else:
        name = kept["mcp.method.name"] = method if method in METHODS else "unknown"
        if tool is not None:
            kept["gen_ai.tool.name"] = tool if tool in TOOLS else "unknown"
            name = f"{name} {kept['gen_ai.tool.name']}"
    if "error.type" in given:
        kept["error.type"] = "tool_error" if given["error.type"] == "tool_error" else "error"
    return ReadableSpan(
        name=name,
        context=_without_state(span.context),
        parent=_without_state(span.parent),
        resource=span.resource,
        attributes=kept,
        kind=span.kind,
        status=trace.Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _without_state(context: Any) -> Any:
    if context is None:
        return None
    return trace.SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)
