"""The viewer inside a chat: a host that speaks the Apps messages, a frame that may load nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from app_host import Host, app_host

SAMPLES = Path(__file__).parents[2] / "models" / "samples"
WORDS = "Colon biopsy: crowded adenomatous glands with low-grade dysplasia. No invasive carcinoma is seen."
DRAWN = (
    "() => window.tissuetalk?.stage?.firstPicture && tissuetalk.stage.layers.length"
    " && !tissuetalk.stage.loading && tissuetalk.stage.segments > 0"
)
IN_THE_FIRST_OBJECT = """() => { const { layers, view, element } = tissuetalk.stage;
  const tile = [...layers[0].outlines.entries.values()].find((each) => each.value)?.value.tile;
  const b = tile.boxes.subarray(0, 4); const u = tile.x0 + tile.step * (b[0] + b[2]) / 2;
  const v = tile.y0 + tile.step * (b[1] + b[3]) / 2; const [a, bb, c, d, e, f] = view.toScreen;
  const r = element.getBoundingClientRect();
  return [r.left + (a * u + c * v + e) / devicePixelRatio, r.top + (bb * u + d * v + f) / devicePixelRatio]; }"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    workspace = tmp_path_factory.mktemp("host") / "workspace"
    with app_host(SAMPLES, workspace) as running:
        running.call("segment", image="colon.jpg", words=WORDS, mpp=0.5)  # the model is read from disk once
        yield running


def app_of(page):
    """The frame, when everything is drawn."""
    page.wait_for_function("() => log.ready", timeout=200_000)
    frame = page.frames[1]
    frame.wait_for_function(DRAWN, timeout=200_000)
    return frame


def chat(new_page, host: Host, tool: str, **given: object):
    page = new_page("about:blank", viewport={"width": 900, "height": 1100})
    page.goto(host.conversation(tool, **given))
    return page


def test_a_report_is_seen_asked_and_answered_in_the_chat(host: Host, new_page, shots: Path) -> None:
    page = chat(new_page, host, "segment", image="colon.jpg", words=WORDS, mpp=0.5)
    frame = app_of(page)
    page.screenshot(path=shots / "app.png", full_page=True)

    # the words the assistant passed, each finding in the colour of its mask
    assert frame.locator(".words").inner_text() == WORDS
    assert frame.locator(".finding.absent").inner_text().startswith("invasive carcinoma")
    height = page.locator("iframe").bounding_box()["height"]
    assert 500 < height < 1000

    # an object is selected: the assistant knows, and is told what the person wants
    frame.locator(".stage").scroll_into_view_if_needed()
    x, y = frame.evaluate(IN_THE_FIRST_OBJECT)
    box = page.locator("iframe").bounding_box()
    page.mouse.click(box["x"] + x, box["y"] + y)
    frame.locator(".picked .numbers").wait_for()
    page.wait_for_function("() => log.context.some((each) => each.includes('selected object'))")
    for name, holds in (("Not this", "base_result="), ("Everything like this", '"is":true')):
        frame.get_by_role("button", name=name).click()
        page.wait_for_function("(text) => log.messages.some((each) => each.includes(text))", arg=holds)
    assert "res_" in page.evaluate("log.messages[0]") and "selected object" in page.evaluate(
        "log.messages[0]"
    )

    frame.get_by_role("button", name="Save a figure").click()
    page.wait_for_function("() => log.saved.length === 1")

    frame.get_by_role("button", name="Whole screen").click()
    frame.wait_for_function(
        "() => innerHeight > 1000 && document.querySelector('.viewer').clientHeight === innerHeight"
    )
    frame.get_by_role("button", name="Back into the chat").click()

    # nothing but what a page may ask, and no answer of a tool was read twice
    asked = page.evaluate("log.calls.map(({ name, args }) => JSON.stringify([name, args]))")
    tiles = [each for each in asked if '"tile"' in each]
    assert len(tiles) == len(set(tiles)) and {each.split('"')[1] for each in asked} <= {"viewer", "job"}


def test_the_assistant_drives_the_view(host: Host, new_page) -> None:
    page = chat(new_page, host, "segment", image="colon.jpg", words="outline the glands", mpp=0.5)
    frame = app_of(page)
    result_id = frame.evaluate("() => tissuetalk.stage.layers[0].about.result.result_id")
    centre = "() => tissuetalk.stage.view.centre.map(Math.round)"

    # hosts that let the assistant use the page's own tools
    listed = page.evaluate("ask('tools/list', {})")
    assert [tool["name"] for tool in listed["tools"]] == ["look_here"]
    moved = {"name": "look_here", "arguments": {"region": [10, 10, 110, 110]}}
    page.evaluate("(params) => ask('tools/call', params)", moved)
    frame.wait_for_function("() => Math.abs(tissuetalk.stage.view.centre[0] - 60) < 3")

    # all others: the page asks now and then where the assistant looked
    page.evaluate(
        "([result_id]) => fetch('/call', { method: 'POST', body: JSON.stringify("
        "{ name: 'view', arguments: { result_id, region: [200, 200, 300, 300] } }) })",
        [result_id],
    )
    page.mouse.move(5, 5)
    frame.wait_for_function("() => Math.abs(tissuetalk.stage.view.centre[0] - 250) < 3")
    assert abs(frame.evaluate(centre)[1] - 250) < 5
    looks = page.evaluate("log.calls.filter(({ args }) => args.what === 'look').length")
    assert looks <= 6


def test_other_answers_open_where_they_look(host: Host, new_page) -> None:
    page = chat(new_page, host, "view", image="colon.jpg", region=[50, 50, 150, 150])
    page.wait_for_function("() => log.ready")
    frame = page.frames[1]
    frame.wait_for_function(
        "() => window.tissuetalk?.stage.firstPicture && Math.abs(tissuetalk.stage.view.centre[0] - 100) < 3"
    )
    assert page.evaluate("log.calls.every(({ args }) => args.result_id === undefined)")


def test_what_cannot_be_shown_is_said_in_the_frame(host: Host, new_page) -> None:
    page = chat(new_page, host, "measure", result_id="res_" + "0" * 32)
    page.wait_for_function("() => log.ready")
    said = page.frames[1].locator(".problem p")
    said.wait_for()
    assert "no result" in said.inner_text()
