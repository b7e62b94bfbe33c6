"""Putting the server into a chat host's list, as somebody does who has never edited JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tissuetalk.server import hosts
from tissuetalk.server.commands.setup import host_checks

COMMAND = str(Path(sys.executable).with_name("tissuetalk"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    (folder / "slides of mine").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setattr(sys, "platform", "linux")
    return folder


def setup(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "setup", *arguments],
        cwd=home / "slides of mine",
        env={**os.environ, "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_host_gets_our_entry_and_keeps_everything_else(home: Path) -> None:
    file = home / ".cursor" / "mcp.json"
    file.parent.mkdir()
    before = {"theme": "dark", "mcpServers": {"other": {"command": "x"}, "tissuetalk": {"command": "old"}}}
    file.write_text(json.dumps(before), encoding="utf-8")
    done = setup(home, "cursor", "--yes")
    assert done.returncode == 0 and "offers segment, measure" in done.stdout, done.stderr
    after = json.loads(file.read_text("utf-8"))
    ours = after["mcpServers"].pop("tissuetalk")
    assert ours == {"command": COMMAND, "args": ["serve", str(home / "slides of mine")]}
    assert after == {"theme": "dark", "mcpServers": {"other": {"command": "x"}}}
    assert json.loads(file.with_name("mcp.json.before-tissuetalk").read_text("utf-8")) == before
    assert setup(home, "cursor", "--remove", "--yes").returncode == 0
    assert json.loads(file.read_text("utf-8")) == after


@pytest.mark.parametrize("name", list(hosts.HOSTS))
def test_without_a_terminal_the_entry_is_printed_and_nothing_written(home: Path, name: str) -> None:
    done = setup(home, name)
    assert done.returncode == 0 and str(home / "slides of mine") in done.stdout
    assert "nothing was written" in done.stdout and f"tissuetalk setup {name} --yes" in done.stdout
    assert [path.name for path in home.iterdir()] == ["slides of mine"]


@pytest.mark.parametrize(
    "content",
    ["// mine\n{}", '{"servers": []}', "[]", '{"servers": {}', "\0" * 100],
    ids=["comments", "a list", "no object", "cut off", "no text"],
)
def test_a_file_that_cannot_be_changed_safely_is_left_alone(home: Path, content: str) -> None:
    file = home / ".config" / "Code" / "User" / "mcp.json"
    file.parent.mkdir(parents=True)
    file.write_text(content, encoding="utf-8")
    done = setup(home, "vscode", "--yes")
    assert done.returncode == 2 and "invalid_argument" in done.stderr and str(file) in done.stderr
    assert '"tissuetalk"' in done.stdout  # to put there by hand
    assert file.read_text("utf-8") == content


@pytest.mark.parametrize("arguments", [("emacs",), ("claude", "nowhere")], ids=["host", "folder"])
def test_an_unknown_host_or_folder_is_named(home: Path, arguments: tuple[str, ...]) -> None:
    done = setup(home, *arguments, "--yes")
    assert done.returncode == 2 and arguments[-1] in done.stderr and not (home / ".config").exists()


def test_the_doctor_finds_a_host_that_would_start_nothing(home: Path) -> None:
    """An environment that was moved or deleted is the usual reason for a server that a host shows as failed."""
    gone = {"command": str(home / "gone" / "tissuetalk"), "args": ["serve"]}
    hosts.put(hosts.HOSTS["gemini"], gone)
    found = {check.part: check for check in host_checks()}
    assert found["started by a host"].state == "works" and "6 tools" in found["started by a host"].what
    assert found["host gemini"].state == "broken" and "tissuetalk setup" in found["host gemini"].what
    assert set(found) == {"started by a host", "host gemini"}
