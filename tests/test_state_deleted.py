"""A deletion that took effect is not refused to whoever asks again because its answer was lost: the database dies in the middle of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest
from mcp import Client
from services import KEYS, Bucket, Postgres, bucket, postgres

from tissuetalk.models.errors import StateAwayError, UnknownResultError
from tissuetalk.server.app import build_server
from tissuetalk.server.service import Service, Settings
from tissuetalk.tools.storage.state import State
from tissuetalk.tools.storage.workspace import Workspace

pytest.importorskip("psycopg", reason="needs tissuetalk[service]")
pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def services() -> Iterator[tuple[Postgres, Bucket]]:
    with pytest.MonkeyPatch.context() as patch, postgres() as database, bucket() as store:
        for name, value in {**KEYS, **store.environment}.items():
            patch.setenv(name, value)
        yield database, store


def made(workspace: Workspace) -> str:
    with workspace.new_result(image_id="img", kind="segment") as draft:
        (draft.folder / "result.json").write_text("{}")
    return draft.result_id


@pytest.mark.anyio
@pytest.mark.parametrize("objects", [True, False], ids=["bucket", "folder"])
async def test_what_is_deleted_when_the_database_dies_is_answered_so(
    services: tuple[Postgres, Bucket], tmp_path: Path, objects: bool
) -> None:
    database, store = services
    state = State(database.address, store.address if objects else None).of_tenant(f"dies-{objects}")
    service = Service(Settings((tmp_path,), tmp_path / "w", state=state))
    async with Client(build_server(service)) as client:
        workspace = service.jobs().session.workspace
        result_id, delete = made(workspace), workspace.delete

        def deleted_and_then(result_id: str) -> None:
            delete(result_id)
            database.kill()

        workspace.delete = deleted_and_then  # type: ignore[method-assign]
        try:
            answer = await client.call_tool("library", {"action": "delete", "result_id": result_id})
        finally:
            database.start()
        assert not answer.is_error, answer.content
        again = await client.call_tool("library", {"action": "delete", "result_id": result_id})
        assert again.is_error and "unknown_result" in str(again.content[0])


class Relay:
    """Between a server and its database. Once ``cut`` is set, the next COMMIT of a deletion reaches the database, and its answer nobody."""

    def __init__(self, port: int) -> None:
        self.cut = threading.Event()
        self._to, self._listener = port, socket.create_server(("127.0.0.1", 0))
        self._open = [self._listener]
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, far = self._listener.accept()[0], socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, far]
                threading.Thread(target=self._pass, args=(near, far), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near), daemon=True).start()

    def _pass(self, source: socket.socket, to: socket.socket) -> None:
        deletes = False
        with suppress(OSError):
            while data := source.recv(65536):
                deletes = deletes or b'DELETE FROM "results"' in data
                if deletes and self.cut.is_set() and b'"' not in data:  # COMMIT, also once it is prepared
                    self.cut.clear()
                    source.shutdown(socket.SHUT_RDWR)  # before the answer can come
                    to.sendall(data)
                    return
                to.sendall(data)


@pytest.mark.parametrize("objects", [True, False], ids=["bucket", "folder"])
def test_a_deletion_whose_commit_was_not_answered_may_be_asked_for_again(
    services: tuple[Postgres, Bucket], tmp_path: Path, objects: bool
) -> None:
    database, store = services
    with Relay(database.port) as relay:
        address = database.address.replace(str(database.port), str(relay.port))
        state = State(address, store.address if objects else None).of_tenant(f"relay-{objects}")
        with Workspace(tmp_path / "w", state=state) as workspace:
            result_id = made(workspace)
            relay.cut.set()
            if objects:
                with pytest.raises(StateAwayError):
                    workspace.delete(result_id)
            workspace.delete(result_id)
            assert not relay.cut.is_set() and workspace.results() == []
            with pytest.raises(UnknownResultError):
                workspace.delete(result_id)
