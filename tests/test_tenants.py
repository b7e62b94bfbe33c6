"""Accounts and tenants on one real server: who is let in, who may change things, and that nobody meets anybody else's."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import services
import yaml
from conftest import Place
from conversation import call, converse, segmented, text_of
from drawn import disc_image
from http_server import HttpServer, http_server
from issuer import AUDIENCE, ISSUER, Issuer, issuing
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from tissuetalk.server.accounts import Accounts, Verifier

pytestmark = pytest.mark.anyio
HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}
OPENING = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
ASKED = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
NOT_KNOWN = ("unknown_", "invalid_argument: example 1 names a mask that no result has")
ANY_ANSWER = {"Accept": "application/json, text/event-stream"}


@dataclass(frozen=True)
class Shared:
    server: HttpServer
    issuer: Issuer

    @asynccontextmanager
    async def client(self, tenant: str, scope: str = "segment:write", **other: Any) -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {self.issuer.token(tenant, scope, **other)}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(120)) as http,
            Client(streamable_http_client(f"{self.server.url}/mcp", http_client=http)) as client,
        ):
            yield client

    def ask(self, method: str, path: str, tenant: str | None = None, **other: Any) -> httpx2.Response:
        token = other.pop("token", None) or (
            tenant and self.issuer.token(tenant, other.pop("scope", "segment:write"))
        )
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **other.pop("headers", {})}
        return httpx2.request(method, f"{self.server.url}{path}", headers=headers, timeout=60, **other)

    def knock(self, token: str) -> httpx2.Response:
        return self.ask("POST", "/mcp", token=token, json=OPENING, headers=ANY_ANSWER)


def accounts_of(
    folder: Path, issuer: Issuer, others: Mapping[str, Mapping[str, Any]] | None = None, **roots: Path
) -> Path:
    """A file of accounts with these tenants. others: what else is said of some."""
    accounts = folder / "accounts.yaml"
    tenants = {name: {"roots": [str(root)], **(others or {}).get(name, {})} for name, root in roots.items()}
    said = {"issuer": ISSUER, "audience": AUDIENCE, "keys": issuer.address, "tenants": tenants}
    accounts.write_text(yaml.safe_dump(said), encoding="utf-8")
    return accounts


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module", params=["folder", pytest.param("state", marks=pytest.mark.service)])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    if request.param == "state":
        with services.state() as environment:
            yield from serving(tmp_path_factory.mktemp("tenants"), environment)
    else:
        yield from serving(tmp_path_factory.mktemp("tenants"), {})


def serving(folder: Path, environment: dict[str, str]) -> Iterator[Shared]:
    for name, count in (("north", 7), ("south", 12)):
        (folder / name).mkdir()
        disc_image(folder / name / "nuclei.png", count)
    disc_image(folder / "south" / "of-south.png", 3)
    with issuing() as issuer:
        accounts = accounts_of(folder, issuer, north=folder / "north", south=folder / "south")
        place = Place(folder / "north", folder / "workspace")
        with http_server(place, "--accounts", str(accounts), environment=environment) as server:
            yield Shared(server, issuer)


async def test_each_tenant_has_a_whole_conversation_about_images_of_the_same_name(shared: Shared) -> None:
    for tenant, count in (("north", 7), ("south", 12)):
        async with shared.client(tenant) as client:
            await converse(client, "nuclei.png", count)


async def test_another_tenants_ids_lead_nowhere(shared: Shared) -> None:
    """Every place that takes an id: tools, resources, pages, signed addresses."""
    async with shared.client("south") as south:
        found = await segmented(south, image="nuclei.png", words="nuclei")
        await call(south, "library", action="results")
    result, image, mask = found["result_id"], found["image"]["image_id"], found["masks"][0]["mask_id"]
    async with shared.client("north") as north:
        for name, arguments in (
            ("measure", {"result_id": result}),
            ("explain", {"result_id": result}),
            ("view", {"result_id": result}),
            ("view", {"image": f"image://{image}"}),
            ("segment", {"image": f"image://{image}", "words": "nuclei"}),
            ("segment", {"image": "of-south.png", "words": "nuclei"}),
            ("segment", {"image": "nuclei.png", "words": "those", "base_result": result}),
            (
                "segment",
                {"image": "nuclei.png", "words": "those", "examples": [{"mask_id": mask, "is": True}]},
            ),
            ("library", {"action": "delete", "result_id": result}),
            ("library", {"action": "save", "result_id": result, "folder": "kept"}),
        ):
            answer = await north.call_tool(name, arguments)
            said = text_of(answer)
            assert answer.is_error and said.startswith(NOT_KNOWN), said
        for uri in (f"result://{result}/result.json", f"result://{result}/overlay.png", f"image://{image}"):
            with pytest.raises(MCPError, match="unknown_"):
                await north.read_resource(uri)
        listed = [await call(north, "library", action=action) for action in ("images", "results", "targets")]
        assert not any(result in text_of(each) or "of-south" in text_of(each) for each in listed)
    tiles = (f"/tiles/image/{image}/0/0/0", f"/tiles/cover/{result}/{mask}/0/0/0", f"/look/result/{result}")
    for path in (*tiles, f"/look/objects/{result}/{mask}", f"/files/{result}/overlay.png"):
        assert shared.ask("GET", path, "south").status_code in (200, 204)
        assert shared.ask("GET", path, "north").status_code == 404
        assert shared.ask("GET", path).status_code == 401
    link = shared.ask("POST", f"/share/{result}", "south").json()["address"].partition("?")[2]
    assert shared.ask("GET", f"/look/result/{result}?{link}").status_code == 200
    assert shared.ask("GET", f"/look/result/{result}?{link.replace('south.', 'north.')}").status_code == 401


async def test_a_session_belongs_to_the_account_that_opened_it(shared: Shared) -> None:
    opened = shared.ask("POST", "/mcp", "south", headers=ANY_ANSWER, json=OPENING)
    session = {"Mcp-Session-Id": opened.headers["mcp-session-id"], **ANY_ANSWER}
    assert shared.ask("POST", "/mcp", "south", headers=session, json=ASKED).status_code == 200
    for token in (shared.issuer.token("north"), shared.issuer.token("south", sub="somebody else")):
        assert shared.ask("POST", "/mcp", token=token, headers=session, json=ASKED).status_code == 404


async def test_an_account_that_only_reads_changes_nothing(shared: Shared) -> None:
    async with shared.client("south") as south:
        result = (await segmented(south, image="of-south.png", words="nuclei"))["result_id"]
    async with shared.client("south", "segment:read") as reader:
        await call(reader, "measure", result_id=result)
        await call(reader, "segment", image="nuclei.png", words="nuclei", dry_run=True)
        for name, arguments in (
            ("segment", {"image": "nuclei.png", "words": "glands"}),
            ("library", {"action": "delete", "result_id": result}),
            ("library", {"action": "forget", "name": "necrosis"}),
            ("job", {"job_id": "job_0", "action": "cancel"}),
        ):
            answer = await reader.call_tool(name, arguments)
            assert answer.is_error and text_of(answer).startswith("not_permitted: "), text_of(answer)
            assert "segment:write" in text_of(answer)
    refused = shared.ask("PUT", "/images", "south", scope="segment:read", content=b"x")
    assert refused.status_code == 403 and 'error="insufficient_scope"' in refused.headers["www-authenticate"]


def test_only_good_tokens_of_the_issuer_open_anything(shared: Shared) -> None:
    issuer = shared.issuer
    now = int(time.time())
    other = Issuer()
    other.new_key("first")
    assert shared.knock(issuer.token("south")).status_code == 200
    bad = {
        "expired": issuer.token("south", exp=now - 60),
        "not yet good": issuer.token("south", nbf=now + 600),
        "without an end": issuer.token("south", exp=None),
        "for another server": issuer.token("south", aud="https://other.example.org/mcp"),
        "of another issuer": issuer.token("south", iss="https://evil.example"),
        "without a subject": issuer.token("south", sub=None),
        "signed by a stranger": other.token("south"),
        "with the public key as a secret": issuer.confused("south"),
        "unsigned": issuer.token("south", key="", alg="none"),
        "of an unknown key": issuer.token("south", kid="nobody's"),
        "changed": issuer.token("south")[:-4] + "AAAA",
        "no token": "hello",
        "endless": "x" * 100_000,
    }
    for what, token in bad.items():
        answer = shared.knock(token)
        assert answer.status_code in (400, 401, 431), (what, answer.status_code)
        if answer.status_code == 401:
            assert "resource_metadata=" in answer.headers["www-authenticate"], what
    for tenant in ("east", None, 7, ["south"], "../south"):
        assert shared.knock(issuer.token(tenant)).status_code == 403
    assert shared.knock(issuer.token("south", "openid")).status_code == 403


def test_clients_learn_where_to_sign_in(shared: Shared) -> None:
    challenge = shared.ask("POST", "/mcp", json=ASKED).headers["www-authenticate"]
    address = "https://tissue.example.org/.well-known/oauth-protected-resource/mcp"
    assert f'resource_metadata="{address}"' in challenge
    about = shared.ask("GET", "/.well-known/oauth-protected-resource/mcp").json()
    assert about["resource"] == AUDIENCE and about["authorization_servers"] == [ISSUER]
    assert "segment:write" in about["scopes_supported"]


def test_a_new_key_of_the_issuer_is_fetched_and_strangers_do_not_make_us_ask(shared: Shared) -> None:
    time.sleep(10)
    shared.issuer.new_key("second")
    assert shared.knock(shared.issuer.token("south")).status_code == 200
    before = shared.issuer.asked
    for n in range(20):
        assert shared.knock(shared.issuer.token("south", kid=f"k{n}")).status_code == 401
    assert shared.issuer.asked <= before + 3  # once in ten seconds, and these may take half a minute


async def test_who_comes_while_keys_are_on_their_way_is_not_turned_away() -> None:
    """At a start everybody does."""
    with issuing() as issuer:
        issuer.takes_s = 0.5
        given = {"issuer": ISSUER, "audience": AUDIENCE, "keys": issuer.address}
        verifier = Verifier(Accounts.model_validate({**given, "tenants": {"north": {"roots": ["/"]}}}))
        found: list[bool] = []

        async def knock(kid: str | None) -> None:
            token = issuer.token("north") if kid is None else issuer.token("north", kid=kid)
            found.append(await verifier.verify_token(token) is not None)

        async with anyio.create_task_group() as group:
            for kid in (None, None, None, "strange", None):
                group.start_soon(knock, kid)
        assert sorted(found) == [False, True, True, True, True] and issuer.asked == 1


def test_a_browser_enters_with_a_token_and_may_do_no_more_than_it(shared: Shared) -> None:
    entered = shared.ask("POST", "/enter", "south", scope="segment:read")
    cookie = {"Cookie": entered.headers["set-cookie"].partition(";")[0]}
    here = {"Origin": shared.server.url}
    assert shared.ask("GET", "/look/image?image=nuclei.png", headers=cookie).status_code == 200
    assert shared.ask("GET", "/look/image?image=of-south.png", headers=cookie).status_code == 200
    assert shared.ask("POST", "/mcp", headers={**cookie, **ANY_ANSWER}, json=OPENING).status_code == 401
    assert (
        shared.ask("POST", "/mcp", headers={**cookie, **here, **ANY_ANSWER}, json=OPENING).status_code == 200
    )
    assert shared.ask("PUT", "/images", headers={**cookie, **here}, content=b"x").status_code == 403
    elsewhere = {"Origin": "https://evil.example"}
    assert (
        shared.ask("POST", "/mcp", headers={**cookie, **elsewhere, **ANY_ANSWER}, json=OPENING).status_code
        == 403
    )
    forged = {"Cookie": cookie["Cookie"][:-3] + "000"}
    assert shared.ask("GET", "/look/image?image=nuclei.png", headers=forged).status_code == 401


def test_uploads_belong_to_whoever_sent_them(shared: Shared, tmp_path: Path) -> None:
    picture = disc_image(tmp_path / "mine.png", 5).read_bytes()
    uri = shared.ask("PUT", "/images", "south", content=picture).json()["image"]
    assert shared.ask("GET", f"/look/image?image={uri}", "south").status_code == 200
    assert shared.ask("GET", f"/look/image?image={uri}", "north").status_code == 404


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tenants": {}}, "tenants"),
        ({"tenants": {"../up": {"roots": ["/"]}}}, "tenants"),
        ({"tenants": {"a": {"roots": []}}}, "roots"),
        ({"keys": "http://id.example.org/keys"}, "https"),
        ({"surprise": 1}, "surprise"),
        ({"issuer": None}, "issuer"),
    ],
    ids=["no tenant", "a path", "no roots", "keys in the clear", "unknown field", "no issuer"],
)
def test_a_wrong_file_of_accounts_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    from tissuetalk.models.errors import InvalidArgumentError

    whole = {"issuer": ISSUER, "audience": AUDIENCE, "keys": "keys.json", "tenants": {"a": {"roots": ["/"]}}}
    file = tmp_path / "accounts.yaml"
    file.write_text(yaml.safe_dump(whole | change), encoding="utf-8")
    with pytest.raises(InvalidArgumentError, match=said):
        Accounts.read(file)
