"""The viewer in headless Chromium on a drawn slide: 40,000 x 40,000 px, 100,000 and 1,000,000 objects.

`python -m benchmarks viewer`. The page is opened from `tissuetalk view` on this machine, in a window of 1280 x 800, drawn by the
processor (SwiftShader) where there is no graphics card. First picture: from the page's load event to the first tile of the image that is
drawn. Panning: the view is moved by 6 px in every animation frame for four seconds, once every tile is there; the figure is the
mean time between frames. Tiles: 60 of each kind, asked for one after the other by the page itself, without its cache.
Memory: the largest resident size of the process that held the page.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure
from benchmarks.slide_measures import SIDE, TISSUE, draw

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from debian_chromium import QUIET, chromium
from drawn_slides import RESECTION, cached
from viewer_server import viewer

from tissuetalk.models.images import open_image
from tissuetalk.tools.storage.result_folder import ResultFolder

OBJECTS = (100_000, 1_000_000)
TILES = 60
ALL_THERE = (
    "() => window.tissuetalk?.stage?.firstPicture && tissuetalk.stage.layers.length"
    " && !tissuetalk.stage.loading && tissuetalk.stage.osd.world.getItemAt(0)?.getFullyLoaded()"
)
PAN = """async () => { const { stage } = tissuetalk; const { viewport } = stage.osd; const start = performance.now();
  let frames = 0; let most = 0;
  while (performance.now() - start < 4000) {
    const way = Math.floor(frames / 40) % 2 ? -6 : 6;
    const unit = viewport.getBounds(true).width / stage.element.clientWidth; const to = viewport.getCenter(true);
    to.x += way * unit; to.y += way * unit / 2; viewport.panTo(to, true);
    await new Promise(requestAnimationFrame); frames++; most = Math.max(most, stage.segments);
  }
  const [x0, y0, x1, y1] = stage.view.seen;
  return { ms: (performance.now() - start) / frames, segments: most, area: [x0, y0, x1, y1] }; }"""
ASK = """async ([addresses]) => { const took = [];
  for (const address of addresses) { const start = performance.now();
    const answer = await fetch(address, { cache: 'no-store' }); await answer.arrayBuffer();
    if (answer.status !== 200 && answer.status !== 204) throw new Error(`${answer.status} of ${address}`);
    took.push(performance.now() - start); }
  return took; }"""


def slide_result(folder: Path, count: int) -> Path:
    """A result of the drawn slide with so many objects."""
    slide = cached(RESECTION)
    draw(folder, count)
    result = ResultFolder(folder)
    found = result.result()
    with open_image(slide, name=slide.name) as source:
        image = found.image.model_copy(update={"image_id": source.image_id})
    nuclei, tumour = found.masks
    nuclei = nuclei.model_copy(update={"count": count, "area_px": count * 50, "bbox": [0, 0, TISSUE, TISSUE]})
    tumour = tumour.model_copy(update={"area_px": TISSUE**2 // 2, "bbox": [0, 0, TISSUE, TISSUE // 2]})
    result.write_result(found.model_copy(update={"image": image, "masks": [nuclei, tumour]}))
    result.write_request({"image": str(slide)})
    return folder


@contextmanager
def opened(address: str) -> Iterator[tuple[Any, Any]]:
    """A page, and what asks the browser about itself."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium(), args=list(QUIET))
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        yield page, browser.new_browser_cdp_session()
        browser.close()


def measure() -> list[Figure]:
    size = files("tissuetalk.server").joinpath("viewer", "viewer.html").read_bytes()
    figures = [Figure("viewer: size of its file", len(size) / 1e6, "MB", 1.5, {})]
    for count in OBJECTS:
        with tempfile.TemporaryDirectory() as scratch:
            result = slide_result(Path(scratch) / "result", count)
            with viewer(Path(scratch), result) as running, opened(running.address) as (page, browser):
                figures += _of_page(page, browser, count)
    return figures


def _of_page(page: Any, browser: Any, count: int) -> list[Figure]:
    page.wait_for_function(ALL_THERE, timeout=300_000)
    first_ms, opened_ms = page.evaluate(
        "() => { const { loadEventEnd, requestStart } = performance.getEntriesByType('navigation')[0];"
        " const { firstPicture } = tissuetalk.stage; return [firstPicture - loadEventEnd, firstPicture - requestStart]; }"
    )
    named = f"{count:,} objects"
    parts = {
        "seconds since the page was asked for": opened_ms / 1000,
        "processes that want each core": _load(),
    }
    figures = [Figure(f"{named}: first picture", max(0.0, first_ms) / 1000, "s", 1.0, parts)]
    for name, side in (("all of them", TISSUE), ("as outlines", 540)):
        page.evaluate(f"() => tissuetalk.stage.fit([2000, 2000, {side + 2000}, {side + 2000}], true)")
        page.wait_for_timeout(500)
        page.wait_for_function(ALL_THERE, timeout=300_000)
        moved = page.evaluate(PAN)
        if (name == "as outlines") != (moved["segments"] > 0):
            raise RuntimeError(f"{named}, {name}: {moved['segments']} stretches of outline were drawn")
        parts = {"stretches of outline drawn": moved["segments"], "frames a second": 1000 / moved["ms"]}
        figures.append(Figure(f"{named}: a frame while panning, {name}", moved["ms"], "ms", 33.4, parts))
    if count == OBJECTS[0]:
        figures += _tiles(page)
    processes = browser.send("SystemInfo.getProcessInfo")["processInfo"]
    peak_mb = max(_peak_mb(each["id"]) for each in processes if each["type"] == "renderer")
    return [*figures, Figure(f"{named}: memory of the page", peak_mb, "MB", 500, {})]


def _tiles(page: Any) -> list[Figure]:
    """Cold: the first time anybody asks. Warm: again."""
    result, mask, image = page.evaluate(
        "() => { const { layers } = tissuetalk.stage; const { result } = layers[0].about;"
        " return [result.result_id, layers[0].mask.mask_id, result.image.image_id]; }"
    )
    across = range(TISSUE // 512 + 1, SIDE // 512)  # beyond what the page has asked for already
    places = [(x, y) for y in across for x in across][:: len(across) ** 2 // TILES][:TILES]
    inside = [(x, y) for y in range(8, 24) for x in range(8, 24)][::4][:TILES]
    kinds = {
        "image": [f"/tiles/image/{image}/0/{x}/{y}" for x, y in places],
        "cover": [f"/tiles/cover/{result}/{mask}/0/{x}/{y}" for x, y in inside],
        "objects": [f"/tiles/objects/{result}/{mask}/0/{x}/{y}" for x, y in inside],
    }
    cold = {kind: page.evaluate(ASK, [addresses]) for kind, addresses in kinds.items()}
    warm = {kind: page.evaluate(ASK, [addresses]) for kind, addresses in kinds.items()}
    load = {"processes that want each core": _load()}
    return [
        Figure(
            f"tiles, p95, {name}",
            _p95([ms for each in took.values() for ms in each]),
            "ms",
            target,
            {k: _p95(v) for k, v in took.items()} | load,
        )
        for name, took, target in (("cold", cold, 200.0), ("warm", warm, 50.0))
    ]


def _p95(took: list[float]) -> float:
    return sorted(took)[int(0.95 * (len(took) - 1))]


def _load() -> float:
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
