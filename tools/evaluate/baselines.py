"""Every method that the papers compare with in one table: run here, can run here, or published only and why."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path

import yaml

from tissuetalk.models import registry
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.metrics.tables import table
from tissuetalk.models.recipe import Recipe
from tissuetalk.models.writing import write_whole
from tissuetalk.tools.evaluate.scores import Summary


class Baseline(Recipe):
    """One method of one paper's comparison. published: name of a figure to its value."""

    row: str
    paper: str
    method: str
    prompt: str
    source: str
    published: Mapping[str, float] = {}
    model: str = ""
    trained: str = ""
    command: str = ""
    reason: str = ""

    def state(self, dice: float | None = None) -> str:
        """dice: what it reached here, where it was run."""
        if dice is not None:
            return f"ran here: Dice {dice:.3f}"
        if self.command:
            return f"runs here: `{self.command}`"
        if not self.model:
            return f"not run: {self.reason}"
        how = f", trained by a recipe with `preset: {self.trained}`" if self.trained else ""
        missing = registry.MODELS[self.model].why_not()
        if missing is None:
            asked = "--box-model" if self.prompt == "box" else "--model"
            return f"can run here: `tissuetalk evaluate MANIFEST {asked} {self.model}`{how}"
        return f"not run, weights are missing: {missing}{how}"


@lru_cache(maxsize=1)
def baselines() -> tuple[Baseline, ...]:
    text = resources.files("tissuetalk.tools.evaluate").joinpath("baselines.yaml").read_text("utf-8")
    return tuple(Baseline.model_validate(row) for row in yaml.safe_load(text))


def all_baselines(scored: Mapping[str, Path], out: Path | None = None) -> str:
    """The table as Markdown, also written to ``baselines.md`` in ``out``.

    scored: method to a folder that `evaluate` wrote. Raises InvalidArgumentError for a method that is not in the table, or a
    folder without scores.
    """
    known = {one.method.casefold(): one.method for one in baselines()}
    if strange := [name for name in scored if name.casefold() not in known]:
        raise InvalidArgumentError(
            f"{strange[0]!r} is none of the methods: {', '.join(dict.fromkeys(known.values()))}."
        )
    ours = {name.casefold(): _dice(folder) for name, folder in scored.items()}
    rows = [
        [
            one.row,
            one.paper,
            one.method,
            one.prompt,
            "; ".join(f"{name} {value:.3f}" for name, value in one.published.items()) or "none printed",
            one.source,
            one.state(ours.get(one.method.casefold())),
        ]
        for one in baselines()
    ]
    text = table(["row", "paper", "method", "prompt", "published", "source", "here"], rows) + "\n"
    if out is not None:
        write_whole(out / "baselines.md", text)
    return text


def _dice(folder: Path) -> float:
    file = folder / "summary.json"
    if not file.is_file():
        raise InvalidArgumentError(
            f"{folder} has no summary.json; give a folder that `tissuetalk evaluate` wrote."
        )
    summary = Summary.model_validate_json(file.read_text(encoding="utf-8"))
    if summary.overall is None:
        raise InvalidArgumentError(f"nothing was scored in {folder}.")
    return summary.overall.metrics["dice"].mean
