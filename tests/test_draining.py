"""SIGTERM to a real server: it says so, takes nothing new, answers what runs, gives jobs back and ends with 0."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from conftest import Place, SlowModel
from drawn import disc_image
from mcp import Client
from test_tenants import free_port

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to wait for")


@contextmanager
def slow_server(place: Place, slow_model: SlowModel) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """One that hands work over as a job after a second."""
    port = free_port()
    script = Path(__file__).with_name("slow_model.py")
    command = [
        sys.executable,
        str(script),
        str(place.root),
        str(place.workspace),
        "1",
        "1",
        f"127.0.0.1:{port}",
    ]
    environment = {**os.environ, **slow_model.environment, "SLOW_MODEL_TILE_S": "6"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 200
        while time.monotonic() < until:
            try:
                assert httpx2.get(f"http://127.0.0.1:{port}/health").status_code == 200
                break
            except httpx2.TransportError:
                assert process.poll() is None
                time.sleep(0.2)
        yield process, port
    finally:
        process.kill()
        process.wait()


def half_sent(port: int, picture: bytes) -> socket.socket:
    """An upload that the server has begun to take, of which the second half is still to come."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"PUT /images HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(picture)}\r\n"
    connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
    assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
    connection.sendall(picture[: len(picture) // 2])
    return connection


def told_to_end(process: subprocess.Popen[bytes], port: int) -> httpx2.Response:
    """What /health says once the server has heard of it."""
    process.send_signal(signal.SIGTERM)
    until = time.monotonic() + 20
    while (health := httpx2.get(f"http://127.0.0.1:{port}/health", timeout=60)).status_code == 200:
        assert time.monotonic() < until
        time.sleep(0.05)
    return health


async def _begin_job(port: int) -> str:
    async with Client(f"http://127.0.0.1:{port}/mcp") as client:
        asked = {"image": "nuclei.png", "words": "nuclei", "model": "slow-nuclei"}
        answer = await client.call_tool("segment", asked)
        job_id: str = (answer.structured_content or {})["job_id"]
        while (await client.call_tool("job", {"job_id": job_id, "action": "status"})).structured_content[
            "state"
        ] != "running":
            await asyncio.sleep(0.1)
        return job_id


def test_what_runs_is_answered_and_jobs_are_given_back(place: Place, slow_model: SlowModel) -> None:
    picture = disc_image(place.root / "nuclei.png", 9).read_bytes()
    with slow_server(place, slow_model) as (process, port):
        job_id = asyncio.run(_begin_job(port))
        upload = half_sent(port, picture)
        health = told_to_end(process, port)
        assert health.status_code == 503 and health.json() == {"status": "draining"}
        refused = httpx2.post(f"http://127.0.0.1:{port}/mcp", json={}, timeout=60)
        assert refused.status_code == 503 and refused.headers["retry-after"]
        assert process.poll() is None
        upload.sendall(picture[len(picture) // 2 :])
        with upload:
            assert upload.recv(100).startswith(b"HTTP/1.1 201")
        assert process.wait(60) == 0
    with sqlite3.connect(place.workspace / "workspace.sqlite") as database:
        (state,) = database.execute("SELECT state FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    database.close()
    assert state == "queued"


def test_a_second_one_ends_it_at_once(place: Place, slow_model: SlowModel) -> None:
    with slow_server(place, slow_model) as (process, port):
        upload = half_sent(port, b"x" * 10_000)
        told_to_end(process, port)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
        upload.close()
