"""`tissuetalk view RESULT_DIR` in a real browser: what a person sees of a result."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from viewer_server import AT_REST, Viewer, viewer

from tissuetalk.tools import Session

COLON = Path(__file__).parents[2] / "models" / "samples" / "colon.jpg"
WORDS = "Colon biopsy: crowded adenomatous glands with low-grade dysplasia. No invasive carcinoma is seen."

IN_AN_OBJECT = """() => { const { layers, view, element } = tissuetalk.stage; const box = layers[0].mask.bbox;
        const tile = [...layers[0].outlines.entries.values()].find((each) => each.value)?.value.tile;
        const b = tile.boxes.subarray(0, 4); const u = tile.x0 + tile.step * (b[0] + b[2]) / 2;
        const v = tile.y0 + tile.step * (b[1] + b[3]) / 2; const [a, bb, c, d, e, f] = view.toScreen;
        const r = element.getBoundingClientRect();
        return [r.left + (a * u + c * v + e) / devicePixelRatio, r.top + (bb * u + d * v + f) / devicePixelRatio]; }"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    folder = tmp_path_factory.mktemp("result")
    with Session(COLON.parent) as session:
        session.segment(str(COLON), WORDS, mpp=0.5).save(folder / "glands")
    with viewer(folder, folder / "glands") as running:
        yield running


def drawn(page) -> None:
    """Until the picture and every tile of every mask are there."""
    page.wait_for_function(
        "() => window.tissuetalk?.stage?.firstPicture && tissuetalk.stage.layers.length"
        " && !tissuetalk.stage.loading && tissuetalk.stage.segments > 0",
    )


def picture_in(pdf: bytes) -> bytes:
    """The JPEG of a PDF, found as readers find it: from the table at its end."""
    assert pdf.startswith(b"%PDF-1.") and pdf.endswith(b"%%EOF\n")
    table = int(pdf.rsplit(b"startxref\n", 1)[1].split(b"\n")[0])
    assert pdf[table:].startswith(b"xref\n0 6\n")
    starts = [int(line[:10]) for line in pdf[table:].split(b"\n")[3:8]]
    for number, start in enumerate(starts, start=1):
        assert pdf[start:].startswith(f"{number} 0 obj\n".encode())
    head, _, rest = pdf[starts[4] :].partition(b"\nstream\n")
    return rest[: int(head.split(b"/Length ")[1].split()[0])]


def test_a_result_is_seen_asked_and_steered(shown: Viewer, new_page, shots: Path) -> None:
    page = new_page(shown.address, may_say=("404",))
    drawn(page)
    assert "/view/res_" in page.url and "code" not in page.url
    page.screenshot(path=shots / "result.png")

    legend = page.locator(".legend li")
    assert legend.count() == 1 and "gland" in legend.first.inner_text()
    assert legend.locator(".badge").inner_text().startswith(("reliability", "low"))
    assert page.locator(".scale").inner_text().strip().endswith("µm")

    said = {row.inner_text() for row in page.locator(".findings li").all()}
    assert any("invasive carcinoma" in each and "absent" in each for each in said)
    assert page.locator(".finding.absent").count() == 1

    # a click in the middle of an object shows its numbers
    x, y = page.evaluate(IN_AN_OBJECT)
    page.mouse.click(x, y)
    page.locator(".picked .numbers").wait_for()
    assert "area" in page.locator(".picked").inner_text() and "µm²" in page.locator(".picked").inner_text()

    # a mask is switched off and on with its number
    page.keyboard.press("1")
    page.wait_for_function("() => tissuetalk.stage.segments === 0")
    page.keyboard.press("1")
    drawn(page)

    # the view's address opens the same view
    before = page.evaluate("() => tissuetalk.stage.scene.zoom")
    page.keyboard.press("+")
    page.wait_for_function(
        "(zoom) => Math.abs(Number(new URLSearchParams(location.hash.slice(1)).get('zoom')) - zoom) < 1e-3",
        arg=1.5 * before,
    )
    zoom = page.evaluate("() => tissuetalk.stage.scene.zoom")
    assert zoom == pytest.approx(1.5 * before, rel=0.01)
    page.reload()
    drawn(page)
    page.wait_for_function("(zoom) => Math.abs(tissuetalk.stage.scene.zoom / zoom - 1) < 0.02", arg=zoom)

    # what is on the screen, as a picture and as a page of PDF that holds one, with legend and scale bar below
    saved = {}
    for name, kind in (("Save a figure", "png"), ("Save as PDF", "pdf")):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        assert download.value.suggested_filename.endswith(kind)
        saved[kind] = Path(download.value.path()).read_bytes()
    figure = np.asarray(Image.open(io.BytesIO(saved["png"])).convert("RGB"))
    stage = page.locator(".stage").bounding_box()
    assert figure.shape[1] == round(stage["width"]) and figure.shape[0] > stage["height"] + 40
    below = figure[round(stage["height"]) :]
    colour = page.evaluate("() => tissuetalk.stage.layers[0].mask.colour")
    assert (below == [int(colour[at : at + 2], 16) for at in (1, 3, 5)]).all(axis=2).sum() > 100
    content, width = picture_in(saved["pdf"]), figure.shape[1]
    assert Image.open(io.BytesIO(content)).size == (width, figure.shape[0])
    assert f"/MediaBox [0 0 {width * 0.75:.2f} {figure.shape[0] * 0.75:.2f}]".encode() in saved["pdf"]

    # somebody removes it meanwhile: what is asked next is answered with that, and the page stays
    result_id = page.evaluate("() => tissuetalk.stage.layers[0].about.result.result_id")
    page.evaluate(
        "(result_id) => tissuetalk.backend.call('library', { action: 'delete', result_id })", result_id
    )
    page.evaluate("() => tissuetalk.stage.home()")
    page.wait_for_function(AT_REST)
    page.mouse.click(*page.evaluate(IN_AN_OBJECT))
    page.locator(".picked").get_by_text("there is no result").wait_for()
    page.reload()
    page.locator(".problem").get_by_text("there is no result").wait_for()


def test_the_address_works_once(shown: Viewer, new_page) -> None:
    page = new_page(shown.address, may_say=("403", "401"))
    page.locator("input#token").wait_for()
    assert "worked once" in page.inner_text("main")
