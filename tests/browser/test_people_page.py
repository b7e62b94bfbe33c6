"""The page for people without an assistant: an image in, words in, masks out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from viewer_server import Viewer, viewer

IMAGES = Path(__file__).parents[1] / "data" / "images"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """Opened on an image of a folder."""
    folder = tmp_path_factory.mktemp("people")
    (folder / "images").mkdir()
    shutil.copy(IMAGES / "skin_crop_256x160.png", folder / "images" / "skin.png")
    with viewer(folder, folder / "images" / "skin.png") as running:
        yield running


def test_an_image_is_dropped_asked_drawn_on_and_kept(empty: Viewer, new_page, shots: Path) -> None:
    page = new_page(empty.address, may_say=("400",))
    page.wait_for_function("() => window.tissuetalk?.stage?.firstPicture")
    page.get_by_role("link", name="tissuetalk").click()
    page.get_by_text("skin.png").wait_for()

    # what is no image is said, and nothing of it is kept
    words = {"name": "scan.svs", "mimeType": "image/svs", "buffer": b"not a slide" * 1000}
    page.set_input_files("#file", words)
    page.locator("[role=alert]", has_text="not an image that can be read").wait_for()
    assert list((empty.log.parent / "workspace" / "images").iterdir()) == [] and page.url == f"{empty.url}/"
    page.set_input_files("#file", IMAGES / "OSCC_400x_401.jpg")
    page.wait_for_url("**/view?image=image%3A%2F%2Fimg_*")
    page.wait_for_function("() => window.tissuetalk?.stage?.firstPicture")

    page.fill("#words", "the tumour")
    page.fill("input[aria-label='µm per pixel']", "0.25")
    page.get_by_role("button", name="Find", exact=True).click()
    page.wait_for_url("**/view/res_*")
    first = page.url.split("#")[0]
    page.locator(".legend li").first.wait_for()
    assert page.locator(".words").inner_text() == "the tumour"
    page.screenshot(path=shots / "asked.png")

    # a box, and the same again inside it alone
    page.get_by_role("button", name="Box", exact=True).click()
    stage = page.locator(".stage").bounding_box()
    page.mouse.move(stage["x"] + 350, stage["y"] + 200)
    page.mouse.down()
    page.mouse.move(stage["x"] + 600, stage["y"] + 420, steps=4)
    page.mouse.up()
    page.get_by_text("1 this, 0 not this").wait_for()
    page.keyboard.press("Control+z")
    page.get_by_text("0 this, 0 not this").wait_for()
    page.keyboard.press("Control+Shift+z")
    page.get_by_role("button", name="in the boxes").click()
    page.wait_for_function(f"() => !location.href.startsWith({first!r})")
    box = page.evaluate("() => tissuetalk.stage.layers[0]?.mask.provenance.boxes[0] ?? null")
    assert box is None or len(box) == 4

    # both are kept
    page.get_by_role("link", name="tissuetalk").click()
    page.locator(".history li").nth(1).wait_for()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.history img')].every((each) => each.naturalWidth)"
    )
    page.screenshot(path=shots / "start.png")


def test_without_a_token_there_is_nothing_to_see(empty: Viewer, new_page) -> None:
    page = new_page(empty.url, may_say=("401", "400"))
    page.fill("input#token", "a guess")
    page.get_by_role("button", name="Enter").click()
    page.get_by_text("does not open this server").wait_for()
    assert page.locator(".history, .drop, .stage").count() == 0
