"""``python -m hostile.fuzz``: readers of strangers' bytes, driven by coverage (atheris), a share of the time for each.

Only the package's own errors may come out. Inputs that broke something are kept in ``seeds/TARGET`` and run by ``tests/test_hostile.py``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

SEEDS = Path(__file__).with_name("seeds")
LONGEST = 20_000
INPUT_S, INPUT_MB, START_S = 20, 3000, 180


def _allowed(call: Callable[[], object]) -> None:
    from tissuetalk.models.errors import TissuetalkError

    with suppress(TissuetalkError):
        call()


@cache
def _scratch() -> Path:
    place = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir=place))


def _as_file(name: str, data: bytes) -> Path:
    path = _scratch() / name
    path.write_bytes(data)
    return path


def image(data: bytes) -> None:
    """A file of any format, opened and looked at; its first byte chooses nothing: the content decides."""
    from tissuetalk.models.images import open_image

    def look() -> None:
        with open_image(_as_file("image", data), name="image") as source:
            source.overview()

    _allowed(look)


def headers(data: bytes) -> None:
    """Texts that say a scale, a series of DICOM, an index of several files."""
    from tissuetalk.models.images import files, parts

    text = data.decode("utf-8", "replace")
    files.mpp_from_ome(text, 32)
    files.mpp_from_imagej(text, 2.0, 2.0)
    parts.series_in(data)
    _allowed(lambda: parts.names_in(data, "slide"))


def words(data: bytes) -> None:
    """A report, a request, a question."""
    text = data.decode("utf-8", "replace")
    _allowed(lambda: _reader().translate(text, organ=None))


@cache
def _reader() -> Any:
    from tissuetalk.prompts.readers import make_reader

    return make_reader("rules")


def recipe(data: bytes) -> None:
    from tissuetalk.models.recipe import read_values

    _allowed(lambda: read_values(_as_file("recipe.yaml", data)))


def card(data: bytes) -> None:
    """A classifier's card, and the same bytes as its weights."""
    from tissuetalk.models.classifiers.card import read_card, read_classifier_file

    path = _as_file("c.json", data)
    _as_file("c.safetensors", data)
    _allowed(lambda: read_card(path))
    _allowed(lambda: read_classifier_file(path, "attention"))


def manifest(data: bytes) -> None:
    from tissuetalk.models.datasets.manifest import read_manifest

    _allowed(lambda: read_manifest(_as_file("manifest.csv", data)))


def path(data: bytes) -> None:
    """A name of an image, and of a folder to save to."""
    name = data.decode("utf-8", "surrogatepass") if _is_text(data) else data.decode("latin-1")
    _allowed(lambda: _roots().open(name).close())


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


@cache
def _roots() -> Any:
    from tissuetalk.tools.storage.roots import Roots

    root = _scratch() / "root"
    root.mkdir()
    return Roots([root])


def calls(data: bytes) -> None:
    """The arguments of every tool, as JSON: an answer, or an error whose text begins with a code."""
    try:
        asked = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(asked, dict) or not isinstance(asked.get("arguments"), dict):
        return
    text = _served()(str(asked.get("name")), asked["arguments"])
    assert "Error executing tool" not in text, text[:300]


@cache
def _served() -> Callable[[str, dict[str, Any]], str]:
    """A server in memory on a loop of its own."""
    import asyncio
    import threading

    from mcp import Client

    from tissuetalk.server.app import build_server
    from tissuetalk.server.service import Service, Settings

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    root = _scratch() / "served"
    root.mkdir()
    service = Service(Settings(roots=(root,), workspace=_scratch() / "workspace"))
    ready: list[Any] = []

    async def hold(started: Any) -> None:
        async with Client(build_server(service)) as client:
            ready.append(client)
            started.set()
            await asyncio.Event().wait()

    started = threading.Event()
    asyncio.run_coroutine_threadsafe(hold(started), loop)
    started.wait(60)

    async def ask(name: str, arguments: dict[str, Any]) -> str:
        result = await ready[0].call_tool(name, arguments)
        return " ".join(getattr(part, "text", "") for part in result.content) if result.is_error else ""

    return lambda name, arguments: asyncio.run_coroutine_threadsafe(ask(name, arguments), loop).result(60)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (image, headers, words, recipe, card, manifest, path, calls)
}


def beginnings() -> dict[str, list[bytes]]:
    """What each target starts from, besides what is kept in ``seeds``."""
    from drawn_mirax import Mirax

    from hostile.bytes_of import jpeg, png
    from hostile.families import damage, kept, tiffs

    tools = [
        {"name": "view", "arguments": {"image": "a.png", "region": [0, 0, 9, 9], "grid": True}},
        {
            "name": "segment",
            "arguments": {"image": "a.png", "words": "nuclei", "points": [[1, 2]], "mpp": 0.5},
        },
        {
            "name": "segment",
            "arguments": {
                "image": "a.png",
                "targets": [{"words": "x", "relation": {"op": "inside", "reference": "y"}}],
            },
        },
        {
            "name": "measure",
            "arguments": {"result_id": "res_" + "0" * 32, "metrics": ["area"], "mask_ids": ["msk_0"]},
        },
        {
            "name": "library",
            "arguments": {"action": "save", "result_id": "x", "folder": "y", "format": "csv"},
        },
        {"name": "job", "arguments": {"job_id": "job_0", "action": "wait"}},
        {"name": "explain", "arguments": {"result_id": "x", "question": "why", "classifier": "c.json"}},
    ]
    good = damage._good()
    return {
        "image": [content for content in (*good.values(), png(), jpeg()) if len(content) < LONGEST],
        "headers": [
            tiffs.OME_HEAD.encode() + tiffs._pixels().encode(),
            b"ImageJ=1.53\nunit=micron\n",
            Mirax().slidedat(),
            good["dcm"][:1500],
        ],
        "words": [
            b"Colon biopsy: adenocarcinoma; no dysplasia. Glands within 50 um of the margin?",
            "Drüsen µm².".encode(),
        ],
        "recipe": [b"name: x\nmodel:\n  width: 3\n  list: [1, 2]\n"],
        "card": [kept.card()],
        "manifest": [
            b"file,mask,mask_kind,mask_class,group,organ,stain,mpp_um,note\ni.png,m.png,semantic,gland,g,colon,HE,0.5,\n"
        ],
        "path": [b"a.png", b"../a.png", b"image://img_" + b"0" * 32, b"/etc/passwd"],
        "calls": [json.dumps(tool).encode() for tool in tools],
    }


def fuzz(target: str, seconds: int) -> int:
    """One target in this process. The exit status is libFuzzer's."""
    import atheris

    # the coverage of these modules guides it; libraries in C are black boxes
    with atheris.instrument_imports(include=["tissuetalk", *(["tifffile"] if target == "image" else [])]):
        for content in beginnings()[target]:  # what is imported on first use is no input's cost
            TARGETS[target](content)
    folder = Path(tempfile.mkdtemp(prefix=f"corpus-{target}-"))
    for number, content in enumerate(beginnings()[target]):
        (folder / f"start{number}").write_bytes(content)
    kept = SEEDS / target
    kept.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        f"-timeout={INPUT_S}",
        f"-rss_limit_mb={INPUT_MB}",
        f"-artifact_prefix={kept}/",
        "-print_final_stats=1",
        "-verbosity=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(folder), str(kept)], TARGETS[target])
    atheris.Fuzz()
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="hostile.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", choices=sorted(TARGETS))
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together")
    asked = parser.parse_args()
    if asked.target is not None:
        sys.exit(fuzz(asked.target, int(asked.minutes * 60)))
    try:
        import atheris  # noqa: F401
    except ImportError:
        print(
            "fuzzing needs atheris (Linux, Python 3.11 to 3.13): pip install 'tissuetalk[fuzz]'",
            file=sys.stderr,
        )
        sys.exit(3)
    share = asked.minutes / len(TARGETS)
    broken = [target for target in TARGETS if not _of_its_own(target, share)]
    sys.exit(bool(broken))


def _of_its_own(target: str, minutes: float) -> bool:
    """One target in a process of its own, which a crash takes with it. False when it found something."""
    with tempfile.TemporaryFile("w+") as log:
        done = subprocess.Popen(
            [sys.executable, "-m", "hostile.fuzz", target, "--minutes", str(minutes)], stderr=log, stdout=log
        )
        try:
            broken = done.wait(minutes * 60 + START_S) != 0
        except (
            subprocess.TimeoutExpired
        ):  # it had ended its work, and libFuzzer waits for threads of a library
            done.kill()
            done.wait()
            broken = False
        log.seek(0)
        said = log.read().splitlines()
    counted = [line.split("::", 1)[1].split() for line in said if line.startswith("stat::")]
    numbers = {name.rstrip(":"): value for name, value in counted}
    broken = broken or any("ERROR: libFuzzer" in line or "Uncaught Python exception" in line for line in said)
    print(
        f"{target}: {numbers.get('number_of_executed_units', '?')} inputs, "
        f"{numbers.get('new_units_added', '?')} new ways, "
        f"slowest {numbers.get('slowest_unit_time_sec', '?')} s, {numbers.get('peak_rss_mb', '?')} MB; "
        f"{'BROKEN, see tests/hostile/seeds/' + target if broken else 'nothing found'}",
        flush=True,
    )
    if broken:
        print("\n".join(said[-40:]))
    return not broken


if __name__ == "__main__":
    main()
