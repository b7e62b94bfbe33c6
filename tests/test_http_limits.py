"""What one stranger may hold of an HTTP server: others are served meanwhile, and what stalls is closed."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Place
from drawn import disc_image
from http_server import HttpServer, http_server

from tissuetalk.models.errors import BusyError, InvalidArgumentError
from tissuetalk.server.limits import Share, peer_of
from tissuetalk.server.names import Names

SESSIONS, UPLOADS, CONNECTIONS, STALLED_S = 5, 3, 40, 2.5
LIMITS = {
    "sessions_each": SESSIONS,
    "uploads_each": UPLOADS,
    "connections_each": CONNECTIONS,
    "stalled_s": STALLED_S,
    "half_open_s": STALLED_S,
    "header_s": STALLED_S,
}
ACCEPTS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "stranger", "version": "1"},
}
CALL = {"image": "07.png", "targets": [{"words": "nuclei"}], "mpp": 0.5, "model": "classical-nuclei"}


@pytest.fixture(scope="module")
def place_of_one(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("limits")
    disc_image(folder / "images" / "07.png", 7)
    return Place(folder / "images", folder / "workspace")


@pytest.fixture(scope="module")
def strict(place_of_one: Place) -> Iterator[HttpServer]:
    with http_server(place_of_one, limits=LIMITS) as server:
        yield server


def post(server: HttpServer, message: Any, session: str | None = None, **headers: str) -> httpx2.Response:
    of_session = {"mcp-session-id": session} if session else {}
    return httpx2.post(
        f"{server.url}/mcp", headers={**ACCEPTS, **of_session, **headers}, json=message, timeout=120
    )


def half_opened(server: HttpServer, **headers: str) -> str:
    answer = post(server, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HELLO}, **headers)
    assert answer.status_code == 200, answer.text
    session: str = answer.headers["mcp-session-id"]
    return session


def opened(server: HttpServer, **headers: str) -> str:
    session = half_opened(server, **headers)
    post(server, {"jsonrpc": "2.0", "method": "notifications/initialized"}, session)
    return session


def ping(server: HttpServer, session: str) -> int:
    return post(server, {"jsonrpc": "2.0", "id": 9, "method": "ping"}, session).status_code


def is_closed_within(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            continue
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/images"), ("POST", "/mcp"), ("GET", "/mcp"), ("GET", "/health")]
)
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example"])
def test_a_page_from_elsewhere_reaches_no_route(
    strict: HttpServer, method: str, path: str, origin: str
) -> None:
    refused = httpx2.request(
        method, f"{strict.url}{path}", headers={"Origin": origin}, content=b"{}", timeout=60
    )
    assert refused.status_code == 403
    own = httpx2.get(f"{strict.url}/health", headers={"Origin": strict.url}, timeout=60)
    assert own.status_code == 200


def test_new_clients_get_a_session_however_many_are_open(strict: HttpServer) -> None:
    """The oldest idle one ends; one that was only ever opened goes before one that is used."""
    used = opened(strict)
    assert ping(strict, used) == 200
    others = [opened(strict) for _ in range(SESSIONS * 4)]
    assert ping(strict, others[-1]) == 200
    assert ping(strict, others[0]) == 404
    spoofed = [opened(strict, **{"X-Forwarded-For": f"10.0.0.{n}"}) for n in range(SESSIONS * 2)]
    assert [ping(strict, session) for session in spoofed].count(200) <= SESSIONS


def test_a_session_whose_client_never_spoke_again_is_not_kept(strict: HttpServer) -> None:
    said, silent = opened(strict), half_opened(strict)
    assert silent != said
    time.sleep(STALLED_S + 0.2)
    opened(strict)
    assert [ping(strict, session) for session in (silent, said)] == [404, 200]


def test_a_session_that_is_being_answered_is_not_ended(strict: HttpServer) -> None:
    session = opened(strict)
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "segment", "arguments": CALL},
    }
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(post, strict, call, session)
        until = time.monotonic() + 60
        while not answer.done():
            opened(strict)
            assert time.monotonic() < until
    assert "result_id" in answer.result().text


def test_the_same_id_ten_times_at_once_is_answered_ten_times(strict: HttpServer) -> None:
    """Before, the last one took the others' answers and they hung."""
    session = opened(strict)
    call = {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "tools/call",
        "params": {"name": "segment", "arguments": CALL},
    }
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: post(strict, call, session), range(10)))
    results = [answer for answer in answers if answer.status_code == 200]
    refused = [answer.json() for answer in answers if answer.status_code == 400]
    assert results and all("result_id" in answer.text for answer in results)
    assert len(results) + len(refused) == 10
    assert all(each["id"] == 7 and "its own" in each["error"]["message"] for each in refused)
    assert ping(strict, session) == 200 and "result_id" in post(strict, call, session).text


@pytest.mark.parametrize("wrong", [1.5, None, True, [1], {"a": 1}, "x" * 1000, "_GET_stream"])
def test_an_id_that_is_none_is_refused_and_not_silence(strict: HttpServer, wrong: Any) -> None:
    refused = post(strict, {"jsonrpc": "2.0", "id": wrong, "method": "ping"}, opened(strict))
    assert refused.status_code == 400 and "error" in refused.json()


def test_stalled_uploads_are_on_disk_are_few_and_are_closed(strict: HttpServer) -> None:
    size = 200 * 2**20
    head = f"PUT /images HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n\r\n"
    picture = (strict.place.root / "07.png").read_bytes()
    before = strict.memory_mb() if sys.platform == "linux" else 0
    with ExitStack() as stack:
        stalled = [stack.enter_context(strict.half_open(head)) for _ in range(UPLOADS)]
        for connection in stalled * 60:
            connection.sendall(bytes(2**20))
        one_more = httpx2.put(f"{strict.url}/images", content=picture, timeout=60)
        assert one_more.status_code == 503 and one_more.json()["error"] == "busy"
        if sys.platform == "linux":
            assert strict.memory_mb() - before < 60
        assert all(is_closed_within(connection, 60) for connection in stalled)
    until = time.monotonic() + 60
    while (answer := httpx2.put(f"{strict.url}/images", content=picture, timeout=60)).status_code == 503:
        assert time.monotonic() < until
    assert answer.status_code == 201


def test_half_open_connections_are_closed(strict: HttpServer) -> None:
    with ExitStack() as stack:
        half = [stack.enter_context(strict.half_open()) for _ in range(CONNECTIONS * 3)]
        assert all(is_closed_within(connection, 60) for connection in half)


def test_half_open_connections_keep_nobody_out(place_of_one: Place, tmp_path: Path) -> None:
    """Where none of them is closed for its slowness."""
    place = Place(place_of_one.root, tmp_path / "workspace")
    with ExitStack() as stack, http_server(place, limits=LIMITS | {"header_s": 600.0}) as server:
        for _ in range(CONNECTIONS * 3):
            stack.enter_context(server.half_open())
        assert httpx2.get(f"{server.url}/health", timeout=60).status_code == 200


@pytest.mark.parametrize(
    "begun",
    [
        "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000\r\n\r\n{",
    ],
    ids=["headers", "body"],
)
def test_bytes_that_drip_in_do_not_hold_a_connection(strict: HttpServer, begun: str) -> None:
    with strict.half_open(begun) as connection:
        until = time.monotonic() + 60
        with pytest.raises(OSError):
            while time.monotonic() < until:
                connection.sendall(b" ")
                time.sleep(0.1)


def test_a_client_that_does_not_read_is_dropped(strict: HttpServer) -> None:
    session = opened(strict)
    head = "".join(f"{name}: {value}\r\n" for name, value in {**ACCEPTS, "mcp-session-id": session}.items())
    with socket.socket() as connection, pytest.raises(OSError) as dropped:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", strict.port))
        for number in count():
            body = f'{{"jsonrpc": "2.0", "id": {number}, "method": "tools/list"}}{" " * 100_000}'
            first = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
            connection.sendall(f"{first}{head}\r\n{body}".encode())
    assert not isinstance(dropped.value, TimeoutError)


def test_a_body_larger_than_any_call_is_refused(strict: HttpServer) -> None:
    refused = post(strict, {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"a": "x" * 9_000_000}})
    assert refused.status_code == 413


def test_a_server_on_all_addresses_answers_to_its_names(place_of_one: Place, tmp_path: Path) -> None:
    """And says which at the start; the token may lie in a file; a named proxy's clients have shares of their own."""
    token = tmp_path / "token"
    token.write_text("a-token-for-tests-only\n")
    options = ["--allowed-host", "tissue.example.org", "--token-file", str(token), "--proxy", "127.0.0.1"]
    place = Place(place_of_one.root, tmp_path / "workspace")
    with http_server(place, *options, "--sessions-each", "2", host="0.0.0.0") as server:
        said = server.log.read_text()
        assert "tissue.example.org" in said and "--allowed-host" in said and "a-token" not in said

        def status(host: str, **headers: str) -> int:
            return httpx2.get(
                f"{server.url}/health", headers={"Host": host, **headers}, timeout=60
            ).status_code

        for name in ("localhost", "127.0.0.1:8000", socket.gethostname(), "tissue.example.org", "0.0.0.0"):
            assert status(name) == 200, name
        for name in ("evil.example", "tissue.example.org.evil.example", "10.9.8.7", "a@localhost"):
            assert status(name) == 421, name
        assert status("localhost", Origin="https://tissue.example.org") == 200
        assert status("localhost", Origin="https://evil.example") == 403
        authorised = {"Authorization": "Bearer a-token-for-tests-only"}
        of_one = [opened(server, **authorised, **{"X-Forwarded-For": "10.0.0.1"}) for _ in range(3)]
        of_two = opened(server, **authorised, **{"X-Forwarded-For": "10.0.0.2"})
        message = {"jsonrpc": "2.0", "id": 9, "method": "ping"}
        answers = [post(server, message, session, **authorised).status_code for session in (*of_one, of_two)]
        assert answers == [404, 200, 200, 200]


@pytest.mark.parametrize(
    ("bound", "allowed", "origin", "host", "may"),
    [
        ("127.0.0.1", (), "http://localhost:8000", "127.0.0.1:8000", True),
        ("127.0.0.1", (), "http://localhost:3000", "127.0.0.1:8000", False),
        ("127.0.0.1", (), "http://localhost:9000", "localhost:9000", True),
        ("127.0.0.1", (), "file://localhost", "localhost:8000", False),
        ("0.0.0.0", ("tissue.org",), "https://tissue.org", "127.0.0.1:8000", True),
        ("0.0.0.0", ("tissue.org",), "https://not-tissue.org", "tissue.org", False),
        ("::", (), "http://[::1]:8000", "[::1]:8000", True),
    ],
)
def test_which_pages_may_call(
    bound: str, allowed: tuple[str, ...], origin: str, host: str, may: bool
) -> None:
    assert Names.of(bound, 8000, allowed).may_call(origin, host) is may


@pytest.mark.parametrize("name", ["https://x.org", "x.org/path", "*", "", "x.org:80", "a b", "-x"])
def test_what_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="allowed-host"):
        Names.of("0.0.0.0", 8000, [name])


def test_a_share_is_per_peer_and_for_all() -> None:
    share = Share("things", 2, 3)
    with share.held("a") as one, share.held("b") as two:
        one.grow_to(2)
        with pytest.raises(BusyError, match="this address"):
            one.grow_to(3)
        with pytest.raises(BusyError, match="the server"):
            two.grow_to(2)
        two.grow_to(1)
    share.take("c", 2)
    assert peer_of("2001:db8:1:2::7") == peer_of("2001:db8:1:2:ffff::9") != peer_of("2001:db8:1:3::7")
    assert peer_of("::ffff:10.0.0.7") == peer_of("10.0.0.7")
