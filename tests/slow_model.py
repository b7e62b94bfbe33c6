"""A model that takes its time, at the seam where every model sits; run as a script it is a server that has it.

Each tile takes a moment for as long as the gate, a file, is missing, and is a line in the log, another file: so tests
see how far the work is and decide when it may end, without a clock.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tissuetalk.models import registry
from tissuetalk.models.segmentation.classical_nuclei import ClassicalNuclei
from tissuetalk.models.segmenter import RGB, Context

NAME = "slow-nuclei"
GATE, LOG, TILE_TAKES = "SLOW_MODEL_GATE", "SLOW_MODEL_LOG", "SLOW_MODEL_TILE_S"
TILE_S = 1.5
TILES = 10
"""Tiles with tissue of a 288 x 288 px picture at the model's own scale; the rest is glass and not looked at."""
SIDE_PX = 288


class SlowNuclei(ClassicalNuclei):
    """The classical baseline on small tiles."""

    card = replace(ClassicalNuclei.card, name=NAME)
    tile_px = 64

    def encode(self, tile: RGB, context: Context) -> Any:
        with Path(os.environ[LOG]).open("a") as log:
            log.write("tile\n")
        until = time.monotonic() + float(os.environ.get(TILE_TAKES, TILE_S))
        while not Path(os.environ[GATE]).exists() and time.monotonic() < until:
            time.sleep(0.1)
        return super().encode(tile, context)


ENTRY = registry.Entry(SlowNuclei.card, f"{__name__}:SlowNuclei")


PROGRAM = (sys.executable, __file__)
"""The command with this model in it."""


def main() -> None:
    """ROOT WORKSPACE PATIENCE_S WORKERS [HOST:PORT]: serve over stdio or HTTP. Or serve with what the command takes."""
    registry.MODELS[NAME] = replace(ENTRY, load="__main__:SlowNuclei")
    Path(os.environ[LOG]).with_suffix(".pid").write_text(str(os.getpid()))
    if sys.argv[1] == "serve":
        from tissuetalk.server.commands import command_line

        command_line.main()
    from tissuetalk.server.http import Where, serve_http
    from tissuetalk.server.service import Settings
    from tissuetalk.server.stdio import serve_stdio
    from tissuetalk.tools.storage.state import State

    root, workspace, patience_s, workers, *address = sys.argv[1:]
    settings = Settings(
        roots=(Path(root),),
        workspace=Path(workspace),
        patience_s=float(patience_s),
        workers=int(workers),
        state=State.of_environment(),
    )
    if address:
        serve_http(settings, Where(*address))
    else:
        serve_stdio(settings)


if __name__ == "__main__":
    main()
