"""Points and boxes written in words, in pixels as the user gave them."""

from __future__ import annotations

import re

Point = tuple[float, float]
Box = tuple[float, float, float, float]

_N = r"(\d{1,6}(?:\.\d{1,3})?)"
_PX = r"\s?(?:px|pixels?)?"
_SEP = r"\s?(?:,|;|/|\bx\b|\band\b|\s)\s?"
_PAIR = rf"[(\[]?\s?(?:x\s?[=:]?\s?)?{_N}{_PX}\s?[,;/ ]\s?(?:y\s?[=:]?\s?)?{_N}{_PX}\s?[)\]]?"
_TO = r"\s?(?:to|until|and|through|-|\u2013|\u2192|->|,|;)\s?(?:the\s)?(?:bottom[- ]right\s?|lower[- ]right\s?|opposite\s)?(?:corner\s?)?(?:at\s|is\s)?"

_RANGES = re.compile(
    rf"\bx\s?(?:=|:|from|between)?\s?{_N}\s?(?:-|\u2013|to|and|\.\.)\s?{_N}{_PX}\s?[,; ]*\s?(?:and\s)?\s?\by\s?(?:=|:|from|between)?\s?{_N}\s?(?:-|\u2013|to|and|\.\.)\s?{_N}"
)
_NAMED = re.compile(
    rf"\bx_?(?:0|1|min)\s?[=:]\s?{_N}\W{{1,4}}y_?(?:0|1|min)\s?[=:]\s?{_N}\W{{1,4}}(?:and\s)?x_?(?:1|2|max)\s?[=:]\s?{_N}\W{{1,4}}y_?(?:1|2|max)\s?[=:]\s?{_N}"
)
_NAMED_XX = re.compile(
    rf"\bx_?(?:0|1|min)\s?[=:]\s?{_N}\W{{1,4}}x_?(?:1|2|max)\s?[=:]\s?{_N}\W{{1,4}}(?:and\s)?y_?(?:0|1|min)\s?[=:]\s?{_N}\W{{1,4}}y_?(?:1|2|max)\s?[=:]\s?{_N}"
)
_FOUR = re.compile(rf"[(\[]\s?{_N}\s?[,; ]\s?{_N}\s?[,; ]\s?{_N}\s?[,; ]\s?{_N}\s?[)\]]")
_FOUR_BARE = re.compile(
    rf"\b(?:box|rectangle|roi|region|window|bbox|bounding box|crop|area|square|field|rect)\b[^\d(\[]{{0,25}}{_N}{_SEP}{_N}{_SEP}{_N}{_SEP}{_N}(?![\d.])"
)
_CORNERS = re.compile(
    rf"(?:from|between|corners?|top[- ]left|upper[- ]left|rectangle|box|roi|region|window|bbox|spanned by|crop|area)[^\d(\[]{{0,24}}{_PAIR}{_TO}{_PAIR}"
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
_XY = re.compile(rf"\bx\s?[=:]?\s?{_N}{_PX}\W{{1,4}}(?:and\s)?y\s?[=:]?\s?{_N}")
_YX = re.compile(rf"\b(?:row|y)\s?[=:]?\s?{_N}\W{{1,4}}(?:and\s)?(?:col(?:umn)?|x)\s?[=:]?\s?{_N}")
_COLROW = re.compile(rf"\bcol(?:umn)?\s?[=:]?\s?{_N}\W{{1,4}}(?:and\s)?row\s?[=:]?\s?{_N}")
_BRACKETED = re.compile(rf"[(\[]\s?{_N}{_PX}\s?[,;/ ]\s?{_N}{_PX}\s?[)\]]")
_AT = re.compile(
    rf"\b(?:at|pixels?|point|position|location|coordinates?|coords?|near|around|click(?:ed)?(?: on)?|px|xy|spot|marker|seed|@|here)\b\W{{0,3}}(?:is\s|at\s|point\s|pixel\s|position\s|location\s|coordinates?\s|\()?\W{{0,3}}{_N}{_PX}\s?(?:,|/|;|\band\b|\bx\b| )\s?{_N}(?!\s?(?:mm|%|\u00b5m|um|x\b|\u00d7))"
)
_AT_SIGN = re.compile(rf"@\s?{_N}\s?[,/ ]\s?{_N}")
_LIST = re.compile(
    r"(?:points?|pixels?|at|positions?|coordinates)\W{{1,3}}((?:\d{{1,6}}\s?,\s?\d{{1,6}}\s?(?:;|and|\|)\s?)+\d{{1,6}}\s?,\s?\d{{1,6}})"
)

_LIST_PAIR = re.compile(r"(\d{1,6})\s?,\s?(\d{1,6})")
_BARE = re.compile(
    r"(?<![\d.:/])(\d{2,5})\s?(?:,|/|\s)\s?(\d{2,5})(?![\d.]|\s?(?:mm|%|\u00b5m|um|x\b|\u00d7|hpf|cells|nuclei))"
)


def places_in(text: str) -> tuple[tuple[Point, ...], tuple[Box, ...], tuple[int, ...]]:
    """Points and boxes of a request and the character offset of each point.

    A width and a height become a second corner. Numbers that belong to a box are not points as well.
    """
    low = text.lower()
    boxes: list[Box] = []
    for pattern, kind in (
        (_RANGES, "ranges"),
        (_NAMED, "corners"),
        (_NAMED_XX, "ranges"),
        (_SIZED_FIRST, "sized first"),
        (_SIZED_LAST, "sized last"),
        (_CORNERS, "corners"),
        (_FOUR, "corners"),
        (_FOUR_BARE, "corners"),
    ):
        for match in pattern.finditer(low):
            if kind == "sized last" and not _SIZE_WORDS.search(match.group()):
                continue
            if kind == "corners" and pattern is _CORNERS and _is_point_list(low, match):
                continue
            box = _box(tuple(float(number) for number in match.groups()), kind)
            if box is not None:
                boxes.append(box)
        low = _blank(low, pattern, boxes)
    found: dict[int, Point] = {}
    for match in _LIST.finditer(low):
        for pair in _LIST_PAIR.finditer(match.group(1)):
            found[match.start(1) + pair.start()] = (float(pair.group(1)), float(pair.group(2)))
    low = _LIST.sub(lambda match: " " * len(match.group()), low)
    for pattern, swap in (
        (_YX, True),
        (_COLROW, False),
        (_XY, False),
        (_BRACKETED, False),
        (_AT, False),
        (_AT_SIGN, False),
    ):
        for match in pattern.finditer(low):
            first, second = (float(number) for number in match.groups())
            found[match.start(1)] = (second, first) if swap else (first, second)
        low = pattern.sub(lambda match: " " * len(match.group()), low)
    if not found and not boxes:
        found = {m.start(1): (float(m.group(1)), float(m.group(2))) for m in _BARE.finditer(low)}
    places = sorted(found)
    return tuple(found[place] for place in places), tuple(dict.fromkeys(boxes)), tuple(places)


def _is_point_list(low: str, match: re.Match[str]) -> bool:
    """ "between (1, 2) and (3, 4)" is a box only where a box or a rectangle is meant."""
    return match.group().startswith(("between", "from")) and not re.search(
        r"\b(?:box|rect|rectangle|roi|region|window|area|square|crop|bbox|field|corner)",
        low[: match.end() + 30],
    )


def _blank(low: str, pattern: re.Pattern[str], boxes: list[Box]) -> str:
    """The text without the numbers already read as a box."""
    if not boxes:
        return low

    def erase(match: re.Match[str]) -> str:
        numbers = tuple(float(number) for number in match.groups())
        read = any(
            _box(numbers, kind) in boxes for kind in ("corners", "ranges", "sized first", "sized last")
        )
        return " " * len(match.group()) if read else match.group()

    return pattern.sub(erase, low)


def _box(numbers: tuple[float, ...], kind: str) -> Box | None:
    a, b, c, d = numbers
    if kind == "ranges":
        box = (a, c, b, d)
    elif kind == "sized first":
        box = (c, d, c + a, d + b)
    elif kind == "sized last":
        box = (a, b, a + c, b + d)
    else:
        box = (min(a, c), min(b, d), max(a, c), max(b, d))
    return box if box[0] < box[2] and box[1] < box[3] else None
