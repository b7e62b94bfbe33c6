"""What is there: images in the roots, results in the workspace, and the files of a result."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tissuetalk.models.errors import (
    InvalidArgumentError,
    TissuetalkError,
    UnknownLabelError,
    UnknownResultError,
    WorkspaceFullError,
    shown,
)
from tissuetalk.models.images import ImageSource
from tissuetalk.models.writing import disk_errors, place_errors, whole_folder
from tissuetalk.prompts import organs
from tissuetalk.prompts.taxonomy import LABELS, REGIONS, labels_with
from tissuetalk.tools.answers.arguments import LONGEST_FOLDER_BYTES
from tissuetalk.tools.answers.results import Answer, LibraryResult, ListedImage, ListedResult
from tissuetalk.tools.session.results import with_addresses
from tissuetalk.tools.session.targets import forget, kept_as, listed_targets, write_learned
from tissuetalk.tools.storage import manifest
from tissuetalk.tools.storage.archives import in_archive
from tissuetalk.tools.storage.result_folder import ResultFolder

if TYPE_CHECKING:
    from pathlib import Path

    from tissuetalk.tools.session.session import Session

MOST_LISTED = 100


def library(
    session: Session,
    action: str,
    result_id: str | None,
    format: str | None,
    folder: str | None,
    organ: str | None,
    name: str | None,
) -> Answer[LibraryResult]:
    """Raises InvalidArgumentError for what is missing or unknown, and the errors of the action."""
    actions: dict[str, Callable[[], dict[str, Any]]] = {
        "images": lambda: _images(session),
        "results": lambda: _results(session),
        "labels": lambda: _labels(organ),
        "targets": lambda: listed_targets(session),
        "save": lambda: (
            _save_target(session, name, folder)
            if name is not None and result_id is None
            else _save(session, _needed(result_id), format, folder)
        ),
        "delete": lambda: _delete(session, _needed(result_id)),
        "forget": lambda: forget(session, name),
    }
    if action not in actions:
        raise InvalidArgumentError(f"unknown action {action[:60]!r}; choose from: {', '.join(actions)}.")
    found = {"images": [], "results": [], "labels": [], "saved": [], **actions[action]()}
    result = LibraryResult.model_validate({"action": action, **found})
    lines = [
        shown(image.path) + ("" if image.size_bytes is None else f" ({image.size_bytes:,} bytes)")
        for image in result.images
    ]
    lines += [
        f"{item.result_id} of {item.image_id}, {item.created_at}: {item.problem or ', '.join(item.masks)}"
        for item in result.results
    ]
    lines += [target.line for target in result.targets]
    said = [result.message, *lines[: MOST_LISTED * 3], *result.labels, *result.saved, *result.removed]
    return Answer(result, "\n".join(said))


def _images(session: Session) -> dict[str, Any]:
    found = [
        ListedImage(path=item["path"], size_bytes=item["bytes"])
        for item in session.roots.list_images(MOST_LISTED)
    ]
    said = [f"{len(found)} image(s) in the allowed folders."]
    for archive in session.archives:
        try:
            slides = archive.slides(MOST_LISTED)
        except TissuetalkError as error:  # what else there is, is listed all the same
            said.append(str(error))
            continue
        found += [ListedImage(path=str(slide), size_bytes=None) for slide in slides]
        said.append(f"{len(slides)} slide(s) in the archive {archive.name}.")
    return {"message": " ".join(said), "images": found}


def _results(session: Session) -> dict[str, Any]:
    found = [
        ListedResult(
            result_id=stored.result_id,
            image_id=stored.image_id,
            created_at=stored.created_at.isoformat(timespec="seconds"),
            size_bytes=stored.size_bytes,
            **_masks_in(stored.folder),
        )
        for stored in session.workspace.results(MOST_LISTED)
    ]
    removed = [str(removal) for removal in session.workspace.removed(limit=MOST_LISTED)]
    damaged = sum(item.problem is not None for item in found)
    message = f"{len(found)} result(s) in the workspace, newest first."
    if damaged:
        message += f" {damaged} of them cannot be read; `tissuetalk doctor --workspace` says why."
    return {"message": message, "results": found, "removed": removed}


def _masks_in(folder: Path) -> dict[str, Any]:
    """What a listing says of a result; one that is damaged is said to be so, and the others are listed all the same."""
    try:
        return {"masks": [mask.name for mask in ResultFolder(folder).result().masks]}
    except UnknownResultError as error:
        return {"masks": [], "problem": str(error)}


def _labels(organ: str | None) -> dict[str, Any]:
    region = "unspecified" if organ == "unspecified" else organs.region_of(organ)
    part = region or organ
    found = [str(label) for label in (LABELS if part is None else labels_with(part))]
    if not found:
        raise UnknownLabelError(
            f"no labels for an organ, structure or object type {str(organ)[:60]!r}; organs: {', '.join(REGIONS)}."
        )
    where = "" if part is None else f" of {part[:60]}"
    message = (
        f"{len(found)} label(s){where}. A label names an object, not what a model here can find: segment says what is "
        "unsupported. Other structures go as words."
    )
    return {"message": message, "labels": found}


def _save(session: Session, result_id: str, format: str | None, folder: str | None) -> dict[str, Any]:
    from tissuetalk.tools.export import FORMATS
    from tissuetalk.tools.export.links import write_outlines
    from tissuetalk.tools.masks.stored import open_masks

    format = format or "folder"
    if format not in ("folder", *FORMATS):
        choice = ", ".join(("folder", *FORMATS))
        raise InvalidArgumentError(f"unknown format {format[:40]!r}; choose from: {choice}.")
    folder = _named(folder)
    if in_archive(folder):
        uid = session.store(result_id, format, folder)
        return {"message": f"stored as {format} in the archive, with the slide's study.", "saved": [uid]}
    root, target = _new_folder(session, folder)
    scratch = session.workspace.owners.folder
    with session.reading(result_id) as stored, session.workspace.owners.writing(target):
        if format != "folder":
            with (
                place_errors(target, root),
                whole_folder(target, scratch=scratch, durable=True, within=root) as private,
            ):
                masks = open_masks(stored.folder, stored.open_image)
                FORMATS[format].write(masks, private / FORMATS[format].file_name)
                saved = _files_in(private)
        else:
            with suppress(WorkspaceFullError), disk_errors(session.workspace.folder):
                write_outlines(stored.folder)  # for those who read the folder without us
            session.workspace.save(result_id, target, within=root)
            saved = [name for name in _files_in(stored.folder.path) if name != manifest.NAME]
    return {"message": f"saved {len(saved)} file(s) to {shown(folder)}.", "saved": saved}


def _save_target(session: Session, name: str, folder: str | None) -> dict[str, Any]:
    """A taught target as a file with its card."""
    learned = kept_as(session, name)
    root, target = _new_folder(session, _named(folder))
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", learned.name).strip("-.") or "target"
    scratch = session.workspace.owners.folder
    with (
        session.workspace.owners.writing(target),
        place_errors(target, root),
        whole_folder(target, scratch=scratch, durable=True, within=root) as private,
    ):
        saved = write_learned(learned, private / f"{stem}.safetensors")
    return {"message": f"saved {shown(learned.name)} to {shown(_named(folder))}.", "saved": saved}


def _named(folder: str | None) -> str:
    if folder is None:
        raise InvalidArgumentError("pass folder: where to save, a new folder inside an allowed root.")
    return folder


def _files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _new_folder(session: Session, name: str) -> tuple[Path, Path]:
    """The root, and in it a folder that is missing or empty. Raises InvalidArgumentError for any other place."""
    if not name.strip() or not name.isprintable() or len(name.encode()) > LONGEST_FOLDER_BYTES:
        raise InvalidArgumentError(
            "the folder's name is blank, too long or not plain text; give a short one, such as 'kept/case-7'."
        )
    root, asked = session.roots.place(name)
    if asked.exists() and (not asked.is_dir() or any(asked.iterdir())):
        raise InvalidArgumentError(f"{shown(name)} is in use; nothing is overwritten, give a new folder.")
    return root, asked


def _delete(session: Session, result_id: str) -> dict[str, Any]:
    session.workspace.delete(result_id)
    return {"message": f"{result_id} is gone for good."}


def _needed(result_id: str | None) -> str:
    if result_id is None:
        raise InvalidArgumentError("pass result_id; library(action='results') lists them.")
    return result_id


def file_of(
    folder: ResultFolder,
    path: str,
    open_image: Callable[[], ImageSource],
    address: Callable[[str], str],
) -> bytes:
    """A file of a result by its relative address; derived files are made when first asked for."""
    from tissuetalk.tools.explain import explain
    from tissuetalk.tools.export.links import resource
    from tissuetalk.tools.measure import pictures

    kind, _, name = path.partition("/")
    if path == "overlay.png":
        return (folder.path / path).read_bytes()
    if kind == "explanations":
        return explain.picture_file(folder, name)
    if kind == pictures.FOLDER:
        return pictures.read_picture(folder.path, name)
    if path == "result.json":
        return with_addresses(folder.result(), address).model_dump_json(indent=1).encode()
    (mask,) = folder.chosen([name.rsplit(".", 1)[0]])
    if kind in ("objects", "tables"):
        return resource(folder, mask.mask_id, kind, open_image)
    if kind == "instances" and mask.resources.instances is None:
        raise InvalidArgumentError(
            f"mask {mask.mask_id} is a region without separate objects; read its mask."
        )
    if kind in ("masks", "instances"):
        return (folder.path / kind / f"{mask.mask_id}.png").read_bytes()
    raise InvalidArgumentError("a result has masks, instances, objects and tables; see its resources.")
