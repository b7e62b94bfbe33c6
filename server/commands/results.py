"""Commands about a result in a folder: measure, explain, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tissuetalk.server.commands.options import JSON, Classifier, Format, Metrics, ResultDir, print_json


def measure(
    result_dir: ResultDir,
    metric: Metrics = None,
    format: Annotated[Literal["table", "json", "csv"], typer.Option(help="How to print them.")] = "table",
    json_: JSON = False,
) -> None:
    """Numbers for a result, each with its unit and rule."""
    from tissuetalk.server.commands.printing import measure_table
    from tissuetalk.tools.session import Session

    with Session() as session:
        answer = session.measure(result_dir, metric)
    if json_ or format == "json":
        print(answer.to_json())
    else:
        measure_table(answer.result, as_csv=format == "csv")


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
    from tissuetalk.server.commands.printing import explain_text
    from tissuetalk.tools.session import Session

    with Session() as session:
        answer = session.explain(result_dir, " ".join(question or ()) or None, classifier, picture=picture)
    if json_:
        print(answer.to_json())
    else:
        explain_text(answer)


def export(
    result_dir: ResultDir,
    format: Format,
    out: Annotated[Path, typer.Option(help="New file to write; a new folder for ome-zarr.")],
    json_: JSON = False,
) -> None:
    """The result in a format other software opens."""
    from tissuetalk.tools.session import Session

    with Session() as session:
        written = session.export(result_dir, format, out)
    if json_:
        print_json({"format": format, "out": written})
    else:
        print(written)
