"""What the README and the docs tell people to type works: commands run, options exist, Python blocks run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PAGES = [
    PROJECT / "README.md",
    PROJECT / "CONTRIBUTING.md",
    PROJECT / "SECURITY.md",
    *sorted((PROJECT / "docs").glob("*.md")),
]
COMMAND = Path(sys.executable).with_name("tissuetalk")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

NOT_RUN = {
    "serve": "runs until it is stopped; the server tests start it",
    "setup": "writes into the home folder; test_setup.py runs it in another",
    "view": "runs until it is stopped; the viewer tests start it",
    "train": "needs the reader's own recipe and data; the training tests run recipes",
    "teach": "needs the reader's drawings; test_by_example_files.py teaches from drawn ones",
    "data": "needs files of other people's data sets; their loaders have tests on drawn files",
    "evaluate": "needs the reader's manifest",
    "compare": "needs two earlier evaluations",
    "training": "trains, or needs a checkpoint; the ablation tests run it",
    "demo": "has tests of its own",
    "weights": "needs a published checkpoint",
    "audit": "needs a server's log; test_operations.py reads one",
    "backup": "names folders of a container; test_backup.py runs both beside a server",
    "restore": "as backup",
    "reproduce": "trains hundreds of networks; its tests run one of each paper",
}
"""Commands whose options are checked but which are not run, with the reason."""
PLACEHOLDER = re.compile(
    r"s3://|gs://|ray://|[A-Z]{3,}\.(?:csv|yaml|svs)|RESULT_DIR|/path/to|my-classifier|--engine ray|https?://|doctor --workspace"
)
"""Arguments only the reader can fill in."""


def commands(page: Path, languages: tuple[str, ...] = ("sh", "")) -> list[str]:
    """Every `tissuetalk …` line of the page's shell blocks, comments and line continuations resolved."""
    found = []
    for language, block in BLOCK.findall(page.read_text("utf-8")):
        if language in languages:
            for line in block.replace("\\\n", " ").splitlines():
                words = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
                if words.startswith("tissuetalk "):
                    found.append(words)
    return found


def arguments(line: str) -> list[str]:
    return shlex.split(line, comments=True)[1:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: a slide, a folder of slides, an image of glands, the checkout's models folder."""
    home = tmp_path_factory.mktemp("reader")
    slide = PROJECT / "tests" / "data" / "images" / "CMU-1-Small-Region.svs"
    (home / "slides").mkdir()
    shutil.copy(slide, home / "slide.svs")
    shutil.copy(slide, home / "slides" / "one.svs")
    shutil.copy(PROJECT / "models" / "samples" / "colon.jpg", home / "colon.jpg")
    (home / "models").symlink_to(PROJECT / "models")
    return home


ALL = [(page.relative_to(PROJECT).as_posix(), line) for page in PAGES for line in commands(page)]


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({page for page, _ in ALL}))
def test_the_commands_of_a_page_work_in_their_order(page: str, folder: Path) -> None:
    ran = 0
    for name in ("result", "slide-nuclei", "glands", "study"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for line in (line for at, line in ALL if at == page):
        words = arguments(line)
        if words[0] in NOT_RUN or PLACEHOLDER.search(line):
            continue
        done = subprocess.run(
            [COMMAND, *words],
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=280,
            env={**os.environ, "TISSUETALK_WORKSPACE": str(folder / "workspace")},
        )
        assert done.returncode == 0, f"{line}\n{done.stderr[-800:]}"
        ran += words[0] == "segment"
    assert page != "README.md" or ran >= 2, "the README shows segment at work"


def _help(command: tuple[str, ...]) -> str:
    done = subprocess.run(
        [COMMAND, *command, "--help"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, f"tissuetalk {' '.join(command)} is no command: {done.stderr[-300:]}"
    return done.stdout


def test_every_option_that_the_pages_name_exists() -> None:
    known: dict[tuple[str, ...], str] = {}
    for page, line in ALL:
        words = arguments(line)
        name: tuple[str, ...] = (words[0],)
        if name not in known:
            known[name] = _help(name)
        if re.search(r"Usage: .*COMMAND", known[name]) and len(words) > 1 and not words[1].startswith("-"):
            name = (words[0], words[1])
            if name not in known:
                known[name] = _help(name)
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            assert option in known[name], f"{page}: {line}: no option {option}"


PYTHON = [
    (page.relative_to(PROJECT).as_posix(), block)
    for page in PAGES
    for language, block in BLOCK.findall(page.read_text("utf-8"))
    if language == "python"
]


@pytest.mark.parametrize(("page", "block"), PYTHON)
def test_a_python_block_runs(page: str, block: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:tissuetalk", "-c", block],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, f"{page}\n{block}\n{done.stderr[-1500:]}"


def test_the_tests_that_the_threat_model_names_are_there() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", (PROJECT / "docs" / "security.md").read_text("utf-8")))
    assert len(named) > 10 and not [name for name in named if not (PROJECT / name).is_file()]
