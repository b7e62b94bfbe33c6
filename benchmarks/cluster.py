"""A service to put load on: processes on one state, a database that can be killed, tenants with tokens of an issuer. Linux only."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import yaml
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from benchmarks.serving import COMMAND, arguments
from tests.issuer import AUDIENCE, ISSUER, Issuer, issuing
from tests.services import Postgres, postgres

FIRST_PORT = 18_700
LASTS_S = 24 * 3600
"""Of a token: longer than any run."""
TIMEOUT = httpx2.Timeout(60, read=300)


class Server:
    """One process, on a port that stays the same when it is started again. environment: beside that of this process."""

    def __init__(
        self,
        root: Path,
        workspace: Path,
        number: int,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = FIRST_PORT + number
        self._environment = os.environ | dict(environment or {})
        self._command = [COMMAND, *arguments(root, workspace), "--http", f"127.0.0.1:{self.port}", *options]
        self.log = workspace.with_name(f"server-{number}.log")
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stderr=log, env=self._environment)

    async def up(self) -> None:
        async with httpx2.AsyncClient() as http:
            for _ in range(3000):
                with suppress(httpx2.TransportError):
                    if (await http.get(f"{self.url}/health")).status_code == 200:
                        return
                await asyncio.sleep(0.1)
        raise TimeoutError(self.log.read_text()[-2000:])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(120)


@dataclass
class Cluster:
    """folder: of everything. tenants: their names, none without accounts; user ``number`` belongs to each in turn."""

    folder: Path
    tenants: list[str]
    issuer: Issuer | None = None
    database: Postgres | None = None
    servers: list[Server] = field(default_factory=list)

    def root(self, number: int) -> Path:
        """Where the images of a user's tenant lie."""
        return self.folder / "images" / (self.tenants[number % len(self.tenants)] if self.tenants else "")

    def headers(self, number: int) -> dict[str, str]:
        if self.issuer is None:
            return {}
        tenant, until = self.tenants[number % len(self.tenants)], int(time.time()) + LASTS_S
        return {"Authorization": f"Bearer {self.issuer.token(tenant, sub=f'user-{number}', exp=until)}"}

    @asynccontextmanager
    async def client(self, server: Server, number: int) -> AsyncIterator[Client]:
        async with (
            httpx2.AsyncClient(headers=self.headers(number), timeout=TIMEOUT) as http,
            Client(streamable_http_client(f"{server.url}/mcp", http_client=http)) as client,
        ):
            yield client

    @property
    def environment(self) -> dict[str, str]:
        """What names the state, where there is one beside the workspace."""
        if self.database is None:
            return {}
        objects = (self.folder / "objects").as_uri()
        return {"TISSUETALK_STATE": self.database.address, "TISSUETALK_OBJECTS": objects}

    def problems(self) -> str:
        """What the doctor finds wrong; empty where all is whole."""
        workspace = self.folder / "workspace-0"
        places = [str(workspace / "tenants" / name) for name in self.tenants] or [str(workspace)]
        said = ""
        for place in [[]] if self.database is not None else [[place] for place in places]:
            command = [COMMAND, "doctor", "--workspace", *place]
            environment = os.environ | self.environment
            checked = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            said += checked.stdout + checked.stderr if checked.returncode else ""
        return said


@contextmanager
def cluster(folder: Path, tenants: int, with_database: bool) -> Iterator[Cluster]:
    """Without its servers, whose images must be there first."""
    with ExitStack() as stack:
        made = Cluster(folder, [f"tenant-{number}" for number in range(tenants)])
        if tenants:
            made.issuer = stack.enter_context(issuing())
        if with_database:
            made.database = stack.enter_context(postgres())
        yield made


@contextmanager
def serving(made: Cluster, processes: int) -> Iterator[None]:
    """Its servers. Without a database they share one workspace; with one each has a folder as on a machine of its own."""
    options: list[str] = []
    if made.issuer is not None:
        accounts = made.folder / "accounts.yaml"
        roots = {name: {"roots": [str(made.root(number))]} for number, name in enumerate(made.tenants)}
        said = {"issuer": ISSUER, "audience": AUDIENCE, "keys": made.issuer.address, "tenants": roots}
        accounts.write_text(yaml.safe_dump(said), "utf-8")
        options = ["--accounts", str(accounts)]
    with ExitStack() as stack:
        for number in range(processes):
            workspace = made.folder / f"workspace-{number if made.database is not None else 0}"
            server = Server(made.folder / "images", workspace, number, options, made.environment)
            made.servers.append(server)
            stack.callback(server.end)
        yield
