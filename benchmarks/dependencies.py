"""The packages of the lock files: their licences, as they say themselves, and their known vulnerabilities.

`python -m benchmarks dependencies` writes docs/licences.md from the metadata of what is installed; `make audit` asks pip-audit.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
LOCK = CHECKOUT / "requirements.lock"
PAGE = CHECKOUT / "docs" / "licences.md"
VIEWER_LICENCES = CHECKOUT / "server" / "viewer" / "licences.md"
HEAD = """# Licences of what is installed with it

The packages of `requirements.lock`, with the licence each names in its own metadata (`python -m benchmarks dependencies` writes this page).
The weights of the package are listed in their [model card](../models/weights/tissuetalk-mini.md).

| package | version | licence |
| --- | --- | --- |
"""
VIEWER_HEAD = """
## What the viewer's page holds

Parts of these packages are in `server/viewer/viewer.html`; `make viewer` writes the page and, beside it, `licences.md` with the full text
of each licence. Nothing of Node is installed with the package.

| package | version | licence |
| --- | --- | --- |
"""
LONGEST = 60
_PINNED = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s;]+)", re.MULTILINE)
_BUNDLED = re.compile(r"^## (\S+) - (\S+) \((.+)\)$", re.MULTILINE)
_MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy"
_CLASSIFIER = "License :: OSI Approved :: "


def pinned() -> Iterator[tuple[str, str]]:
    """Name and version of every package of the lock file."""
    for name, version in _PINNED.findall(LOCK.read_text("utf-8")):
        yield name, version.rstrip("\\")


def licence_of(package: Distribution) -> str:
    """The expression it states, else its classifiers, else the first words of its free text."""
    stated = package.metadata
    if expression := stated.get("License-Expression"):
        return str(expression)
    classified = [
        line.rpartition(" :: ")[2] for line in stated.get_all("Classifier") or [] if _CLASSIFIER in line
    ]
    if classified:
        return ", ".join(dict.fromkeys(classified))
    if first := (str(stated.get("License") or "").strip().splitlines() or [""])[0]:
        return first[:LONGEST]
    files = [each.read_text("utf-8") for each in package.files or [] if each.name.startswith("LICENSE")]
    return (
        "MIT (by its licence file)" if any(_MIT in " ".join(text.split()) for text in files) else "not stated"
    )


def bundled() -> list[tuple[str, str, str]]:
    """Name, version and licence of what the viewer's page holds, as Vite found it when it built the page."""
    return _BUNDLED.findall(VIEWER_LICENCES.read_text("utf-8"))


def write_licences() -> str:
    rows, missing = [], []
    for name, version in pinned():
        try:
            rows.append(f"| {name} | {version} | {licence_of(distribution(name))} |")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        raise SystemExit(f"not installed here, so their licence is not known: {', '.join(missing)}")
    viewer = [f"| {' | '.join(each)} |" for each in bundled()]
    PAGE.write_text(HEAD + "\n".join(rows) + "\n" + VIEWER_HEAD + "\n".join(viewer) + "\n", "utf-8")
    return f"{PAGE.name}: {len(rows)} packages, {len(viewer)} in the viewer's page"


def audit(pip_audit: str) -> str:
    """Known vulnerabilities of the locked versions. A package the service knows nothing of was not looked at, and is said so."""
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder) / "requirements.txt"
        # advisories are about the release, not about which build of it
        lock.write_text(
            re.sub(r"^([^\s#]+==[^\s+]+)\+\w+", r"\1", LOCK.read_text("utf-8"), flags=re.MULTILINE), "utf-8"
        )
        command = [
            pip_audit,
            "--requirement",
            str(lock),
            "--require-hashes",
            "--disable-pip",
            "--format",
            "json",
        ]
        done = subprocess.run(
            [*command, "--progress-spinner", "off"], capture_output=True, text=True, check=False, timeout=600
        )
    try:
        told = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        raise SystemExit(
            f"not audited: pip-audit reached no service:\n{done.stderr.strip()[-600:]}"
        ) from None
    unknown = [each["name"] for each in told if "skip_reason" in each]
    holes = [
        f"{each['name']} {each['version']}: {hole['id']}" for each in told for hole in each.get("vulns", ())
    ]
    if holes:
        raise SystemExit("known vulnerabilities:\n" + "\n".join(holes))
    if unknown:
        raise SystemExit(
            f"not audited: {len(unknown)} of {len(told)} packages are unknown to the service that answered, among them "
            f"{', '.join(unknown[:5])}; run this where pypi.org itself is reached"
        )
    return f"{len(told)} packages, no known vulnerability"


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks dependencies", description=__doc__)
    parser.add_argument(
        "--audit", metavar="PIP_AUDIT", help="the pip-audit to ask, instead of writing the licences"
    )
    given = parser.parse_args(arguments)
    print(audit(given.audit) if given.audit else write_licences())
