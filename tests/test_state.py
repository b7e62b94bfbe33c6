"""A state that several machines share: PostgreSQL and a bucket, each a real process; here a machine is a folder of its own."""

from __future__ import annotations

import io
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from http_server import COMMAND
from services import Bucket, Postgres, bucket, postgres
from taught import LEFT, RIGHT, two_tissues

from tissuetalk.models import registry
from tissuetalk.models.by_example import Place, Shown, teach
from tissuetalk.models.errors import (
    BusyError,
    InvalidArgumentError,
    StateAwayError,
    UnknownImageError,
    UnknownResultError,
    WorkspaceFullError,
    WorkspaceUnwritableError,
)
from tissuetalk.models.images import open_image
from tissuetalk.tools.storage import manifest
from tissuetalk.tools.storage.database import ResultTable, UploadTable, new_id
from tissuetalk.tools.storage.jobs import JobStore
from tissuetalk.tools.storage.postgres import NameTable, PendingTable, WorkerTable, shared_secret
from tissuetalk.tools.storage.state import State
from tissuetalk.tools.storage.verify import check
from tissuetalk.tools.storage.verify_state import check_state, repair_state
from tissuetalk.tools.storage.workspace import Workspace

psycopg = pytest.importorskip("psycopg", reason="needs tissuetalk[service]")
Services = tuple[Postgres, Bucket]


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with pytest.MonkeyPatch.context() as patch, postgres() as database, bucket() as store:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield database, store


class Machines:
    """Workspaces of one tenant, each in a folder of its own."""

    def __init__(self, state: State, folder: Path) -> None:
        self.state, self.folder = state, folder
        self._open = ExitStack()

    def start(self, name: str) -> Workspace:
        return self._open.enter_context(Workspace(self.folder / name, state=self.state))

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def machines(services: Services, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Machines]:
    database, store = services
    name = f"t{abs(hash(request.node.name))}"
    made = Machines(State(database.address, store.address).of_tenant(name), tmp_path)
    yield made
    made.close()


def make(workspace: Workspace, mask_id: str | None = None) -> str:
    with workspace.new_result(image_id="img", kind="segment") as draft:
        (draft.folder / "masks").mkdir()
        (draft.folder / "masks" / f"{mask_id or new_id('msk')}.png").write_bytes(b"mask")
        (draft.folder / "result.json").write_text("{}")
    return draft.result_id


def keys(workspace: Workspace, folder: str = "results") -> list[str]:
    assert workspace.mirror is not None
    return list(workspace.mirror.objects.below(folder))


def pending(workspace: Workspace) -> int:
    with workspace.database.read() as db:
        return int(PendingTable.select().count(db))


def test_what_one_machine_made_another_reads_checks_adds_to_and_deletes(machines: Machines) -> None:
    one, other = machines.start("one"), machines.start("other")
    mask_id = new_id("msk")
    result_id = make(one, mask_id)
    assert [stored.result_id for stored in other.results()] == [result_id]
    assert other.result_with(mask_id) == result_id
    with other.reading(result_id) as stored:
        assert stored.folder.is_relative_to(machines.folder / "other")
        assert manifest.problems(stored.folder) == []
        (stored.folder / "explanation.json").write_text("why")
    with one.reading(result_id) as stored:
        assert (stored.folder / "explanation.json").read_text() == "why"
    one.delete(result_id)
    assert keys(one) == [] and other.results() == [] and other.result_with(mask_id) is None
    with pytest.raises(UnknownResultError):
        other.result(result_id)
    other._look_after_state()
    assert list((machines.folder / "other" / "results").iterdir()) == []


@pytest.mark.service
def test_uploads_and_taught_targets_are_on_every_machine(machines: Machines) -> None:
    one, other = machines.start("one"), machines.start("other")
    for workspace in (one, other):
        path = workspace.store_upload(io.BytesIO(b"picture"), ".png", 100)
    one.remember_image("img_1", path if path.is_relative_to(one.folder) else one.uploads_folder / path.name)
    path.unlink()
    assert (found := other.image_path("img_1")) == path and found.read_bytes() == b"picture"
    assert len(keys(one, "images")) == 1 and pending(one) == 0
    with open_image(two_tissues(machines.folder / "two.png"), name="two.png") as source:
        shown = [Place(True, box=tuple(LEFT)), Place(False, box=tuple(RIGHT))]
        taught = teach(registry.load("classical-nuclei"), [Shown(source, 0.5, shown)], name="pink")
    one.targets.keep(taught)
    assert [each.learned.name for each in other.targets.listed() if each.learned] == [taught.name]
    assert other.targets.by_sha256(taught.sha256) is not None
    other.targets.forget(taught.name)
    assert one.targets.listed() == [] and keys(one, "targets") == []


def test_an_object_that_was_changed_is_never_read_as_what_it_was(machines: Machines) -> None:
    one, other = machines.start("one"), machines.start("other")
    changed, gone, leads_out = make(one), make(one), make(one)
    assert one.mirror is not None
    wrong = machines.folder / "wrong"
    wrong.write_bytes(b"not it")
    (mask,) = [key for key in keys(one, f"results/{changed}") if key.endswith(".png")]
    one.mirror.objects.put({mask: wrong})
    one.mirror.objects.remove(f"results/{gone}/result.json")
    noted = manifest.Manifest(image_id="img", kind="segment", created_at=0, files={"../../up": (6, "0" * 64)})
    wrong.write_text(noted.model_dump_json())
    one.mirror.objects.put({f"results/{leads_out}/manifest.json": wrong})
    for result_id in (changed, gone, leads_out):
        with pytest.raises(UnknownResultError, match="damaged"):
            other.result(result_id)
    assert list((other.folder / "results").iterdir()) == []
    path = one.store_upload(io.BytesIO(b"picture"), ".png", 100)
    one.remember_image("img_1", path)
    one.mirror.objects.put({f"images/{path.name}": wrong})
    with pytest.raises(UnknownImageError, match="send it again"):
        other.image_path("img_1")


def test_a_job_is_claimed_by_one_of_many_and_taken_over_when_its_worker_falls_silent(
    machines: Machines,
) -> None:
    one, other = machines.start("one"), machines.start("other")
    stores = [JobStore(one), JobStore(other), JobStore(one), JobStore(other)]
    job_ids = [stores[0].create("segment", {}, "me") for _ in range(20)]
    claimed: list[str] = []

    def claim(store: JobStore) -> None:
        claimed.extend(job_id for job_id in job_ids if store.claim(job_id))

    threads = [threading.Thread(target=claim, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(job_ids)
    (mine,) = [stores[0].create("segment", {}, "me")]
    assert stores[0].claim(mine) and not stores[1].claim(mine)
    with one.database.read() as db:  # as if it had been silent; its next beat brings it back
        WorkerTable.update(beat=0).where(WorkerTable.token == one.owners.token).execute(db)
    # whoever looks within 20 seconds of the database's own start takes nobody for dead
    assert one.is_alive(one.owners.token) or stores[1].claim(mine)


@pytest.mark.service
def test_what_a_dead_process_was_putting_up_is_cleared_away_and_its_row_never_comes(
    machines: Machines,
) -> None:
    one, other = machines.start("one"), machines.start("other")
    assert one.mirror is not None
    with one.database.write() as db:  # another machine took it for dead, and it was only slow
        WorkerTable.delete().where(WorkerTable.token == one.owners.token).execute(db)
    put = one.mirror.put

    def slow_put(*given: object) -> None:
        put(*given)  # type: ignore[arg-type]
        other._look_after_state()

    one.mirror.put = slow_put  # type: ignore[method-assign,assignment]
    with pytest.raises(StateAwayError, match="cleared away"):
        make(one)
    assert keys(one) == [] and one.results() == [] and pending(one) == 0
    assert list((one.folder / "results").iterdir()) == []


@pytest.mark.service
def test_a_database_that_is_killed_is_named_and_everything_goes_on_when_it_is_back(
    machines: Machines, services: tuple[Postgres, Bucket]
) -> None:
    database, _ = services
    one = machines.start("one")
    kept, jobs = make(one), JobStore(one)
    job_id = jobs.create("segment", {"image": "a"}, "me")
    assert jobs.claim(job_id)
    database.kill()
    try:
        for ask in (one.results, lambda: make(one), lambda: jobs.create("segment", {}, "me")):
            with pytest.raises(StateAwayError, match="Ask again"):
                ask()
        with pytest.raises(StateAwayError):
            machines.start("other")
        assert jobs.progress(job_id, 0.5)  # not lost for that
    finally:
        database.start()
    assert [stored.result_id for stored in one.results()] == [kept]
    other = machines.start("other")
    assert other.is_alive(one.owners.token) and not JobStore(other).claim(job_id)
    assert jobs.finish(job_id, {"result_id": kept}) and JobStore(other).get(job_id).state == "done"
    one._look_after_state()
    assert {key.split("/")[1] for key in keys(one)} == {kept}


@pytest.mark.service
def test_a_bucket_that_vanishes_is_named_and_leaves_nothing_half_written(
    machines: Machines, services: tuple[Postgres, Bucket]
) -> None:
    _, store = services
    one, other = machines.start("one"), machines.start("other")
    kept = make(one)
    store.stop()
    try:
        for ask in (lambda: make(one), lambda: other.result(kept), one.require_state):
            with pytest.raises(StateAwayError, match="Ask again"):
                ask()
        with pytest.raises(StateAwayError):
            one.store_upload(io.BytesIO(b"picture"), ".png", 100)
        one.delete(kept)  # its objects go when the bucket is back
        assert one.results() == [] and pending(one) == 3
        assert [*(one.folder / "results").iterdir(), *one.uploads_folder.iterdir()] == []
    finally:
        store.start()
    one._look_after_state()
    assert pending(one) == 0 and keys(one) == []
    assert other.result(make(one)).kind == "segment"


def test_a_tenant_sees_nothing_of_another(services: Services, tmp_path: Path) -> None:
    state = State(services[0].address, services[1].address)
    with (
        Workspace(tmp_path / "a", state=state.of_tenant("north")) as north,
        Workspace(tmp_path / "b", state=state.of_tenant("south")) as south,
    ):
        result_id, job_id = make(north), JobStore(north).create("segment", {}, "me")
        assert south.results() == [] and JobStore(south).unfinished() == [] and keys(south, "") == []
        with pytest.raises(UnknownResultError):
            south.result(result_id)
        assert not JobStore(south).unfinished() and JobStore(north).get(job_id).state == "queued"
        assert not south.is_alive(north.owners.token)
    assert shared_secret(state) == shared_secret(state) and len(shared_secret(state)) == 32
    with pytest.raises(InvalidArgumentError, match="at most"):
        state.of_tenant("x" * 57)


@pytest.mark.service
@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("53100", WorkspaceFullError),
        ("55P03", BusyError),
        ("42501", WorkspaceUnwritableError),
        ("57P01", StateAwayError),
    ],
    ids=["a full disk", "a lock", "no right", "it is ended"],
)
def test_what_the_database_refuses_is_named_and_undoes_the_whole_step(
    machines: Machines, code: str, error: type[Exception]
) -> None:
    one = machines.start("one")
    with pytest.raises(error), one.database.write() as db:
        UploadTable.insert(name="x", size_bytes=1, last_used=0).execute(db)
        db.execute_sql(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$")
    with one.database.read() as db:
        assert UploadTable.select().count(db) == 0
    make(one)


@contextmanager
def opened(folder: Path, state: State) -> Iterator[None]:
    with Workspace(folder, state=state):
        yield


@pytest.mark.service
def test_a_state_stays_with_its_folder_or_bucket_and_a_lost_database_is_not_made_anew(
    services: Services, tmp_path: Path
) -> None:
    address, objects = services[0].address, services[1].address
    folders = State(address).of_tenant("in-a-folder")
    with (
        Workspace(tmp_path / "one", state=folders) as one,
        Workspace(tmp_path / "one", state=folders) as other,
    ):
        result_id = make(one)
        assert other.result(result_id).folder == one.folder / "results" / result_id
    for folder, state in (
        (tmp_path / "two", folders),
        (tmp_path / "one", State(address, objects, "in-a-folder")),
    ):
        with pytest.raises(WorkspaceUnwritableError, match="lie elsewhere"), opened(folder, state):
            pass
    with Workspace(tmp_path / "three", state=State(address, objects).of_tenant("first")) as workspace:
        make(workspace)
    lost = State(address, f"{objects}/tenants/first", "other")
    with (
        pytest.raises(WorkspaceUnwritableError, match="although results exist"),
        opened(tmp_path / "4", lost),
    ):
        pass


@pytest.mark.service
def test_a_database_and_a_bucket_that_are_not_there_are_said_at_the_start(
    services: Services, tmp_path: Path
) -> None:
    """Not that they do not answer: waiting would not help."""
    address, objects = services[0].address, services[1].address
    nowhere = State(f"{address.rpartition('/')[0]}/nothing", objects)
    with pytest.raises(WorkspaceUnwritableError, match="does not exist"), opened(tmp_path / "w", nowhere):
        pass
    command = [COMMAND, "serve", "--http", "127.0.0.1:1", "--workspace", str(tmp_path / "v"), "--accounts"]
    accounts = tmp_path / "accounts.yaml"
    accounts.write_text(
        "{issuer: 'https://i.example', audience: 'https://a.example/mcp', keys: 'https://i.example/k', "
        f"tenants: {{north: {{roots: ['{tmp_path}']}}}}}}"
    )
    environment = os.environ | {"TISSUETALK_STATE": address, "TISSUETALK_OBJECTS": "s3://elsewhere/x"}
    ended = subprocess.run(
        [*command, str(accounts)], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2 and "a bucket that does not exist" in ended.stderr, ended.stderr


@pytest.mark.parametrize(
    ("database", "objects", "said"),
    [
        (None, "s3://bucket/place", "--state"),
        ("mysql://host/name", None, "PostgreSQL"),
        ("postgresql://host/name", "bucket", "bucket"),
    ],
)
def test_a_wrong_address_is_named(database: str | None, objects: str | None, said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        State.of(database, objects)
    assert State.of(None, None) is None


@pytest.mark.service
def test_a_state_is_mended_once_its_servers_have_ended(services: Services, tmp_path: Path) -> None:
    """A row that is lost comes back, what is damaged is set aside, and nothing is deleted."""
    database, store = services
    with psycopg.connect(database.address, autocommit=True) as connection:  # with nothing of other tests
        connection.execute("CREATE DATABASE mended")
    state = State(f"{database.address.rpartition('/')[0]}/mended", store.address)
    machines = Machines(state.of_tenant("mended"), tmp_path)
    one, mask_id = machines.start("one"), new_id("msk")
    lost, damaged, whole = make(one, mask_id), make(one), make(one)
    upload = one.store_upload(io.BytesIO(b"picture"), ".png", 100).name
    assert one.mirror is not None
    objects = one.mirror.objects
    with one.database.write() as db:
        ResultTable.delete().where(ResultTable.result_id == lost).execute(db)
        NameTable.delete().where(NameTable.result_id == lost).execute(db)
        UploadTable.delete().execute(db)
    objects.remove(f"results/{damaged}/result.json")
    with pytest.raises(BusyError, match="end them"):
        repair_state(state, tmp_path)
    machines.close()
    command = [COMMAND, "doctor", "--workspace", "--repair", "--json"]
    environment = os.environ | {"TISSUETALK_STATE": state.database, "TISSUETALK_OBJECTS": store.address}
    said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert f"{lost} was put into the index" in said and f"{upload} was put into the index" in said
    assert f"{damaged} was set aside" in said and whole not in said
    assert not [part for part in check_state(state, tmp_path) if part.problems]
    assert list(objects.below("damaged")) and keys(one, f"results/{damaged}") == []
    again = machines.start("again")
    assert {stored.result_id for stored in again.results()} == {lost, whole}
    assert again.result_with(mask_id) == lost
    with again.reading(lost) as stored:
        assert (stored.folder / "result.json").read_text() == "{}"
    machines.close()


@pytest.mark.service
def test_a_state_with_its_files_in_a_folder_is_mended_by_that_folder(
    services: Services, tmp_path: Path
) -> None:
    """Tenants are looked at before any is touched; a row that is lost, and a whole schema, come back from the files."""
    address = services[0].address
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE DATABASE foldered")
    state = State(f"{address.rpartition('/')[0]}/foldered")
    north, south = (
        Workspace(tmp_path / "tenants" / name, state=state.of_tenant(name)) for name in ("north", "south")
    )
    lost, damaged, whole = make(north), make(north), make(south)
    (north.folder / "results" / damaged / "result.json").write_text("[]")
    with north.database.write() as db:
        ResultTable.delete().where(ResultTable.result_id == lost).execute(db)
    north.close()
    with pytest.raises(BusyError, match="tenants/south open"):
        repair_state(state, tmp_path)
    assert (north.folder / "results" / damaged).exists(), "nothing was touched"
    south.close()
    with psycopg.connect(state.database, autocommit=True) as connection:
        connection.execute('DROP SCHEMA "tenant_south" CASCADE')
    with pytest.raises(InvalidArgumentError, match="TISSUETALK_STATE"):
        check(north.folder)
    command = [COMMAND, "doctor", "--workspace", str(tmp_path), "--repair", "--json"]
    environment = os.environ | {"TISSUETALK_STATE": state.database}
    said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert f"{damaged} was set aside" in said and "made anew" in said
    for name, kept in (("north", lost), ("south", whole)):
        with Workspace(tmp_path / "tenants" / name, state=state.of_tenant(name)) as workspace:
            assert [stored.result_id for stored in workspace.results()] == [kept]
