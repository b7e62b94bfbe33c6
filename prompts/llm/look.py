"""Shape and colour of something outlined on a picture, as a model that sees pictures says them (vlsm.md, attributes a2 and a3)."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tissuetalk.prompts.llm.seam import Cancelled, LanguageModel, Turn, never
from tissuetalk.prompts.llm.wording import template

FEW_WORDS = re.compile(r"[a-z]{1,20}([ -][a-z]{1,20}){0,2}")


class SeenLook(BaseModel):
    """Both may be empty."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    shape: Annotated[str, Field(max_length=60)]
    color: Annotated[str, Field(max_length=60)]


def look_of(model: LanguageModel, picture: bytes, name: str, cancelled: Cancelled = never) -> dict[str, str]:
    """``shape`` and ``color`` in up to three plain words each, empty where the model gave none. picture: PNG.

    Raises ModelUnavailableError, BusyError or CancelledError.
    """
    reply = model.ask([Turn("user", template("look").substitute(name=name), picture)], SeenLook, cancelled)
    try:
        said = SeenLook.model_validate_json(reply.text)
    except ValidationError:
        return {"shape": "", "color": ""}
    words = {"shape": said.shape.strip().casefold(), "color": said.color.strip().casefold()}
    # they go into prompts as they are: anything but a few plain words is dropped
    return {key: text if FEW_WORDS.fullmatch(text) else "" for key, text in words.items()}
