"""Folders say what depends on what: models <- prompts <- tools <- server."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import sources  # after the project is on the path
from benchmarks.sources import Source

AREAS = ("models", "prompts", "tools", "server")
PROJECT = Path(__file__).parents[1]
FILES = [path for area in AREAS for path in sorted((PROJECT / area).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Every module a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("area", AREAS)
def test_an_area_imports_only_areas_to_its_left(area: str) -> None:
    allowed = AREAS[: AREAS.index(area) + 1]
    for path in (PROJECT / area).rglob("*.py"):
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "tissuetalk" and len(parts) > 1 and parts[1] in AREAS:
                assert parts[1] in allowed, f"{path.relative_to(PROJECT)} imports {name}"


def test_only_the_server_knows_the_protocol() -> None:
    for path in FILES:
        if path.is_relative_to(PROJECT / "server"):
            continue
        known = {name.split(".")[0] for name in imported(path)} & {"mcp", "mcp_types", "starlette", "typer"}
        assert not known, f"{path.relative_to(PROJECT)} imports {known}"


@pytest.mark.parametrize(
    "problems",
    [
        sources.cycles,
        sources.upward,
        sources.classes_twice,
        sources.long_functions,
        sources.long_files,
    ],
    ids=lambda check: check.__name__,
)
def test_the_structure_stays_readable(problems: Callable[[Sequence[Source]], list[str]]) -> None:
    """The checks of ``python -m benchmarks structure`` that hold."""
    assert problems(sources.read()) == []
