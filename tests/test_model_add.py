"""`tissuetalk model add` through the real command, against a real server that speaks the hub's few routes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from http_server import COMMAND

COMMIT = "c" * 40
PINNED = ("--revision", COMMIT)
HUB_ID = "CIDAS/clipseg-rd64-refined"
FILES = {
    "config.json": b'{"a": 1}',
    "model.safetensors": bytes(range(256)) * 60_000,
    "pytorch_model.bin": b"pickle",
}


@dataclass
class Hub:
    url: str = ""
    gated: bool = False
    cut_at: int | None = None
    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    ranges: list[str | None] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def about(self) -> dict[str, object]:
        rows = []
        for name, content in FILES.items():
            row: dict[str, object] = {"rfilename": name, "size": len(content)}
            row["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            if name.endswith("safetensors"):
                sha256 = hashlib.sha256(content).hexdigest()
                row["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
            rows.append(row)
        return {
            "id": HUB_ID,
            "modelId": HUB_ID,
            "sha": COMMIT,
            "siblings": rows,
            "private": False,
            "tags": [],
        }

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        if self.gated:
            send(request, 403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif path.startswith(f"/api/models/{HUB_ID}"):
            send(request, 200, json.dumps(self.about()).encode(), {"Content-Type": "application/json"})
        elif path.startswith(f"/{HUB_ID}/resolve/{COMMIT}/"):
            self.send_file(request, path.rsplit("/", 1)[1])
        else:
            send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def send_file(self, request: BaseHTTPRequestHandler, name: str) -> None:
        content = self.files[name]
        headers = {"ETag": f'"{hashlib.sha256(FILES[name]).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if request.command == "HEAD":
            send(request, 200, content, headers)
            return
        asked = request.headers.get("Range")
        self.fetched.append(name)
        if name.endswith("safetensors"):
            self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        part = content[start:]
        request.send_response(206 if asked else 200)
        for key, value in (headers | {"Content-Length": str(len(part))}).items():
            request.send_header(key, value)
        request.end_headers()
        request.wfile.write(
            part if self.cut_at is None or asked or name == "config.json" else part[: self.cut_at]
        )


def send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(status)
    for key, value in (headers | {"Content-Length": str(len(body))}).items():
        request.send_header(key, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.answer(self)

        def do_HEAD(self) -> None:
            hub.answer(self)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            server.shutdown()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as served:
        yield served


def add(
    hub: Hub, home: Path, *options: str, name: str = "clipseg", **more: str
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_HOME": str(home),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        **more,
    }
    environment.pop("HF_HUB_OFFLINE", None)
    command = [COMMAND, "model", "add", name, *options]
    return subprocess.run(
        command,
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        stdin=subprocess.DEVNULL,
    )


def snapshot(home: Path) -> Path:
    return home / "hub" / "models--CIDAS--clipseg-rd64-refined" / "snapshots" / COMMIT


def test_weights_come_only_when_their_licence_is_accepted_and_lie_where_the_loader_looks(
    hub: Hub, tmp_path: Path
) -> None:
    unpinned = add(hub, tmp_path, "--accept-licence")
    assert unpinned.returncode == 2 and "pass --revision" in unpinned.stderr and hub.fetched == []
    asked = add(hub, tmp_path, *PINNED)
    assert asked.returncode == 2 and "Apache-2.0" in asked.stderr and "--accept-licence" in asked.stderr
    assert COMMIT in asked.stderr and hub.fetched == []
    done = add(hub, tmp_path, *PINNED, "--accept-licence", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["revision"] == COMMIT
    assert sorted(path.name for path in snapshot(tmp_path).iterdir()) == ["config.json", "model.safetensors"]
    from tissuetalk.models.segmentation import clipseg

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path))
        patch.delenv("HF_HUB_CACHE", raising=False)
        assert clipseg.WEIGHTS.find() == snapshot(tmp_path)


def test_what_broke_off_goes_on_and_what_is_false_is_removed(hub: Hub, tmp_path: Path) -> None:
    hub.cut_at = 12_000_000
    done = add(hub, tmp_path, *PINNED, "--accept-licence")
    assert done.returncode == 0, done.stderr
    # the library writes in pieces of 10 MiB
    assert hub.ranges == [None, "bytes=10485760-"]
    fetched = len(hub.fetched)
    assert add(hub, tmp_path, *PINNED, "--accept-licence").returncode == 0 and len(hub.fetched) == fetched
    assert (snapshot(tmp_path) / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    other = tmp_path / "other"
    hub.files["model.safetensors"] = bytes(len(FILES["model.safetensors"]))
    done = add(hub, other, *PINNED, "--accept-licence")
    assert done.returncode == 3 and "is not what" in done.stderr and "Traceback" not in done.stderr
    assert not (snapshot(other) / "model.safetensors").exists()


def test_a_machine_without_the_hub_and_a_model_without_public_weights_get_a_plain_sentence(
    hub: Hub, tmp_path: Path
) -> None:
    offline = add(hub, tmp_path, *PINNED, "--accept-licence", HF_ENDPOINT="http://127.0.0.1:9")
    assert offline.returncode == 3 and "the hub is not reached from this machine" in offline.stderr
    assert len(offline.stderr.strip().splitlines()) == 1
    hub.gated = True
    gated = add(hub, tmp_path, *PINNED, "--accept-licence")
    assert gated.returncode == 3 and "access on request" in gated.stderr
    own = add(hub, tmp_path, "--accept-licence", name="pfps")
    assert own.returncode == 2 and "tissuetalk train" in own.stderr
