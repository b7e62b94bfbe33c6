"""Which Chromium tests and benchmarks open, and how: nothing that asks elsewhere."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str | None:
    named = os.environ.get("TISSUETALK_CHROMIUM")
    return named or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


def missing(what: str) -> NoReturn:
    """Skip, or fail where TISSUETALK_BROWSER_REQUIRED=1 says that a browser's tests must run, as in CI."""
    import pytest  # benchmarks come here without it

    if os.environ.get("TISSUETALK_BROWSER_REQUIRED"):
        pytest.fail(what)
    pytest.skip(what)
