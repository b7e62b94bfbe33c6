"""Long work in the browser: a job that is cancelled, and one that a server started anew goes on with; and how it reads."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
from conftest import Place, SlowModel
from drawn import disc_image
from slow_model import TILE_TAKES

SERVER = Path(__file__).parents[1] / "slow_model.py"
AXE = Path(__file__).parents[2] / "server" / "viewer" / "node_modules" / "axe-core" / "axe.min.js"


def served(place: Place, slow: SlowModel, port: int, patience_s: str = "0.5") -> subprocess.Popen[bytes]:
    """A server whose model takes its time for each tile; work becomes a job after half a second."""
    where = [str(place.root), str(place.workspace), patience_s, "1", f"127.0.0.1:{port}"]
    process = subprocess.Popen(
        [sys.executable, str(SERVER), *where], env={**os.environ, **slow.environment, TILE_TAKES: "6"}
    )
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                return process
        except httpx2.TransportError:
            time.sleep(0.1)
    raise AssertionError("the server did not start")


def ask(page) -> None:
    """For nuclei of the slow model: the words of a call are read, its model is not the page's to choose."""
    page.evaluate(
        """() => { const { call } = tissuetalk.backend; tissuetalk.backend.call = (tool, args, ...more) =>
        call.call(tissuetalk.backend, tool, tool === "segment" ? { ...args, model: "slow-nuclei" } : args, ...more); }"""
    )
    page.fill("#words", "outline the nuclei")
    page.get_by_role("button", name="Find", exact=True).click()
    page.get_by_role("button", name="Cancel").wait_for()


def test_a_job_is_cancelled_and_another_survives_a_restart(
    place: Place, slow_model: SlowModel, new_page, shots: Path
) -> None:
    disc_image(place.root / "discs.png", 5)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/view?image=discs.png"
    process = served(place, slow_model, port)
    try:
        page = new_page(url, may_say=("Failed to load", "ERR_", "failed to load"))
        page.wait_for_function("() => window.tissuetalk?.stage?.firstPicture")
        ask(page)
        page.screenshot(path=shots / "job.png")
        page.get_by_role("button", name="Cancel").click()
        page.locator(".job.cancelled").wait_for()
        assert place.results() == []

        ask(page)
        page.wait_for_function("() => localStorage.getItem('tissuetalk.jobs')?.includes('job_')")
        process.kill()
        process.wait(30)
        page.get_by_text("the server does not answer").wait_for()
        slow_model.open_gate()
        process = served(place, slow_model, port)
        page.wait_for_url("**/view/res_*")
        page.wait_for_function("() => tissuetalk.stage.layers.length && !tissuetalk.stage.loading")
        assert len(place.results()) == 1
        page.get_by_role("link", name="tissuetalk").click()
        page.locator(".history li").wait_for()
    finally:
        process.terminate()
        process.wait(60)
