"""What lies on disk beside images: classifiers, weights, recipes, manifests, results and the workspace itself."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hostile.bytes_of import png
from hostile.case import NUCLEI, Answer, Call, Case, Content
from hostile.ground import Ground
from hostile.server import StdioServer

SHIPPED = Path(__file__).parents[3] / "models" / "classifiers" / "classifiers" / "colon-adenocarcinoma"
REFUSED = "model_unavailable|invalid_argument|outside_roots"
DEEP = b"[" * 200_000


def card(**changed: Any) -> bytes:
    told = json.loads(SHIPPED.with_suffix(".json").read_text())
    told |= changed
    return json.dumps({key: value for key, value in told.items() if value is not ...}).encode()


def weights() -> bytes:
    return SHIPPED.with_suffix(".safetensors").read_bytes()


def tensors(header: bytes, size: int | None = None, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header) if size is None else size) + header + data


def _cards() -> Iterator[tuple[str, bytes, str]]:
    yield "no JSON", b"hello", REFUSED
    yield "empty", b"", REFUSED
    yield "a list", b"[]", REFUSED
    yield "200,000 deep", DEEP, REFUSED
    yield "200,000 objects deep", b'{"a":' * 200_000, REFUSED
    yield "no UTF-8", b'{"format":"\xff\xfe"}', REFUSED
    yield "30 MB", b'{"format":"tissuetalk-classifier-1","summary":"' + b"x" * 30_000_000 + b'"}', REFUSED
    yield "of another format", card(format="tissuetalk-classifier-9"), REFUSED
    yield "with unknown keys", card(run="ls"), REFUSED
    yield "without classes", card(classes=[]), REFUSED
    yield "with a million classes", card(classes=[f"c{n}" for n in range(1_000_000)]), REFUSED
    yield "with a class of 1 MB", card(classes=["a", "b" * 10**6]), REFUSED
    yield "with two classes alike", card(classes=["a", "a"]), REFUSED
    yield "of another kind", card(kind="oracle"), REFUSED
    yield "with an encoder that is a file", card(encoder="/etc/passwd"), REFUSED
    yield "with an encoder that is not there", card(encoder="/etc/nothing-here"), REFUSED
    yield "with an encoder above", card(encoder="../../../outside"), REFUSED
    yield "with an encoder at an address", card(encoder="http://127.0.0.1:9/model"), REFUSED
    yield "with an encoder of a home", card(encoder="~/.ssh"), REFUSED
    yield "with an encoder of 1 MB", card(encoder="e" * 10**6), REFUSED
    for value in (0, -5, 1e-9, 1e300, "1e999", None, "wide", [100]):
        yield f"with patches of {value} µm", card(patch_um=value), REFUSED
    for value in (0, -1, 2**40, 0.5):
        yield f"with patches of {value} px", card(patch_px=value), REFUSED
    yield (
        "with sizes of 2^40",
        card(
            sizes={"width": 2**40, "classes": 2, "hidden": 2**40, "gated": True, "dropout": 0.25, "pre_fc": 0}
        ),
        REFUSED,
    )
    yield (
        "with negative sizes",
        card(sizes={"width": -1, "classes": 2, "hidden": -64, "gated": True, "dropout": 0.25, "pre_fc": 0}),
        REFUSED,
    )
    yield "without sizes", card(sizes={}), REFUSED
    yield "with 100,000 objects", card(objects=["nuclei"] * 100_000), REFUSED
    yield "with another hash", card(weights_sha256="0" * 64), REFUSED


def _weights() -> Iterator[tuple[str, Content, str]]:
    """Weights whose card is right about everything but what is in them."""
    yield "none", ..., REFUSED  # type: ignore[misc]  # no file at all
    yield "empty", b"", REFUSED
    yield "a pickle", b"\x80\x04cos\nsystem\n(S'touch hacked'\ntR.", REFUSED
    yield "cut", lambda: weights()[:5000], REFUSED
    yield "a header of 2^60", tensors(b"{}", 2**60), REFUSED
    yield "a header of 200,000 brackets", tensors(DEEP), REFUSED
    yield "a header that is no JSON", tensors(b"hello"), REFUSED
    yield (
        "offsets behind the end",
        tensors(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
        REFUSED,
    )
    yield (
        "offsets turned round",
        tensors(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}', None, bytes(16)),
        REFUSED,
    )
    yield (
        "a shape of 2^63",
        tensors(
            b'{"a":{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,16]}}', None, bytes(16)
        ),
        REFUSED,
    )
    yield (
        "a type nobody knows",
        tensors(b'{"a":{"dtype":"X99","shape":[4],"data_offsets":[0,16]}}', None, bytes(16)),
        REFUSED,
    )
    yield (
        "tensors of other names",
        tensors(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', None, bytes(16)),
        REFUSED,
    )


def _asked(name: str = "{here}/c.safetensors") -> Call:
    def call(ground: Ground) -> Answer:
        result = ground.a_result()
        question = "what did the classifier rely on?"
        answer = ground.tool("explain", result_id=result, question=question, classifier=ground.filled(name))
        while (job := answer.data.get("job_id")) and answer.data.get("state") not in ("done", "failed"):
            answer = ground.tool("job", job_id=job, action="wait")
        error = answer.data.get("error")
        return Answer(str(error["code"]), str(error)) if error else answer

    return call


def _true_hash(content: bytes) -> bytes:
    """The card that goes with these weights, as its own loader counts."""
    import tempfile

    from tissuetalk.models.segmentation.pretrained import weights_hash

    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(content)
        file.flush()
        return card(weights_sha256=weights_hash(Path(file.name)))


def classifiers_family() -> Iterator[Case]:
    for number, (name, content, expected) in enumerate(_cards()):
        files = {"c.json": content, "c.safetensors": weights}
        yield Case("Classifiers", f"a card {name}", _asked(), expected, files, sample=number in (3, 21))
    for name, content, expected in _weights():

        def files_of(folder: Path, content: Any = content) -> None:
            made = b"" if content is ... else content() if callable(content) else content
            (folder / "c.json").write_bytes(_true_hash(made))
            if content is not ...:
                (folder / "c.safetensors").write_bytes(made)

        yield Case("Classifiers", f"weights: {name}", _asked(), expected, files_of)

    def link_beside(folder: Path) -> None:
        (folder / "c.safetensors").write_bytes(weights())
        (folder / "c.json").symlink_to("../../outside/secret.txt")

    def weights_link(folder: Path) -> None:
        (folder / "c.json").write_bytes(card())
        (folder / "c.safetensors").symlink_to("../../outside/secret.png")

    yield Case("Classifiers", "a card that is a link out", _asked(), REFUSED, link_beside)
    yield Case("Classifiers", "weights that are a link out", _asked(), REFUSED, weights_link)
    for name, asked in {
        "above": "../outside/c.safetensors",
        "absolute": "{outside}/c.safetensors",
        "that is a path without ending": "../../etc/passwd",
        "of 5,000 characters": "c" * 5000,
        "with a NUL": "c\0.safetensors",
        "that is a pickle": "{here}/c.pt",
    }.items():
        yield Case("Classifiers", f"a classifier {name}", _asked(asked), REFUSED)


def _recipes() -> Iterator[tuple[str, Content, str]]:
    bad = "invalid_argument"
    laughs = b"a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 10)
    )
    yield "empty", b"", bad
    yield "no YAML", b"{{{{", bad
    yield "a program", b"!!python/object/apply:os.system ['touch hacked']", bad
    yield "a billion laughs", laughs, bad
    yield "20,000 deep", b"a: " + b"[" * 20_000, bad
    yield "unknown keys", b"name: x\nexec: ls\n", bad
    yield "no UTF-8", b"name: \xff\xfe", bad
    yield "30 MB", lambda: b"name: " + b"x" * 30_000_000, bad
    yield "a list", b"- 1\n- 2\n", bad


def _manifests() -> Iterator[tuple[str, Content, str]]:
    bad = "invalid_argument"
    head = b"file,mask,mask_kind,mask_class,group,organ,stain,mpp_um,note\n"
    yield "empty", b"", bad
    yield "other columns", b"a,b\n1,2\n", bad
    yield "no UTF-8", head + b"\xff\xfe,x\n", bad
    yield (
        "an image elsewhere",
        head + b"../../outside/secret.png,x.png,semantic,gland,g,colon,HE,0.5,\n",
        "invalid_argument|outside_roots|unknown_image",
    )
    yield (
        "an image that is not there",
        head + b"nothing.png,x.png,semantic,gland,g,colon,HE,0.5,\n",
        "invalid_argument|unknown_image",
    )
    yield (
        "a mask that is text",
        head + b"i.png,m.png,semantic,gland,g,colon,HE,0.5,\n",
        "invalid_argument|unreadable_image",
    )
    yield (
        "a scale of 10^999",
        head + b"i.png,i.png,semantic,gland,g,colon,HE," + b"9" * 999 + b",\n",
        "invalid_argument|unreadable_image",
    )
    yield (
        "a field of 200 kB",
        head + b"i" * 200_000 + b".png,x,semantic,gland,g,colon,HE,0.5,\n",
        "invalid_argument|unknown_image",
    )
    yield "an open quote", head + b'"i.png,x\n' + b"y" * 300_000, "invalid_argument|unknown_image"


def user_files_family() -> Iterator[Case]:
    for name, content, expected in _recipes():
        call: Call = lambda ground: ground.command("train", "r.yaml", "--out", "run")
        yield Case(
            "Files of users", f"a recipe that is {name}", call, expected, {"r.yaml": content}, seconds=60
        )
    for name, content, expected in _manifests():
        call = lambda ground: ground.command(
            "evaluate", "m.csv", "--out", "scores", "--model", "classical-nuclei"
        )
        files = {"m.csv": content, "i.png": png(64, 64), "m.png": b"text"}
        yield Case(
            "Files of users", f"a manifest that is {name}", call, expected, files, seconds=60, writes=True
        )
    for name, content, expected in (
        ("empty", b"", "ok|invalid_argument"),
        ("no JSON", b"hello\n", "invalid_argument"),
        ("100,000 deep", DEEP + b"\n", "invalid_argument"),
        ("without text", b'{"id":"1"}\n', "invalid_argument"),
        ("a text that is a list", b'{"id":"1","text":[1]}\n', "invalid_argument"),
        ("no UTF-8", b'{"id":"1","text":"\xff"}\n', "invalid_argument"),
    ):
        call = lambda ground: ground.command("translate", "--in", "i.jsonl", "--out", "o.jsonl")
        yield Case(
            "Files of users",
            f"sentences that are {name}",
            call,
            expected,
            {"i.jsonl": content},
            seconds=60,
            writes=True,
        )
    for name, arguments in {
        "an image that is an option": ("segment", "--", "--version", "nuclei", "--out", "o"),
        "a scale of not a number": ("segment", "../good.png", "nuclei", "--out", "o", "--mpp", "nan"),
        "a region of words": ("segment", "../good.png", "nuclei", "--out", "o", "--region", "a,b,c,d"),
        "an address that is no port": ("serve", "--http", "127.0.0.1:99999"),
        "a result that is a link": ("measure", "link"),
    }.items():
        expected = "invalid_argument|unknown_image|unknown_result|outside_roots"
        call = lambda ground, arguments=arguments: ground.command(*arguments)
        yield Case(
            "Files of users",
            name,
            call,
            expected,
            lambda folder: (folder / "link").symlink_to("/etc"),
            seconds=60,
        )


def _damaged_results() -> Iterator[tuple[str, str, Callable[[Path], object]]]:
    """(name, file below the result, how it is damaged)"""

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def gone(path: Path) -> None:
        path.unlink()

    def filled(content: Content) -> Callable[[Path], object]:
        return lambda path: path.write_bytes(content() if callable(content) else content)

    def linked(path: Path) -> None:
        path.unlink()
        path.symlink_to("/etc/passwd")

    yield "result cut", "result.json", cut
    yield "result gone", "result.json", gone
    yield "result of 200,000 brackets", "result.json", filled(DEEP)
    yield "result of another shape", "result.json", filled(b'{"masks": 7}')
    yield "result that is a link", "result.json", linked
    yield "request cut", "request.json", cut
    yield "request gone", "request.json", gone
    yield "request of nothing", "request.json", filled(b"null")
    yield (
        "request for an image elsewhere",
        "request.json",
        lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "image": "/etc/passwd"})),
    )
    yield "mask cut", "masks/*", cut
    yield "mask gone", "masks/*", gone
    yield "mask of 2^31 a side", "masks/*", filled(png(2**31 - 1, 2**31 - 1, packed=b""))
    yield "mask of 19,000 a side", "masks/*", filled(lambda: png(19_000, 19_000, 8, 0))
    yield "mask of another size", "masks/*", filled(lambda: png(7, 7, 8, 0))
    yield "mask that is a link", "masks/*", linked
    yield "instances cut", "instances/*", cut
    yield "instances gone", "instances/*", gone
    yield "overlay gone", "overlay.png", gone
    yield "overlay that is a link", "overlay.png", linked


def _on_damaged(file: str, damage: Callable[[Path], object]) -> Call:
    """Measure, look, list, read and delete: every answer has a code, the list goes on, deleting works."""

    def call(ground: Ground) -> Answer:
        made = ground.tool("segment", image="good.png", **NUCLEI)
        result = str(made.data["result_id"])
        folder = ground.workspace / "results" / result
        damage(next(folder.glob(file)))
        said = [
            ground.tool("measure", result_id=result, metrics=["count"]),
            ground.tool("measure", result_id=result, metrics=["nearest_neighbour"]),
            ground.tool("view", result_id=result),
            ground.resource(f"result://{result}/overlay.png"),
        ]
        listed = ground.tool("library", action="results")
        deleted = ground.tool("library", action="delete", result_id=result)
        if crashed := [one for one in said if one.code in ("crash", "rpc 0", "rpc -32603")]:
            return crashed[0]
        leaks = [one for one in said if "root:x:" in one.text]
        wrong = leaks or [one for one in (listed, deleted) if one.code != "ok"]
        return wrong[0] if wrong else Answer("ok", "\n".join(one.text[:200] for one in said))

    return call


def _workspaces() -> Iterator[tuple[str, Callable[[Path], object]]]:
    def sqlite(content: bytes) -> Callable[[Path], object]:
        return lambda folder: (folder / "workspace.sqlite").write_bytes(content)

    def link(folder: Path) -> None:
        (folder / "workspace.sqlite").symlink_to("/etc/passwd")

    def results_link(folder: Path) -> None:
        (folder / "results").symlink_to("/etc")

    def stray(folder: Path) -> None:
        (folder / "results" / ("res_" + "b" * 32)).mkdir(parents=True)
        (folder / "images").mkdir()
        (folder / "images" / "notes.txt").write_text("not ours")

    yield "a database of noise", sqlite(bytes(range(256)) * 64)
    yield "an empty database", sqlite(b"")
    yield "a database that is text", sqlite(b"SQLite format 3\0" + b"x" * 4000)
    yield "a database that is a folder", lambda folder: (folder / "workspace.sqlite").mkdir()
    yield "a database that is a link", link
    yield "results that are a link", results_link
    yield "strange files", stray
    yield (
        "a write-ahead log of noise",
        lambda folder: (folder / "workspace.sqlite-wal").write_bytes(bytes(5000)),
    )


def _served(damage: Callable[[Path], object]) -> Call:
    """A server of its own on that workspace: an answer, or a code that says what is wrong."""

    def call(ground: Ground) -> Answer:
        folder = ground.folder / "second"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "workspace").mkdir(parents=True)
        damage(folder / "workspace")
        usual = ground.server
        try:
            ground.server = StdioServer(folder, [ground.root], folder / "workspace")
            try:
                return ground.tool("segment", image="good.png", **NUCLEI)
            finally:
                ground.server.close()
        finally:
            ground.server = usual
            shutil.rmtree(folder, ignore_errors=True)

    return call


def workspace_family() -> Iterator[Case]:
    for name, file, damage in _damaged_results():
        yield Case(
            "Workspace",
            f"a result with its {name}",
            _on_damaged(file, damage),
            "ok",
            seconds=20,
            sample=name == "mask cut",
        )
    for name, make in _workspaces():
        expected = "ok|workspace_unwritable"
        yield Case("Workspace", f"a workspace with {name}", _served(make), expected, seconds=60)
