"""Accidents: kills, a full disk, a read-only and a slow one, clocks that jump, a database with random bytes in it.

``make faults`` does the whole of it (100 kills, 400 damaged databases); the suite a cross-section.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Place
from conversation import call, text_of
from deeds import IN_BLOCKS, NUCLEI
from drawn import disc_image
from mcp import Client

from tissuetalk.models.errors import BusyError, TissuetalkError, WorkspaceFullError
from tissuetalk.server.app import build_server
from tissuetalk.tools.answers.results import SegmentResult
from tissuetalk.tools.session import Session
from tissuetalk.tools.storage import verify
from tissuetalk.tools.storage.jobs import JobStore
from tissuetalk.tools.storage.workspace import Workspace

KILLS = int(os.environ.get("TISSUETALK_KILLS", "4"))
DAMAGES = int(os.environ.get("TISSUETALK_DAMAGES", "15"))
HERE = Path(__file__).parent
ASK = {"image": "discs.png", **NUCLEI}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where the system has such a place: a kill is no power cut, and flushing takes long."""
    folder = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(dir=folder) as path:
        yield Path(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)]
    if not sys.platform.startswith("linux") or _fails(command):
        pytest.skip(
            "no right to mount a small disk; test_workspace_store.py plays a full one with a refused write"
        )
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


def fill(disk: Path) -> None:
    """To the last byte, but for the inodes."""
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (1 << 16, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def put(workspace: Workspace, size: int = 1000) -> str:
    with workspace.new_result(image_id="img", kind="segment") as draft:
        (draft.folder / "a.bin").write_bytes(b"a" * size)
    return draft.result_id


def problems(folder: Path) -> list[str]:
    return [problem for part in verify.check(folder) for problem in part.problems]


def test_kills_at_random_moments_break_and_lose_nothing(memory: Path) -> None:
    (memory / "root").mkdir()
    command = [sys.executable, str(HERE / "deeds.py"), str(memory / "root"), str(KILLS), "11"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.anyio
async def test_on_a_full_disk_reading_goes_on_and_deleting_makes_room(place: Place, small_disk: Path) -> None:
    disc_image(place.root / "discs.png", 9)
    full = Place(place.root, small_disk / "ws")
    async with Client(build_server(full.lazy())) as client:
        first, second = [(await call(client, "segment", **ASK)).structured_content for _ in range(2)]
        fill(small_disk)
        result_id = first["result_id"]
        answer = await client.call_tool("segment", ASK)
        assert answer.is_error and text_of(answer).startswith("workspace_full: ")
        assert (
            await call(client, "measure", result_id=result_id, metrics=["count", "area"])
        ).structured_content
        assert (await call(client, "view", result_id=result_id)).structured_content["mask_ids"]
        assert (await call(client, "view", image="discs.png")).content
        listed = await call(client, "library", action="results")
        assert len(listed.structured_content["results"]) == 2
        assert (await client.read_resource(first["masks"][0]["resources"]["mask"])).contents
        assert (await client.read_resource(first["masks"][0]["resources"]["geojson"])).contents
        answer = await client.call_tool("explain", {"result_id": result_id})
        assert not answer.is_error or text_of(answer).startswith("workspace_full: ")
        await call(client, "library", action="save", result_id=result_id, folder="kept")
        assert (place.root / "kept" / "result.json").is_file()
        await call(client, "library", action="delete", result_id=result_id)
        left = (await call(client, "library", action="results")).structured_content["results"]
        assert [item["result_id"] for item in left] == [second["result_id"]]
        (small_disk / "filler").unlink()
        assert (await call(client, "segment", **ASK)).structured_content["masks"][0]["count"] == 9
    assert problems(full.workspace) == []


def test_a_workspace_on_a_full_disk_can_be_opened_and_emptied(small_disk: Path) -> None:
    with Workspace(small_disk / "ws") as workspace:
        kept = [put(workspace, 300_000) for _ in range(3)]
    fill(small_disk)
    with Workspace(small_disk / "ws") as workspace:
        assert {stored.result_id for stored in workspace.results()} == set(kept)
        with workspace.reading(kept[0]) as stored:
            assert (stored.folder / "a.bin").stat().st_size == 300_000
        jobs = JobStore(workspace)
        with pytest.raises(WorkspaceFullError, match="delete results"):
            put(workspace, 2_000_000)
        for result_id in kept[:2]:
            workspace.delete(result_id)
        assert shutil.disk_usage(small_disk).free > 300_000
        put(workspace, 100_000)
        job_id = jobs.create("segment", {}, "me")
        assert jobs.claim(job_id) and jobs.finish(job_id, {})
    assert problems(small_disk / "ws") == []


def test_a_read_only_workspace_is_named_and_still_read(tmp_path: Path, small_disk: Path) -> None:
    folder = small_disk / "ws"
    with Workspace(folder) as workspace:
        kept = put(workspace)
        subprocess.run(["mount", "--bind", "-o", "ro", str(small_disk), str(small_disk)], check=True)
        try:
            assert [stored.result_id for stored in workspace.results()] == [kept]
            with workspace.reading(kept) as stored:
                assert (stored.folder / "a.bin").read_bytes() == b"a" * 1000
            for refused in (
                lambda: put(workspace),
                lambda: workspace.delete(kept),
                lambda: Workspace(folder),
            ):
                with pytest.raises(TissuetalkError) as raised:
                    refused()
                assert raised.value.code == "workspace_unwritable"
        finally:
            subprocess.run(["umount", "-l", str(small_disk)], check=True)


def test_on_a_slow_disk_nothing_is_stolen_and_nobody_is_turned_away(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(0.1)
        flushed(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    with Workspace(memory / "ws") as first, Workspace(memory / "ws") as second:
        mine, others = JobStore(first, lease_s=0.5), JobStore(second, lease_s=0.5)
        job_id = mine.create("segment", {}, "me")
        assert mine.claim(job_id)
        kept = [put(first), put(second)]
        for _ in range(4):
            mine.progress(job_id, 0.1)
            put(first)
            assert not others.claim(job_id)
        assert mine.finish(job_id, {})
        first.store_upload(io.BytesIO(b"u" * 1000), ".png", 2000)
        assert set(kept) <= {stored.result_id for stored in second.results()}


@pytest.mark.skipif(
    shutil.which("faketime") is None, reason="faketime is not installed; test_jobs_store.py sets the clock"
)
@pytest.mark.parametrize("jump", ["+1h", "-1h", "+400d"])
def test_a_process_whose_clock_jumped_steals_nothing_and_removes_nothing(tmp_path: Path, jump: str) -> None:
    worker = [sys.executable, str(HERE / "workspace_worker.py"), "claim", str(tmp_path / "ws")]
    with Workspace(tmp_path / "ws") as workspace:
        kept = put(workspace)
        jobs = JobStore(workspace)
        job_id = jobs.create("segment", {}, "me")
        assert jobs.claim(job_id)
        environment = {**os.environ, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        with workspace.reading(kept):
            claimed = subprocess.run(
                ["faketime", "-f", jump, *worker, job_id],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
        assert claimed.stdout == ""
        assert jobs.progress(job_id, 0.5) and jobs.finish(job_id, {})
        assert [stored.result_id for stored in workspace.results()] == [kept]


def test_a_database_with_random_damage_is_refused_or_works_and_can_be_made_anew(memory: Path) -> None:
    """Truncated, overwritten or zeroed at random offsets: never a crash, never a result lost."""
    chance = random.Random(3)
    origin = memory / "origin"
    with Workspace(origin) as workspace:
        kept = {put(workspace, size) for size in range(1000, 1012)}
        upload = workspace.store_upload(io.BytesIO(b"u" * 1000), ".img", 2000)
        for number in range(20):
            workspace.remember_image(f"img_{number:032x}", memory / f"{number}.png")
            JobStore(workspace).create("segment", {"n": number, "words": "nuclei " * 50}, "me")
    refusals = 0
    for number in range(DAMAGES):
        copy = memory / f"copy-{number}"
        shutil.copytree(origin, copy)
        damage(copy / "workspace.sqlite", chance)
        try:
            use(copy)
        except TissuetalkError as error:
            refusals += 1
            assert error.code in ("workspace_unwritable", "busy", "unknown_result", "unknown_job"), error
            assert "--repair" in str(error) or error.code != "workspace_unwritable", error
        verify.repair(copy)
        with Workspace(copy) as workspace:
            assert {stored.result_id for stored in workspace.results()} >= kept, number
            assert (workspace.uploads_folder / upload.name).is_file()
        assert [part for part in verify.check(copy) if part.problems or part.waits] == []
        shutil.rmtree(copy)
    print(f"{refusals} of {DAMAGES} damaged databases were refused, the others were worked with")
    assert refusals >= DAMAGES // 4


def damage(path: Path, chance: random.Random) -> None:
    if not (content := bytearray(path.read_bytes())):
        path.write_bytes(b"x")
        return
    kind = chance.choice(["bytes", "bytes", "page", "cut", "zeros", "swap"])
    at = chance.randrange(len(content))
    page = at - at % 4096
    if kind == "bytes":
        for _ in range(chance.choice([1, 4, 64])):
            content[chance.randrange(len(content))] = chance.randrange(256)
    elif kind == "page":
        content[page : page + 4096] = chance.randbytes(4096)
    elif kind == "zeros":
        content[page : page + 4096] = bytes(4096)
    elif kind == "swap":
        other = chance.randrange(len(content) // 4096 + 1) * 4096
        content[page : page + 4096], content[other : other + 4096] = (
            content[other : other + 4096],
            content[page : page + 4096],
        )
    else:
        del content[at:]
    path.write_bytes(content)


def test_a_result_with_random_damage_is_named_and_found_by_the_doctor(memory: Path) -> None:
    """Of a picture and of a slide: every verb answers or says what to do, and never crashes."""
    chance = random.Random(5)
    (memory / "root").mkdir()
    disc_image(memory / "root" / "discs.png", 9)
    crashes, found, cases = [], 0, 0
    for name, slides in (("picture", None), ("slide", IN_BLOCKS)):
        with Session(memory / "root", memory / name, slides=slides) as session:
            result = session.segment("discs.png", **NUCLEI).result
            folder = memory / name / "results" / result.result_id
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            for path in chance.choices(files, k=DAMAGES):
                whole = path.read_bytes()
                damage(path, chance)
                cases += 1
                crashes += [f"{path.name}: {said}" for said in asked(session, result)]
                found += bool(problems(memory / name))
                path.write_bytes(whole)
            assert problems(memory / name) == []
    assert not crashes, "\n".join(sorted(set(crashes)))
    assert found >= cases * 0.7  # some damage puts back what was there, or swaps a page with itself


def asked(session: Session, result: SegmentResult) -> list[str]:
    """What crashed of everything that can be asked of a result."""
    result_id, (mask,) = result.result_id, result.masks
    calls: dict[str, Callable[[], object]] = {
        "result": lambda: session.result(result_id),
        "measure": lambda: session.measure(result_id, ["count", "area", "nuclear_density"]),
        "view": lambda: session.view(result_id=result_id),
        "mask": lambda: session.file(result_id, f"masks/{mask.mask_id}.png"),
        "table": lambda: session.file(result_id, f"tables/{mask.mask_id}.csv"),
        "outlines": lambda: session.file(result_id, f"objects/{mask.mask_id}.geojson"),
        "results": lambda: session.library("results"),
    }
    crashed = []
    for name, ask in calls.items():
        try:
            ask()
        except TissuetalkError:
            continue
        except Exception as error:  # noqa: BLE001  # what is counted here
            crashed.append(f"{name} crashed: {error!r}")
    return crashed


def use(folder: Path) -> None:
    """What a server does with a workspace."""
    with Workspace(folder) as workspace:
        jobs = JobStore(workspace)
        for row in jobs.unfinished():
            jobs.claim(row.job_id)
        for stored in workspace.results():
            with workspace.reading(stored.result_id):
                pass
        workspace.image_path("img_" + "0" * 32)
        workspace.removed(unannounced=True)
        put(workspace)
        workspace.delete(put(workspace))


def test_a_running_server_keeps_its_workspace_from_being_repaired(tmp_path: Path) -> None:
    with Workspace(tmp_path), pytest.raises(BusyError, match="end it"):
        verify.repair(tmp_path)
    assert "0 results" in verify.repair(tmp_path)[-1]
