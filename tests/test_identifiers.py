"""A patient's identifiers in every place of every format, and none of them in anything that comes out.

One real server, asked everything over HTTP with everything logged; then all it said, sent, wrote and logged is searched.
The exceptions are listed: ``MAY_NAME_THE_FILE``, ``MAY_QUOTE_THE_REPORT``, and an uploaded image, which is kept as it came.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
import planted
import pytest
from conversation import wait_for
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from openai_server import OpenAIServer, openai_server
from planted import FILE_NAME, IDENTIFIERS, found_in
from pyarrow import parquet

from tissuetalk.tools.export import FORMATS

COMMAND = str(Path(sys.executable).with_name("tissuetalk"))
TOKEN = "a-token-for-tests-only"
REPORT = (
    f"Patient: {planted.GIVEN} {planted.SURNAME}\nMRN: {planted.RECORD}\nDOB: {planted.BORN}\nTaken 1947-02-13, "
    f"Accession: {planted.ACCESSION}. Referred by Dr. {planted.DOCTOR}.\nCOLON, BIOPSY. History of {planted.SURNAME} "
    f"carcinoma. Nuclei are enlarged. Paneth cells of {planted.SURNAME} are seen. No necrosis (Dr. {planted.DOCTOR}, {planted.RECORD})."
)
MAY_NAME_THE_FILE = {
    "the answer to library(images), which is asked for names": "library images",
    "errors about a path, to whoever gave the path": "error of",
    "where the image of a result lies, so that it can be opened again": "request.json",
    "the same for every image that was seen": "workspace.sqlite",
}
ASKED_IN_FULL = ("png", "svs", "dicom")
"""A plain picture, a slide with a free-text header and one with a patient: explained, and saved in every format."""
MAY_QUOTE_THE_REPORT = ("dry run on", "segment on")
"""The answer to whoever has just sent the report shows, in read_as, how its sentences were read. Identifiers that can be told
by their form are cut even there; a surname in the middle of a sentence is not. Nothing of it is kept."""


@dataclass
class Everything:
    """All that came out of a server, by where it was found. refused: kinds of images that could not be opened."""

    out: dict[str, bytes] = field(default_factory=dict)
    headers: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def say(self, where: str, content: Any) -> None:
        text = content if isinstance(content, bytes | str) else content.model_dump_json()
        data = text.encode() if isinstance(text, str) else text
        self.out[f"{len(self.out)} {where}"] = data + _unpacked(data)


def _unpacked(data: bytes) -> bytes:
    """What stands inside pictures and packed files of an answer."""
    inner = b""
    try:
        for block in json.loads(data).get("content", []):
            inner += base64.b64decode(block.get("data", "")) if isinstance(block, dict) else b""
    except (ValueError, AttributeError):
        pass
    if data[:2] == b"\x1f\x8b":
        inner += zlib.decompress(data, 31)
    return inner


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Everything, OpenAIServer]]:
    folder = tmp_path_factory.mktemp("identifiers")
    images = planted.plant_all(folder / "images")
    answer = {"kind": "report", "organ": "colon", "targets": [], "measures": []}
    with openai_server([answer]) as llm:
        seen = Everything()
        address = _serve_and_ask(folder, images, llm, seen)
        assert address
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            seen.names.append(str(path.relative_to(folder)))
            if path not in _planted(folder) and path.suffix != ".img":  # the corpus itself, uploaded or not
                seen.say(f"file {path.relative_to(folder)}", path.read_bytes())
                if path.suffix == ".parquet":
                    table = parquet.read_table(path)
                    seen.say(f"rows of {path.name}", f"{table.schema.metadata} {table.to_pylist()}")
        yield seen, llm


def _planted(folder: Path) -> set[Path]:
    """The corpus itself: every file named after the patient, and the other files of its slides."""
    root = folder / "images"
    return {path for path in root.rglob("*") if FILE_NAME in str(path.relative_to(root))}


def _serve_and_ask(folder: Path, images: dict[str, Path], llm: OpenAIServer, seen: Everything) -> str:
    from test_server_http import answers, free_port

    address = f"127.0.0.1:{free_port()}"
    command = [COMMAND, "serve", "--http", address, "--root", str(folder / "images")]
    settings = {"TISSUETALK_TOKEN": TOKEN, "TISSUETALK_LOG": "debug", "TISSUETALK_LLM_URL": llm.url}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--workspace", str(folder / "workspace"), "--reader", "hybrid"],
            stderr=log,
            stdout=log,
            env={**os.environ, **settings, "TISSUETALK_LLM_MODEL": "m", "TMPDIR": str(_made(folder / "tmp"))},
        )
        try:
            until = time.monotonic() + 200
            while not answers(f"http://{address}/health"):
                assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.1)
            anyio.run(_ask_everything, f"http://{address}", folder / "images", images, seen)
            assert process.poll() is None
        finally:
            process.terminate()
            process.wait(60)
    return address


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def _ask_everything(url: str, root: Path, images: dict[str, Path], seen: Everything) -> None:
    async def keep_headers(response: httpx2.Response) -> None:
        seen.headers.append(f"{response.url} {response.headers}")

    headers = {"Authorization": f"Bearer {TOKEN}"}
    hooks = {"response": [keep_headers]}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(200), event_hooks=hooks) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
    ):
        seen.say("library images", await client.call_tool("library", {"action": "images"}))
        for kind, path in images.items():
            if kind != "mrxs":  # its data lies in other files
                uploaded = await http.put(f"{url}/images", content=path.read_bytes())
                seen.say(f"upload of {kind}", uploaded.content)
            await _ask(client, kind, path.relative_to(root).as_posix(), seen)
        seen.say("library results", await client.call_tool("library", {"action": "results"}))
        missing = f"{FILE_NAME}-png.pgn"
        seen.say("error of a missing file", await client.call_tool("view", {"image": missing}))
        (root / f"{FILE_NAME}-png.png").unlink()
        for result_id in seen.done[:1]:
            for tool in ("view", "explain"):
                seen.say(f"{tool} of what is gone", await client.call_tool(tool, {"result_id": result_id}))


async def _ask(client: Client, kind: str, image: str, seen: Everything) -> None:
    """Every tool and resource about one image."""
    viewed = await client.call_tool("view", {"image": image})
    if viewed.is_error:
        seen.refused.append(kind)
        seen.say(f"error of {kind}", viewed)
        return
    seen.say(f"view of {kind}", viewed)
    seen.say(
        f"dry run on {kind}",
        await client.call_tool("segment", {"image": image, "words": REPORT, "dry_run": True}),
    )
    asked = {"image": image, "words": REPORT, "mpp": 0.5, "model": "classical-nuclei"}
    if kind in ASKED_IN_FULL:  # as it is read; nothing of it is this model's to find
        seen.say(f"segment on {kind}", await client.call_tool("segment", asked))
    answer = await client.call_tool("segment", {**asked, "targets": [{"words": "nuclei"}]})
    seen.say(f"targets on {kind}", answer)
    found = answer.structured_content
    if found["job_id"] is not None:
        ended = await wait_for(client, found["job_id"])
        seen.say(f"job on {kind}", ended)
        found = ended.structured_content["result"]
    assert found["masks"][0]["found"]
    result_id = found["result_id"]
    seen.done.append(result_id)
    for tool in ("measure", "view", "explain") if kind in ASKED_IN_FULL else ("measure", "view"):
        answer = await client.call_tool(tool, {"result_id": result_id})
        assert not answer.is_error
        seen.say(f"{tool} of {kind}", answer)
    links = [found["overlay"], f"result://{result_id}/result.json", f"image://{found['image']['image_id']}"]
    for mask in found["masks"]:
        links += [link for link in mask["resources"].values() if link]
    for uri in links:
        for content in (await client.read_resource(uri)).contents:
            seen.say(uri, base64.b64decode(content.blob) if hasattr(content, "blob") else content.text)
    for format in ("folder", *FORMATS) if kind in ASKED_IN_FULL else ("folder", "coco"):
        asked = {
            "action": "save",
            "result_id": result_id,
            "format": format,
            "folder": f"saved/{kind}-{format}",
        }
        saved = await client.call_tool("library", asked)
        assert not saved.is_error, saved.content[0].text
        seen.say(f"save of {kind} as {format}", saved)


def test_the_corpus_is_read_and_every_identifier_is_in_it(everything, tmp_path: Path) -> None:
    seen, _ = everything
    assert seen.refused == ["ndpi", "mrxs"] and len(seen.done) == len(planted.WRITERS) - 2
    for kind, path in planted.plant_all(tmp_path).items():
        parts = path.parent.iterdir() if kind == "dicom" else path.with_suffix("").glob("*")
        content = b"".join(part.read_bytes() for part in (path, *parts) if part.is_file())
        assert found_in(content) == set(IDENTIFIERS), kind


def test_no_identifier_comes_out_anywhere(everything) -> None:
    seen, _ = everything
    leaks = {where: found for where, content in seen.out.items() if (found := found_in(content))}
    quoted = {where for where in leaks if any(each in where for each in MAY_QUOTE_THE_REPORT)}
    assert {where: found for where, found in leaks.items() if where not in quoted} == {}
    assert all(leaks[where] == {planted.SURNAME} for where in quoted)
    assert all(b'"sentence":"History of' in seen.out[where] for where in quoted)
    assert len(seen.out) > 120, "everything was asked"
    (log,) = (content for where, content in seen.out.items() if where.endswith("file log"))
    assert b"DEBUG mcp" in log


def test_a_files_name_comes_out_only_where_it_must(everything) -> None:
    seen, _ = everything
    named = {where for where, content in seen.out.items() if FILE_NAME in str(found_in(content, FILE_NAME))}
    allowed = tuple(MAY_NAME_THE_FILE.values())
    assert {where for where in named if not any(each in where for each in allowed)} == set()
    assert any("library images" in where for where in named)
    assert {
        name for name in seen.names if found_in(name, FILE_NAME) and not name.startswith("images/")
    } == set()


def test_no_identifier_reaches_headers_or_the_language_model(everything) -> None:
    seen, llm = everything
    assert found_in(" ".join(seen.headers), FILE_NAME) == set() and len(seen.headers) > 20
    sent = json.dumps(llm.asked) + json.dumps(llm.headers)
    assert llm.asked and "Paneth" in sent
    assert found_in(sent, FILE_NAME) == set()


def test_orders_in_headers_and_names_of_files_stay_inside_marks(everything) -> None:
    seen, _ = everything
    assert not [where for where, content in seen.out.items() if b"ignore all previous" in content]
    (listed,) = (content for where, content in seen.out.items() if where.endswith("library images"))
    lines = json.loads(listed.split(b'"structured')[0].rsplit(b",", 1)[0] + b"}")["content"][0][
        "text"
    ].splitlines()
    assert all(line.startswith("“") and "” (" in line for line in lines[1:]) and len(lines) > 8
