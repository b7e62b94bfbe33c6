"""The one-click bundle of the server, and its entry for the MCP registry.

usage: python server/packaging/build.py WHEEL [--out dist]

Puts the wheel beside manifest, icon and start file, has the public packer (npm, pinned by package-lock.json) check and pack them,
and writes ``server.json`` with the bundle's SHA-256.
tests/test_packaging.py compares all of it with the package.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tissuetalk.models.writing import write_whole

HERE = Path(__file__).resolve().parent
PACKER = HERE.parents[1] / "build" / "packer"
AS_THEY_ARE = ("manifest.json", "icon.png", "main.py", "pyproject.toml")


def pack(wheel: Path, out: Path) -> Path:
    """The bundle, packed and checked by the public packer."""
    packer = _packer()
    bundle = out / f"{wheel.name.rsplit('-', 3)[0]}.mcpb"
    with tempfile.TemporaryDirectory() as folder:
        content = Path(folder) / "bundle"
        content.mkdir()
        for name in AS_THEY_ARE:
            shutil.copy(HERE / name, content)
        shutil.copy(wheel, content)
        write_whole(content / ".python-version", "3.11\n")
        subprocess.run([*packer, "validate", str(content / "manifest.json")], check=True)
        subprocess.run([*packer, "pack", str(content), str(bundle)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*packer, "info", str(bundle)], check=True)
    return bundle


def _packer() -> list[str]:
    program = PACKER / "node_modules" / ".bin" / "mcpb"
    if not program.exists():
        if (npm := shutil.which("npm")) is None:
            sys.exit("missing: npm, which brings the packer. On Debian: apt-get install npm.")
        PACKER.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, PACKER)
        quietly = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        subprocess.run([npm, "ci", *quietly], cwd=PACKER, check=True)
    return [str(program)]


def registry_entry(bundle: Path) -> dict[str, Any]:
    """``server.json`` for the MCP registry: what may be installed, and the bundle's hash."""
    entry: dict[str, Any] = json.loads((HERE / "server.json").read_text("utf-8"))
    for package in entry["packages"]:
        if package["registryType"] == "mcpb":
            package["fileSha256"] = hashlib.sha256(bundle.read_bytes()).hexdigest()
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=Path("dist"))
    chosen = parser.parse_args()
    bundle = pack(chosen.wheel.resolve(), chosen.out.resolve())
    entry = chosen.out / "server.json"
    write_whole(entry, json.dumps(registry_entry(bundle), indent=2) + "\n")
    print(f"{bundle} ({bundle.stat().st_size / 2**20:.1f} MiB)\n{entry.resolve()}")


if __name__ == "__main__":
    main()
