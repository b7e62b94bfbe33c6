"""What the workspace tests run in other processes. First argument: what to do, second: the workspace's folder."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tissuetalk.tools.storage import manifest
from tissuetalk.tools.storage.jobs import JobStore
from tissuetalk.tools.storage.owners import partials
from tissuetalk.tools.storage.workspace import Workspace

FILES = ("a.bin", "b.bin")
CONTENT = b"tissue" * 1000


def write_results(folder: Path, count: int, image_id: str) -> None:
    with Workspace(folder) as workspace:
        for _ in range(count):
            with workspace.new_result(image_id=image_id, kind="segment") as draft:
                for name in FILES:
                    (draft.folder / name).write_bytes(image_id.encode() + CONTENT)
            print(draft.result_id, flush=True)


def claim_jobs(folder: Path, job_ids: list[str]) -> None:
    with Workspace(folder) as workspace:
        jobs = JobStore(workspace)
        for job_id in job_ids:
            if jobs.claim(job_id):
                jobs.finish(job_id, os.getpid())
                print(job_id, flush=True)


def hold_job(folder: Path, job_id: str) -> None:
    with Workspace(folder) as workspace:
        print(JobStore(workspace).claim(job_id), flush=True)
        sys.stdin.read()


def hold_result(folder: Path, result_id: str) -> None:
    with Workspace(folder) as workspace, workspace.reading(result_id):
        print("reading", flush=True)
        sys.stdin.read()


def die_at_every_line(folder: Path) -> None:
    """Fork children that each commit one result, save it, keep an upload and delete a result, killed six lines of our code later every time."""
    for lines in range(1, 100_000, 6):
        child = os.fork()
        if child == 0:
            _commit_and_die(folder, lines)
        _, status = os.waitpid(child, 0)
        survived = not os.WIFSIGNALED(status)
        with Workspace(folder) as workspace:
            rows = workspace.results(10_000)
            on_disk = {path.name for path in (folder / "results").iterdir()}
            assert {row.result_id for row in rows} == on_disk, lines
            for row in rows:
                assert manifest.problems(row.folder) == []
                assert {path.name: path.read_bytes() for path in row.folder.glob("*.bin")} == dict.fromkeys(
                    FILES, CONTENT
                )
            partial = list((folder / "partial").iterdir())
            assert len([path for path in partial if path.is_dir()]) == 1, (lines, partial)
            for row in rows[2:]:
                workspace.delete(row.result_id)
            assert partials(folder.parent) == [], lines
            if (saved := folder.parent / "saved").exists():
                assert {path.name: path.read_bytes() for path in saved.iterdir()} == dict.fromkeys(
                    FILES, CONTENT
                )
                shutil.rmtree(saved)
            for upload in (folder / "images").iterdir():
                assert upload.read_bytes() == CONTENT
                upload.unlink()
        if survived:
            assert os.WEXITSTATUS(status) == 0
            print(lines, flush=True)
            return


def _commit_and_die(folder: Path, lines: int) -> None:
    left = lines

    def count(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if Path(frame.f_code.co_filename).name not in ("workspace.py", "results.py", "room.py", "writing.py"):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return count

    workspace = Workspace(folder)
    sys.settrace(count)
    with workspace.new_result(image_id="img", kind="segment") as draft:
        for name in FILES:
            (draft.folder / name).write_bytes(CONTENT)
    workspace.save(draft.result_id, folder.parent / "saved")
    workspace.store_upload(io.BytesIO(CONTENT), ".png", len(CONTENT))
    oldest = workspace.results()[-1].result_id
    workspace.delete(oldest)
    sys.settrace(None)
    os._exit(0)


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    if what == "write":
        write_results(Path(where), int(rest[0]), rest[1])
    elif what == "claim":
        claim_jobs(Path(where), rest)
    elif what == "hold":
        hold_job(Path(where), rest[0])
    elif what == "read":
        hold_result(Path(where), rest[0])
    elif what == "die":
        die_at_every_line(Path(where))
