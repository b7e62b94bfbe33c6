"""Pointing in the browser: boxes teach a target, and an object that is wrong goes out of the next result."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from viewer_server import AT_REST, Viewer, viewer

from tissuetalk.tools import Session

TISSUE = Path(__file__).parents[1] / "data" / "images" / "OSCC_400x_401.jpg"

LARGEST = """() => { const layer = tissuetalk.stage.layers[0];
    const { tile } = [...layer.outlines.entries.values()].find((each) => each.value).value;
    const { boxes, step, x0, y0 } = tile; let best = 0; let most = 0;
    for (let i = 0; i < tile.ids.length; i++) {
      const b = boxes.subarray(4 * i, 4 * i + 4); const size = (b[2] - b[0]) * (b[3] - b[1]);
      const at = [x0 + step * (b[0] + b[2]) / 2, y0 + step * (b[1] + b[3]) / 2];
      if (size > most && layer.objectAt(...at, tissuetalk.stage.view)?.id === tile.ids[i]) [best, most] = [i, size]; }
    const b = boxes.subarray(4 * best, 4 * best + 4);
    return [x0 + step * b[0], y0 + step * b[1], x0 + step * b[2], y0 + step * b[3]]; }"""
AREA = """async (at) => { const { stage, backend } = tissuetalk; const { layer, id } = await stage.hit(...at);
    const { result_id } = layer.about.result;
    return (await backend.objectRow(result_id, layer.mask.mask_id, id, at)).area_px; }"""
SPY = """() => { const { backend } = tissuetalk; const { call } = backend;
    window.sent = [];
    backend.call = (tool, args, ...more) => { if (args.examples) sent.push(args); return call.call(backend, tool, args, ...more); }; }"""
RIGHTMOST = (
    """() => tissuetalk.shapes().at(-1).points.reduce((one, other) => (other[0] > one[0] ? other : one))"""
)


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    folder = tmp_path_factory.mktemp("teaching")
    (folder / "images").mkdir()
    image = shutil.copy(TISSUE, folder / "images" / "mouth.jpg")
    with Session(folder / "images") as session:
        found = session.segment(image, "outline the nuclei", model="classical-nuclei", mpp=0.25)
        found.save(folder / "found")
    with viewer(folder, folder / "found") as running:
        yield running


def box(page, x0: int, y0: int, x1: int, y1: int) -> None:
    """Drawn with the mouse over these pixels of the image."""
    place = """([x, y]) => { const { view, element } = tissuetalk.stage; const [a, b, c, d, e, f] = view.toScreen;
        const r = element.getBoundingClientRect();
        return [r.left + (a * x + c * y + e) / devicePixelRatio, r.top + (b * x + d * y + f) / devicePixelRatio]; }"""
    page.mouse.move(*page.evaluate(place, [x0, y0]))
    page.mouse.down()
    page.mouse.move(*page.evaluate(place, [x1, y1]), steps=3)
    page.mouse.up()


def test_an_object_is_taken_away_and_three_boxes_teach(nuclei: Viewer, new_page, shots: Path) -> None:
    page = new_page(nuclei.address)
    page.wait_for_function("() => window.tissuetalk?.stage?.segments > 0 && !tissuetalk.stage.loading")
    first = page.url.split("#")[0]
    count = int(page.locator(".legend .amount").first.inner_text().replace(",", ""))

    # the object in the middle of the largest box of a tile is not one
    x0, y0, x1, y1 = page.evaluate(LARGEST)
    middle = [(x0 + x1) / 2, (y0 + y1) / 2]
    page.get_by_role("button", name="Object", exact=True).click()
    page.get_by_label("not this", exact=True).check()
    x, y = middle
    box(page, x, y, x, y)
    page.get_by_text("0 this, 1 not this").wait_for()
    page.get_by_role("button", name="Correct nuclei").click()
    page.wait_for_function(f"() => !location.href.startsWith({first!r})")
    page.wait_for_function("() => tissuetalk.stage.segments > 0 && !tissuetalk.stage.loading")
    assert int(page.locator(".legend .amount").first.inner_text().replace(",", "")) == count - 1
    assert page.evaluate("([x, y]) => tissuetalk.stage.hit(x, y)", middle) is None
    page.get_by_role("button", name="an earlier result").wait_for()

    # an object's outline is pulled with the mouse: the corrected one is what was drawn
    count = int(page.locator(".legend .amount").first.inner_text().replace(",", ""))
    second = page.url.split("#")[0]
    page.get_by_role("button", name="Object", exact=True).click()
    page.get_by_label("this", exact=True).check()
    x0, y0, x1, y1 = page.evaluate(LARGEST)
    box(page, (x0 + x1) / 2, (y0 + y1) / 2, (x0 + x1) / 2, (y0 + y1) / 2)
    page.get_by_text("1 this, 0 not this").wait_for()
    page.get_by_role("button", name="Corners", exact=True).click()
    page.evaluate("(box) => tissuetalk.stage.fit(box, true)", [x0 - 20, y0 - 20, x1 + 20, y1 + 20])
    page.wait_for_timeout(300)
    right = page.evaluate(RIGHTMOST)
    box(page, *right, right[0] + 15, right[1])
    left = page.evaluate(RIGHTMOST.replace(">", "<").replace("=<", "=>"))
    box(page, *left, left[0] - 15, left[1])  # outwards: inwards the line may cross itself
    page.screenshot(path=shots / "corners.png")
    before = page.evaluate(AREA, [(x0 + x1) / 2, (y0 + y1) / 2])
    page.evaluate(SPY)
    page.get_by_role("button", name="Correct nuclei").click()
    page.wait_for_function(f"() => !location.href.startsWith({second!r})")
    page.wait_for_function("() => tissuetalk.stage.segments > 0 && !tissuetalk.stage.loading")
    assert int(page.locator(".legend .amount").first.inner_text().replace(",", "")) == count
    sent = [[each["is"] for each in args["examples"]] for args in page.evaluate("sent")]
    assert sent == [[False], [True]]
    assert page.evaluate(AREA, [(x0 + x1) / 2, (y0 + y1) / 2]) != before
    page.evaluate("() => tissuetalk.stage.home()")
    page.wait_for_function(AT_REST)

    # beside the result it corrects
    page.locator(".compare summary").click()
    page.get_by_role("button", name="Before the correction").click()
    page.locator(".swipe").wait_for()
    page.wait_for_timeout(800)
    page.screenshot(path=shots / "before-and-after.png")
    page.locator(".compare summary").click()

    # three boxes of pale fields, two of tissue
    page.get_by_role("button", name="Box", exact=True).click()
    page.get_by_label("this", exact=True).check()
    for corners in ((560, 420, 640, 480), (480, 560, 560, 640), (620, 560, 700, 640)):
        box(page, *corners)
    page.get_by_label("not this", exact=True).check()
    for corners in ((160, 60, 240, 140), (1100, 200, 1200, 300)):
        box(page, *corners)
    page.get_by_text("3 this, 2 not this").wait_for()
    page.screenshot(path=shots / "boxes.png")
    page.fill(".teach input[type=text]", "keratin")
    page.get_by_role("button", name="Find everything like this").click()
    page.locator(".legend").get_by_text("keratin").wait_for()
    page.wait_for_function("() => !tissuetalk.stage.loading")
    page.screenshot(path=shots / "taught.png")
    taught = page.evaluate("() => tissuetalk.stage.layers.map((each) => each.mask.taught)")
    assert taught and (taught[0]["positive"], taught[0]["negative"]) == (3, 2)
