"""Backups taken while a real server works, and what comes back from them; archives that somebody else made are refused."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from conftest import Place
from conversation import call, segmented
from drawn import disc_image
from http_server import COMMAND, http_server
from mcp import Client

from tissuetalk.models.errors import InvalidArgumentError, WorkspaceFullError
from tissuetalk.server.app import build_server
from tissuetalk.tools.storage.backup import ABOUT, backup, restore
from tissuetalk.tools.storage.workspace import Workspace


@pytest.mark.anyio
async def test_a_backup_of_a_server_at_work_comes_back_whole(place: Place, tmp_path: Path) -> None:
    disc_image(place.root / "nuclei.png", 8)
    sent = disc_image(tmp_path / "sent.png", 6).read_bytes()
    out, back = tmp_path / "workspace.tar", tmp_path / "back"
    with http_server(place) as server:
        uri = httpx2.put(f"{server.url}/images", content=sent, timeout=60).json()["image"]
        asked = {"model": "classical-nuclei", "mpp": 0.5, "words": "nuclei"}
        async with Client(f"{server.url}/mcp") as client:
            kept = [await segmented(client, image=image, **asked) for image in ("nuclei.png", uri)]
            done = threading.Event()

            def work_on() -> None:
                try:
                    command = [COMMAND, "backup", str(out), "--workspace", str(place.workspace)]
                    subprocess.run(command, check=True, capture_output=True)
                finally:
                    done.set()

            thread = threading.Thread(target=work_on)
            thread.start()
            while not done.is_set():  # results come and go while it is taken
                made = await segmented(client, image="nuclei.png", **asked)
                await call(client, "library", action="delete", result_id=made["result_id"])
            thread.join()
    command = [COMMAND, "restore", str(out), "--workspace", str(back)]
    await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    again = Place(place.root, back)
    async with Client(build_server(again.lazy())) as client:
        for each, count in zip(kept, (8, 6), strict=True):
            found = await call(client, "measure", result_id=each["result_id"], metrics=["count"])
            assert found.structured_content["measurements"][0]["value"] == count
        # an upload is found where it lies now
        place.workspace.rename(tmp_path / "gone")
        await segmented(client, image=uri, **asked)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    with Workspace(folder) as workspace, workspace.new_result(image_id="img_1", kind="test") as draft:
        (draft.folder / "result.json").write_text("{}")
    backup(folder, tmp_path / "whole.tar")
    return tmp_path / "whole.tar"


def link(tar: tarfile.TarFile) -> None:
    entry = tarfile.TarInfo("images/" + "0" * 64 + ".png")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    tar.addfile(entry)


def named(name: str, size: int | None = None) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = 3 if size is None else size
        if size is None:
            tar.addfile(entry, io.BytesIO(b"own"))
        else:
            tar.fileobj.write(entry.tobuf())  # a header that promises more than there is

    return add


RESULT = "results/res_" + "0" * 32


@pytest.mark.parametrize(
    "more",
    [
        named("../outside"),
        named("/tmp/outside"),
        named("results/../../outside"),
        named(f"{RESULT}/../../../outside"),
        named("surprise.txt"),
        named("tenants/north/workspace.sqlite"),
        named(f"{RESULT}/masks/x.png", 2**50),
        named("images/" + "0" * 64 + ".png"),
        link,
    ],
    ids=[
        "above",
        "absolute",
        "up and down",
        "inside and up",
        "unknown",
        "an unnamed tenant",
        "endless",
        "not what it says",
        "a link",
    ],
)
def test_a_touched_archive_is_refused_and_leaves_nothing(
    tmp_path: Path, whole: Path, more: Callable[[tarfile.TarFile], None]
) -> None:
    touched = tmp_path / "touched.tar"
    with tarfile.open(whole) as old, tarfile.open(touched, "w") as new:
        for entry in old:
            new.addfile(entry, old.extractfile(entry))
        more(new)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises((InvalidArgumentError, WorkspaceFullError)):
        restore(touched, tmp_path / "back")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_damage_is_found_before_anything_is_put_in_place(tmp_path: Path, whole: Path) -> None:
    content = whole.read_bytes()
    marker = content.index(b"/result.json")
    start = 512 * ((marker + 511) // 512)
    for number, damaged in enumerate(
        (content[: len(content) // 2], content[:start] + b"[]" + content[start + 2 :], b"x")
    ):
        file = tmp_path / f"{number}.tar"
        file.write_bytes(damaged)
        with pytest.raises(InvalidArgumentError):
            restore(file, tmp_path / "back")
        assert not (tmp_path / "back").exists()


def test_tenants_come_with_their_keys(tmp_path: Path) -> None:
    folder = tmp_path / "workspace"
    for name in ("north", "south"):
        Workspace(folder / "tenants" / name).close()
    (folder / "signing.key").write_bytes(b"k" * 32)
    (folder / "audit.jsonl").write_text("{}\n")
    backup(folder, tmp_path / "all.tar")
    restore(tmp_path / "all.tar", tmp_path / "back")
    assert (tmp_path / "back" / "signing.key").read_bytes() == b"k" * 32
    assert {path.name for path in (tmp_path / "back" / "tenants").iterdir()} == {"north", "south"}
    with tarfile.open(tmp_path / "all.tar") as tar:
        about = json.loads(tar.extractfile(ABOUT).read())
    assert about["workspaces"] == ["tenants/north", "tenants/south"]


def test_nothing_is_overwritten(tmp_path: Path, whole: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="exists"):
        backup(tmp_path / "workspace", whole)
    with pytest.raises(InvalidArgumentError, match="not empty"):
        restore(whole, tmp_path / "workspace")
    with pytest.raises(InvalidArgumentError, match="no workspace"):
        backup(tmp_path / "nothing", tmp_path / "new.tar")
