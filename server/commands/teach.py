"""The command that turns drawn annotations into a target that words find."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from tissuetalk.models.errors import InvalidArgumentError, shown
from tissuetalk.server.commands.terminal import JSON, Model, image_progress, show

TargetKind = Literal["region", "object"]


def teach(
    name: Annotated[str, typer.Argument(help="What to call it; words find it by this name.")],
    images: Annotated[
        list[Path] | None, typer.Argument(help="Images or slides that were drawn on.", show_default=False)
    ] = None,
    examples: Annotated[
        list[Path] | None,
        typer.Option(
            help="GeoJSON of each image, in the same order, or a folder of files called as the images."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the target, .safetensors; its card goes beside it.")
    ] = None,
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
    import_: Annotated[
        Path | None,
        typer.Option(
            "--import",
            help="Instead of images: a file that was taught elsewhere, to be known as NAME in a workspace.",
        ),
    ] = None,
    workspace: Annotated[
        Path | None, typer.Option(help="With --import: whose words find it, by default that of serve.")
    ] = None,
    json_: JSON = False,
) -> None:
    """Learn from annotations drawn in QuPath: a class is the target; `not NAME`, `Ignore*` and other classes are not."""
    if import_ is not None:
        if images or examples or out is not None or class_ or mpp is not None or model or kind:
            raise InvalidArgumentError(
                "--import takes NAME, FILE and --workspace only: the file says the rest."
            )
        _import(name, import_, workspace, json_)
        return
    if not images or not examples or out is None:
        raise InvalidArgumentError(
            "teach takes NAME IMAGE… --examples FILE.geojson --out FILE.safetensors, or NAME --import FILE.safetensors."
        )
    if workspace is not None:
        raise InvalidArgumentError("--workspace goes with --import; what is taught here is written to --out.")
    _learn(name, images, examples, out, class_ or [], TeachingOptions(mpp, model, kind), json_)


@dataclass(frozen=True)
class TeachingOptions:
    """mpp: of the files that do not say. model, kind: None leaves it to the examples."""

    mpp: float | None
    model: str | None
    kind: TargetKind | None


def _learn(
    name: str,
    images: list[Path],
    examples: list[Path],
    out: Path,
    chosen: list[str],
    options: TeachingOptions,
    json_: bool,
) -> None:
    from tissuetalk.models.control import Control
    from tissuetalk.tools.session import Session
    from tissuetalk.tools.session.targets import listing_of, write_learned
    from tissuetalk.tools.teach.teach import paired, teach_classes

    if out.suffix != ".safetensors":
        raise InvalidArgumentError(f"--out {out} must end in .safetensors; a card is written beside it.")
    drawn = paired(images, examples)
    classes = _classes(
        name, chosen, list(dict.fromkeys(each for one in drawn for each in one.drawing.classes))
    )
    places = {name: out if len(classes) == 1 else _place_of(out, name) for name in classes}
    for place in places.values():
        if place.exists():
            raise InvalidArgumentError(f"{place} exists; nothing is overwritten, choose a new file.")
    roots = sorted({Path(os.path.realpath(image)).parent for image in images})
    with Session(roots) as session, image_progress(json_) as progress:
        learned = teach_classes(
            session,
            drawn,
            classes,
            model=options.model,
            mpp=options.mpp,
            kind=options.kind,
            control=Control(progress),
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


def _import(name: str, file: Path, workspace: Path | None, json_: bool) -> None:
    """A name that is taken stays as it was. Raises InvalidArgumentError, also for a file of anything else."""
    from tissuetalk.models import registry
    from tissuetalk.models.by_example import with_examples
    from tissuetalk.models.by_example.learned import named
    from tissuetalk.server.commands.machine import own_workspace
    from tissuetalk.tools.session.targets import listing_of
    from tissuetalk.tools.storage.targets import key_of, read_learned
    from tissuetalk.tools.storage.workspace import Workspace

    learned = replace(read_learned(file), name=named(name))
    base = registry.load(learned.base)
    with_examples(base, [learned])
    place = workspace or own_workspace()
    with Workspace(place) as kept:
        there = {key_of(each.learned.name): each.learned for each in kept.targets.listed() if each.learned}
        same = there.get(key_of(learned.name))
        if same is not None and same.sha256 != learned.sha256:
            raise InvalidArgumentError(
                f"{shown(learned.name)} means something else in {place}; choose another NAME, or have that forgotten first "
                "(library, action: forget)."
            )
        kept.targets.keep(learned)
    row = listing_of(learned)
    show(json_, [row.model_dump() | {"workspace": str(place)}], f"{place}: {row.line}")


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
