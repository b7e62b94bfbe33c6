"""Points and boxes written in words, in pixels as the user gave them.

The text is read in rounds, coarse things first: what a round has read is blanked, so that no number counts twice.
Numbers that look like a place and were not read are said in a note, never dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

Point = tuple[float, float]
Box = tuple[float, float, float, float]

_N = r"(\d{1,6}(?:\.\d{1,3})?)"
_PX = r"\s?(?:px|pixels?)?"
_SEP = r"\s?(?:,|;|/|\bx\b|\band\b|\s)\s?"
_CORNER = r"(?:(?:the )?(?:top|upper|bottom|lower|opposite|far|second|other|last)?[- ]?(?:left|right)?[- ]?(?:hand )?corner\s?|(?:bottom|lower)[- ]right\s?)"
_PAIR = rf"[(\[]?\s?(?:x\s?[=:]?\s?)?{_N}{_PX}\s?[,;/ ]\s?(?:y\s?[=:]?\s?)?{_N}{_PX}\s?[)\]]?"
_TO = rf"\s?(?:to|until|and|through|down to|-|\u2013|\u2192|->|,|;|/)\s?{_CORNER}?(?:at\s|is\s|of\s)?"
_PLACE_WORD = (
    r"\b(?:at|pixels?|point|position|location|coordinates?|coords?|near|around|click(?:ed)?(?: on)?|px|xy|spot|marker|seed|@|here|"
    r"first|second|third|other|one|is)\b"
)

_THOUSANDS = re.compile(
    r"(?<![\d.,])(\d{1,3})[,' \u2009](\d{3})(\s?(?:,\s|;|/|x|y|and|by|\s)[^\d]{0,6})(\d{1,3})[,' \u2009](\d{3})(?![\d,])"
)
_ONE_THOUSAND = re.compile(r"(\b[xy]\s?[=:]?\s?)(\d{1,3}),(\d{3})(?![\d,])")
_AXIS = re.compile(
    rf"\b(?:(x|col(?:umn)?s?)|(y|rows?))_?(?:0|1|2|min|max|start|end)?\s?(?:=|:|from|between|is|in)?\s?(?<![\d.]){_N}{_PX}"
    rf"(?:\s?(?:-|\u2013|to|\.\.\.?|until|and)\s?(?:[xy]\s?=\s?)?{_N}{_PX})?(?!\s?[x\u00d7*]\s?\d|[\d.]|e\d)"
)
_FOUR = re.compile(rf"[(\[]\s?{_N}\s?[,; ]\s?{_N}\s?[,; ]\s?{_N}\s?[,; ]\s?{_N}\s?[)\]]")
_FOUR_BARE = re.compile(
    rf"\b(?:box|rectangle|roi|region|window|bbox|bounding box|crop|area|square|field|rect)\b[^\d(\[]{{0,25}}{_N}{_SEP}{_N}{_SEP}{_N}{_SEP}{_N}(?![\d.])"
)
_CORNERS = re.compile(
    rf"(?:from|between|corners?|top[- ]left|upper[- ]left|rectangle|box|roi|region|window|bbox|spanned by|crop|area)[^\d(\[]{{0,24}}{_PAIR}{_TO}{_PAIR}"
)
_TWO_CORNERS = re.compile(rf"corner\b[^\d(\[]{{0,8}}{_PAIR}[^\d]{{0,24}}?corner\b[^\d(\[]{{0,8}}{_PAIR}")
_DASHED = re.compile(rf"{_PAIR}\s?(?:-|\u2013|\u2192|->)\s?{_PAIR}")
_CENTRED = re.compile(
    rf"\bcent(?:red?|er(?:ed)?)\b[^\d(\[]{{0,20}}{_PAIR}[^\d]{{0,30}}?{_N}{_PX}\s?(?:wide|w\b|x|by|\u00d7)[^\d]{{0,12}}{_N}"
)
_SIZED_FIRST = re.compile(
    rf"{_N}{_PX}\s?(?:wide\s?|w\s?|in width\s?)?(?:x|by|\u00d7|\*|and|,)\s?{_N}{_PX}[^\d]{{0,60}}?(?:\bat\b|from|corner|origin|start(?:ing|s)?|top[- ]left|upper[- ]left|placed)[^\d(\[]{{0,30}}{_PAIR}"
)
_SIZED_LAST = re.compile(
    rf"{_PAIR}[^\d]{{0,40}}?(?:size|width|wide|w\s?[=:]|of|,|is|with|and)\s?[^\d]{{0,20}}?{_N}{_PX}\s?(?:wide|w|width|in width)?\s?(?:x|by|\u00d7|\*|,|and|height|h\s?[=:])+\s?(?:height\s?|h\s?[=:]\s?|high\s?)?(?:of\s)?[=:]?\s?{_N}{_PX}"
)
_SIZE_WORDS = re.compile(
    r"\bwid(?:e|th)\b|\bhigh\b|\bheight\b|\bw\s?[=:]|\d\s?(?:x|\u00d7|by)\s?\d|\btall\b|\bside\b"
)
_BOX_WORDS = re.compile(r"\b(?:box|rect|rectangle|roi|region|window|area|square|crop|bbox|field|corner)")
_MEASURED = re.compile(r"\b(?:distance|line|how far|length)\b")
_BRACKETED = re.compile(rf"[(\[]\s?{_N}{_PX}\s?[,;/ ]\s?{_N}{_PX}\s?[)\]]")
_AT = re.compile(
    rf"(?:{_PLACE_WORD}|@)\W{{0,3}}(?:is\s|at\s|point\s|pixel\s|position\s|location\s|coordinates?\s|\()?\W{{0,3}}{_N}{_PX}\s?(?:,|/|;|\band\b|\bby\b|\bx\b| )\s?{_N}(?!\s?(?:mm|%|\u00b5m|um|x\b|\u00d7)|\d)"
)
_NEXT = re.compile(rf"(?:\band\b|;|,)\s?{_N}\s?[,/]\s?{_N}(?!\s?(?:mm|%|\u00b5m|um|x\b|\u00d7)|[\d.,])")
_BARE = re.compile(
    r"(?<![\d.:/])(\d{2,5})\s?(?:,|/|\s)\s?(\d{2,5})(?![\d.]|\s?(?:mm|%|\u00b5m|um|x\b|\u00d7|hpf|cells|nuclei))"
)
_LEFT = re.compile(
    rf"(?:\b[xy]\s?[=:]|\b(?:at|points?|pixels?|coordinates?|corners?|rows?|columns?)\b\W{{0,3}}){_N}(?!\s?(?:%|x\b|\u00d7|mm|\u00b5m|um|hpf)|[\d.])"
)
_IN_WORDS = re.compile(
    r"\b(?:(?:top|upper|bottom|lower)[- ](?:left|right)(?:[- ]hand)?|(?:left|right|top|bottom|upper|lower)(?=[- ](?:half|third|quarter|edge|side|part|corner)))[- ](?:half|third|quarter|corner|edge|side|part|quadrant)\b"
)


@dataclass
class Places:
    """Points, the character offset of each, and boxes as [x0, y0, x1, y1]; notes on what was not read."""

    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    offsets: tuple[int, ...] = ()
    notes: tuple[str, ...] = field(default=())


def places_in(text: str) -> Places:
    """Points and boxes of a request. A width and a height become a second corner."""
    low = _ONE_THOUSAND.sub(_joined, _THOUSANDS.sub(_both_joined, text.lower()))
    boxes: list[Box] = []
    found: dict[int, Point] = {}

    def take(pattern: re.Pattern[str], read: Callable[[re.Match[str]], Box | None]) -> None:
        nonlocal low

        def erase(match: re.Match[str]) -> str:
            box = read(match)
            if box is None or not (box[0] < box[2] and box[1] < box[3]):
                return match.group()
            boxes.append(box)
            return " " * len(match.group())

        low = pattern.sub(erase, low)

    low = _read_axes(low, boxes, found)
    take(_TWO_CORNERS, lambda m: _between(*_numbers(m)))
    take(_CENTRED, _centred)
    take(_SIZED_FIRST, lambda m: _sized(m, 2))
    take(_SIZED_LAST, lambda m: _sized(m, 0))
    for spanned in (_CORNERS, _DASHED):
        take(spanned, lambda m: _between(*_numbers(m)) if _means_a_box(low, m) else None)
    take(_FOUR, lambda m: _between(*_numbers(m)))
    take(_FOUR_BARE, lambda m: _between(*_numbers(m)))
    for pattern in (_BRACKETED, _AT):
        low = _read_points(low, pattern, found)
    if found:
        low = _read_points(low, _NEXT, found)
    if not found and not boxes:
        low = _read_points(low, _BARE, found)
    places = sorted(found)
    points = tuple(found[place] for place in places)
    return Places(points, tuple(dict.fromkeys(boxes)), tuple(places), tuple(_unread(low)))


def _joined(match: re.Match[str]) -> str:
    """ "x 1,200" as "x 1200 ", of the same length."""
    return f"{match.group(1)}{match.group(2)}{match.group(3)} "


def _both_joined(match: re.Match[str]) -> str:
    """ "12,345, 6,789" is one pair; "100,200, 300,400" are two, unless a group could not stand alone ("1,024")."""
    one, two, gap, three, four = match.groups()
    if max(len(one), len(three)) > 2 and not (two[0] == "0" or four[0] == "0"):
        return match.group()
    return f"{one}{two} {gap}{three}{four} "


def _numbers(match: re.Match[str]) -> tuple[float, float, float, float]:
    a, b, c, d = (float(number) for number in match.groups())
    return a, b, c, d


def _between(a: float, b: float, c: float, d: float) -> Box:
    return min(a, c), min(b, d), max(a, c), max(b, d)


def _centred(match: re.Match[str]) -> Box:
    x, y, width, height = _numbers(match)
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _sized(match: re.Match[str], corner: int) -> Box | None:
    """A corner (the numbers `corner` and the next) and a size, where the words speak of a size."""
    numbers = _numbers(match)
    x, y, width, height = (*numbers[corner : corner + 2], *numbers[2 - corner : 4 - corner])
    return (x, y, x + width, y + height) if _SIZE_WORDS.search(match.group()) else None


def _means_a_box(low: str, match: re.Match[str]) -> bool:
    """ "from (1, 2) to (3, 4)" is a box unless a length is asked for; "between" is one only where a box is meant."""
    if match.group().startswith("between"):
        return bool(_BOX_WORDS.search(low[: match.end() + 30]))
    return not match.group().startswith("from") or not _MEASURED.search(low)


def _read_axes(low: str, boxes: list[Box], found: dict[int, Point]) -> str:
    """Named axes in the order they come: "x 100-300, y 200-400" is a box, "row 40, col 90" a point."""
    items = [
        (match, 0 if match.group(1) else 1, float(match.group(3)), match.group(4) and float(match.group(4)))
        for match in _AXIS.finditer(low)
    ]
    merged: list[tuple[int, int, int, float, float | None]] = []  # start, end, axis, low, high
    for match, axis, value, high in items:
        last = merged[-1] if merged else None
        if (
            last is not None
            and last[2] == axis
            and last[4] is None
            and high is None
            and match.start() - last[1] < 12
        ):
            merged[-1] = (last[0], match.end(), axis, last[3], value)
        else:
            merged.append((match.start(), match.end(), axis, value, None if high is None else float(high)))
    while (
        len(merged) > 3
        and all(one[4] is None for one in merged[:4])
        and [m[2] for m in merged[:4]] == [0, 1, 0, 1]
    ):
        (start, _, _, x0, _), (_, _, _, y0, _), (_, _, _, x1, _), (_, end, _, y1, _) = merged[:4]
        if not re.search(r"x_?(?:0|1|min|start)", low[start:end]):
            break
        boxes.append(_between(x0, y0, x1, y1))
        low, merged = low[:start] + " " * (end - start) + low[end:], merged[4:]
    used = -1
    for number, (one, other) in enumerate(pairwise(merged)):
        if number <= used or one[2] == other[2] or other[0] - one[1] > 12:
            continue
        if (one[4] is None) != (other[4] is None):
            continue
        across, down = (one, other) if one[2] == 0 else (other, one)
        if across[4] is not None and down[4] is not None:
            boxes.append(_between(across[3], down[3], across[4], down[4]))
        else:
            found[one[0]] = (across[3], down[3])
        low = low[: one[0]] + " " * (other[1] - one[0]) + low[other[1] :]
        used = number + 1
    return low


def _read_points(low: str, pattern: re.Pattern[str], found: dict[int, Point]) -> str:
    for match in pattern.finditer(low):
        found[match.start(1)] = (float(match.group(1)), float(match.group(2)))
    return pattern.sub(lambda match: " " * len(match.group()), low)


def _unread(low: str) -> list[str]:
    left = [match.group().strip() for match in (_LEFT.search(low), _IN_WORDS.search(low)) if match]
    return [
        f"the place {said!r} could not be read as pixels; pass points=[[x, y]], boxes or region=[x0, y0, x1, y1]"
        for said in left
    ]
