"""Commands around the main job: demo, doctor, translate, export; and the groups of commands in other files."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from tissuetalk.server.commands import data_commands, evaluation_commands, training_commands

JSON = Annotated[bool, typer.Option("--json", help="Print the structured result and nothing else.")]
DEMO_WORDS = (
    "Colon biopsy: crowded adenomatous glands with low-grade dysplasia. No invasive carcinoma is seen."
)


def add_to(app: typer.Typer) -> None:
    """Registers the commands; nothing heavy is imported before one of them runs."""
    for command in (demo, doctor, translate, export):
        app.command()(command)
    evaluation_commands.add_to(app)
    training_commands.add_to(app)
    data_commands.add_to(app)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the result; replaced if a demo wrote it.")] = Path(
        "demo-out"
    ),
    json_: JSON = False,
) -> None:
    """The main job on a bundled real H&E image: a report sentence in, masks, a table and an overlay out."""
    from tissuetalk.server.commands.command_line import segment_to_folder
    from tissuetalk.server.commands.printing import as_json, segment_table
    from tissuetalk.tools.segment.request import SegmentArguments

    marker = out / ".tissuetalk-demo"
    if marker.is_file():
        shutil.rmtree(out)
    with resources.as_file(resources.files("tissuetalk.models").joinpath("samples", "colon.jpg")) as image:
        asked = SegmentArguments(image=str(image), words=DEMO_WORDS)
        if not json_:
            print(f"image: {image}\nwords: {DEMO_WORDS}\n")
        result = segment_to_folder(asked, out, "rules", quiet=json_)
    marker.touch()
    if json_:
        as_json(result)
        return
    segment_table(result, out)
    print((out / "overlay.png").resolve())


def doctor(json_: JSON = False) -> None:
    """What works on this machine, what is missing, and what to do about it."""
    from tissuetalk.server.commands.printing import doctor_table
    from tissuetalk.tools.doctor import examine

    findings = examine()
    if json_:
        print(json.dumps([finding.model_dump() for finding in findings], indent=1))
    else:
        doctor_table(findings)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(3)


def translate(
    in_: Annotated[Path, typer.Option("--in", help="JSON lines with id, text and perhaps organ.")],
    out: Annotated[Path, typer.Option(help="JSON lines with targets.")],
    reader: Annotated[str, typer.Option(help="How words are read: rules, llm or hybrid.")] = "rules",
) -> None:
    """Words to targets only, nothing is segmented."""
    from tissuetalk.prompts.readers import make_reader
    from tissuetalk.prompts.translate import translate_items

    translate_items(in_, out, make_reader(reader))


def export(
    result_dir: Annotated[Path, typer.Argument(help="Folder written by segment.")],
    format: Annotated[
        str, typer.Option(help="geojson, csv, parquet, ome-zarr, dicom-seg, dicom-ann or coco.")
    ],
    out: Annotated[Path, typer.Option(help="New file to write; a new folder for ome-zarr.")],
    json_: JSON = False,
) -> None:
    """The result in a format other software opens."""
    from tissuetalk.tools.session import Session

    with Session() as session:
        written = session.export(result_dir, format, out)
    print(json.dumps({"format": format, "out": str(written)}) if json_ else written)
