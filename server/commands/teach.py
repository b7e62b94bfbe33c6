"""The command that turns drawn annotations into a target that words find."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from tissuetalk.models.errors import InvalidArgumentError, shown
from tissuetalk.server.commands.terminal import JSON, Model, image_progress, show

TargetKind = Literal["region", "object"]


def teach(
    name: Annotated[str, typer.Argument(help="What to call it; words find it by this name.")],
    images: Annotated[list[Path], typer.Argument(help="Images or slides that were drawn on.")],
    examples: Annotated[
        list[Path],
        typer.Option(
            help="GeoJSON of each image, in the same order, or a folder of files called as the images."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File for the target, .safetensors; its card goes beside it.")],
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="Class that shows it; default the one called NAME, or the only one. Several times, or with none of these: "
            "a target for each class.",
        ),
    ] = None,
    mpp: Annotated[float | None, typer.Option(help="µm per pixel, if the files do not say.")] = None,
    model: Model = None,
    kind: Annotated[
        TargetKind | None,
        typer.Option(help="region: pixels; object: things. Default: decided by the examples."),
    ] = None,
    json_: JSON = False,
) -> None:
    """Learn from annotations drawn in QuPath: a class is the target; `not NAME`, `Ignore*` and other classes are not."""
    from tissuetalk.models.control import Control
    from tissuetalk.tools.session import Session
    from tissuetalk.tools.session.targets import listing_of, write_learned
    from tissuetalk.tools.teach.teach import paired, teach_classes

    if out.suffix != ".safetensors":
        raise InvalidArgumentError(f"--out {out} must end in .safetensors; a card is written beside it.")
    drawn = paired(images, examples)
    classes = _classes(
        name, class_, list(dict.fromkeys(each for one in drawn for each in one.drawing.classes))
    )
    places = {name: out if len(classes) == 1 else _place_of(out, name) for name in classes}
    for place in places.values():
        if place.exists():
            raise InvalidArgumentError(f"{place} exists; nothing is overwritten, choose a new file.")
    roots = sorted({Path(os.path.realpath(image)).parent for image in images})
    with Session(roots) as session, image_progress(json_) as progress:
        learned = teach_classes(
            session, drawn, classes, model=model, mpp=mpp, kind=kind, control=Control(progress)
        )
    for each, place in zip(learned, places.values(), strict=True):
        write_learned(each, place)
    rows = [listing_of(each) for each in learned]
    text = [f"{place}: {row.line}" for row, place in zip(rows, places.values(), strict=True)]
    show(
        json_,
        [row.model_dump() | {"file": str(place)} for row, place in zip(rows, places.values(), strict=True)],
        *text,
    )


def _classes(name: str, chosen: list[str] | None, drawn: list[str]) -> dict[str, str]:
    """The class that shows each name. Raises InvalidArgumentError for a class that nobody drew."""
    by_name = {each.casefold(): each for each in drawn}
    for each in chosen or ():
        if each.casefold() not in by_name:
            there = ", ".join(map(shown, drawn[:20])) or "none"
            raise InvalidArgumentError(f"nothing was drawn as {shown(each)}; the classes are: {there}.")
    if chosen and len(chosen) == 1:
        return {name: by_name[chosen[0].casefold()]}
    if chosen:
        return {by_name[each.casefold()]: by_name[each.casefold()] for each in chosen}
    if name.casefold() in by_name or len(drawn) <= 1:
        return {name: by_name.get(name.casefold(), drawn[0] if drawn else "")}
    return {each: each for each in drawn}


def _place_of(out: Path, class_name: str) -> Path:
    plain = "".join(each if each.isalnum() else "-" for each in class_name.casefold()).strip("-")
    return out.with_name(f"{out.stem}-{plain or 'class'}.safetensors")
