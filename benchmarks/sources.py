"""What the sources say about themselves, read with ast and tokenize: names, imports, lengths, twins, comments."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from keyword import iskeyword
from pathlib import Path

PROJECT = Path(__file__).parents[1]
AREAS = ("models", "prompts", "tools", "server")
ORDER = {
    "models": (
        (
            "errors",
            "folders",
            "control",
            "writing",
            "reading",
            "packed",
            "recipe",
            "wire",
            "worker",
            "gathering",
            "memory",
        ),
        ("images",),
        ("masks",),
        ("segmenter",),
        ("looks",),
        ("segmentation", "networks"),
        ("by_example",),
        ("registry",),
        ("datasets",),
        ("metrics",),
        ("classifiers",),
        ("training",),
    ),
    "tools": (
        ("answers",),
        ("storage",),
        ("masks",),
        ("drawing",),
        ("segment",),
        ("teach",),
        ("measure",),
        ("export",),
        ("explain",),
        ("evaluate",),
        ("train",),
        ("jobs", "lanes", "session", "doctor"),
        ("cohort", "view"),  # a session for each slide; what a viewer asks of one
    ),
}
"""Rooms of an area, lowest first: each imports only its own level and those before it."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file. path: below the project."""

    path: Path

    @cached_property
    def text(self) -> str:
        return (PROJECT / self.path).read_text("utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def tokens(self) -> list[tokenize.TokenInfo]:
        return list(tokenize.generate_tokens(io.StringIO(self.text).readline))

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    @property
    def module(self) -> str:
        parts = self.path.with_suffix("").parts
        return ".".join(("tissuetalk", *(parts[:-1] if parts[-1] == "__init__" else parts)))

    @property
    def area(self) -> str:
        return self.path.parts[0]

    @property
    def room(self) -> str:
        """The folder or file at the top of its area; empty for the area's ``__init__``."""
        return (
            ""
            if len(self.path.parts) == 2 and self.path.stem == "__init__"
            else Path(self.path.parts[1]).stem
        )


def read(areas: Iterable[str] = AREAS) -> list[Source]:
    return [
        Source(path.relative_to(PROJECT)) for area in areas for path in sorted((PROJECT / area).rglob("*.py"))
    ]


def classes_twice(sources: Sequence[Source]) -> list[str]:
    """``Name: file, file`` of every class name that is defined more than once, wherever."""
    where = defaultdict(list)
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(str(source.path))
    return [f"{name}: {', '.join(files)}" for name, files in sorted(where.items()) if len(files) > 1]


def imports(sources: Sequence[Source]) -> dict[str, set[str]]:
    """Module to the modules of ours it imports when it runs, at its top or in a function.

    Names in a table, as of what loads a model, are no imports of the table: whoever loads them is asked by name.
    """
    known = {source.module: source for source in sources}
    return {source.module: set(_imported(source.tree, known)) - {source.module} for source in sources}


def _imported(node: ast.AST, known: dict[str, Source]) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names if alias.name in known)
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield from (name for name in (full if full in known else str(child.module),) if name in known)
        yield from _imported(child, known)


def cycles(sources: Sequence[Source]) -> list[str]:
    """Groups of modules that import each other, directly or around corners (Tarjan's strongly connected components)."""
    arrows = imports(sources)
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    open_: list[str] = []
    found = []

    def visit(module: str) -> None:
        number[module] = low[module] = len(number)
        open_.append(module)
        for other in sorted(arrows[module]):
            if other not in number:
                visit(other)
            if other in open_:
                low[module] = min(low[module], low[other])
        if low[module] == number[module]:
            start = open_.index(module)
            if len(group := open_[start:]) > 1:
                found.append(" - ".join(name.removeprefix("tissuetalk.") for name in sorted(group)))
            del open_[start:]

    for module in arrows:
        if module not in number:
            visit(module)
    return sorted(found)


def upward(sources: Sequence[Source]) -> list[str]:
    """Imports against the order of rooms inside an area, and rooms that have no place in it."""
    by_module = {source.module: source for source in sources}
    found = set()
    for module, others in imports(sources).items():
        here = by_module[module]
        for there in (by_module[other] for other in others):
            if here.area == there.area and here.area in ORDER and here.room != there.room:
                ranks = _rank(here), _rank(there)
                if None in ranks:
                    unplaced = here if ranks[0] is None else there
                    found.add(f"{unplaced.area}/{unplaced.room} has no place in the order")
                elif ranks[0] < ranks[1]:  # type: ignore[operator]  # None was just excluded
                    found.add(f"{here.path} imports {there.path}")
    return sorted(found)


def _rank(source: Source) -> int | None:
    order = ORDER[source.area]
    if not source.room:  # what an area offers comes from all its rooms
        return len(order)
    return next((rank for rank, rooms in enumerate(order) if source.room in rooms), None)


def rooms(sources: Sequence[Source], area: str) -> tuple[list[str], set[tuple[str, str]]]:
    """The rooms of an area, and its arrows: pairs of rooms of which the first imports the second."""
    by_module = {source.module: source for source in sources if source.area == area and source.room}
    arrows = {
        (by_module[module].room, by_module[other].room)
        for module, others in imports(sources).items()
        for other in others
        if module in by_module and other in by_module
    }
    return sorted({source.room for source in by_module.values()}), {(a, b) for a, b in arrows if a != b}


def long_functions(sources: Sequence[Source], most: int = 60) -> list[str]:
    return [
        f"{source.path}:{node.lineno} {node.name}: {length}"
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, Function) and (length := (node.end_lineno or 0) - node.lineno + 1) > most
    ]


def long_files(sources: Sequence[Source], most: int = 450) -> list[str]:
    return [f"{source.path}: {source.lines}" for source in sources if source.lines > most]


def comments_per_100_lines(sources: Sequence[Source]) -> float:
    """Comments that say something to a reader: those for tools alone do not count."""
    said = sum(
        token.type == tokenize.COMMENT and not re.match(r"#\s*(type:|noqa|fmt:)[^#]*$", token.string)
        for source in sources
        for token in source.tokens
    )
    return 100 * said / sum(source.lines for source in sources)


_ARRAYS = re.compile(r"\b(NDArray|ndarray|Tensor|ArrayLike|RGB|Mask|Labels|Pixels|Boxes)\b")
_SHAPE_OR_UNIT = re.compile(
    r"\[[^\]]*\b[A-Z0-9]\b[^\]]*\]|\b(px|pixels?|µm2?|mm2?|0\.\.1|radians|degrees|shape)\b|µm|mm²"
)


def array_functions(sources: Sequence[Source]) -> tuple[int, int]:
    """Public functions that take or give arrays: those whose docstring has a shape or a unit, and all."""
    said = total = 0
    for source in sources:
        for node in ast.walk(source.tree):
            if not isinstance(node, Function) or node.name.startswith("_"):
                continue
            hints = [
                arg.annotation for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            ]
            if any(hint is not None and _ARRAYS.search(ast.unparse(hint)) for hint in (*hints, node.returns)):
                total += 1
                said += bool(_SHAPE_OR_UNIT.search(ast.get_docstring(node) or ""))
    return said, total


_HOOKS = (
    "command",
    "callback",
    "tool",
    "resource",
    "prompt",
    "completion",
    "validator",
    "serializer",
    "register",
    "custom_route",
)


def _definitions(source: Source) -> Iterator[tuple[str, int, bool]]:
    """Name, line and whether it is a function, of what a module or class defines; hooks that others call excepted."""
    holders: list[ast.Module | ast.ClassDef] = [source.tree]
    holders += [
        node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef) and node.name != "Meta"
    ]
    for holder in holders:
        for node in holder.body:
            if isinstance(node, Function | ast.ClassDef):
                hooked = any(hook in ast.unparse(mark) for mark in node.decorator_list for hook in _HOOKS)
                if not hooked and not (node.name.endswith("_") or node.name in ("Meta", "main")):
                    yield node.name, node.lineno, isinstance(node, Function)
            elif isinstance(holder, ast.Module) and isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Name) and not target.id.startswith("__"):
                        yield target.id, node.lineno, False


_NAMING = re.compile(r"\w+|tissuetalk(\.\w+)+|\w+(\.\w+)*:[\w.]+|\w+\[[\w\[\], |]+\]")
"""Strings that use a name: of an attribute, of a place of ours in a table, or an annotation in quotes."""


def _mentions(sources: Sequence[Source]) -> Counter[str]:
    """How often each name is used: neither where it is defined, nor where it is only handed on by an import or ``__all__``."""
    used: Counter[str] = Counter()
    for source in sources:
        inherited = {
            item.name
            for node in ast.walk(source.tree)
            if isinstance(node, ast.ClassDef) and any(_foreign(base, source) for base in node.bases)
            for item in node.body
            if isinstance(item, Function)
        }
        used.update(inherited)  # somebody else's class calls them
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                used[node.id] += 1
            elif isinstance(node, ast.Attribute):
                used[node.attr] += 1
            elif isinstance(node, ast.alias) and node.asname:
                used[node.name] += 1
            elif isinstance(node, ast.keyword) and node.arg:
                used[node.arg] += 1
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                used.update(re.findall(r"\w+", node.value) if _NAMING.fullmatch(node.value) else ())
        for node in source.tree.body:  # the list of what a module offers is no use of it
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                used.subtract(ast.literal_eval(node.value))
    return used


def _foreign(base: ast.expr, source: Source) -> bool:
    """Whether a base class is somebody else's, so that its methods may be called from outside."""
    root = ast.unparse(base).split(".")[0].split("[")[0]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and any(
            (a.asname or a.name).split(".")[0] == root for a in node.names
        ):
            return not (
                isinstance(node, ast.ImportFrom) and str(node.module).startswith("tissuetalk")
            ) and root not in (
                "Protocol",
                "BaseModel",
                "Generic",
                "NamedTuple",
            )
    return False


def _documented() -> set[str]:
    """Names in the documentation's Python blocks, which the tests run: the public interface."""
    texts = [path.read_text("utf-8") for path in (PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md"))]
    blocks = [block for text in texts for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    return {word for block in blocks for word in re.findall(r"\w+", block)}


def dead_names(sources: Sequence[Source], users: Sequence[Source] = ()) -> list[str]:
    """What is defined at the top of a module or as a method and used nowhere, neither here nor by ``users``.

    A name that several things share is dead only when nobody uses any of them. What only tests use is dead, too.
    """
    used = _mentions([*sources, *users])
    documented = _documented()
    return [
        f"{source.path}:{line} {name}"
        for source in sources
        for name, line, _ in _definitions(source)
        if used[name] <= 0 and name not in documented
    ]


def private_used_once(sources: Sequence[Source]) -> tuple[int, int]:
    """Private functions and methods that one place uses, and all of them."""
    used = _mentions(sources)
    private = [
        name
        for source in sources
        for name, _, function in _definitions(source)
        if function and name.startswith("_")
    ]
    return sum(used[name] == 1 for name in private), len(private)


def _shapes(source: Source) -> list[tuple[int, str, str, int]]:
    """Line number, text, shape and number of tokens of each line of code: no imports, docstrings, comments or lone brackets."""
    skipped: set[int] = set()
    for node in ast.walk(source.tree):
        text = (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        )
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    words = defaultdict(list)
    shapes = defaultdict(list)
    for token in source.tokens:
        line = token.start[0]
        if line in skipped or token.type in _NO_CODE:
            continue
        words[line].append(token.string)
        named = token.type == tokenize.NAME and not iskeyword(token.string)
        kinds = {tokenize.STRING: "s", tokenize.NUMBER: "0"}
        shapes[line].append("n" if named else kinds.get(token.type, token.string))
    return [
        (line, " ".join(words[line]), " ".join(shapes[line]), len(shapes[line]))
        for line in sorted(words)
        if any(word[0].isalnum() or word[0] in "_\"'" for word in words[line])
    ]


_NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)
SHINGLE = 6
_ENOUGH_TOKENS = 36
"""Six lines of the same shape say something only if they are this long; six identical ones always do."""


def twins(sources: Sequence[Source]) -> list[str]:
    """Pairs of places that share six or more lines: the same words, or the same shape with other names and values.

    Runs of overlapping matches between two files count once. Lines of a table (few distinct shapes) do not count by shape.
    """
    code = {source.path: _shapes(source) for source in sources}
    places: defaultdict[str, list[tuple[Path, int]]] = defaultdict(list)
    for path, lines in code.items():
        for start in range(len(lines) - SHINGLE + 1):
            window = lines[start : start + SHINGLE]
            places["\n".join(text for _, text, _, _ in window)].append((path, start))
            tokens, distinct = sum(each[3] for each in window), len({each[2] for each in window})
            if tokens >= _ENOUGH_TOKENS and distinct >= 4:
                places["\0" + "\n".join(shape for _, _, shape, _ in window)].append((path, start))
    matches: set[tuple[Path, int, Path, int]] = set()
    for found in places.values():
        for number, (one, start) in enumerate(found):
            matches |= {
                (one, start, other, there)
                for other, there in found[number + 1 :]
                if one != other or there >= start + SHINGLE
            }
    first = [match for match in matches if (match[0], match[1] - 1, match[2], match[3] - 1) not in matches]
    said = []
    for one, start, other, there in sorted(first):
        length = SHINGLE
        while (one, start + length - SHINGLE + 1, other, there + length - SHINGLE + 1) in matches:
            length += 1
        said.append(f"{one}:{code[one][start][0]} and {other}:{code[other][there][0]}: {length} lines")
    return said
