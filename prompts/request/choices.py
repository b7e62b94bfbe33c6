"""Which of the objects a request means, where nothing can apply that: the biggest, those at the edge. Said, never silent."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tissuetalk.prompts.reading.mentions import Mention
from tissuetalk.prompts.words import Words

SIZED = frozenset({"nuclei", "cell", "tumor_nuclei", "gland", "glomerulus"})
"""Objects of which a size or a shape in front of the name picks some; elsewhere it describes them ("small lymphocytes")."""
REACH = 40
"""Characters beside a name that are looked at."""
_BEFORE = re.compile(
    r"(?:\d+ )?(?:most (?!of )\w+|(?:bigg|larg|small|long|short|dark|pal|round|wid)(?:er|est)|every (?:other|second|third) ?)"
    r"(?: \d+)?(?: (?:and|or) \w+)?(?: of the| \w+)? ?$"
)
_SIZE = re.compile(
    r"\b(?:(?:very|unusually|abnormally|only the) )?(?:large|big|small|tiny|huge|enlarged|elongated|irregular) $"
)
_BEHIND = re.compile(
    r" (?:(?:that|which) (?:are|is) )?((?:(?:bigg|larg|small|great|long|dark|round)er|(?:more|less)(?: \w+)?) than(?: [\w.\u00b5\u00b2]+){1,3}"
    r"|(?:not )?(?:at|near|on|along|touching|cut by|crossing) (?:the |an? )?(?:(?:image|picture|tile|field)(?:'s)? )?(?:edge|border|boundary|frame)s?(?! of (?!(?:the |this )?(?:image|picture|photo|tile|field))| between))"
)


def choice_notes(words: Words, wanted: Iterable[Mention]) -> tuple[str, ...]:
    """One line for each wanted object of which only some are asked for: all are outlined, and where to choose."""
    found: dict[str, None] = {}
    for mention in wanted:
        start, end = words[mention.first].start, words[mention.last].end
        before, behind = (
            words.text[max(0, start - REACH) : start].lower(),
            words.text[end : end + 2 * REACH].lower(),
        )
        picked = _BEFORE.search(before) or (_SIZE.search(before) if mention.concept.id in SIZED else None)
        place = _BEHIND.match(behind)
        said = picked.group().strip() if picked else place.group(1) if place else None
        if said:
            name = words.text[start:end].lower()
            found[
                f"{said!r} is not applied to {name!r}: all that is found is outlined; `measure` gives the size and "
                "shape of each object to choose by, and points=[[x, y]] keep those that are pointed at"
            ] = None
    return tuple(found)
