"""What an operator has of a server for many: logs, the audit log, metrics and traces, all of one real server with planted names."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from conversation import call, segmented, text_of
from drawn import disc_image
from http_server import http_server
from issuer import issuing
from mcp import MCPError
from services import wait_until
from test_tenants import Shared, accounts_of, free_port

from tissuetalk.models.errors import WorkspaceUnwritableError
from tissuetalk.server.audit import AuditLog, Deed

prometheus = pytest.importorskip("prometheus_client", reason="pip install 'tissuetalk[service]'")
pytest.importorskip("opentelemetry.sdk", reason="pip install 'tissuetalk[service]'")
pytestmark = pytest.mark.anyio
PLANTED = "Quenneville"
WORDS = f"{PLANTED} nuclei"


class Received:
    """What came in at an OTLP receiver, as it was sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def spans(self) -> list[Any]:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture(scope="module")
def received() -> Iterator[tuple[Received, str]]:
    kept = Received()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # http.server's name
            kept.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *given: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield kept, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, received: tuple[Received, str]
) -> Iterator[tuple[Shared, int]]:
    folder = tmp_path_factory.mktemp("operations")
    (folder / PLANTED).mkdir()
    disc_image(folder / PLANTED / f"{PLANTED}.png", 5)
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": received[1],
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
    }
    port = free_port()
    with issuing() as issuer:
        accounts = accounts_of(folder, issuer, north=folder / PLANTED, south=folder / PLANTED)
        place = Place(folder / PLANTED, folder / "workspace")
        options = ("--accounts", str(accounts), "--log-format", "json", "--metrics", f"127.0.0.1:{port}")
        with http_server(place, *options, environment=environment) as server:
            yield Shared(server, issuer), port


@pytest.fixture(scope="module")
def asked(watched: tuple[Shared, int]) -> dict[str, str]:
    """A conversation of two tenants that says the planted name wherever a caller can say something."""
    ids = asyncio.run(_asked(watched[0]))
    assert watched[0].ask("GET", f"/look/result/{ids['result']}", "north").status_code == 200
    assert watched[0].ask("GET", f"/files/{ids['result']}/overlay.png").status_code == 401
    return ids


async def _asked(shared: Shared) -> dict[str, str]:
    ids: dict[str, str] = {}
    async with shared.client("north", sub="account-1") as client:
        found = await segmented(client, image=f"{PLANTED}.png", words="nuclei")
        ids |= {"result": found["result_id"], "image": found["image"]["image_id"]}
        await call(client, "measure", result_id=ids["result"])
        await client.call_tool("segment", {"image": f"{PLANTED}.png", "words": WORDS})
        await client.call_tool("segment", {"image": f"../{PLANTED}.png", "words": "nuclei"})
        await client.call_tool("explain", {"result_id": ids["result"], "question": f"{PLANTED}?"})
        with pytest.raises(MCPError):
            await client.read_resource(f"result://{PLANTED}/result.json")
        with pytest.raises(MCPError):
            await client.get_prompt(PLANTED)
        refused = await client.call_tool(PLANTED, {PLANTED: PLANTED})
        assert refused.is_error
    async with shared.client("south", sub="account-2") as client:
        foreign = await client.call_tool("measure", {"result_id": ids["result"]})
        assert text_of(foreign).startswith("unknown_result")
    async with shared.client("north", "segment:read", sub="account-3") as client:
        refused = await client.call_tool("segment", {"image": f"{PLANTED}.png", "words": "glands"})
        assert text_of(refused).startswith("not_permitted")
    return ids


def test_the_log_has_every_call_and_no_words(watched: tuple[Shared, int], asked: dict[str, str]) -> None:
    log = watched[0].server.log.read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    calls = [line for line in lines if line["where"].startswith("tissuetalk.calls")]
    assert {"measure", "segment", "resource", "look", "unknown"} <= {line["tool"] for line in calls}
    assert all(line["seconds"] >= 0 and "said" not in line for line in calls)
    for planted in (PLANTED, "account-1", "nuclei", str(watched[0].server.place.root), *asked.values()):
        assert planted not in log.partition("{")[2]


def test_the_audit_log_says_who_did_what_and_what_was_denied(
    watched: tuple[Shared, int], asked: dict[str, str]
) -> None:
    log = AuditLog(watched[0].server.place.workspace / "audit.jsonl")
    lines = list(log.lines())
    deeds = {(each["tenant"], each["who"], each["tool"], each["outcome"]) for each in lines}
    assert ("north", "account-1", "segment", "outside_roots") in deeds
    assert ("south", "account-2", "measure", "unknown_result") in deeds
    assert ("north", "account-3", "segment", "not_permitted") in deeds
    assert ("north", "somebody", "look", "done") in deeds
    assert ("", "nobody", "file", "not_signed_in") in deeds
    of_result = [each for each in lines if each["result"] == asked["result"]]
    tools = {each["tool"] for each in of_result}
    assert {"measure", "look", "file"} <= tools and tools & {
        "segment",
        "job",
    }  # a busy machine makes it a job
    assert any(each["image"] == asked["image"] for each in of_result)
    assert PLANTED not in json.dumps(lines)
    assert log.verify()[2] == []
    shared = watched[0]
    assert shared.ask("GET", "/audit", "north").status_code == 403
    read = shared.ask("GET", "/audit", "south", scope="admin").text.splitlines()
    assert read and all(json.loads(line)["tenant"] == "south" for line in read)
    assert shared.ask("GET", "/audit?since=soon", "south", scope="admin").status_code == 400


def test_metrics_are_what_prometheus_reads(watched: tuple[Shared, int], asked: dict[str, str]) -> None:
    import httpx2
    from prometheus_client.parser import text_string_to_metric_families

    shared, port = watched
    assert shared.ask("GET", "/metrics").status_code == 401
    assert shared.ask("GET", "/metrics", "north").status_code == 403
    own = httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text
    for text in (own, shared.ask("GET", "/metrics", "north", scope="admin").text):
        samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
        said = {(each.name, *sorted(each.labels.items())): each.value for each in samples}
        assert said[("tissuetalk_calls_total", ("outcome", "not_permitted"), ("tool", "segment"))] == 1
        assert said[("tissuetalk_call_seconds_count", ("tool", "measure"))] == 2
        assert said[("tissuetalk_queue", ("lane", "small"), ("state", "waiting"))] == 0
        assert 0 < said[("tissuetalk_quota_used_ratio", ("tenant", "1"))] < 1
        assert not any(each in text for each in (PLANTED, "north", "account-", *asked.values()))


def test_spans_name_tools_and_stages_and_nothing_else(
    watched: tuple[Shared, int], received: tuple[Received, str], asked: dict[str, str]
) -> None:
    kept, _ = received
    wanted = {"tools/call segment", "understand", "work", "answer", "tools/call unknown"}
    wait_until(lambda: wanted <= {span.name for span in kept.spans()})
    spans = {span.span_id: span for span in kept.spans()}
    work = next(span for span in spans.values() if span.name == "work")
    assert spans[work.parent_span_id].name == "tools/call segment"
    sent = b"".join(kept.bodies)
    for planted in (PLANTED, "account-", "nuclei", *asked.values()):
        assert planted.encode() not in sent
    assert b"deployment.environment" in sent


def test_a_line_that_was_touched_is_found(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    for number in range(5):
        log.add(Deed("measure", "done", f"account-{number}"))
    whole = log.path.read_bytes()
    count, last, problems = log.verify()
    assert (count, problems) == (5, []) and log.verify(last)[2] == []
    lines = whole.splitlines(keepends=True)
    touched = {
        "changed": whole.replace(b"account-2", b"account-9"),
        "last one changed": whole.replace(b"account-4", b"account-9"),
        "taken out": b"".join(lines[:2] + lines[3:]),
        "the first taken out": b"".join(lines[1:]),
        "swapped": b"".join([lines[1], lines[0], *lines[2:]]),
        "written between": lines[0] + b'{"time": "2026"}\n' + b"".join(lines[1:]),
    }
    for what, content in touched.items():
        log.path.write_bytes(content)
        assert log.verify()[2], what
    log.path.write_bytes(b"".join(lines[:4]))
    assert log.verify()[2] == [] and "missing" in log.verify(last)[2][0]
    log.path.write_bytes(whole[:-20])  # a kill in the middle of a line: the next one still stands alone
    log.add(Deed("view", "done", "account-7"))
    assert [each["who"] for each in log.lines()][-1] == "account-7"


def test_many_processes_write_one_chain(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from tissuetalk.server.audit import AuditLog, Deed\n"
        "for n in range(40): AuditLog(Path(sys.argv[1])).add(Deed('view', 'done', str(n)))"
    )
    file = tmp_path / "audit.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(file)]) for _ in range(3)]
    assert [each.wait(120) for each in writers] == [0, 0, 0]
    assert AuditLog(file).verify()[0] == 120 and AuditLog(file).verify()[2] == []


async def test_what_cannot_be_written_down_is_not_answered(place: Place) -> None:
    from mcp import Client

    from tissuetalk.server.app import build_server
    from tissuetalk.server.observing import Observing
    from tissuetalk.server.service import Service, Settings

    class Refusing(AuditLog):
        def add(self, deed: Deed) -> None:
            raise WorkspaceUnwritableError("the disk is gone")

    disc_image(place.root / "nuclei.png", 3)
    observing = Observing(Refusing(place.workspace / "audit.jsonl"))
    service = Service(Settings((place.root,), place.workspace), observing=observing)
    async with Client(build_server(service)) as client:
        with pytest.raises(MCPError, match="workspace_unwritable"):
            await client.call_tool("view", {"image": "nuclei.png"})


def test_what_nobody_uses_goes_after_its_time_and_what_is_read_stays(tmp_path: Path) -> None:
    from tissuetalk.tools.storage.jobs import JobStore
    from tissuetalk.tools.storage.room import Keep
    from tissuetalk.tools.storage.workspace import Workspace

    now = [1e9]
    with Workspace(tmp_path / "w", clock=lambda: now[0]) as workspace:
        jobs, ids = JobStore(workspace), []
        for _ in range(4):
            with workspace.new_result(image_id="img_1", kind="test") as draft:
                (draft.folder / "result.json").write_text("{}")
            ids.append(draft.result_id)
        jobs.create("explain", {"result_id": ids[3]}, "segment")
        now[0] += 10 * 86_400
        keep = Keep(results_s=9 * 86_400)
        with workspace.reading(ids[0]):
            now[0] += 10 * 86_400
            assert set(workspace.retire(keep)) == {ids[1], ids[2]}
        assert {each.result_id for each in workspace.results()} == {ids[0], ids[3]}
        said = [str(each) for each in workspace.removed(unannounced=True)]
        assert len(said) == 2 and all("not been used for so long" in each for each in said)
        assert workspace.retire(Keep(uploads_s=1.0)) == []


def test_a_tenant_may_ask_so_often_and_no_more() -> None:
    from tissuetalk.models.errors import BusyError
    from tissuetalk.server.limits import Rate

    now = [0.0]
    rate = Rate(60, lambda: now[0])
    for _ in range(6):
        rate.take()
    with pytest.raises(BusyError):
        rate.take()
    now[0] += 1
    rate.take()
    with pytest.raises(BusyError):
        rate.take()


def test_times_to_keep_are_read_or_refused() -> None:
    from tissuetalk.models.errors import InvalidArgumentError
    from tissuetalk.server.commands.serve import seconds_of

    assert (seconds_of("90d"), seconds_of("12h"), seconds_of(None)) == (7_776_000, 43_200, None)
    for wrong in ("", "d", "90", "-1d", "0d", "1.5d", "9" * 20 + "d", "\u0663d"):
        with pytest.raises(InvalidArgumentError):
            seconds_of(wrong)
