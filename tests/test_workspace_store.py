"""What a workspace keeps, what it refuses, and what it says then."""

from __future__ import annotations

import errno
import io
import os
import re
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tissuetalk.models.errors import (
    BusyError,
    ImageTooLargeError,
    InvalidArgumentError,
    UnknownResultError,
    UnreadableImageError,
    WorkspaceFullError,
    WorkspaceUnwritableError,
)
from tissuetalk.tools.storage.database import new_id
from tissuetalk.tools.storage.workspace import Workspace

KB = 1000


class Clock:
    """The time of day, as far as a workspace knows it."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        self.now += 0.001
        return self.now

    def pass_days(self, days: float) -> None:
        self.now += days * 24 * 3600


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workspace(tmp_path: Path, clock: Clock) -> Iterator[Workspace]:
    """Room for 9 kB of results and uploads and 3 kB of cache."""
    with Workspace(tmp_path / "ws", quota_bytes=12 * KB, clock=clock) as opened:
        yield opened


def put(workspace: Workspace, size: int = KB, image_id: str = "img_1") -> str:
    with workspace.new_result(image_id=image_id, kind="segment") as draft:
        (draft.folder / "masks").mkdir()
        (draft.folder / "masks" / "m.png").write_bytes(b"m" * size)
    return draft.result_id


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_result_is_still_there_after_a_restart(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        first, second = put(workspace), put(workspace, 2 * KB)
    with Workspace(tmp_path) as workspace:
        assert [stored.result_id for stored in workspace.results()] == [second, first]
        stored = workspace.result(first)
        assert (stored.image_id, stored.kind, stored.size_bytes) == ("img_1", "segment", KB)
        assert files_in(stored.folder) == ["manifest.json", "masks/m.png"]


def test_a_failed_draft_leaves_nothing(workspace: Workspace) -> None:
    with pytest.raises(ZeroDivisionError), workspace.new_result(image_id="img", kind="segment") as draft:
        (draft.folder / "half").write_text("half")
        raise ZeroDivisionError
    assert not draft.folder.exists()
    assert workspace.results() == []


@pytest.mark.parametrize(
    "result_id",
    ["", "res_", "res_" + "g" * 32, "res_" + "0" * 32, "msk_" + "0" * 32, "res_\n" + "0" * 31, "𐀀" * 80],
)
def test_an_unknown_result_is_named_so(workspace: Workspace, result_id: str) -> None:
    for call in (workspace.result, workspace.delete):
        with pytest.raises(UnknownResultError, match="library"):
            call(result_id)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=100,
)
@given(st.one_of(st.text(max_size=80), st.from_regex(r"res_[./0-9a-f\\]{1,40}"), st.just("../../etc/passwd")))
def test_no_text_reaches_the_file_system_as_a_path(workspace: Workspace, text: str) -> None:
    with pytest.raises(UnknownResultError):
        workspace.result(text)
    with pytest.raises(UnknownResultError):
        workspace.delete(text)


def test_ids_are_128_random_bits() -> None:
    ids = {new_id("job") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"job_[0-9a-f]{32}", job_id) for job_id in ids)


def test_deleting_is_for_good_and_waits_for_readers(workspace: Workspace) -> None:
    result_id = put(workspace)
    with workspace.reading(result_id) as stored:
        with pytest.raises(BusyError, match="delete it again"):
            workspace.delete(result_id)
        assert stored.folder.is_dir()
    workspace.delete(result_id)
    assert not stored.folder.exists()
    with pytest.raises(UnknownResultError):
        workspace.result(result_id)


def test_saving_copies_everything_and_never_overwrites(workspace: Workspace, tmp_path: Path) -> None:
    result_id = put(workspace)
    (tmp_path / "empty").mkdir()
    for name in ("new/deep", "empty"):
        workspace.save(result_id, tmp_path / name)
        assert files_in(tmp_path / name) == ["masks/m.png"]
        with pytest.raises(InvalidArgumentError, match="nothing is ever overwritten"):
            workspace.save(result_id, tmp_path / name)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for target in (
        tmp_path / "file",
        tmp_path / "link",
        tmp_path / "file" / "below",
        workspace.folder / "results" / "x",
    ):
        with pytest.raises(InvalidArgumentError):
            workspace.save(result_id, target)
    assert (tmp_path / "file").read_text() == "mine"
    assert not list(tmp_path.rglob("*.partial"))


def test_the_least_recently_used_make_room_and_it_is_said_once(workspace: Workspace, clock: Clock) -> None:
    old, used, newer = (put(workspace, 3 * KB) for _ in range(3))
    clock.pass_days(2)
    workspace.result(old)
    latest = put(workspace, 3 * KB)
    assert {stored.result_id for stored in workspace.results()} == {old, newer, latest}
    assert not (workspace.folder / "results" / used).exists()
    (said,) = workspace.removed(unannounced=True)
    assert used in str(said) and "to make room" in str(said)
    assert workspace.removed(unannounced=True) == []
    assert [removal.name for removal in workspace.removed()] == [used]


def test_what_is_younger_than_a_day_is_never_removed_for_space(workspace: Workspace, clock: Clock) -> None:
    """A new upload pushed out results of the same minute, without a word."""
    kept = [put(workspace, 4 * KB), put(workspace, 4 * KB)]
    clock.pass_days(0.99)
    with pytest.raises(WorkspaceFullError, match="--quota"):
        workspace.store_upload(io.BytesIO(b"u" * 4 * KB), ".png", 5 * KB)
    with pytest.raises(WorkspaceFullError, match="never removed for space"):
        put(workspace, 2 * KB)
    assert {stored.result_id for stored in workspace.results()} == set(kept)
    assert workspace.removed() == [] and files_in(workspace.uploads_folder) == []


def test_nothing_is_removed_when_it_would_not_be_enough(workspace: Workspace, clock: Clock) -> None:
    old = put(workspace, 3 * KB)
    clock.pass_days(2)
    put(workspace, 5 * KB)
    with pytest.raises(WorkspaceFullError):
        put(workspace, 6 * KB)
    assert old in {stored.result_id for stored in workspace.results()}


def test_what_is_being_read_does_not_make_room(workspace: Workspace, clock: Clock) -> None:
    pinned, other = put(workspace, 4 * KB), put(workspace, 4 * KB)
    with workspace.reading(pinned) as stored:
        clock.pass_days(2)
        put(workspace, 4 * KB)
        assert files_in(stored.folder)
        with pytest.raises(UnknownResultError):
            workspace.result(other)
        with pytest.raises(WorkspaceFullError, match="in use"):
            put(workspace, 6 * KB)
    assert len(workspace.results()) == 2


def test_files_added_while_reading_count(workspace: Workspace) -> None:
    result_id = put(workspace)
    with workspace.reading(result_id) as stored:
        (stored.folder / "late.geojson").write_bytes(b"g" * KB)
    assert workspace.result(result_id).size_bytes == 2 * KB


def test_a_result_larger_than_the_quota_is_refused_and_nothing_is_lost(workspace: Workspace) -> None:
    kept = put(workspace)
    with pytest.raises(WorkspaceFullError, match="smaller region"):
        put(workspace, 10 * KB)
    assert [stored.result_id for stored in workspace.results()] == [kept]
    assert [path.name for path in (workspace.folder / "results").iterdir()] == [kept]


def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small disk; the next test plays the same with a refused write")
    try:
        with Workspace(disk / "ws") as workspace:
            kept = put(workspace)
            with pytest.raises(WorkspaceFullError, match="disk"):
                put(workspace, 3_000 * KB)
            assert [path.name for path in (workspace.folder / "results").iterdir()] == [kept]
            assert list(workspace.owners.folder.iterdir()) == []
            assert not workspace.cache.put("features", b"f" * 3_000 * KB)
            with pytest.raises(WorkspaceFullError):
                workspace.store_upload(io.BytesIO(b"u" * 3_000 * KB), ".png", 10_000 * KB)
            put(workspace)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_disk_that_fills_up_at_the_last_step_leaves_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WorkspaceFullError, match="free some space"):
            put(workspace)
    assert workspace.results() == []
    assert list((workspace.folder / "results").iterdir()) == list(workspace.owners.folder.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/workspace", "/sys/workspace"])
def test_a_place_that_cannot_be_written_is_refused_with_advice(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(WorkspaceUnwritableError, match="--workspace"):
        Workspace(tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("content", [b"not a database " * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_database_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "workspace.sqlite").write_bytes(content)
    with pytest.raises(WorkspaceUnwritableError, match="move it away"):
        Workspace(tmp_path)
    assert (tmp_path / "workspace.sqlite").read_bytes() == content


def test_a_foreign_a_newer_and_a_missing_database_are_refused(tmp_path: Path) -> None:
    for name, statement, words in (
        ("foreign", "CREATE TABLE recipes (name TEXT)", "another program"),
        ("newer", "PRAGMA user_version = 99", "newer version"),
    ):
        if name == "newer":
            with Workspace(tmp_path / name) as workspace:
                put(workspace)
        (tmp_path / name).mkdir(exist_ok=True)
        connection = sqlite3.connect(tmp_path / name / "workspace.sqlite")
        connection.execute(statement)
        connection.close()
        with pytest.raises(WorkspaceUnwritableError, match=words):
            Workspace(tmp_path / name)
    (tmp_path / "newer" / "workspace.sqlite").unlink()
    with pytest.raises(WorkspaceUnwritableError, match="--repair"):
        Workspace(tmp_path / "newer")
    assert len(list((tmp_path / "newer" / "results").iterdir())) == 1


def test_other_peoples_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    for name in ("results/report.txt", "images/photo.png", "partial/notes.txt", "cache/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    for _ in range(2):
        with Workspace(tmp_path) as workspace:
            workspace.delete(put(workspace))
    for name in ("results/report.txt", "images/photo.png", "partial/notes.txt", "cache/x"):
        assert (tmp_path / name).read_text() == "mine"


def test_an_image_is_remembered_across_a_restart(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        for path in (Path("/slides/a.svs"), Path("/slides/b.svs")):
            workspace.remember_image("img_1", path)
    with Workspace(tmp_path) as workspace:
        assert workspace.image_path("img_1") == Path("/slides/b.svs")
        assert workspace.image_path("img_2") is None


def test_uploads_are_kept_once_and_count_for_the_quota(workspace: Workspace, clock: Clock) -> None:
    first = workspace.store_upload(io.BytesIO(b"i" * 4 * KB), ".png", 5 * KB)
    assert workspace.store_upload(io.BytesIO(b"i" * 4 * KB), ".png", 5 * KB) == first
    assert first.read_bytes() == b"i" * 4 * KB
    clock.pass_days(2)
    put(workspace, 5 * KB)
    clock.pass_days(2)
    put(workspace, 5 * KB)
    assert not first.exists()
    assert any(first.name[:12] in str(removal) for removal in workspace.removed())
    assert files_in(workspace.uploads_folder) == []


def test_a_refused_upload_takes_nobody_elses_along(workspace: Workspace) -> None:
    first = workspace.store_upload(io.BytesIO(b"i" * KB), ".png", 5 * KB)

    def refuse(part: Path) -> None:
        raise UnreadableImageError("no image")

    for content in (b"no image", b"i" * KB):  # the second lies there already, as somebody else's
        with pytest.raises(UnreadableImageError):
            workspace.store_upload(io.BytesIO(content), ".png", 5 * KB, refuse)
    assert files_in(workspace.uploads_folder) == [first.name]
    assert list(workspace.owners.folder.iterdir()) == []


def test_uploads_too_large_or_with_a_path_as_ending_are_refused(workspace: Workspace) -> None:
    with pytest.raises(ImageTooLargeError, match="smaller image"):
        workspace.store_upload(io.BytesIO(b"i" * 6 * KB), ".png", 5 * KB)
    for suffix in ("", "png", "/../x", ".png/..", ".p g"):
        with pytest.raises(InvalidArgumentError):
            workspace.store_upload(io.BytesIO(b"i"), suffix, KB)
    assert files_in(workspace.uploads_folder) == []
    assert list(workspace.owners.folder.iterdir()) == []


def test_cached_bytes_come_back_and_damaged_ones_do_not(workspace: Workspace) -> None:
    assert workspace.cache.get("tile 1") is None
    for damage in (lambda stored: stored[:-1], lambda stored: stored[:10], lambda stored: stored[:-1] + b"?"):
        assert workspace.cache.put("tile 1", b"features")
        assert workspace.cache.get("tile 1") == b"features"
        (file,) = (workspace.folder / "cache").iterdir()
        file.write_bytes(damage(file.read_bytes()))
        assert workspace.cache.get("tile 1") is None
        assert not file.exists()


def test_the_cache_stays_in_its_share_and_keeps_what_is_used(workspace: Workspace) -> None:
    assert not workspace.cache.put("huge", b"h" * 4 * KB)
    workspace.cache.put("often", b"o" * 500)
    for number in range(40):
        workspace.cache.put(str(number), b"n" * 500)
        assert workspace.cache.get("often") == b"o" * 500
        assert sum(path.stat().st_size for path in (workspace.folder / "cache").iterdir()) <= 3 * KB
    assert workspace.cache.get("39") is not None
    assert workspace.cache.get("0") is None


def test_sixteen_threads_write_and_read_without_a_mix_up(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:

        def work(number: int) -> None:
            result_id = put(workspace, number + 1, f"img_{number}")
            workspace.cache.put(f"key {number % 4}", bytes([number % 4]) * 1000)
            assert workspace.cache.get(f"key {number % 4}") == bytes([number % 4]) * 1000
            with workspace.reading(result_id) as stored:
                assert (stored.image_id, stored.size_bytes) == (f"img_{number}", number + 1)

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(work, range(48)))
        assert len(workspace.results()) == 48
