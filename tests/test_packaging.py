"""What people install with one click says the truth about the package: bundle, registry entry, container image."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from conftest import Place
from jsonschema import Draft201909Validator, validate

from tissuetalk.server.commands.command_line import app
from tissuetalk.server.hosts import started

PROJECT = Path(__file__).parents[1]
PACKAGING = PROJECT / "server" / "packaging"
SCHEMAS = Path(__file__).parent / "data" / "schemas"
NAME = "io.github.tissuetalk/tissuetalk"

sys.path.insert(0, str(PACKAGING))
from build import registry_entry  # it is no part of the package


def read(name: str) -> dict[str, Any]:
    return json.loads((PACKAGING / name).read_text("utf-8"))


def containerfile() -> list[str]:
    """Instructions, each on one line, without comments."""
    text = re.sub(r"^#.*\n", "", (PACKAGING / "Containerfile").read_text("utf-8"), flags=re.MULTILINE)
    return text.replace("\\\n", " ").splitlines()


@pytest.mark.anyio
async def test_the_bundle_starts_with_the_folders_that_its_user_picked(place: Place, tmp_path: Path) -> None:
    """A host puts one argument for each folder in the place of `${user_config.folders}`."""
    manifest = read("manifest.json")
    assert list(manifest["user_config"]) == ["folders", "quota_gb"]
    arguments = manifest["server"]["mcp_config"]["args"]
    assert arguments[:3] == ["run", "--directory", "${__dirname}"] and arguments[3] == "main.py"
    second = tmp_path / "a second folder"
    second.mkdir()
    picked = [str(place.root), str(second)]
    expanded = [each for a in arguments[4:] for each in (picked if a == "${user_config.folders}" else [a])]
    program = str(PACKAGING / manifest["server"]["entry_point"])
    _, tools = await started({"command": sys.executable, "args": [program, *expanded]})
    assert tools == [tool["name"] for tool in manifest["tools"]]


def test_manifest_and_registry_entry_follow_their_schemas(tmp_path: Path) -> None:
    manifest_schema = json.loads((SCHEMAS / "mcpb-manifest-v0.4.schema.json").read_text("utf-8"))
    entry_schema = json.loads((SCHEMAS / "mcp-server-2025-12-11.schema.json").read_text("utf-8"))
    validate(read("manifest.json"), manifest_schema)
    bundle = tmp_path / "tissuetalk.mcpb"
    bundle.write_bytes(b"packed")
    entry = registry_entry(bundle)
    validate(entry, entry_schema)
    hashes = [package.get("fileSha256") for package in entry["packages"]]
    assert hashes == ["88cb8a087b6e8cebfc9ae5602f5a2159a6bcf923e7f2c56809bcda6cad1727a7", None, None]


def test_one_name_and_one_version_everywhere() -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    bundle = tomllib.loads((PACKAGING / "pyproject.toml").read_text("utf-8"))
    entry, manifest = read("server.json"), read("manifest.json")
    assert {bundle["project"]["version"], manifest["version"], entry["version"]} == {version}
    assert bundle["tool"]["uv"]["sources"]["tissuetalk"]["path"] == f"tissuetalk-{version}-py3-none-any.whl"
    assert all(version in package["identifier"] + package.get("version", "") for package in entry["packages"])
    constraints = (PROJECT / "constraints.txt").read_text("utf-8").split("\n")
    assert set(constraints) & set(bundle["project"]["dependencies"])
    assert entry["name"] == NAME and f"mcp-name: {NAME}" in (PROJECT / "README.md").read_text("utf-8")
    assert any(f'io.modelcontextprotocol.server.name="{NAME}"' in line for line in containerfile())


def test_the_image_has_no_root_and_asks_for_its_own_health() -> None:
    lines = containerfile()
    final = lines[max(i for i, line in enumerate(lines) if line.startswith("FROM ")) :]
    user = next(line.split()[1] for line in final if line.startswith("USER "))
    assert user.isdecimal() and int(user) >= 10_000
    assert any("/health" in line and "HEALTHCHECK" in line for line in final)
    assert not [line for line in lines if line.startswith("ADD ") or "TISSUETALK_TOKEN=" in line]
    copied = {
        name
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
    }
    assert copied >= {"models", "prompts", "tools", "server", "requirements.lock"}
    assert all((PROJECT / name).exists() for name in copied)


def test_the_service_is_a_compose_file_with_options_that_exist() -> None:
    """Against the public schema of compose files; nothing is started."""
    compose = PROJECT / "examples" / "compose"
    said = yaml.safe_load((compose / "compose.yaml").read_text("utf-8"))
    schema = json.loads((SCHEMAS / "compose-spec.json").read_text("utf-8"))
    validate({name: part for name, part in said.items() if name != "name"}, schema, cls=Draft201909Validator)
    options = {each.partition("=")[0] for each in said["services"]["one"]["command"] if each.startswith("--")}
    known = {
        each for parameter in typer.main.get_command(app).commands["serve"].params for each in parameter.opts
    }
    assert options <= known, options - known
    for name, service in said["services"].items():
        assert ":latest" not in service["image"] and ":" in service["image"], name
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in said["volumes"] or source.startswith(("./", "${")), volume
    names = {
        line.partition("=")[0]
        for line in (compose / "service.env.example").read_text().splitlines()
        if "=" in line
    }
    assert {"PGPASSWORD", "POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY", "MINIO_ROOT_PASSWORD"} <= names
