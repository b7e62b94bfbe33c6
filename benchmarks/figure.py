"""One measured figure, its target, and how it is written down."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Figure:
    """value must be at most ``target``, if it has one; ``parts`` are what it was computed from, in ``unit`` unless named otherwise."""

    name: str
    value: float
    unit: str
    target: float | None
    parts: dict[str, float]

    @property
    def met(self) -> bool:
        return self.target is None or self.value <= self.target


def write(name: str, figures: Sequence[Figure]) -> Path:
    """results/<name>.json, with the machine it was measured on."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    machine = {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "mcp": version("mcp"),
        "load_average_1min": round(os.getloadavg()[0], 1),
    }
    content = {"machine": machine, "figures": [{**asdict(each), "met": each.met} for each in figures]}
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    return path


def table(figures: Sequence[Figure]) -> str:
    lines = [f"{'figure':44} {'value':>9} {'target':>9}  unit"]
    for each in figures:
        mark = "" if each.met else "   MISSED"
        target = "-" if each.target is None else f"{each.target:.2f}"
        lines.append(f"{each.name:44} {each.value:9.2f} {target:>9}  {each.unit}{mark}")
        lines += [f"    {name:40} {value:9.2f}" for name, value in each.parts.items()]
    return "\n".join(lines)
