"""For everybody: no serious finding of axe on any page, light or dark, on a desk or a phone; every control has a name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from debian_chromium import missing
from viewer_server import Viewer, viewer

from tissuetalk.tools import Session

ROOT = Path(__file__).parents[2]
COLON = ROOT / "models" / "samples" / "colon.jpg"
AXE = ROOT / "server" / "viewer" / "node_modules" / "axe-core" / "axe.min.js"
WORDS = "Colon biopsy: crowded glands with low-grade dysplasia. No invasive carcinoma is seen."
PHONE = {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    folder = tmp_path_factory.mktemp("reads")
    with Session(COLON.parent) as session:
        session.segment(str(COLON), WORDS).save(folder / "glands")
    with viewer(folder, folder / "glands") as running:
        yield running


def findings(page) -> list[str]:
    """What axe calls serious or critical."""
    if not AXE.is_file():
        missing("axe is missing; run make viewer")
    page.evaluate(AXE.read_text())
    found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    return [f"{each['id']}: {each['nodes'][0]['html'][:120]}" for each in serious]


def test_every_page_reads_well(shown: Viewer, new_page, shots: Path) -> None:
    page = new_page(shown.address)
    page.wait_for_function("() => window.tissuetalk?.stage?.segments > 0 && !tissuetalk.stage.loading")
    for summary in page.locator("summary").all():
        summary.click()
    page.get_by_role("button", name="Keys").click()
    result = page.url.split("#")[0]
    for theme in ("light", "dark"):
        page.evaluate("(theme) => (document.documentElement.dataset.theme = theme)", theme)
        assert findings(page) == [], theme
    page.screenshot(path=shots / "dark.png")
    page.set_viewport_size(PHONE)
    page.wait_for_function("(width) => document.documentElement.scrollWidth <= width", arg=PHONE["width"])
    page.screenshot(path=shots / "phone.png")
    assert findings(page) == []
    page.goto(f"{shown.url}/")
    page.locator(".history li").wait_for()
    for theme in ("light", "dark"):
        page.evaluate("(theme) => (document.documentElement.dataset.theme = theme)", theme)
        assert findings(page) == [], theme
    assert page.url != result
