"""A real browser: Debian's Chromium through Playwright. Where one of them is missing, its tests are skipped and say so."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from debian_chromium import QUIET, chromium, missing


# not for longer than a module: Playwright keeps an event loop running, beside which tests with one of their own cannot run
@pytest.fixture(scope="module")
def browser() -> Iterator:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is missing: pip install playwright")
    if (path := chromium()) is None:
        missing("chromium is missing; on Debian: apt-get install chromium")
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture
def new_page(browser) -> Iterator[Callable]:
    """Opens pages; at the end none of them may have said an error on its console. expected: what it may say."""
    contexts, said = [], []
    expected: list[str] = []

    def opened(url: str, *, may_say: tuple[str, ...] = (), **options: object):
        expected.extend(may_say)
        options.setdefault("viewport", {"width": 1280, "height": 800})
        context = browser.new_context(accept_downloads=True, **options)
        context.set_default_timeout(120_000)  # for what must come, however slow the machine
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda line: line.type == "error" and said.append(line.text))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [line for line in said if not any(each in line for each in expected)] == []


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where pictures of pages go; TISSUETALK_SHOTS=DIR keeps them."""
    kept = os.environ.get("TISSUETALK_SHOTS")
    folder = Path(kept) if kept else tmp_path / "shots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
