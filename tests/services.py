"""What a service runs beside, as real processes: Debian's PostgreSQL and Orthanc, an S3-compatible store. Absent ones skip a test."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def wait_until(ready: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


@dataclass
class Postgres:
    """A cluster of its own in a folder in memory, on the loopback."""

    folder: Path
    programs: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        command = [str(self.programs / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        for setting in ("listen_addresses=127.0.0.1", "fsync=off", "max_connections=200"):
            command += ["-c", setting]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "-k", str(self.folder)], cwd=self.folder, stdout=log, stderr=log, **_as_user()
            )
        wait_until(self._is_ready)

    def _is_ready(self) -> bool:
        import psycopg

        assert self.process is not None and self.process.poll() is None, (self.folder / "log").read_text()
        with suppress(psycopg.OperationalError):
            psycopg.connect(self.address, connect_timeout=2).close()
            return True
        return False

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()

    def kill(self) -> None:
        """Its first process and all that it started, at once."""
        assert self.process is not None
        first = self.process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        for pid in (first, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def make(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        command = [str(self.programs / "initdb"), "-D", str(self.folder / "data"), "-A", "trust"]
        subprocess.run(
            [*command, "-U", "postgres", "--no-sync"],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            check=True,
            **_as_user(),
        )


def _as_user() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    return {"user": "postgres"} if os.geteuid() == 0 else {}


@contextmanager
def postgres() -> Iterator[Postgres]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    if find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed: pip install 'tissuetalk[service]'")
    memory = Path("/dev/shm")
    with TemporaryDirectory(prefix="postgres-", dir=memory if memory.is_dir() else None) as folder:
        server = Postgres(Path(folder), found[-1].parent, free_port())
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()


@dataclass
class Bucket:
    """An S3-compatible server in a process of its own. It keeps objects in its memory, so it is paused rather than killed."""

    port: int
    name: str = "tissuetalk"
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"s3://{self.name}/place"

    @property
    def environment(self) -> dict[str, str]:
        return {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | KEYS
        )
        wait_until(lambda: answers(self.port))
        import botocore.session

        client = botocore.session.get_session().create_client(
            "s3", endpoint_url=f"http://127.0.0.1:{self.port}", region_name="us-east-1",
            aws_access_key_id="testing", aws_secret_access_key="testing",
        )  # fmt: skip
        client.create_bucket(Bucket=self.name)
        client.close()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def pause(self) -> None:
        """It hangs: connections come in and nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def bucket() -> Iterator[Bucket]:
    if missing := [name for name in ("s3fs", "moto", "flask") if find_spec(name) is None]:
        pytest.skip(f"{missing[0]} is not installed: pip install 'tissuetalk[dev,service]'")
    store = Bucket(free_port())
    store.start()
    try:
        yield store
    finally:
        store.go_on()
        store.stop()


@dataclass(frozen=True)
class Orthanc:
    """Debian's archive with its DICOMweb plugin, on the loopback; one account."""

    port: int
    user: str = "reader"
    password: str = "sesame"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"


@contextmanager
def orthanc() -> Iterator[Orthanc]:
    program, plugin = shutil.which("Orthanc"), Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
    if program is None or not plugin.exists():
        pytest.skip("Orthanc is not installed; on Debian: apt-get install orthanc orthanc-dicomweb")
    if find_spec("dicomweb_client") is None:
        pytest.skip("dicomweb-client is not installed: pip install 'tissuetalk[service]'")
    archive = Orthanc(free_port())
    with TemporaryDirectory(prefix="orthanc-") as folder:
        settings = {
            "StorageDirectory": folder,
            "IndexDirectory": folder,
            "HttpPort": archive.port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {archive.user: archive.password},
            "Plugins": [str(plugin)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (Path(folder) / "settings.json").write_text(json.dumps(settings))
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen([program, f"{folder}/settings.json"], stdout=log, stderr=log)
        try:
            wait_until(lambda: answers(archive.port))
            yield archive
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def state() -> Iterator[dict[str, str]]:
    """What a server process has in its environment to use both."""
    with postgres() as database, bucket() as store:
        yield {"TISSUETALK_STATE": database.address, "TISSUETALK_OBJECTS": store.address, **store.environment}
