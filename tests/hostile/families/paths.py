"""Paths of images, and of folders to save to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from hostile.case import A_RESULT, INVALID, OUTSIDE, UNKNOWN, Answer, Call, Case, tool
from hostile.ground import Ground

_PATHS = (
    ("above", "../outside/secret.png", OUTSIDE),
    ("above and not there", "../outside/nothing.png", OUTSIDE),
    ("far above", "../" * 40 + "etc/passwd", OUTSIDE),
    ("down and up", "{here}/../../outside/secret.png", OUTSIDE),
    ("absolute", "{outside}/secret.png", OUTSIDE),
    ("of passwords", "/etc/passwd", OUTSIDE),
    ("of this process", "/proc/self/environ", OUTSIDE),
    ("of an open file", "/proc/self/fd/0", OUTSIDE),
    ("of a device", "/dev/zero", OUTSIDE),
    ("of the root's neighbour", "{root}-other/secret.png", OUTSIDE),
    ("of the root itself", "{root}", f"{OUTSIDE}|unreadable_image"),
    ("of a dot", ".", "unreadable_image"),
    ("of nothing", "", INVALID),
    ("of spaces", "   ", INVALID),
    ("with a NUL", "good.png\0.txt", INVALID),
    ("with a newline", "good.png\n", INVALID),
    ("with an escape", "\x1b[2Jgood.png", INVALID),
    ("written backwards", "good\u202egnp.exe", f"{INVALID}|{UNKNOWN}"),
    ("of 5,000 characters", "a" * 5000, INVALID),
    ("of 300 characters in one name", "a" * 300 + ".png", f"{UNKNOWN}|{INVALID}|unreadable_image"),
    ("of 2,000 folders", "a/" * 2000 + "x.png", f"{UNKNOWN}|{INVALID}|unreadable_image|{OUTSIDE}"),
    ("encoded", "%2e%2e/outside/secret.png", UNKNOWN),
    ("encoded twice", "%252e%252e%252foutside", UNKNOWN),
    ("with backslashes", "..\\outside\\secret.png", f"{UNKNOWN}|{OUTSIDE}"),
    ("of another drive", "C:\\Windows\\win.ini", f"{UNKNOWN}|{OUTSIDE}"),
    ("of a share", "\\\\host\\share\\x.png", f"{UNKNOWN}|{OUTSIDE}"),
    ("of a home", "~/secret.png", UNKNOWN),
    ("with a variable", "$HOME/secret.png", UNKNOWN),
    ("with a command", "$(touch hacked).png", UNKNOWN),
    ("with a command after it", "good.png; touch hacked", UNKNOWN),
    ("that is an option", "--version", UNKNOWN),
    ("with wildcards", "*.png", UNKNOWN),
    ("at an address", "https://127.0.0.1:9/x.png", INVALID),
    ("at a file address", "file:///etc/passwd", INVALID),
    ("at a bucket", "s3://bucket/x.svs", INVALID),
    ("inside an archive", "zip://x.zip!/y.png", INVALID),
    ("as data", "data:image/png;base64,iVBORw0KGgo=", f"{INVALID}|{UNKNOWN}"),
    ("by an unknown id", "image://img_" + "0" * 32, UNKNOWN),
    ("by a travelling id", "image://../../etc/passwd", INVALID),
    ("by an id and more", "image://img_" + "0" * 32 + "/../../x", INVALID),
    ("by another kind of id", f"result://{A_RESULT}/overlay.png", INVALID),
    ("with full-width dots", "\uff0e\uff0e/outside/secret.png", UNKNOWN),
    ("with a division slash", "..\u2215outside\u2215secret.png", UNKNOWN),
    ("of the workspace", "{root}/../workspace/workspace.sqlite", OUTSIDE),
)


def _image(folder: Path) -> Path:
    return folder / "image.png"


def _linked_folder(folder: Path) -> None:
    (folder / "sub").symlink_to(Path("..") / ".." / "outside", target_is_directory=True)
    _image(folder).symlink_to("sub/secret.png")


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _chain(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"l{number}").symlink_to(f"l{number + 1}")
    _image(folder).symlink_to("l0")


_ON_DISK: tuple[tuple[str, Callable[[Path], object], str], ...] = (
    ("a link out", lambda f: _image(f).symlink_to("../../outside/secret.png"), OUTSIDE),
    ("a link to a device", lambda f: _image(f).symlink_to("/dev/zero"), OUTSIDE),
    ("a link to itself", lambda f: _image(f).symlink_to("image.png"), OUTSIDE),
    ("a link to nowhere", lambda f: _image(f).symlink_to("nowhere.png"), UNKNOWN),
    ("a link inside", lambda f: _image(f).symlink_to("../good.png"), "ok"),
    ("a pipe", lambda f: os.mkfifo(_image(f)), "unreadable_image"),
    ("a folder", lambda f: _image(f).mkdir(), "unreadable_image"),
    ("a sparse file of 70 GB", lambda f: _sparse(_image(f), 70 * 2**30), "image_too_large"),
    ("a sparse file of 2 GB", lambda f: _sparse(_image(f), 2**31), "unreadable_image"),
    ("a chain of 50 links", lambda f: _chain(f, 50), f"{OUTSIDE}|{UNKNOWN}"),
    ("a link through a linked folder", _linked_folder, OUTSIDE),
)
"""What lies at ``image.png`` in the case's folder."""

_SAVED_TO = (
    ("above", "../saved", INVALID),
    ("absolute", "{outside}/saved", INVALID),
    ("in the root itself", ".", INVALID),
    ("blank", "  ", INVALID),
    ("with a NUL", "a\0b", INVALID),
    ("with a newline", "a\nb", INVALID),
    ("of 5,000 characters", "x" * 5000, INVALID),
    ("of 100 folders of 200", ("y" * 200 + "/") * 100, INVALID),
    ("through a link", "{here}/out/new", INVALID),
    ("that is a link", "{here}/out", INVALID),
    ("that is a link to itself", "{here}/loop", INVALID),
    ("over a file", "good.png", INVALID),
    ("over images", "{here}/full", INVALID),
    ("in the workspace", "../workspace/saved", INVALID),
    ("that is an option", "{here}/-rf", "ok"),
    ("that is a device", "/dev/null", INVALID),
)


def paths_family() -> Iterator[Case]:
    for name, path, expected in _PATHS:
        yield Case("Paths", f"an image {name}", tool("view", image=path), expected)
    for name, make, expected in _ON_DISK:
        yield Case(
            "Paths", f"an image that is {name}", tool("view", image="{here}/image.png"), expected, make
        )
    for name, folder, expected in _SAVED_TO:
        for format in ("folder", "geojson"):
            call, title = _saved(folder, format), f"to a folder {name} as {format}"
            yield Case("Saving", title, call, expected, _places, writes=True, seconds=10)


def _places(folder: Path) -> None:
    (folder / "out").symlink_to(folder.parents[1] / "outside" / "folder", target_is_directory=True)
    (folder / "loop").symlink_to("loop")
    (folder / "full").mkdir()
    (folder / "full" / "kept.txt").write_text("kept")


def _saved(folder: str, format: str) -> Call:
    def call(ground: Ground) -> Answer:
        result = ground.a_result()
        return ground.tool(
            "library", action="save", result_id=result, folder=ground.filled(folder), format=format
        )

    return call
