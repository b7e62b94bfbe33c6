"""One hostile file or call: what is written, what is asked, and how it must end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hostile.ground import Ground

SURNAME, GIVEN, RECORD_NUMBER, BIRTH_DATE = "Quillfeather", "Zephyrine", "MRN77120934", "19470229"
PLANTED = (SURNAME, GIVEN, RECORD_NUMBER, BIRTH_DATE)
"""Written into every place of a file that can hold text; none may come out of an answer or a log."""
PATIENT = f"{SURNAME}^{GIVEN} {RECORD_NUMBER} {BIRTH_DATE}"
SECRET_SIZE = (1237, 941)
"""Of the picture outside the roots: an answer that names its width has read it."""
INVALID, OUTSIDE, UNKNOWN = "invalid_argument", "outside_roots", "unknown_image"
A_RESULT, A_MASK, A_JOB = "res_" + "a" * 32, "msk_" + "a" * 32, "job_" + "a" * 32
"""Ids that look right and name nothing."""
NUCLEI = {"targets": [{"words": "nuclei"}], "model": "classical-nuclei"}
USUAL_MB, USUAL_S = 2048.0, 5.0


@dataclass(frozen=True)
class Answer:
    """code: ok, a code of the contract, ``crash`` for an opaque error, ``http 401`` and the like. data: the structured answer."""

    code: str
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


Content = bytes | Callable[[], bytes]
Call = Callable[["Ground"], Answer]


@dataclass(frozen=True)
class Case:
    """expected: the codes that are right, mostly one. files: by name below the case's own folder, or what writes them.

    mb: what server and children together may hold at once. seconds: for all calls of the case.
    sample: in the cross-section. writes: names below the root that the call is asked to write.
    """

    family: str
    name: str
    call: Call
    expected: str = "unreadable_image"
    files: Mapping[str, Content] | Callable[[Path], Any] = field(default_factory=dict)
    mb: float = USUAL_MB
    seconds: float = USUAL_S
    sample: bool = False
    writes: bool = False

    @property
    def codes(self) -> frozenset[str]:
        return frozenset(self.expected.split("|"))

    def write(self, folder: Path) -> None:
        if callable(self.files):
            self.files(folder)
            return
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content() if callable(content) else content)


def look(name: str) -> Call:
    """The whole image small, then its corner at full resolution, then its middle: the first refusal counts."""

    def call(ground: Ground) -> Answer:
        answer = ground.tool("view", image=ground.relative(name))
        for region in ([0, 0, 300, 300], [0.4, 0.4, 0.6, 0.6]):
            if answer.code != "ok":
                return answer
            answer = ground.look_at(ground.relative(name), region, answer)
        return answer

    return call


def image_case(
    family: str, name: str, content: Content, expected: str = "unreadable_image", *, ending: str, **more: Any
) -> Case:
    """One file that is looked at."""
    file = f"image.{ending}"
    return Case(family, name, look(file), expected, {file: content}, **more)


def tool(name: str, /, **arguments: Any) -> Call:
    """A tool with these arguments; ``{here}`` in a text is the case's folder as the server knows it."""
    return lambda ground: ground.tool(name, **ground.filled(arguments))


def numbered(cases: Iterator[Case]) -> list[Case]:
    """Checked: no two of one name, no family over 80."""
    listed = list(cases)
    names = [(case.family, case.name) for case in listed]
    assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1]
    return listed
