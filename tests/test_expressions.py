"""Every regular expression on what files say takes time that grows with its text and not with the square of it.

File names, headers and tables are foreign: an expression that starts anew at every character and runs on to the
end each time holds the interpreter, and with it the whole server, for seconds.
"""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[1]
AREAS = ("models", "tools", "server")
"""Not prompts: what reads reports has tests of its own time, over whole texts (``test_rules_bad_input.py``)."""
SHORT, TIMES, SLOW_S = 1_500, 8, 0.005
"""Characters; how much longer the second text is; what is too quick to be judged."""
MOST_GROWTH = 3 * TIMES
"""A square would grow 64-fold; the machine's own unrest is below this."""
OTHER_SIGNS = '\n -,.("a0'


ANCHORED = {"match", "fullmatch"}


@dataclass(frozen=True)
class Used:
    """An expression and how it is used. anchored: only ever from the beginning of a text."""

    where: str
    pattern: re.Pattern[Any]
    anchored: bool

    def run(self, text: Any) -> None:
        if self.anchored:
            self.pattern.match(text)
        else:
            for _ in islice(self.pattern.finditer(text), 100_000):
                pass


def patterns_in(value: Any, depth: int = 0) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict) and depth < 4:
        for each in (*value.keys(), *value.values()):
            yield from patterns_in(each, depth + 1)
    elif isinstance(value, list | tuple | set | frozenset) and depth < 4:
        for each in value:
            yield from patterns_in(each, depth + 1)


def named_in(path: Path, text: str) -> Iterator[Used]:
    """Those a module keeps: compiled once, used by their name."""
    try:
        module = import_module(
            ".".join(("tissuetalk", *path.relative_to(PROJECT).with_suffix("").parts)).removesuffix(
                ".__init__"
            )
        )
    except ImportError:  # of an extra that is not installed
        return
    for name, value in vars(module).items():
        uses = set(re.findall(rf"\b{name}\.(\w+)\(", text))
        for pattern in patterns_in(value):
            yield Used(f"{path.name}: {name}", pattern, bool(uses) and uses <= ANCHORED)


def written_in(path: Path, text: str) -> Iterator[Used]:
    """Those written where they are used: ``re.search("…", text)``."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re.") and node.args:
            first, *rest = node.args
            if isinstance(first, ast.Constant) and isinstance(first.value, str | bytes):
                flags = [ast.unparse(each) for each in (*rest, *(word.value for word in node.keywords))]
                named = {
                    getattr(re, name) for flag in flags for name in re.findall(r"\bre\.([A-Z]+)\b", flag)
                }
                pattern = re.compile(first.value, sum({int(each) for each in named}))
                how = ast.unparse(node.func).removeprefix("re.")
                if how != "compile":
                    yield Used(f"{path.name}: line {node.lineno}", pattern, how in ANCHORED)


def collected(area: str) -> list[Used]:
    """Every expression of an area, once."""
    found: dict[tuple[Any, ...], Used] = {}
    for path in sorted((PROJECT / area).rglob("*.py")):
        text = path.read_text("utf-8")
        if re.search(r"^\s*(?:import re$|from re import)", text, re.MULTILINE):
            for used in (*named_in(path, text), *written_in(path, text)):
                found.setdefault((used.pattern.pattern, used.pattern.flags, used.anchored), used)
    return list(found.values())


def pumps(pattern: re.Pattern[Any]) -> Iterable[Any]:
    """What is repeated to make it slow: its own signs and words, and signs that expressions like to run over."""
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    plain = re.sub(r"\\[A-Za-z]|\(\?[:=!<P]+|[\\^$|?*+(){}\[\]]", " ", text)
    words = sorted(set(plain.split()), key=len, reverse=True)
    starts = [f"{word} " for word in words[:3]] + words[:1]
    made = dict.fromkeys([*OTHER_SIGNS, *starts, "a ", "0, "])
    return made if isinstance(pattern.pattern, str) else [each.encode() for each in made]


def seconds(used: Used, text: Any) -> float:
    started = time.process_time()
    used.run(text)
    return time.process_time() - started


def is_quadratic(used: Used, pump: Any) -> bool:
    text = pump * (SHORT // len(pump))
    end = "\x01" if isinstance(text, str) else b"\x01"  # what would have matched does not
    for _ in range(3):
        long = seconds(used, text * TIMES + end)
        if long < SLOW_S or long < MOST_GROWTH * max(seconds(used, text + end), 1e-5):
            return False
    return True


def test_the_check_finds_what_is_quadratic() -> None:
    lines = Used("a test", re.compile(r"^\s*FILE\s*=", re.MULTILINE), anchored=False)
    assert is_quadratic(lines, "\n")
    assert not is_quadratic(Used("a test", re.compile(r"<Pixels\b[^>]{0,99}>"), anchored=False), "<Pixels ")


@pytest.mark.parametrize("area", AREAS)
def test_every_expression_is_linear(area: str) -> None:
    slow = [
        f"{used.where}: {used.pattern.pattern!r} over {pump!r}"
        for used in collected(area)
        for pump in pumps(used.pattern)
        if is_quadratic(used, pump)
    ]
    assert slow == []
