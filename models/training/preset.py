"""Which trainer a recipe is for. Imports no deep-learning library."""

from __future__ import annotations

from pathlib import Path

import yaml

from tissuetalk.models.errors import InvalidArgumentError


def preset_of(path: Path) -> str:
    """``base`` or ``mini``: which trainer a recipe is for. Raises InvalidArgumentError for an unreadable file."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"{path.name} is not a list of keys and values ({error}).") from error
    return str(values.get("preset", "mini")) if isinstance(values, dict) else "mini"
