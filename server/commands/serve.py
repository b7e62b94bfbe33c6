"""`tissuetalk serve`: over stdio for one host, over HTTP for others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tissuetalk.models import logs
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.logs import LogFormat
from tissuetalk.server.commands.machine import own_workspace
from tissuetalk.server.commands.terminal import ArchivesGiven, CredentialsGiven, Reader, archives_from

if TYPE_CHECKING:
    from tissuetalk.server.http import Where
    from tissuetalk.server.service import Settings

Root = Annotated[list[Path] | None, typer.Option(help="Folder images may be read from; repeatable.")]
Quota = Annotated[
    float,
    typer.Option(
        min=0.01,
        envvar="TISSUETALK_QUOTA",
        help="GB that results, uploads and, for a quarter of it, stored features may take in the workspace.",
    ),
]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option(help="With --http: a further host name of this server, for requests and pages; repeatable."),
]
Proxy = Annotated[
    list[str] | None,
    typer.Option(help="With --http: address of a proxy whose X-Forwarded-For is believed; repeatable."),
]
TokenFile = Annotated[
    Path | None, typer.Option(envvar="TISSUETALK_TOKEN_FILE", help="With --http: a file with the token.")
]
AccountsFile = Annotated[
    Path | None, typer.Option(help="With --http: a file of accounts and tenants, in place of one token.")
]
StateAddress = Annotated[
    str | None,
    typer.Option(
        envvar="TISSUETALK_STATE",
        help="postgresql://… for several server processes at once; without it the workspace has a database of its own.",
    ),
]
ObjectsAddress = Annotated[
    str | None,
    typer.Option(
        envvar="TISSUETALK_OBJECTS",
        help="With --state: s3://BUCKET/PREFIX for results and uploads, where servers run on several machines.",
    ),
]
Workers = Annotated[
    int, typer.Option(help="Slides worked on at once, and as many small pictures.", min=1, max=64)
]
SessionsEach = Annotated[int, typer.Option(help="MCP sessions per address.", min=1)]
UploadsEach = Annotated[int, typer.Option(help="Uploads at once per address.", min=1)]
InFlight = Annotated[int, typer.Option(help="Uploads in flight per address, in MB.", min=1)]
Idle = Annotated[float, typer.Option(help="A session without requests ends after this.", min=1)]
Audit = Annotated[
    Path | None,
    typer.Option(
        "--audit-log", help="File that says who asked for what; with --accounts it is in the workspace."
    ),
]
LogLines = Annotated[
    LogFormat, typer.Option("--log-format", envvar="TISSUETALK_LOG_FORMAT", help="json has every call in it.")
]
MetricsAt = Annotated[
    str | None, typer.Option("--metrics", help="HOST:PORT for Prometheus, without a token; else /metrics.")
]
Drain = Annotated[float, typer.Option(help="With --http: at SIGTERM, wait so long for what runs.", min=0)]
Kept = Annotated[
    str | None,
    typer.Option(help="Remove what nobody has used for so long: 90d, 12h; without it only to make room."),
]
Stalled = Annotated[float, typer.Option(help="A client that stalls half-way is dropped.", min=1)]


def serve(
    folders: Annotated[list[Path] | None, typer.Argument(help="As --root, one after another.")] = None,
    root: Root = None,
    http: Annotated[str | None, typer.Option(help="HOST:PORT for streamable HTTP; stdio without it.")] = None,
    workspace: Annotated[Path | None, typer.Option(help="Where results are kept.")] = None,
    reader: Reader = "rules",
    allowed_host: AllowedHost = None,
    proxy: Proxy = None,
    token_file: TokenFile = None,
    accounts: AccountsFile = None,
    sessions_each: SessionsEach = 200,
    uploads_each: UploadsEach = 16,
    in_flight_mb: InFlight = 2048,
    idle_s: Idle = 1800.0,
    stalled_s: Stalled = 30.0,
    quota: Quota = 10,
    workers: Workers = 2,
    audit_log: Audit = None,
    log_format: LogLines = "text",
    metrics: MetricsAt = None,
    drain_s: Drain = 30.0,
    state: StateAddress = None,
    objects: ObjectsAddress = None,
    archive: ArchivesGiven = None,
    archive_credentials: CredentialsGiven = None,
    keep_results: Kept = None,
    keep_uploads: Kept = None,
    keep_jobs: Kept = None,
) -> None:
    """Serve MCP over stdio, or over HTTP with --http."""
    from tissuetalk.server.service import Settings
    from tissuetalk.tools.storage.room import Keep
    from tissuetalk.tools.storage.state import State

    _prepare(log_format)
    settings = Settings(
        roots=(*(folders or ()), *(root or ())) or None,
        workspace=workspace or own_workspace(),
        reader=reader,
        quota_gb=quota,
        workers=workers,
        state=State.of(state, objects),
        archives=archives_from(archive, archive_credentials),
        keep=Keep(*map(seconds_of, (keep_results, keep_uploads, keep_jobs))),
    )
    if http is None:
        _over_stdio(settings, audit_log)
        return
    from tissuetalk.server.http import Where
    from tissuetalk.server.limits import PeerLimits

    limits = PeerLimits(
        sessions_each=sessions_each,
        uploads_each=uploads_each,
        upload_bytes_each=in_flight_mb * 1_000_000,
        session_idle_s=idle_s,
        stalled_s=stalled_s,
    )
    where = Where(http, allowed_host or (), proxy or (), token_file, limits, audit_log, metrics, drain_s)
    _over_http(settings, where, accounts)


def _prepare(log_format: LogFormat) -> None:
    """What this process needs before anything else begins."""
    from tissuetalk.models import worker
    from tissuetalk.models.memory import few_arenas
    from tissuetalk.server.tracing import start_where_asked

    logs.configure(log_format)
    start_where_asked()
    few_arenas()
    worker.start()  # it warms while everything else is imported


def _over_stdio(settings: Settings, audit_log: Path | None) -> None:
    from tissuetalk.models.memory import collect_rarely
    from tissuetalk.server.stdio import serve_stdio

    collect_rarely()
    serve_stdio(settings, audit_log)


def seconds_of(text: str | None) -> float | None:
    """``90d``, ``12h``, ``30m`` or ``45s``. Raises InvalidArgumentError."""
    if text is None:
        return None
    number, unit = text[:-1], {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0}.get(text[-1:])
    if unit is None or not number.isascii() or not number.isdigit() or not 0 < int(number) < 10**7:
        raise InvalidArgumentError(f"{text[:40]!r} is no time to keep something; write 90d, 12h, 30m or 45s.")
    return int(number) * unit


def _over_http(settings: Settings, where: Where, accounts: Path | None) -> None:
    from tissuetalk.models.memory import collect_rarely
    from tissuetalk.server.http import serve_app, serve_http

    collect_rarely()
    if accounts is None:
        serve_http(settings, where)
        return
    from tissuetalk.server.accounts import Accounts
    from tissuetalk.server.audit import NAME
    from tissuetalk.server.tenants import Tenants

    known = Accounts.read(accounts)
    where = replace(where, audit=where.audit or settings.workspace / NAME)
    observing = where.observing()
    serve_app(lambda names: Tenants(known, settings, names, where.limits, observing), where, observing)
