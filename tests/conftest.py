"""What tests share: async tests on asyncio, folders to serve, servers in memory, and a model that takes its time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("conversation")
# how fast the machine is says nothing of what is tested
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

from tissuetalk.models import registry  # after the folder above is on the path
from tissuetalk.server.service import Service, Settings


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@dataclass(frozen=True)
class Place:
    """A folder of images and a workspace, both empty at first."""

    root: Path
    workspace: Path

    def lazy(self, **settings: float) -> Service:
        """A server of these; nothing becomes a job for taking long unless ``patience_s`` says when."""
        return Service(Settings((self.root,), self.workspace, **{"patience_s": 600.0, **settings}))

    def results(self) -> list[str]:
        return sorted(path.name for path in (self.workspace / "results").glob("*"))

    def half_written(self) -> list[str]:
        return sorted(path.name for path in (self.workspace / "partial").glob("*/*"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root = tmp_path / "images"
    root.mkdir()
    return Place(root, tmp_path / "workspace")


@dataclass(frozen=True)
class SlowModel:
    """gate: the work goes fast once this file exists. log: one line per tile that was begun."""

    gate: Path
    log: Path
    name: str = "slow-nuclei"

    def tiles(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def open_gate(self) -> None:
        self.gate.touch()

    @property
    def environment(self) -> dict[str, str]:
        return {"SLOW_MODEL_GATE": str(self.gate), "SLOW_MODEL_LOG": str(self.log)}


@pytest.fixture
def slow_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlowModel:
    """The slow model, registered in this process; ``environment`` is for a server in another one."""
    import slow_model as module

    monkeypatch.setitem(registry.MODELS, module.NAME, module.ENTRY)
    model = SlowModel(tmp_path / "gate", tmp_path / "slow.log")
    for name, value in model.environment.items():
        monkeypatch.setenv(name, value)
    return model


@pytest.fixture
def eventually() -> Callable:
    """Waits for a state, and fails when it never comes."""
    import anyio

    async def wait_for(what: Callable[[], object], limit_s: float = 60.0) -> None:
        with anyio.fail_after(limit_s):
            while not what():
                await anyio.sleep(0.02)

    return wait_for
