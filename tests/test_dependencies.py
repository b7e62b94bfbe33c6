"""The lock file of the image is whole: every dependency, every hash, every licence."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from benchmarks.dependencies import LOCK, PAGE, pinned

PROJECT = Path(__file__).parents[1]


def test_every_dependency_is_locked() -> None:
    """After a new one: `make lock licences`."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(each for name in ("export", "llm", "service") for each in extras[name]),
    ]
    names = {re.match(r"[\w.-]+", each).group().lower().replace("_", "-") for each in wanted}  # type: ignore[union-attr]  # each has one
    assert names - {name for name, _ in pinned()} == set()


def test_every_locked_package_has_a_hash() -> None:
    bare = [
        block.split()[0]
        for block in re.split(r"\n(?=\S)", LOCK.read_text("utf-8"))
        if "==" in block.split("\n")[0] and "--hash=sha256:" not in block
    ]
    assert bare == []


def test_every_locked_package_has_its_licence_listed() -> None:
    installed, _, _ = PAGE.read_text("utf-8").partition("\n## What the viewer's page holds")
    listed = re.findall(r"^\| ([a-z0-9._-]+) \| (\d\S*) \| (.+) \|$", installed, re.MULTILINE)
    assert [(name, version) for name, version, _ in listed] == list(pinned())
    assert [name for name, _, licence in listed if licence == "not stated"] == []
