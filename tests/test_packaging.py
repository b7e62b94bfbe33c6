"""What people install with one click says the truth about the package: bundle, registry entry, container image."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer
import yaml
from conftest import Place
from jsonschema import Draft201909Validator, validate

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.server.accounts import Accounts
from tissuetalk.server.commands.command_line import app
from tissuetalk.server.commands.machine import own_workspace
from tissuetalk.server.commands.serve import seconds_of
from tissuetalk.server.hosts import started
from tissuetalk.server.http import address, networks
from tissuetalk.server.names import Names
from tissuetalk.server.operations import ADMIN_PATHS
from tissuetalk.tools.answers.arguments import MAX_UPLOAD_BYTES
from tissuetalk.tools.storage.state import State

PROJECT = Path(__file__).parents[1]
PACKAGING = PROJECT / "server" / "packaging"
SCHEMAS = Path(__file__).parent / "data" / "schemas"
COMPOSE = PROJECT / "examples" / "compose"
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


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    """The services of the compose file, with what an operator fills in."""
    text = (COMPOSE / "compose.yaml").read_text("utf-8")
    text = re.sub(r"\$\{TISSUETALK_NAME:[^}]*\}", "tissue.example.org", text)
    return yaml.safe_load(re.sub(r"\$\{SLIDES:[^}]*\}", "/srv/slides", text))


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What the command makes of its arguments; nothing is run. Fails on an option or a value that it refuses."""
    name, *rest = arguments
    command = typer.main.get_command(app).commands[name]
    return command.make_context(name, list(rest)).params


def names_in(lines: list[str]) -> set[str]:
    return {line.partition("=")[0] for line in lines if "=" in line and not line.startswith("#")}


def test_the_service_is_a_compose_file(composed: dict[str, Any]) -> None:
    """Against the public schema of compose files; nothing is started."""
    schema = json.loads((SCHEMAS / "compose-spec.json").read_text("utf-8"))
    whole = {name: part for name, part in composed.items() if name != "name"}
    validate(whole, schema, cls=Draft201909Validator)
    for name, service in composed["services"].items():
        assert ":latest" not in service["image"] and ":" in service["image"], name
        assert set(service.get("depends_on", ())) <= set(composed["services"]), name
        assert set(service["networks"]) <= set(composed["networks"]), name
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in composed["volumes"] or source.startswith(("./", "/srv/slides")), volume
            assert not source.startswith("./") or source == "./accounts.yaml" or (COMPOSE / source).is_file()


@pytest.mark.parametrize("server", ["one", "two"])
def test_the_servers_of_the_compose_file_are_started_as_the_command_takes_it(
    composed: dict[str, Any], server: str
) -> None:
    service = composed["services"][server]
    assert (PROJECT / "examples" / "compose" / service["build"]["context"]).resolve() == PROJECT
    assert (PROJECT / service["build"]["dockerfile"]).is_file()
    given = parsed(service["command"])
    mounted = {volume.split(":")[1] for volume in service["volumes"]}
    assert mounted == {"/workspace", "/images", str(given["accounts"])}
    set_here = service["environment"]
    state, objects = set_here["TISSUETALK_STATE"], set_here["TISSUETALK_OBJECTS"]
    assert State.of(state, objects) is not None
    for kept in ("keep_results", "keep_uploads"):
        assert seconds_of(given[kept])
    port = address(given["http"])[1]
    assert address(given["metrics"])[1] != port
    (subnet,) = composed["networks"]["inside"]["ipam"]["config"]
    assert given["proxy"] == [subnet["subnet"]] and networks(given["proxy"])
    assert int(service["stop_grace_period"].removesuffix("s")) > given["drain_s"]
    database, bucket = urlsplit(state), urlsplit(objects)
    said = composed["services"][database.hostname]["environment"]
    assert (database.username, database.path) == (said["POSTGRES_USER"], f"/{said['POSTGRES_DB']}")
    assert f"here/{bucket.netloc}" in " ".join(composed["services"]["bucket"]["command"])
    assert urlsplit(service["environment"]["AWS_ENDPOINT_URL"]).hostname in composed["services"]
    caddy = (COMPOSE / "Caddyfile").read_text("utf-8")
    assert f"{server}:{port}" in caddy and all(path in caddy for path in ADMIN_PATHS)
    largest = re.search(r"max_size (\d+)MiB", caddy)
    assert largest is not None and int(largest[1]) * 2**20 >= MAX_UPLOAD_BYTES


def test_the_example_of_accounts_is_one(composed: dict[str, Any]) -> None:
    accounts = Accounts.read(COMPOSE / "accounts.yaml.example")
    roots = [root for tenant in accounts.tenants.values() for root in tenant.roots]
    assert all(root.is_relative_to("/images") for root in roots)
    with pytest.raises(InvalidArgumentError, match=r"/images/pathology.*pathology is not a folder"):
        accounts.tenants["pathology"].existing_roots("pathology")


def test_every_variable_of_the_service_is_one_that_a_program_reads(
    composed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    example = names_in((COMPOSE / "service.env.example").read_text("utf-8").splitlines())
    assert {"PGPASSWORD", "POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY", "MINIO_ROOT_PASSWORD"} <= example
    set_in_image = {
        name.partition("=")[0]
        for line in containerfile()
        if line.startswith("ENV ")
        for name in line.split()[1:]
    }
    given = example | set_in_image | set(composed["services"]["one"]["environment"])
    monkeypatch.setenv("TISSUETALK_WORKSPACE", "/workspace")
    assert own_workspace() == Path("/workspace")
    ours = {each.envvar for each in typer.main.get_command(app).commands["serve"].params}
    assert {name for name in given if name.startswith("TISSUETALK_")} <= ours | {"TISSUETALK_WORKSPACE"}
    if find_spec("psycopg") is not None:
        from psycopg.pq import Conninfo

        known = {each.envvar.decode() for each in Conninfo.get_defaults() if each.envvar}
        assert {name for name in given if name.startswith("PG")} <= known
    if find_spec("botocore") is not None:
        from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES as READ
        from botocore.credentials import EnvProvider

        known = {READ["region"][1], EnvProvider.ACCESS_KEY, EnvProvider.SECRET_KEY, "AWS_ENDPOINT_URL"}
        assert {name for name in given if name.startswith("AWS_")} <= known


def test_the_image_starts_the_command_and_asks_it_where_it_listens() -> None:
    lines = containerfile()
    entry = next(
        json.loads(line.removeprefix("ENTRYPOINT ")) for line in lines if line.startswith("ENTRYPOINT ")
    )
    assert entry == ["tissuetalk"]
    given = parsed(next(json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD ")))
    port = address(given["http"])[1]
    assert f"EXPOSE {port}" in lines
    asked = next(line for line in lines if line.startswith("HEALTHCHECK "))
    program, option, code = json.loads(asked.partition(" CMD ")[2])
    assert (program, option) == ("python", "-c") and f"127.0.0.1:{port}/health" in code
    compile(code, "HEALTHCHECK", "exec")
    assert Names.of("0.0.0.0", port, ()).answers(f"127.0.0.1:{port}", None)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {
        name for line in lines for group in re.findall(r"'\.\[(.+?)\]'", line) for name in group.split(",")
    }
    assert extras >= {"service"} and extras <= set(project["optional-dependencies"])
