"""Several real servers over one real PostgreSQL and one real bucket, and kill -9 of each of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import slow_model as slow
from conftest import Place, SlowModel
from conversation import call, converse, read, segmented, text_of, wait_for
from drawn import disc_image, discs, lattice, save
from http_server import COMMAND
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from services import Bucket, Postgres, answers, bucket, free_port, postgres, wait_until
from taught import PINK, PLAIN, two_tissues

from tissuetalk.tools.storage.postgres import PendingTable
from tissuetalk.tools.storage.state import State
from tissuetalk.tools.storage.workspace import Workspace

pytestmark = [pytest.mark.anyio, pytest.mark.service]
NUCLEI = 9
ASK = {"image": "slow.png", "targets": [{"words": "nuclei"}], "mpp": 0.5, "model": slow.NAME}
QUICK = {"image": "quick.png", "targets": [{"words": "nuclei"}], "mpp": 0.5, "model": "classical-nuclei"}
PATIENCE_S = 3


@dataclass
class Servers:
    """Each in a process of its own, with a folder of its own, as on a machine of its own."""

    place: Place
    database: Postgres
    store: Bucket
    environment: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)

    def start(self, patience_s: int = PATIENCE_S) -> int:
        """Returns its number."""
        number, port = len(self.processes), free_port()
        command = [sys.executable, str(Path(slow.__file__)), str(self.place.root)]
        command += [
            str(self.place.workspace / f"machine-{number}"),
            str(PATIENCE_S),
            "1",
            f"127.0.0.1:{port}",
        ]
        with (self.place.workspace / f"log-{number}").open("wb") as log:
            self.processes.append(subprocess.Popen(command, stderr=log, env=os.environ | self.environment))
        self.ports.append(port)
        wait_until(lambda: answers(port), 200)
        return number

    def kill(self, number: int) -> None:
        self.processes[number].send_signal(signal.SIGKILL)
        self.processes[number].wait()

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(60)
        for log in self.place.workspace.glob("log-*"):
            assert "Traceback" not in log.read_text(), log.read_text()

    @asynccontextmanager
    async def client(self, number: int) -> AsyncIterator[Client]:
        async with (
            httpx2.AsyncClient(timeout=httpx2.Timeout(120)) as http,
            Client(
                streamable_http_client(f"http://127.0.0.1:{self.ports[number]}/mcp", http_client=http)
            ) as client,
        ):
            yield client

    def doctor(self) -> str:
        command, environment = [COMMAND, "doctor", "--workspace"], os.environ | self.environment
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout

    def state(self) -> State:
        return State(self.database.address, self.store.address)

    def kept(self) -> list[str]:
        """Results in the index, after all that is nobody's was cleared away; they are what the bucket has."""
        with Workspace(self.place.workspace / "looking", state=self.state()) as workspace:
            workspace._look_after_state()
            assert workspace.mirror is not None
            rows = sorted(stored.result_id for stored in workspace.results())
            for result_id in rows:
                workspace.result(result_id)  # whole, by its hashes
            assert {key.split("/")[1] for key in workspace.mirror.objects.below("results")} == set(rows)
            with workspace.database.read() as db:
                assert PendingTable.select().count(db) == 0
            return rows


@pytest.fixture
def servers(place: Place, slow_model: SlowModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    save(place.root / "slow.png", discs(slow.SIDE_PX, slow.SIDE_PX, lattice(NUCLEI)))
    disc_image(place.root / "quick.png", 5)
    place.workspace.mkdir()
    with postgres() as database, bucket() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        state = {"TISSUETALK_STATE": database.address, "TISSUETALK_OBJECTS": store.address}
        made = Servers(place, database, store, {**slow_model.environment, **state})
        try:
            yield made
        finally:
            made.close()


class ByTurns:
    """A client whose every request goes to another server than the one before."""

    def __init__(self, *clients: Client) -> None:
        self._next = cycle(clients)

    def __getattr__(self, name: str) -> Any:
        return getattr(next(self._next), name)


async def test_a_conversation_goes_on_with_whichever_server_answers(servers: Servers) -> None:
    picture = disc_image(servers.place.workspace / "mine.png", 7).read_bytes()
    two_tissues(servers.place.root / "two.png")
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(servers.client(servers.start(100))) for _ in range(2)]
        warm = [(await segmented(client, **QUICK))["result_id"] for client in (one, other)]
        for clients in ((one, other), (other, one)):
            await converse(ByTurns(*clients), "quick.png", 5)  # type: ignore[arg-type]
        sent = httpx2.put(f"http://127.0.0.1:{servers.ports[0]}/images", content=picture, timeout=60).json()
        asked = QUICK | {"image": sent["image"]}
        found = await segmented(other, **asked)
        assert found["masks"][0]["count"] == 7
        assert len(await read(one, found["overlay"])) > 0 and len(await read(one, sent["image"])) > 0
        await call(one, "explain", result_id=found["result_id"])
        shown = await segmented(one, image="two.png", words="pink", examples=PINK, name="pink", **PLAIN)
        assert "pink" in text_of(await call(other, "library", action="targets"))
        named = await segmented(other, image="two.png", words="the pink tissue", **PLAIN)
        assert named["masks"][0]["area_px"] == shown["masks"][0]["area_px"]
        results = [*warm, *(each["result_id"] for each in (found, shown, named))]
    assert servers.kept() == sorted(results)
    assert "5 of 5 whole" in servers.doctor()


async def job_of_slow_work(client: Client) -> str:
    job_id = (await call(client, "segment", **ASK)).structured_content["job_id"]
    assert isinstance(job_id, str)
    return job_id


async def test_a_job_of_a_killed_server_is_finished_by_another_that_nobody_asked(
    servers: Servers, slow_model: SlowModel, eventually: Callable
) -> None:
    dying, living = servers.start(), servers.start()
    job_id = ""
    with pytest.raises((MCPError, httpx2.HTTPError, ExceptionGroup, anyio.ClosedResourceError)):
        async with servers.client(dying) as client:
            job_id = await job_of_slow_work(client)
            await eventually(lambda: slow_model.tiles() >= 2, 60)
            servers.kill(dying)
            slow_model.open_gate()
            await client.call_tool("job", {"job_id": job_id})
    tiles = slow_model.tiles()
    await eventually(lambda: slow_model.tiles() >= tiles + slow.TILES - 1, 120)
    async with servers.client(living) as client:
        done = (await wait_for(client, job_id)).structured_content
        assert done["state"] == "done" and done["result"]["masks"][0]["count"] == NUCLEI
        await call(client, "measure", result_id=done["result"]["result_id"])
    assert servers.kept() == [done["result"]["result_id"]]


@pytest.mark.parametrize("what", ["database", "bucket"])
async def test_what_stands_behind_the_servers_is_gone_for_a_while_and_nothing_is_lost(
    servers: Servers, slow_model: SlowModel, eventually: Callable, what: str
) -> None:
    async with servers.client(servers.start()) as client:
        quick = await segmented(client, **QUICK)
        job_id = await job_of_slow_work(client)
        await eventually(lambda: slow_model.tiles() >= 2, 60)
        if what == "database":
            servers.database.kill()
        else:
            servers.store.pause()
        slow_model.open_gate()  # it ends while nothing can be kept
        refused = await client.call_tool("measure", {"result_id": quick["result_id"]})
        if what == "database":  # a result that lies here can be read without the bucket
            assert refused.is_error and text_of(refused).startswith("busy: "), text_of(refused)
        await anyio.sleep(2)
        if what == "database":
            servers.database.start()
        else:
            servers.store.go_on()
        done = (await wait_for(client, job_id)).structured_content
        assert done["state"] == "done" and done["result"]["masks"][0]["count"] == NUCLEI
        again = await segmented(client, **QUICK)
        await call(client, "measure", result_id=quick["result_id"])
    assert servers.kept() == sorted([quick["result_id"], again["result_id"], done["result"]["result_id"]])
