"""Commands about a result in a folder: measure, explain, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tissuetalk.models.writing import CsvWriter
from tissuetalk.server.commands.terminal import (
    JSON,
    ArchivesGiven,
    Classifier,
    CredentialsGiven,
    Format,
    Metrics,
    ResultDir,
    archives_from,
    show,
    table,
)

if TYPE_CHECKING:
    from tissuetalk.tools.answers.results import MeasureResult


def measure(
    result_dir: ResultDir,
    metric: Metrics = None,
    format: Annotated[Literal["table", "json", "csv"], typer.Option(help="How to print them.")] = "table",
    json_: JSON = False,
) -> None:
    """Numbers for a result, each with its unit and rule."""
    from tissuetalk.tools.session import Session

    with Session() as session:
        answer = session.measure(result_dir, metric)
    if format == "csv" and not json_:
        columns = ("mask_id", "name", "metric", "value", "unit", "rule")
        writer = CsvWriter(sys.stdout, columns, line_end="\r\n")
        writer.header()
        writer.rows([getattr(row, column) for column in columns] for row in answer.result.measurements)
    else:
        show(json_ or format == "json", answer.to_json(), *_measured(answer.result))


def _measured(result: MeasureResult) -> list[Any]:
    rows = [
        (row.name, row.metric, "n/a" if row.value is None else f"{row.value:.4g}", row.unit, row.rule)
        for row in result.measurements
    ]
    return [
        table(("mask", "metric", "value", "unit", "rule"), rows),
        *(
            f"drawn in the result's folder: {path} ({title.split()[0]})"
            for title, path in result.pictures.items()
        ),
        *(f"warning {warning.code}: {warning.message}" for warning in result.warnings),
    ]


def explain(
    result_dir: ResultDir,
    question: Annotated[list[str] | None, typer.Argument(help="What to explain.")] = None,
    classifier: Classifier = None,
    picture: Annotated[
        Path | None, typer.Option(help="Where the picture goes; default explanation.png in the folder.")
    ] = None,
    json_: JSON = False,
) -> None:
    """Evidence for a result: which words led to which mask, how sure it is, what it means, what a classifier used."""
    from rich.text import Text

    from tissuetalk.tools.session import Session

    with Session() as session:
        answer = session.explain(result_dir, " ".join(question or ()) or None, classifier, picture=picture)
    drawn = [answer.result.picture] if answer.result.picture is not None else []
    show(json_, answer.to_json(), Text(answer.text), *drawn)


def export(
    result_dir: ResultDir,
    format: Format,
    out: Annotated[Path, typer.Option(help="New file to write; a new folder for ome-zarr.")],
    keep_identifiers: Annotated[
        bool,
        typer.Option(
            "--keep-identifiers",
            help="Keep what says whose image it is: a DICOM slide's patient, ids, dates and UIDs, the file's name. "
            "They are removed without it, and the export says which.",
        ),
    ] = False,
    archive: ArchivesGiven = None,
    archive_credentials: CredentialsGiven = None,
    json_: JSON = False,
) -> None:
    """The result in a format other software opens; --out dicomweb:NAME stores it in the archive its slide came from."""
    from tissuetalk.tools.session import Session
    from tissuetalk.tools.storage.archives import in_archive

    with Session(archives=archives_from(archive, archive_credentials)) as session:
        if in_archive(str(out)):
            uid = session.store(result_dir, format, str(out))
            show(json_, {"format": format, "out": out, "sop_instance_uid": uid}, f"{out}: {uid}")
            return
        written = session.export(result_dir, format, out, keep_identifiers=keep_identifiers)
    show(json_, {"format": format, "out": written}, written)
