"""The real command in a process of its own, spoken to over stdio or HTTP as any client would."""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

from hostile.case import Answer
from hostile.processes import Meter, kill_family

COMMAND = str(Path(sys.executable).with_name("tissuetalk"))
TOKEN = "a-token-for-tests-only"
START_S, MOST_WAIT_S = 240.0, 90.0
MOST_MB = 5000.0
"""Where a server is ended before it takes the machine with it."""
CODES = frozenset(
    [
        "unknown_image",
        "outside_roots",
        "unreadable_image",
        "image_too_large",
        "image_changed",
        "invalid_argument",
        "unknown_label",
        "no_target_in_words",
        "point_outside_image",
        "unknown_result",
        "unknown_mask",
        "unknown_job",
        "model_unavailable",
        "workspace_full",
        "workspace_unwritable",
        "busy",
        "cancelled",
    ]
)


def code_of(text: str) -> str:
    """The contract's code an error text begins with; ``crash`` where there is none."""
    head = text.split(":", 1)[0].strip()
    return head if head in CODES else "crash"


def answer_of(message: dict[str, Any]) -> Answer:
    """What a JSON-RPC message says, in one word and in full."""
    if "error" in message:
        said = str(message["error"].get("message", ""))
        code = code_of(said)
        return Answer(f"rpc {message['error'].get('code')}" if code == "crash" else code, json.dumps(message))
    result = message.get("result", {})
    text = "\n".join(part.get("text", "") for part in result.get("content", []) if isinstance(part, dict))
    whole = text + json.dumps({**result, "content": None}, ensure_ascii=False)
    if result.get("isError"):
        return Answer(code_of(text), whole)
    return Answer("ok", whole, result.get("structuredContent") or {})


class Server(ABC):
    """One process. ``stalled_s``: the longest it left a health question unanswered."""

    def __init__(
        self, folder: Path, roots: Sequence[Path], workspace: Path, more: Sequence[str] = ()
    ) -> None:
        self.log = folder / "server.log"
        self.stalled_s = 0.0
        self.reading = threading.Thread()
        arguments = [part for root in roots for part in ("--root", str(root))]
        self.command = [COMMAND, "serve", *arguments, "--workspace", str(workspace), *more]
        self.environment = environment(folder)
        self.folder = folder
        self.stream = self.log.open("ab")
        self.process = self.start()
        self.meter = Meter(self.process.pid, MOST_MB)

    @abstractmethod
    def start(self) -> subprocess.Popen[bytes]: ...

    @abstractmethod
    def request(self, method: str, params: Any, limit_s: float = MOST_WAIT_S) -> dict[str, Any]:
        """The message that answers. Raises TimeoutError, and ConnectionError when the server is gone."""

    @abstractmethod
    def healthy(self, limit_s: float) -> bool: ...

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        self.meter.close()
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            kill_family(self.process.pid)
            self.process.wait(15)
        if self.process.stdout is not None:
            self.reading.join(15)
            self.process.stdout.close()
        self.stream.close()

    def kill(self) -> None:
        kill_family(self.process.pid)
        self.process.wait(15)
        self.close()


def environment(folder: Path) -> dict[str, str]:
    """A home, a temporary folder and a current folder that are watched."""
    for name in ("home", "tmp", "current"):
        (folder / name).mkdir(exist_ok=True)
    plain = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {
        **plain,
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "TISSUETALK_TOKEN": TOKEN,
        "MPLCONFIGDIR": str(folder / "home" / ".cache"),
    }


class StdioServer(Server):
    """JSON lines on stdin and stdout."""

    def start(self) -> subprocess.Popen[bytes]:
        self.answers: dict[Any, queue.Queue[dict[str, Any]]] = {}
        self.others: queue.Queue[dict[str, Any]] = queue.Queue()
        self.number = 0
        process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stream,
            env=self.environment,
            cwd=self.folder / "current",
        )
        self.process = process
        self.reading = threading.Thread(target=self._read, args=(process,), daemon=True)
        self.reading.start()
        hello = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "h", "version": "1"},
        }
        self.request("initialize", hello, START_S)
        self.send(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        return process

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                message = json.loads(line)
            except ValueError:
                message = {"not": "json", "line": line[:200].decode("latin-1")}
            self.answers.get(message.get("id") if isinstance(message, dict) else None, self.others).put(
                message
            )

    def send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise ConnectionError("the server is gone") from error

    def ask(self, method: str, params: Any) -> tuple[int, queue.Queue[dict[str, Any]]]:
        self.number += 1
        self.answers[self.number] = queue.Queue()
        message = {"jsonrpc": "2.0", "id": self.number, "method": method, "params": params}
        self.send(json.dumps(message).encode() + b"\n")
        return self.number, self.answers[self.number]

    def request(self, method: str, params: Any, limit_s: float = MOST_WAIT_S) -> dict[str, Any]:
        number, waiting = self.ask(method, params)
        try:
            return self._waited(waiting, limit_s, watch=method != "ping")
        finally:
            del self.answers[number]

    def _waited(self, waiting: queue.Queue[dict[str, Any]], limit_s: float, *, watch: bool) -> dict[str, Any]:
        """The answer; while it is waited for, the server must go on answering pings."""
        until = time.monotonic() + limit_s
        ping: queue.Queue[dict[str, Any]] | None = None
        asked = time.monotonic()
        while time.monotonic() < until:
            try:
                return waiting.get(timeout=0.1)
            except queue.Empty:
                pass
            if not self.alive:
                raise ConnectionError("the server is gone")
            if not watch:
                continue
            if ping is None or not ping.empty():
                asked, (_, ping) = time.monotonic(), self.ask("ping", {})
            else:
                self.stalled_s = max(self.stalled_s, time.monotonic() - asked)
        raise TimeoutError(f"no answer within {limit_s:.0f} s")

    def healthy(self, limit_s: float) -> bool:
        try:
            return "result" in self.request("ping", {}, limit_s)
        except (TimeoutError, ConnectionError):
            return False


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class HttpServer(Server):
    """Streamable HTTP on loopback, with a token."""

    def start(self) -> subprocess.Popen[bytes]:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.authorised = {"Authorization": f"Bearer {TOKEN}"}
        self.session: dict[str, str] = {}
        self.number = 0
        self.address = "127.0.0.1"
        process = subprocess.Popen(
            [*self.command, "--http", f"127.0.0.1:{self.port}"],
            stdout=self.stream,
            stderr=self.stream,
            env=self.environment,
            cwd=self.folder / "current",
        )
        self.process = process
        until = time.monotonic() + START_S
        while not self.healthy(2):
            if time.monotonic() > until or process.poll() is not None:
                self.stream.flush()
                told = self.log.read_text("utf-8", "replace")[-2000:]
                raise ConnectionError(f"the server did not start (exit {process.poll()}): {told}")
            time.sleep(0.1)
        return process

    def close(self) -> None:
        if self.alive:
            self.process.terminate()
        super().close()

    @contextmanager
    def from_address(self, address: str) -> Iterator[None]:
        """What is posted in the block comes from there."""
        self.address = address
        try:
            yield
        finally:
            self.address = "127.0.0.1"

    def open_session(self) -> dict[str, str]:
        """Headers of a new session."""
        hello = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "h", "version": "1"},
        }
        said = self.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}, {})
        session = {"Mcp-Session-Id": said.headers.get("mcp-session-id", "")}
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, session)
        return session

    def post(self, message: Any, headers: dict[str, str], limit_s: float = MOST_WAIT_S) -> httpx2.Response:
        usual = {
            **self.authorised,
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        try:
            with httpx2.Client(transport=httpx2.HTTPTransport(local_address=self.address)) as client:
                sent = {**usual, **headers}
                return client.post(f"{self.url}/mcp", content=body, headers=sent, timeout=limit_s)
        except httpx2.TimeoutException as error:
            raise TimeoutError(f"no answer within {limit_s:.0f} s") from error
        except httpx2.TransportError as error:
            raise ConnectionError(str(error)) from error

    def request(self, method: str, params: Any, limit_s: float = MOST_WAIT_S) -> dict[str, Any]:
        if not self.session:
            self.session = self.open_session()
        self.number += 1
        asked = {"jsonrpc": "2.0", "id": self.number, "method": method, "params": params}
        said = self.post(asked, self.session, limit_s)
        return message_in(said)

    def healthy(self, limit_s: float) -> bool:
        try:
            return httpx2.get(f"{self.url}/health", timeout=limit_s).status_code == 200
        except (httpx2.TransportError, httpx2.TimeoutException):
            return False


def message_in(said: httpx2.Response) -> dict[str, Any]:
    """The JSON-RPC answer of a response, plain or as an event."""
    text = said.text
    if said.headers.get("content-type", "").startswith("text/event-stream"):
        events = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
        messages = [json.loads(event) for event in events if event]
        return next(
            (one for one in messages if "result" in one or "error" in one), {"error": {"message": text}}
        )
    try:
        message = json.loads(text)
    except ValueError:
        message = {"error": {"code": said.status_code, "message": text[:500]}}
    return message if isinstance(message, dict) else {"error": {"message": text[:500]}}
