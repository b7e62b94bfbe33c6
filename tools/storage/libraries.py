"""Libraries that only some work needs, loaded when that work begins."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tissuetalk.models.errors import ModelUnavailableError


def library(name: str) -> Any:
    """A module of an optional library. Raises ModelUnavailableError with the command that installs it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = (error.name or name).partition(".")[0].replace("_", "-")
        raise ModelUnavailableError(
            f"this needs {package}, which is not installed; run: pip install 'tissuetalk[export]'"
        ) from error
