"""The public MCP conformance suite against our HTTP server.

usage: python tests/conformance/run.py [--required]

Two servers are asked. The plain one is `tissuetalk serve`, as users have it. Most scenarios call tools of a fixed name that
the SDKs' demonstration servers have; for those the same server is started with such tools added (fixtures.py). The
suite and the Node it needs come from npm, pinned with hashes by package-lock.json, into .conformance/ (ignored by git).
Without npm, or where it reaches no registry: one line and success, or failure with --required.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
INSTALLED = CHECKOUT / ".conformance"
TISSUETALK = str(Path(sys.executable).with_name("tissuetalk"))

STAMPED = re.compile(r"^server-(?=.+-\d{4}-\d\d-\d\dT)|-\d{4}-\d\d-\d\dT[-\dZ]+$")
"""What the suite adds to a scenario's name when it names its folder."""

PLAIN = (
    *("server-initialize", "ping", "completion-complete", "tools-list", "resources-list", "prompts-list"),
    *("server-sse-multiple-streams", "dns-rebinding-protection"),
)
WITH_FIXTURES = (
    *("tools-call-simple-text", "tools-call-image", "tools-call-audio", "tools-call-embedded-resource"),
    *("tools-call-mixed-content", "tools-call-error", "tools-call-with-progress"),
    *("resources-read-text", "resources-read-binary", "resources-templates-read"),
    *(
        "prompts-get-simple",
        "prompts-get-with-args",
        "prompts-get-embedded-resource",
        "prompts-get-with-image",
    ),
)
NOT_OURS = {
    "logging-set-level": "the server sends no log messages and does not declare that it can",
    "tools-call-with-logging": "the server sends no log messages and does not declare that it can",
    "tools-call-sampling": "the server never asks the client's language model",
    "tools-call-elicitation": "the server never asks the user; what is unclear is an answer",
    "elicitation-sep1034-defaults": "the server never asks the user",
    "elicitation-sep1330-enums": "the server never asks the user",
    "server-sse-polling": "streams are not resumed: work over 20 s becomes a job, which is asked for",
    "resources-subscribe": "results never change, so there is nothing to subscribe to; not declared",
    "resources-unsubscribe": "results never change, so there is nothing to subscribe to; not declared",
    "json-schema-2020-12": "sends on a schema written by hand; those of our tools are made from typed functions",
}
"""Optional parts of the protocol that the server does not have, and says so in its capabilities."""


class UnavailableError(Exception):
    """The suite cannot be had on this machine."""


def node() -> str:
    """Installs the suite where it is missing or another version is; the Node to run it with."""
    lock = (HERE / "package-lock.json").read_bytes()
    stamp = INSTALLED / "installed.json"
    if not stamp.is_file() or stamp.read_bytes() != lock:
        npm = shutil.which("npm")
        if npm is None:
            raise UnavailableError("npm is missing; on Debian: apt-get install npm")
        shutil.rmtree(INSTALLED, ignore_errors=True)
        INSTALLED.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, INSTALLED)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(
            command, cwd=INSTALLED, capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode:
            raise UnavailableError(f"npm could not install the suite:\n{done.stderr.strip()[:800]}")
        stamp.write_bytes(lock)
    found = sorted((INSTALLED / "node_modules").glob("node-*/bin/node"))
    if not found:
        raise UnavailableError("npm has no Node 22 for this kind of machine")
    return str(found[0])


@contextmanager
def serving(command: Sequence[str], port: int) -> Iterator[str]:
    log = INSTALLED / "server.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 200
        while not is_up(url):
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield f"{url}/mcp"
    finally:
        process.terminate()
        process.wait(60)


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except (urllib.error.URLError, TimeoutError):
        return False


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def outcomes(node: str, url: str) -> dict[str, list[str]]:
    """What failed in each scenario of the suite; empty where it passed."""
    suite = INSTALLED / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as out:
        command = [node, str(suite), "server", "--url", url, "--suite", "all", "--output-dir", out]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        for checks in Path(out).glob("**/checks.json"):
            name = STAMPED.sub("", checks.parent.name)
            found[name] = [
                f"{check['id']}: {check.get('errorMessage')}"
                for check in json.loads(checks.read_text("utf-8"))
                if check["status"] == "FAILURE"
            ]
    assert found, done.stdout + done.stderr
    return found


def main(required: bool) -> int:
    try:
        binary = node()
    except (UnavailableError, subprocess.TimeoutExpired) as error:
        print(f"conformance: {'missing' if required else 'skipped'}: {error}", file=sys.stderr)
        return 1 if required else 0
    port = free_port()
    where = f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as root:
        plain = [TISSUETALK, "serve", "--http", where, "--root", root, "--workspace", f"{root}/workspace"]
        with serving(plain, port) as url:
            of_plain = outcomes(binary, url)
    with serving([sys.executable, str(HERE / "fixtures.py"), where], port) as url:
        of_fixtures = outcomes(binary, url)
    wrong = 0
    for name in sorted(of_fixtures):
        if name in NOT_OURS:
            print(f"not ours  {name}: {NOT_OURS[name]}")
            continue
        server = "plain" if name in PLAIN else "fixtures"
        failed = of_plain[name] if name in PLAIN else of_fixtures[name]
        if name not in (*PLAIN, *WITH_FIXTURES):
            failed = ["a scenario this file does not know: decide whether it applies"]
        wrong += bool(failed)
        print(f"{'FAILED' if failed else 'passed'}    {name} ({server}) {'; '.join(failed)}".rstrip())
    gone = {*PLAIN, *WITH_FIXTURES, *NOT_OURS} - set(of_fixtures)
    for name in sorted(gone):
        print(f"FAILED    {name}: did not run")
    asked = len(PLAIN) + len(WITH_FIXTURES)
    print(
        f"conformance: {asked - wrong} of {asked} scenarios passed, {len(NOT_OURS)} are about parts the server has not"
    )
    return 1 if wrong or gone else 0


if __name__ == "__main__":
    sys.exit(main("--required" in sys.argv[1:]))
