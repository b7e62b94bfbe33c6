"""A server's workers over a workspace, where one job kills the process and another takes a moment: WORKSPACE."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tissuetalk.models.control import Control
from tissuetalk.tools import jobs
from tissuetalk.tools.lanes import Lanes
from tissuetalk.tools.session import Session
from tissuetalk.tools.storage.jobs import JobStore


class Deed:
    """A job that does what its request says."""

    def __init__(self, stored: Mapping[str, Any]) -> None:
        self.stored = stored

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Deed:
        return cls(stored)

    def run(self, session: Session, control: Control) -> Any:
        time.sleep(0.3)  # by then the other one runs as well
        if self.stored["kills"]:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3)
        return SimpleNamespace(result=SimpleNamespace(result_id="res"))


def main(workspace: Path) -> None:
    jobs.VERBS["segment"] = Deed  # type: ignore[assignment]  # as much of a job as the workers see
    with Session(workspace.parent, workspace) as session:
        running = jobs.Jobs(session, Lanes())
        print(*running.resume(), flush=True)
        store = JobStore(session.workspace)
        while store.unfinished():
            time.sleep(0.05)
        running.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
