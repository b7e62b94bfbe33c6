"""What the viewer inside a chat is given: bytes, in parts."""

from __future__ import annotations

from pydantic import Field

from tissuetalk.tools.answers.results import Closed


class ViewerAnswer(Closed):
    """A part of a tile, a file or a description."""

    media: str
    size_bytes: int = Field(description="Of the whole; 0 where there is nothing to draw")
    data: str = Field(description="Base64 of this part")
    next_offset: int | None = Field(description="Where the next part begins; null after the last")
