"""`python -m benchmarks [NAME]…`: measures, prints a table, writes results/<name>.json. Exits 1 when a target is missed.

`python -m benchmarks EXPERIMENT …`: one experiment with arguments of its own (`--help` lists them): planted, planted-objects,
calibrate, report, card, ship, quantise, encoders, masks, mitosis, refused, scale_guess, other_looks, soak, load, dependencies, by_example,
taught_patches.
"""

from __future__ import annotations

import sys
from importlib import import_module

from benchmarks.figure import table, write

NAMES = (
    "first_answer",
    "overhead",
    "connecting",
    "memory",
    "explaining",
    "decoding",
    "structure",
    "swapping",
)
WITH_EXTRAS = ("backends", "slides", "tile_size", "viewer")
"""Run only when named: tile_size is one comparison; the others need the weights of LiteMedSAM, `tissuetalk[ray]`, or Chromium and Playwright, and many minutes."""

EXPERIMENTS = {
    "planted": "planted",
    "planted-objects": "planted_objects",
    "calibrate": "calibrate",
    "report": "report",
    "card": "model_card",
    "ship": "ship",
    "quantise": "quantise",
    "encoders": "encoders",
    "masks": "masks",
    "mitosis": "mitosis",
    "refused": "refused",
    "scale_guess": "scale_guess",
    "other_looks": "other_looks",
    "soak": "soak",
    "load": "load",
    "conversations": "conversations",
    "dependencies": "dependencies",
    "by_example": "by_example",
    "taught_patches": "taught_patches",
}
"""Scripts with arguments: what explanations find of what was planted, the curves of reliability, and scores and card of
weights; what hours of calls, and many users at once, do to a server; an assistant in the loop; licences and known holes of dependencies; each with
its module."""


def main(names: list[str]) -> int:
    missed = False
    for name in names or NAMES:
        figures = import_module(f"benchmarks.{name}").measure()
        write(name, figures)
        print(table(figures), flush=True)
        missed |= not all(each.met for each in figures)
    return int(missed)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in EXPERIMENTS:
        import_module(f"benchmarks.{EXPERIMENTS[sys.argv[1]]}").main(sys.argv[2:])
        sys.exit()
    if unknown := set(sys.argv[1:]) - {*NAMES, *WITH_EXTRAS}:
        sys.exit(
            f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join((*NAMES, *WITH_EXTRAS, *EXPERIMENTS))}"
        )
    sys.exit(main(sys.argv[1:]))
