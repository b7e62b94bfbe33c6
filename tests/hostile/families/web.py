"""Streamable HTTP: headers, bodies, sessions, uploads, and many of them at once."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2

from hostile.bytes_of import bare_jpeg, jpeg, png, tiff
from hostile.case import Answer, Call, Case, Content
from hostile.families.tiffs import flat, zeros
from hostile.ground import Ground
from hostile.server import TOKEN, HttpServer, answer_of, message_in

REFUSED = "http 400|http 401|http 403|http 404|http 405|http 406|http 411|http 413|http 415|http 421|http 429|http 431|http 501|closed"


def server_of(ground: Ground) -> HttpServer:
    assert isinstance(ground.server, HttpServer)
    return ground.server


def status(said: httpx2.Response) -> Answer:
    return Answer(f"http {said.status_code}", said.text[:5000] + str(dict(said.headers)))


def request(
    verb: str, path: str, content: Content = b"", /, *, with_token: bool = True, **headers: str
) -> Call:
    def call(ground: Ground) -> Answer:
        server = server_of(ground)
        sent = {
            **(server.authorised if with_token else {}),
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        body = content() if callable(content) else content
        try:
            return status(httpx2.request(verb, server.url + path, content=body, headers=sent, timeout=60))
        except httpx2.TimeoutException:
            return Answer("timeout")
        except httpx2.TransportError as error:
            return Answer("closed", str(error))

    return call


def raw(content: bytes, wait_s: float = 8.0) -> Call:
    """Bytes on a connection; ``closed`` when the server ends it without a word."""

    def call(ground: Ground) -> Answer:
        return _spoken(server_of(ground), content, wait_s)

    return call


def _spoken(server: HttpServer, content: bytes, wait_s: float) -> Answer:
    content = content.replace(b"{port}", str(server.port).encode()).replace(b"{token}", TOKEN.encode())
    with socket.create_connection(("127.0.0.1", server.port), timeout=wait_s) as connection:
        try:
            connection.sendall(content)
            said = connection.recv(65_536)
        except TimeoutError:
            return Answer("waits")
        except OSError as error:
            return Answer("closed", str(error))
    if not said.startswith(b"HTTP/1.1 "):
        return Answer("closed", said[:100].decode("latin-1"))
    return Answer(f"http {said.split()[1].decode()}", said.decode("latin-1"))


HEAD = b"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"


EITHER = REFUSED + "|waits"


def _heads() -> Iterator[tuple[str, bytes, str]]:
    yield "no HTTP", b"hello\r\n\r\n", EITHER
    yield "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), EITHER
    yield "a version of the future", b"GET /health HTTP/9.9\r\n" + HEAD + b"\r\n", EITHER + "|http 200"
    yield "no host", b"GET /health HTTP/1.1\r\n\r\n", REFUSED
    yield (
        "two hosts",
        b"GET /health HTTP/1.1\r\nHost: evil.example\r\n" + HEAD + b"\r\n",
        REFUSED + "|http 200",
    )
    yield "a header of 1 MB", b"GET /health HTTP/1.1\r\n" + HEAD + b"X: " + b"x" * 10**6 + b"\r\n\r\n", EITHER
    yield (
        "20,000 headers",
        b"GET /health HTTP/1.1\r\n" + HEAD + b"X: y\r\n" * 20_000 + b"\r\n",
        EITHER + "|http 200",
    )
    yield "a path of 1 MB", b"GET /" + b"x" * 10**6 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", EITHER
    yield "a path that climbs", b"GET /../../etc/passwd HTTP/1.1\r\n" + HEAD + b"\r\n", REFUSED
    yield (
        "a path that climbs, encoded",
        b"GET /images/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n" + HEAD + b"\r\n",
        REFUSED,
    )
    yield (
        "an address for a path",
        b"GET http://evil.example/health HTTP/1.1\r\n" + HEAD + b"\r\n",
        REFUSED + "|http 200",
    )
    yield "a tunnel", b"CONNECT evil.example:443 HTTP/1.1\r\n" + HEAD + b"\r\n", REFUSED


def _bodies() -> Iterator[tuple[str, bytes, str]]:
    """What is said of them, and headers that are none."""
    yield "a negative length", b"PUT /images HTTP/1.1\r\n" + HEAD + b"Content-Length: -5\r\n\r\n", REFUSED
    yield (
        "a length of 10^30",
        b"PUT /images HTTP/1.1\r\n" + HEAD + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\n",
        REFUSED,
    )
    yield (
        "two lengths",
        b"PUT /images HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        REFUSED,
    )
    yield (
        "a length and chunks",
        (
            b"PUT /images HTTP/1.1\r\n"
            + HEAD
            + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x"
        ),
        REFUSED,
    )
    yield (
        "chunks of nonsense",
        b"PUT /images HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        REFUSED,
    )
    yield (
        "a chunk of 2^64",
        b"PUT /images HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        EITHER,
    )
    yield "a line folded", b"GET /health HTTP/1.1\r\n" + HEAD + b"X: a\r\n b\r\n\r\n", REFUSED + "|http 200"
    yield "a NUL in a header", b"GET /health HTTP/1.1\r\n" + HEAD + b"X: a\0b\r\n\r\n", REFUSED
    yield (
        "a token with a newline",
        b"GET /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer x\n y\r\n\r\n",
        REFUSED,
    )
    yield (
        "an upgrade to WebSocket",
        (
            b"GET /mcp HTTP/1.1\r\n"
            + HEAD
            + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n"
        ),
        REFUSED,
    )


ASKED = b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}'
ANY_ANSWER = "application/json, text/event-stream"


def posted(body: Content, **headers: str) -> Call:
    """A body for the protocol's address, with the headers of an honest client where no others are given."""
    return request(
        "POST", "/mcp", body, **{"Content_Type": "application/json", "Accept": ANY_ANSWER, **headers}
    )


def _strangers() -> Iterator[tuple[str, Call, str]]:
    """Without the token, from another host, from a page elsewhere."""
    yield "no token", request("POST", "/mcp", ASKED, with_token=False), "http 401"
    yield (
        "a wrong token",
        request("POST", "/mcp", ASKED, with_token=False, Authorization="Bearer wrong"),
        "http 401",
    )
    yield (
        "the token by another scheme",
        request("POST", "/mcp", ASKED, with_token=False, Authorization=f"Basic {TOKEN}"),
        "http 401",
    )
    yield (
        "half the token",
        request("POST", "/mcp", ASKED, with_token=False, Authorization=f"Bearer {TOKEN[:-1]}"),
        "http 401",
    )
    yield (
        "the token in the address",
        request("POST", f"/mcp?token={TOKEN}", ASKED, with_token=False),
        "http 401",
    )
    yield "another host", request("POST", "/mcp", ASKED, Host="evil.example"), "http 421|http 403|http 400"
    yield (
        "another host's health",
        request("GET", "/health", Host="evil.example"),
        "http 421|http 403|http 400",
    )
    yield (
        "a page from elsewhere",
        posted(ASKED, Origin="https://evil.example"),
        "http 403",
    )
    yield (
        "an upload by a page from elsewhere",
        request("PUT", "/images", png, Origin="https://evil.example"),
        "http 403",
    )
    yield "an upload by no page", request("PUT", "/images", png, Origin="null"), "http 403"


def _requests() -> Iterator[tuple[str, Call, str]]:
    """Sessions and bodies of whoever has the token."""
    yield (
        "a session nobody opened",
        posted(ASKED, Mcp_Session_Id="x" * 64),
        REFUSED,
    )
    yield (
        "a session of 100 kB",
        posted(ASKED, Mcp_Session_Id="x" * 60_000),
        REFUSED,
    )
    yield "deleting a session nobody opened", request("DELETE", "/mcp", Mcp_Session_Id="x" * 32), REFUSED
    yield (
        "no JSON",
        posted(b"hello"),
        REFUSED,
    )
    yield (
        "100,000 brackets",
        posted(b"[" * 100_000),
        REFUSED,
    )
    yield (
        "20 MB of JSON",
        posted(lambda: b'{"a":"' + b"x" * 20_000_000 + b'"}'),
        REFUSED,
    )
    yield (
        "text for JSON",
        posted(ASKED, Content_Type="text/plain"),
        REFUSED,
    )
    yield (
        "JSON that is packed",
        posted(zeros(10_000), Content_Encoding="deflate"),
        REFUSED,
    )
    yield "another verb", request("PATCH", "/mcp", ASKED), REFUSED
    yield "another path", request("GET", "/admin"), "http 404"
    yield "a file", request("GET", "/workspace.sqlite"), "http 404"
    yield "reading uploads", request("GET", "/images"), "http 405|http 404"
    yield "tracing", request("TRACE", "/mcp"), REFUSED


def _uploads() -> Iterator[tuple[str, Content, str]]:
    yield "nothing", b"", "http 400"
    yield "text", b"this is no picture", "http 400"
    yield "a page", b"<html></html>", "http 400"
    yield "a program", b"\x7fELF" + bytes(500), "http 400"
    yield "an archive", b"PK\3\4" + bytes(500), "http 400"
    yield "half a picture", jpeg()[:2000], "http 400"
    yield "a picture of 2^31 a side", png(2**31 - 1, 2**31 - 1, packed=b""), "http 400|http 413"
    yield "16 bits of 12,000 a side", lambda: png(12_000, 12_000, 16), "http 413|http 400|http 503"
    yield "64-bit floats of 12 MB", lambda: _floats(), "http 413|http 400|http 201|http 503"
    yield "a slide of several files", bytes(128) + b"DICM" + bytes(300), "http 400"
    yield "a picture", lambda: bare_jpeg(200, 160), "http 201"


def _floats() -> bytes:
    packed = zeros(9000 * 9000 * 8)
    depth, kind = ("short", 1, b"\x40\0"), ("short", 1, b"\3\0")
    return tiff(flat(9000, 9000, 1, t258=depth, t259=8, t279=len(packed), t339=kind), data=packed)


def at_once(count: int, make: Callable[[HttpServer, int], Answer], right: str) -> Call:
    """So many at once; ok when each was answered in one of the right ways, and a newcomer is served afterwards."""

    def call(ground: Ground) -> Answer:
        server = server_of(ground)
        with ThreadPoolExecutor(min(count, 64)) as pool:
            answers = list(pool.map(lambda number: make(server, number), range(count)))
        wrong = [one for one in answers if one.code not in right.split("|")]
        if wrong:
            return Answer(wrong[0].code, f"{len(wrong)} of {count}: {wrong[0].text[:500]}")
        return _newcomer(server)

    return call


def _newcomer(server: HttpServer) -> Answer:
    """Somebody at another address opens a session and asks."""
    with server.from_address("127.0.0.2"):
        session = server.open_session()
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
        said = server.post(asked, session, 20)
    served = said.status_code == 200 and answer_of(message_in(said)).code == "ok"
    return Answer("ok" if served else f"newcomer {said.status_code}", said.text[:300])


def _upload_bomb(server: HttpServer, number: int) -> Answer:
    content = _bomb()
    return status(httpx2.put(f"{server.url}/images", content=content, headers=server.authorised, timeout=120))


def _bomb() -> bytes:
    return png(6000, 6000, 16)


def _session(server: HttpServer, number: int) -> Answer:
    hello: dict[str, Any] = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "h", "version": "1"},
    }
    said = server.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}, {}, 60)
    return status(said)


def same_id(ground: Ground) -> Answer:
    """One JSON-RPC id ten times at once in one session: each is answered or refused."""
    server = server_of(ground)
    session = server.open_session()
    asked = {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "tools/call",
        "params": {"name": "view", "arguments": {"image": "good.png"}},
    }

    def one(_: int) -> int:
        try:
            return server.post(asked, session, 30).status_code
        except TimeoutError:
            return 0

    with ThreadPoolExecutor(10) as pool:
        codes = list(pool.map(one, range(10)))
    return Answer("hanging", f"{codes.count(0)} of 10") if 0 in codes else _newcomer(server)


def stalled(count: int, content: bytes, wait_s: float) -> Call:
    """Connections that begin and then say nothing more; a newcomer is served meanwhile, and they are closed in time."""

    def call(ground: Ground) -> Answer:
        server = server_of(ground)
        sent = content.replace(b"{port}", str(server.port).encode()).replace(b"{token}", TOKEN.encode())
        held = []
        try:
            for _ in range(count):
                connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
                try:
                    connection.sendall(sent)
                except OSError:
                    connection.close()
                    continue
                connection.setblocking(False)
                held.append(connection)
            answer = _newcomer(server)
            until = time.monotonic() + wait_s
            while answer.code == "ok" and held and time.monotonic() < until:
                held = [connection for connection in held if not _closed(connection)]
                time.sleep(0.5)
            return (
                answer
                if answer.code != "ok" or not held
                else Answer("held", f"{len(held)} of {count} stay open")
            )
        finally:
            for connection in held:
                connection.close()

    return call


def _closed(connection: socket.socket) -> bool:
    try:
        if connection.recv(4096):  # a word of refusal before the end
            return False
    except BlockingIOError:
        return False
    except OSError:
        pass
    connection.close()
    return True


def web_family() -> Iterator[Case]:
    for name, content, expected in (*_heads(), *_bodies()):
        yield Case("HTTP", name, raw(content), expected, seconds=12, sample=name == "a header of 1 MB")
    for name, call, expected in (*_strangers(), *_requests()):
        yield Case("HTTP", name, call, expected, sample="upload by" in name)
    for name, content, expected in _uploads():
        yield Case("HTTP", f"uploading {name}", request("PUT", "/images", content), expected, seconds=20)
    half = b"PUT /images HTTP/1.1\r\n" + HEAD + b"Content-Length: 30000000\r\n\r\n" + bytes(2_000_000)
    yield Case("HTTP", "one JSON-RPC id ten times at once", same_id, "ok", seconds=35, sample=True)
    yield Case(
        "HTTP",
        "12 uploads of 250 kB at once that decode to much more",
        at_once(12, _upload_bomb, "http 201|http 413|http 503|http 429|http 400"),
        "ok",
        seconds=90,
    )
    yield Case(
        "HTTP",
        "2,000 sessions, then a newcomer",
        at_once(2000, _session, "http 200|http 429|http 503"),
        "ok",
        seconds=120,
    )
    yield Case("HTTP", "40 uploads that stall", stalled(40, half, 90), "ok", seconds=110)
    yield Case(
        "HTTP",
        "300 requests that stop in their headers",
        stalled(300, b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-", 90),
        "ok",
        seconds=110,
    )
    yield Case("HTTP", "300 connections that say nothing", stalled(300, b"", 120), "ok", seconds=140)
