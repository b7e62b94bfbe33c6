"""The workspace in any order: results made, saved and deleted, uploads kept and discarded, reopened in between, files damaged."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from hypothesis.strategies import binary, booleans

from tissuetalk.models.errors import UnknownResultError
from tissuetalk.tools.storage.workspace import Workspace


class AnyOrder(RuleBasedStateMachine):
    """What a dictionary would hold is what the folder holds, whatever came before."""

    made, deleted = Bundle("made"), Bundle("deleted")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="any-order-"))
        self.workspace = Workspace(self.folder / "workspace")
        self.results: dict[str, bytes] = {}
        self.uploads: dict[Path, bytes] = {}
        self.saved = 0

    def teardown(self) -> None:
        if hasattr(self, "workspace"):
            self.workspace.close()
            shutil.rmtree(self.folder)

    @rule(target=made, content=binary(max_size=200), fails=booleans())
    def make(self, content: bytes, fails: bool) -> str:
        """A result is there whole or, where its work fails, not at all."""
        try:
            with self.workspace.new_result(image_id="img", kind="segment") as draft:
                (draft.folder / "a.bin").write_bytes(content)
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return ""
        self.results[draft.result_id] = content
        return draft.result_id

    @rule(target=deleted, result=consumes(made))
    def delete(self, result: str) -> str:
        if result:
            self.workspace.delete(result)
            del self.results[result]
        return result

    @rule(result=deleted)
    def ask_for_what_is_gone(self, result: str) -> None:
        for ask in (self.workspace.result, self.workspace.delete):
            try:
                ask(result)
            except UnknownResultError:
                continue
            raise AssertionError("a deleted result was found")

    @rule(result=made)
    def save(self, result: str) -> None:
        if result:
            self.saved += 1
            target = self.folder / f"saved{self.saved}"
            self.workspace.save(result, target)
            assert (target / "a.bin").read_bytes() == self.results[result]

    @rule(content=binary(min_size=1, max_size=50))
    def upload(self, content: bytes) -> None:
        path = self.workspace.store_upload(io.BytesIO(content), ".img", 10_000)
        assert path.stem == hashlib.sha256(content).hexdigest()
        self.uploads[path] = content

    @rule(again=booleans())
    def reopen(self, again: bool) -> None:
        """Closed and opened, or opened by a second one beside it."""
        if again:
            self.workspace.close()
            self.workspace = Workspace(self.folder / "workspace")
        else:
            with Workspace(self.folder / "workspace") as other:
                assert {row.result_id for row in other.results(1000)} == set(self.results)

    @invariant()
    def holds_what_was_put_in(self) -> None:
        if not hasattr(self, "workspace"):
            return
        rows = {row.result_id: row for row in self.workspace.results(1000)}
        assert set(rows) == set(self.results)
        assert all((rows[name].folder / "a.bin").read_bytes() == kept for name, kept in self.results.items())
        on_disk = {path for path in self.workspace.uploads_folder.iterdir() if path.suffix == ".img"}
        assert on_disk == set(self.uploads)
        assert all(path.read_bytes() == kept for path, kept in self.uploads.items())


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=12,
    stateful_step_count=15,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
