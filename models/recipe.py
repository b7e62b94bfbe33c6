"""Runs as data: every recipe is one closed model, read and refused in one way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.reading import content_of, yaml_in


def _beside_the_recipe(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    path = path.expanduser()
    return path if folder is None else (folder / path).resolve()


RecipePath = Annotated[Path, AfterValidator(_beside_the_recipe)]
"""A path; relative ones start at the recipe's own folder."""


class Recipe(BaseModel):
    """Base of all recipes: unknown keys are refused, defaults are written in the class and nowhere else.

    A line of docstring under a field says what it is for. Path fields are ``RecipePath``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The checked recipe of a YAML file. Raises InvalidArgumentError that names the key and what it may be."""
        return cls.checked(read_values(path), path)

    @classmethod
    def checked(cls, values: dict[str, Any], path: Path) -> Self:
        """path: the recipe's file, for messages and relative paths."""
        try:
            return cls.model_validate(values, context={"folder": path.parent})
        except ValidationError as error:
            raise InvalidArgumentError(f"{path.name}: {_said(error, cls)}.") from error


def read_values(path: Path) -> dict[str, Any]:
    """Keys and values of a YAML file, unchecked. Raises InvalidArgumentError."""
    if not path.is_file():
        raise InvalidArgumentError(f"there is no recipe at {path}; shipped ones are in models/recipes.")
    try:
        values = yaml_in(content_of(path, 2**20))
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(f"{path.name} is not YAML: {error}.") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InvalidArgumentError(f"{path.name} is not a list of keys and values.")
    return values


def _said(error: ValidationError, recipe: type[Recipe]) -> str:
    """The first thing that is wrong, in a sentence."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}; known: {', '.join(sorted(recipe.model_fields))}"
    if first["type"] == "missing":
        return f"it lacks {key}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message
