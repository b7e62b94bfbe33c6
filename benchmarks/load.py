"""Many people on one workspace at once, over HTTP on loopback: is each answered, about the own image, and in fair time? Linux only.

    python -m benchmarks load --users 50 --minutes 10 --processes 2 --tenants 5 --state --idle 10000 --kill

Every user has an own picture with an own number of nuclei, talks in conversations that alternate between the servers, and looks at
each answer: whose image it is of, and how many nuclei there are. ``--tenants`` shares the users out among that many, with tokens of
an issuer; their pictures have the same names. ``--state`` puts the index into a PostgreSQL of its own (Debian's) and the files into
a store, and each server has a folder to itself. ``--idle`` opens that many sessions that never ask anything, from other addresses.
``--kill`` ends one server with SIGKILL in the middle and starts it again, and after three quarters the database likewise; what was
answered before must be there after. At the end: how many images a second of processor gives, served and called directly, and
whether all is whole.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult

from benchmarks.cluster import Cluster, Server, cluster, serving
from benchmarks.figure import Figure, table, write
from benchmarks.soak import _below, _memory_mb
from benchmarks.throughput import ASKED, throughput
from tests.drawn import discs, lattice, save

MOST_SLOWER, MOST_GROWN = 3.0, 1.1
"""Memory of the last third of what is looked at over its first third: in ten minutes a slope alone is mostly noise."""
THINKING_S = (0.5, 4.0)
LAST_WORD_S = 180.0
IDLE_EACH = 100
"""Idle sessions from one address, of which there are as many as it takes."""
DATABASE_AWAY_S = 3.0
OPENING = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "idle", "version": "1"},
    },
}


@dataclass
class User:
    """number: also that of the picture. kept: a result that stays, to be asked for again. seconds: of each whole conversation."""

    number: int
    nuclei: int
    image: str
    image_id: str = ""
    kept: str | None = None
    seconds: list[float] = field(default_factory=list)


@dataclass
class Load:
    """What is known of a run."""

    cluster: Cluster
    until: float
    started: float = field(default_factory=time.monotonic)
    taken: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    codes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    memory: list[tuple[float, int, float]] = field(default_factory=list)
    killed_at: float | None = None
    broken: Counter[str] = field(default_factory=Counter)

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.until

    @property
    def calls(self) -> int:
        return sum(map(len, self.taken.values()))

    async def ask(self, client: Client, tool: str, **given: Any) -> CallToolResult:
        """Again while it is busy; how long all of it took is the time of the call."""
        begun = time.monotonic()
        while True:
            answer = await client.call_tool(tool, given)
            text = getattr(answer.content[0], "text", "")
            code = text.partition(":")[0] if answer.is_error else "done"
            self.codes[code] += 1
            if code not in ("done", "busy"):
                print(f"{tool} {given.get('action', '')}: {text}"[:400], file=sys.stderr, flush=True)
            if code != "busy" or self.over:
                break
            await asyncio.sleep(random.uniform(1, 2))
        if given.get("action") != "wait":
            self.taken[tool].append(time.monotonic() - begun)
        await asyncio.sleep(random.uniform(*THINKING_S))
        return answer

    async def read(self, client: Client, uri: str) -> str:
        """Again while it is busy."""
        while True:
            try:
                return getattr((await client.read_resource(uri)).contents[0], "text", "")
            except MCPError as error:
                self.codes[str(error).partition(":")[0]] += 1
                if not str(error).startswith("busy: ") or self.over:
                    raise
            await asyncio.sleep(random.uniform(1, 2))

    def by_kill(self, server: Server, begun: float) -> bool:
        """Whether what began then and broke off did so because the server was killed."""
        return (
            self.killed_at is not None and server is self.cluster.servers[0] and begun < self.killed_at + 60
        )

    def check(self, user: User, what: str, is_right: bool) -> None:
        if not is_right:
            self.wrong.append(f"user {user.number}: {what}")


async def _result(load: Load, client: Client, user: User) -> dict[str, Any] | None:
    """Segmented and checked; None where it was not answered."""
    answer = await load.ask(client, "segment", image=user.image, **ASKED)
    said = answer.structured_content
    while not answer.is_error and said is not None and said["job_id"] is not None:
        answer = await load.ask(client, "job", job_id=said["job_id"], action="wait")
        if answer.is_error or answer.structured_content is None:
            return None
        if answer.structured_content["state"] in ("failed", "cancelled"):
            load.codes[f"job {answer.structured_content['state']}"] += 1
            return None
        if answer.structured_content["state"] == "done":
            said = answer.structured_content["result"]
    if answer.is_error or said is None:
        return None
    user.image_id = user.image_id or said["image"]["image_id"]
    load.check(user, "an image of somebody else", said["image"]["image_id"] == user.image_id)
    return said


async def _measured(load: Load, client: Client, user: User, result_id: str) -> None:
    answer = await load.ask(client, "measure", result_id=result_id, metrics=["count"])
    if answer.structured_content is not None and not answer.is_error:
        (count,) = (row["value"] for row in answer.structured_content["measurements"])
        load.check(user, f"{count} nuclei instead of {user.nuclei}", count == user.nuclei)


async def _conversation(load: Load, client: Client, user: User) -> None:
    if user.kept is not None:
        await _measured(load, client, user, user.kept)
    said = await _result(load, client, user)
    if said is None:
        return
    result_id = said["result_id"]
    await _measured(load, client, user, result_id)
    for tool, given in random.sample(
        (
            ("view", {"result_id": result_id}),
            ("view", {"image": user.image}),
            ("explain", {"result_id": result_id}),
            ("library", {"action": "results"}),
            ("segment", {"image": user.image, "words": "glands and stroma", "dry_run": True}),
        ),
        3,
    ):
        answer = await load.ask(client, tool, **given)
        shown = (answer.structured_content or {}).get("image")
        if isinstance(shown, dict) and "image_id" in shown:
            load.check(user, f"{tool} shows another image", shown["image_id"] == user.image_id)
    record = await load.read(client, f"result://{result_id}/result.json")
    load.check(user, "a record of another image", user.image_id in record)
    if user.kept is None:
        user.kept = result_id
    else:
        await load.ask(client, "library", action="delete", result_id=result_id)


async def _talk(load: Load, user: User) -> None:
    """Conversations, each in a session of its own and with the next server, until time is over."""
    all_ = load.cluster.servers
    servers = itertools.cycle(all_[user.number % len(all_) :] + all_)
    await asyncio.sleep(random.uniform(0, 5))
    while not load.over:
        server, begun = next(servers), time.monotonic()
        try:
            async with load.cluster.client(server, user.number) as client:
                await _conversation(load, client, user)
            user.seconds.append(time.monotonic() - begun)
        except* (MCPError, httpx2.HTTPError, OSError) as broken:
            by_kill = load.by_kill(server, begun)
            load.broken["by the kill" if by_kill else "otherwise"] += 1
            if not by_kill:
                print(f"broken off: {broken.exceptions!r}"[:400], file=sys.stderr, flush=True)
            await asyncio.sleep(1)


async def _sampled(load: Load) -> None:
    while not load.over:
        processes = [server.process.pid for server in load.cluster.servers]
        processes += [each for pid in processes for each in _below(pid)]
        load.memory.append((time.monotonic(), load.calls, sum(map(_memory_mb, processes))))
        await asyncio.sleep(5)


async def _idle(load: Load, count: int) -> int:
    """Sessions that are opened and never used. Returns how many were refused."""
    refused = 0
    accepted = {"Accept": "application/json, text/event-stream"}
    for first in range(0, count, IDLE_EACH):
        number = first // IDLE_EACH
        transport = httpx2.AsyncHTTPTransport(local_address=f"127.0.{1 + number // 250}.{1 + number % 250}")
        server = load.cluster.servers[number % len(load.cluster.servers)]
        headers = accepted | load.cluster.headers(number)
        async with httpx2.AsyncClient(transport=transport, timeout=60, headers=headers) as http:
            for _ in range(min(IDLE_EACH, count - first)):
                begun = time.monotonic()
                try:
                    answer = await http.post(f"{server.url}/mcp", json=OPENING)
                    refused += answer.status_code != 200
                except httpx2.HTTPError:
                    by_kill = load.by_kill(server, begun)
                    load.broken["idle, by the kill"] += by_kill
                    refused += not by_kill
    return refused


async def _killed(load: Load, seconds: float) -> None:
    """A server half-way, the database after three quarters."""
    await asyncio.sleep(seconds / 2)
    victim, database = load.cluster.servers[0], load.cluster.database
    load.killed_at = time.monotonic()
    victim.kill()
    victim.start()
    await victim.up()
    if database is None:
        return
    await asyncio.sleep(max(0.0, load.started + seconds * 3 / 4 - time.monotonic()))
    await asyncio.to_thread(database.kill)
    await asyncio.sleep(DATABASE_AWAY_S)
    await asyncio.to_thread(database.start)
    load.broken["databases killed"] += 1


async def _loaded(load: Load, users: list[User], idle: int, kill: bool) -> int:
    """Returns how many idle sessions were refused."""
    await asyncio.gather(*(server.up() for server in load.cluster.servers))
    load.started = time.monotonic()
    seconds = load.until
    load.until = load.started + seconds
    beside = [asyncio.create_task(_sampled(load))]
    if kill:
        beside.append(asyncio.create_task(_killed(load, seconds)))
    opening = asyncio.create_task(_idle(load, idle))
    talking = [asyncio.create_task(_talk(load, user)) for user in users]
    ended, hanging = await asyncio.wait(talking, timeout=seconds + LAST_WORD_S)
    for each in hanging:
        each.cancel()
    load.broken["never ended"] += len(hanging)
    for each in ended:
        each.result()
    await asyncio.gather(*beside, *hanging, return_exceptions=True)
    refused = await opening
    for user in users:  # nobody is locked out, and nothing that was answered is lost
        async with load.cluster.client(random.choice(load.cluster.servers), user.number) as client:
            if user.kept is not None:
                before = load.codes["unknown_result"]
                await _measured(load, client, user, user.kept)
                load.broken["results lost"] += load.codes["unknown_result"] - before
    return refused


def figures_of(load: Load, users: list[User], refused: int, idle: int) -> list[Figure]:
    errors = {code: count for code, count in load.codes.items() if code not in ("done", "busy")}
    means = [float(np.mean(user.seconds)) for user in users if user.seconds]
    median = float(np.median(means)) if means else 0.0
    unserved = sum(not user.seconds for user in users)
    grown, memory = _grown(load)
    minutes = (time.monotonic() - load.started) / 60
    spread = {"median s": median, "slowest s": max(means, default=0.0)}
    broken = {name: float(count) for name, count in load.broken.items()}
    lost = float(load.broken["otherwise"] + load.broken["never ended"])
    return [
        Figure("errors that are not busy", float(sum(errors.values())), "", 0, {k: float(v) for k, v in errors.items()}),
        Figure("answers about somebody else's image", float(len(load.wrong)), "", 0, {}),
        Figure("conversations broken off", lost, "", 0, broken),
        Figure("results lost", float(load.broken["results lost"]), "", 0, {}),
        Figure("users without a conversation", float(unserved), "", 0, {}),
        Figure("slowest user over the median", max(means, default=0.0) / median if median else 0.0, "times", MOST_SLOWER, spread),
        Figure("memory, last third over the first", grown, "times", MOST_GROWN, memory),
        Figure("idle sessions refused", float(refused), "", 0, {"opened": idle - refused - float(load.broken["idle, by the kill"])}),
        Figure("calls a minute", load.calls / minutes, "", None, {"told to come again": float(load.codes["busy"])}),
    ]  # fmt: skip


def _grown(load: Load) -> tuple[float, dict[str, float]]:
    """Of all servers and their workers, once they are warm: after the first quarter, or a minute after the kill."""
    since = load.memory[len(load.memory) // 4][0] if load.memory else 0.0
    settled = [
        each
        for each in load.memory
        if each[0] >= max(since, (load.killed_at or 0.0) + 60 * bool(load.killed_at))
    ]
    if len(settled) < 6:
        return 1.0, {"samples": float(len(settled))}
    third, all_mb = len(settled) // 3, [mb for _, _, mb in settled]
    slope = np.polyfit([calls / 1000 for _, calls, _ in settled], all_mb, 1)[0]
    parts = {"MB per 1,000 calls": float(slope), "most MB": max(mb for _, _, mb in load.memory)}
    return float(np.mean(all_mb[-third:]) / np.mean(all_mb[:third])), parts


def _drawn(cluster: Cluster, users: int) -> list[User]:
    """A picture for everybody: a number of nuclei, and one pixel that makes it nobody else's."""
    made = []
    for number in range(users):
        user = User(number, 5 + number % 30, f"user-{number // max(1, len(cluster.tenants))}.png")
        pixels = discs(260, 260, lattice(user.nuclei))
        pixels[0, 0] = (255, 255, 255 - user.number % 200)
        pixels[0, 1] = (255, 255, 255 - user.number // 200)
        save(cluster.root(number) / user.image, pixels)
        made.append(user)
    return made


def main(given: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks load", description=__doc__)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tenants", type=int, default=0)
    parser.add_argument("--state", action="store_true")
    parser.add_argument("--idle", type=int, default=0)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(given)
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as name, cluster(Path(name), options.tenants, options.state) as made:
        rate = throughput(Path(name) / "pictures")
        users = _drawn(made, options.users)
        load = Load(made, options.minutes * 60)
        with serving(made, options.processes):
            refused = asyncio.run(_loaded(load, users, options.idle, options.kill))
        problems = made.problems()
    print(f"{'tool':10} {'calls':>7} {'p50 s':>8} {'p95 s':>8}")
    for tool, seconds in sorted(load.taken.items()):
        p50, p95 = np.percentile(seconds, [50, 95])
        print(f"{tool:10} {len(seconds):7} {p50:8.2f} {p95:8.2f}")
    print("codes:", dict(load.codes), *load.wrong[:10], sep="\n")
    whole = Figure("the doctor finds something", float(bool(problems)), "", 0, {})
    figures = [*figures_of(load, users, refused, options.idle), whole, rate]
    print(problems)
    write("load", figures)
    print(table(figures))
    sys.exit(not all(each.met for each in figures))
