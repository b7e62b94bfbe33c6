"""A server whose every image is worked on as a slide, in small blocks, by the slow model: ROOT WORKSPACE PATIENCE_S."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import slow_model

from tissuetalk.models import registry
from tissuetalk.tools.segment import grid
from tissuetalk.tools.segment.grid import SlideSettings

SMALL_BLOCKS = SlideSettings(whole_px=0, tile_px=256, window_px=512)


def main() -> None:
    from tissuetalk.server.service import Settings
    from tissuetalk.server.stdio import serve_stdio

    root, workspace, patience_s = sys.argv[1:]
    slow_model.TILE_S = 3.0  # long enough for another server to start while this one works
    registry.MODELS[slow_model.NAME] = replace(slow_model.ENTRY, load="slow_model:SlowNuclei")
    grid.SlideSettings = partial(replace, SMALL_BLOCKS)  # what a server starts with when nothing is said
    Path(os.environ[slow_model.LOG]).with_suffix(".pid").write_text(str(os.getpid()))
    serve_stdio(
        Settings(
            roots=(Path(root),),
            workspace=Path(workspace),
            patience_s=float(patience_s),
            workers=1,
        )
    )


if __name__ == "__main__":
    main()
