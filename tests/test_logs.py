"""A log says where something went wrong and what kind of error it was, never with which values."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import logging, threading, warnings
from tissuetalk.models import logs

logs.configure()
logging.getLogger("PIL.PngImagePlugin").warning("value: Quenneville")
logging.getLogger("PIL.PngImagePlugin").debug("value: Quenneville")
logging.getLogger("mcp.server").warning("dropped %r", "Quenneville")
logging.getLogger("tissuetalk.cohort").warning("own words\\nin a second line")
warnings.warn("Quenneville")

def work():
    try:
        {}["Quenneville"]
    except KeyError as error:
        raise ValueError("Quenneville") from error

thread = threading.Thread(target=work)
thread.start()
thread.join()
try:
    raise ExceptionGroup("Quenneville", [RuntimeError("Quenneville")])
except ExceptionGroup:
    logging.getLogger("asyncio").exception("Task exception was never retrieved")
open("/nowhere/Quenneville")
"""


def logged(how: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "TISSUETALK_LOG": how},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and not done.stdout
    return done.stderr


@pytest.mark.parametrize("how", ["", "debug"])
def test_no_value_is_logged_by_anybody(how: str) -> None:
    said = logged(how)
    assert "Quenneville" not in said
    assert "dropped %r" in said and "own words in a second line" in said
    for kind in ("KeyError", "ValueError", "RuntimeError", "FileNotFoundError"):
        assert f"builtins.{kind}" in said
    assert said.count("Traceback, without values:") == 3 and "in work" in said
    assert ("DEBUG PIL.PngImagePlugin" in said) == (how == "debug")


def test_a_developer_can_have_them() -> None:
    assert logged("full").count("Quenneville") >= 5
