"""A real HTTP server that speaks the OpenAI chat-completions API, with scripted answers. For tests and demos."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Say = str | Mapping[str, Any]


@dataclass(frozen=True)
class Scripted:
    """One HTTP answer.

    say: the assistant's message, a mapping is sent as JSON. body, raw: sent instead of a completion. headers: further ones.
    wait_s: silence before the first byte. drip_s: seconds between single bytes of the body.
    """

    say: Say = ""
    status: int = 200
    body: str | None = None
    wait_s: float = 0
    drip_s: float = 0
    finish: str = "stop"
    refusal: str | None = None
    location: str | None = None
    raw: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def payload(self, model: str) -> bytes:
        if self.raw is not None:
            return self.raw
        if self.body is not None:
            return self.body.encode()
        if self.status != 200:
            return json.dumps({"error": {"message": "scripted failure", "type": "server_error"}}).encode()
        content = self.say if isinstance(self.say, str) else json.dumps(self.say)
        message = {"role": "assistant", "content": None if self.refusal else content, "refusal": self.refusal}
        choice = {"index": 0, "message": message, "finish_reason": self.finish, "logprobs": None}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        completion = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": model}
        return json.dumps({**completion, "choices": [choice], "usage": usage}).encode()


Answerer = Callable[[Mapping[str, Any]], Scripted]


@dataclass
class OpenAIServer:
    """Where it listens, what it was asked, and whether clients hung up."""

    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)


@contextmanager
def openai_server(answers: Sequence[Say | Scripted] | Answerer) -> Iterator[OpenAIServer]:
    """Serve on a free port of this machine. A list is used up in order, its last answer is then repeated."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    httpd.daemon_threads = True
    server = OpenAIServer(url=f"http://127.0.0.1:{httpd.server_address[1]}/v1")
    httpd.script = answers if callable(answers) else _in_order(answers)  # type: ignore[attr-defined]  # for the handler
    httpd.seen = server  # type: ignore[attr-defined]  # the same
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def _in_order(answers: Sequence[Say | Scripted]) -> Answerer:
    left = [answer if isinstance(answer, Scripted) else Scripted(answer) for answer in answers]
    lock = threading.Lock()

    def answer(_: Mapping[str, Any]) -> Scripted:
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet: tests read what was asked from the server object."""

    def do_POST(self) -> None:
        seen: OpenAIServer = self.server.seen  # type: ignore[attr-defined]  # set by openai_server
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen.asked.append(asked)
        seen.headers.append(dict(self.headers))
        if not self.path.endswith("/chat/completions"):
            self.send_error(404)
            return
        scripted: Scripted = self.server.script(asked)  # type: ignore[attr-defined]  # set by openai_server
        self._send(scripted, scripted.payload(str(asked.get("model"))), seen)

    def _send(self, scripted: Scripted, payload: bytes, seen: OpenAIServer) -> None:
        if scripted.wait_s and self._hung_up_within(scripted.wait_s, seen):
            seen.hung_up.set()
            self.close_connection = True
            return
        try:
            self.send_response(scripted.status)
            self.send_header("Content-Type", "application/json")
            if scripted.location:
                self.send_header("Location", f"{scripted.location}/chat/completions")
            for name, value in scripted.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            step = 1 if scripted.drip_s else max(len(payload), 1)
            for at in range(0, len(payload), step):
                self.wfile.write(payload[at : at + step])
                if scripted.drip_s and seen.stopping.wait(scripted.drip_s):
                    return
        except OSError:
            seen.hung_up.set()

    def _hung_up_within(self, wait_s: float, seen: OpenAIServer) -> bool:
        """Stay silent; the client closing its end shows as a readable socket with nothing in it."""
        end = time.monotonic() + wait_s
        self.connection.settimeout(0.05)
        while time.monotonic() < end and not seen.stopping.is_set():
            try:
                if not self.connection.recv(1):
                    return True
            except TimeoutError:
                continue
        self.connection.settimeout(None)
        return False
