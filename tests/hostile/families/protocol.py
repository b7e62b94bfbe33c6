"""Lines, methods and addresses of the protocol itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from hostile.case import A_RESULT, Answer, Call, Case
from hostile.ground import Ground
from hostile.server import answer_of

_REFUSED = "silence|invalid_argument|rpc -32700|rpc -32600|rpc -32602|rpc -32601|rpc 0"
_REFUSED_CALL = "invalid_argument|rpc -32602|rpc -32601|rpc -32600|rpc 0"
_LINES = (
    ("an empty line", b"\n", _REFUSED),
    ("no JSON", b"hello\n", _REFUSED),
    ("half a message", b'{"jsonrpc":"2.0","id":"x","method":\n', _REFUSED),
    ("no UTF-8", b'{"jsonrpc":"2.0","id":"x","method":"\xff\xfe"}\n', _REFUSED),
    ("a number", b"42\n", _REFUSED),
    ("nothing", b"null\n", _REFUSED),
    ("a list", b'[{"jsonrpc":"2.0","id":"x","method":"ping"}]\n', _REFUSED),
    ("another version", b'{"jsonrpc":"9.9","id":"x","method":"ping"}\n', _REFUSED),
    ("no version", b'{"id":"x","method":"ping"}\n', _REFUSED),
    (
        "half a character",
        b'{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"\\ud83d"}}\n',
        _REFUSED,
    ),
    ("an id that is a list", b'{"jsonrpc":"2.0","id":[1],"method":"ping"}\n', _REFUSED),
    (
        "an id of 1 MB",
        b'{"jsonrpc":"2.0","id":"' + b"i" * 10**6 + b'","method":"ping"}\n',
        _REFUSED + "|ok",
    ),
    (
        "an id of 400 digits",
        b'{"jsonrpc":"2.0","id":' + b"9" * 400 + b',"method":"ping"}\n',
        _REFUSED + "|ok",
    ),
    ("an id of null", b'{"jsonrpc":"2.0","id":null,"method":"ping"}\n', _REFUSED + "|ok"),
    ("100,000 brackets", b"[" * 100_000 + b"\n", _REFUSED),
    ("100,000 braces", b'{"a":' * 100_000 + b"\n", _REFUSED),
    ("8 MB of one line", b'{"a":"' + b"x" * 8_000_000 + b'"}\n', _REFUSED),
    ("an answer nobody asked for", b'{"jsonrpc":"2.0","id":987654,"result":{}}\n', _REFUSED),
    (
        "an error nobody asked for",
        b'{"jsonrpc":"2.0","id":987655,"error":{"code":1,"message":"x"}}\n',
        _REFUSED,
    ),
    (
        "a notification nobody knows",
        b'{"jsonrpc":"2.0","method":"notifications/nothing","params":{}}\n',
        _REFUSED,
    ),
    (
        "cancelling what never was",
        (
            b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":123456,"reason":"x"}}\n'
        ),
        _REFUSED,
    ),
    (
        "progress of what never was",
        (
            b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":9,"progress":1e999}}\n'
        ),
        _REFUSED,
    ),
    ("a message twice in a line", b'{"jsonrpc":"2.0","id":"p","method":"ping"}' * 2 + b"\n", _REFUSED),
    ("keys twice", b'{"jsonrpc":"2.0","id":"k","method":"ping","method":"tools/list"}\n', _REFUSED + "|ok"),
    ("5,000 empty lines", b"\n" * 5000, _REFUSED),
    (
        "2,000 pings",
        b"".join(b'{"jsonrpc":"2.0","id":"p%d","method":"ping"}\n' % n for n in range(2000)),
        "ok",
    ),
)


def raw(*lines: bytes, code: str = "") -> Call:
    """Lines on a stdio server; the code is that of the first answer, ``silence`` where there is none."""

    def call(ground: Ground) -> Answer:
        said = ground.lines(*lines, wait_s=3.0)
        if not said:
            return Answer("silence")
        text = json.dumps(said)[:5000]
        return Answer(answer_of(said[0]).code, text)

    return call


def _resource(uri: str, ground: Ground) -> Answer:
    return ground.resource(uri)


def method(name: Any, params: Any) -> Call:
    return lambda ground: answer_of(ground.call(name, params))


_METHODS: tuple[tuple[str, Call, str], ...] = (
    ("a method nobody knows", method("tools/explode", {}), _REFUSED_CALL),
    ("a method of 1 MB", method("m" * 10**6, {}), _REFUSED_CALL),
    ("a method that is internal", method("__class__", {}), _REFUSED_CALL),
    (
        "a tool nobody knows",
        method("tools/call", {"name": "shell", "arguments": {"cmd": "ls"}}),
        _REFUSED_CALL,
    ),
    (
        "a tool of 1 MB",
        method("tools/call", {"name": "t" * 10**6, "arguments": {}}),
        _REFUSED_CALL,
    ),
    ("a tool without a name", method("tools/call", {"arguments": {}}), _REFUSED_CALL),
    (
        "arguments that are a list",
        method("tools/call", {"name": "view", "arguments": [1]}),
        _REFUSED_CALL,
    ),
    (
        "arguments that are text",
        method("tools/call", {"name": "view", "arguments": "x"}),
        _REFUSED_CALL,
    ),
    ("parameters that are text", method("tools/call", "x"), _REFUSED_CALL),
    (
        "being greeted again",
        method(
            "initialize",
            {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "x", "version": "1"},
            },
        ),
        "ok|" + _REFUSED_CALL,
    ),
    (
        "a version of the future",
        method(
            "initialize",
            {
                "protocolVersion": "9999-99-99",
                "capabilities": {},
                "clientInfo": {"name": "x", "version": "1"},
            },
        ),
        "ok|" + _REFUSED_CALL,
    ),
    ("a page that never was", method("tools/list", {"cursor": "../../x"}), "ok|" + _REFUSED_CALL),
    (
        "a prompt nobody knows",
        method("prompts/get", {"name": "../../etc/passwd", "arguments": {}}),
        _REFUSED_CALL,
    ),
    (
        "a prompt with orders",
        method(
            "prompts/get",
            {"name": "report", "arguments": {"image": "x", "report": "{image} {{report}} ignore"}},
        ),
        "ok",
    ),
    (
        "a prompt of 3 MB",
        method("prompts/get", {"name": "report", "arguments": {"image": "x", "report": "r" * 3_000_000}}),
        "ok|" + _REFUSED_CALL,
    ),
    (
        "completing nothing",
        method(
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "x"}, "argument": {"name": "label", "value": "z" * 10**6}},
        ),
        "ok|" + _REFUSED_CALL,
    ),
    ("a level of logging nobody knows", method("logging/setLevel", {"level": "everything"}), _REFUSED_CALL),
)
_ADDRESSES = (
    "file:///etc/passwd",
    "image:///etc/passwd",
    "image://../../etc/passwd",
    f"result://{A_RESULT}/result.json",
    f"result://{A_RESULT}/masks/../../workspace.sqlite",
    "result://../../workspace.sqlite/overlay.png",
    f"result://{A_RESULT}/masks/%2e%2e%2frequest.json",
    f"result://{A_RESULT}/objects/",
    "taxonomy://label/..%2f..%2fserver",
    "model://../registry",
    "model://" + "m" * 100_000,
    "",
    "nothing",
)


def protocol_family() -> Iterator[Case]:
    for name, line, expected in _LINES:
        yield Case(
            "Protocol", f"line: {name}", raw(line), expected, seconds=10, sample=name == "100,000 braces"
        )
    for name, call, expected in _METHODS:
        yield Case("Protocol", name, call, expected)
    codes = f"unknown_result|unknown_image|invalid_argument|unknown_mask|{_REFUSED_CALL}"
    for uri in _ADDRESSES:
        yield Case("Protocol", f"reading {uri[:80] or 'nothing at all'}", partial(_resource, uri), codes)
