"""The tools as a server or the command line calls them: one method per verb, over a workbench and a work queue."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tissuetalk.models.control import Control
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import ImageSource
from tissuetalk.tools.answers.explained import ExplainResult
from tissuetalk.tools.answers.results import (
    Answer,
    LibraryResult,
    ListedImage,
    ListedResult,
    Mask,
    MeasureResult,
    SegmentResult,
    ViewResult,
)
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.drawing import measure_pictures as pictures
from tissuetalk.tools.explain import explain, storage
from tissuetalk.tools.explain.request import ExplainRequest
from tissuetalk.tools.export import FORMATS, export, slide_resource, write_slide_outlines
from tissuetalk.tools.masks.pyramid import is_slide
from tissuetalk.tools.measure import measure
from tissuetalk.tools.segment import engine
from tissuetalk.tools.segment.request import SegmentArguments, SegmentRequest, understand
from tissuetalk.tools.segment.segment import segment
from tissuetalk.tools.storage.result_folder import ResultFolder
from tissuetalk.tools.storage.workspace.jobs import JobStore
from tissuetalk.tools.view import view_source
from tissuetalk.tools.workbench import Workbench

MOST_LINKS = 12
MOST_LISTED = 100


class Desk:
    """Plain typed calls that know no protocol. Every link in an answer is a ``result://`` address."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.jobs = JobStore(bench.workspace)
        self.followers: set[threading.Thread] = set()

    def close(self) -> None:
        """Let the threads that follow jobs write their last word, then give the workspace back."""
        for thread in list(self.followers):
            thread.join()
        self.bench.close()

    def understand(self, asked: SegmentArguments) -> SegmentRequest:
        return understand(self.bench, asked)

    def segment(
        self,
        order: SegmentRequest,
        *,
        progress: engine.Progress = lambda done, what: None,
        stop: engine.Stop = lambda: False,
    ) -> Answer[SegmentResult]:
        result = segment(self.bench, order, Control(progress, stop))
        return self.stored(result.result_id)

    def stored(self, result_id: str) -> Answer[SegmentResult]:
        """The answer of a finished segment, as it was first given."""
        with self.bench.workspace.reading(result_id) as stored:
            folder = ResultFolder(stored.folder)
            result = with_addresses(folder.result())
            overlay = Image.open(folder.path / "overlay.png")
            text = segment_text(result)
            budget = drawing.picture_budget(text, len(result.model_dump_json()) + 150 * MOST_LINKS)
            return Answer(result, text, drawing.as_jpeg_within(overlay, budget), _links(result))

    def measure(
        self, result_id: str, metrics: Sequence[str] | None = None, mask_ids: Sequence[str] | None = None
    ) -> Answer[MeasureResult]:
        with self.bench.workspace.reading(result_id) as stored:
            folder = ResultFolder(stored.folder)
            result = measure.measure_folder(
                folder, metrics=metrics, mask_ids=mask_ids, open_image=self._opener(folder)
            )
            picture = pictures.sheet(folder.path, list(result.pictures.values()))
        return measure.answer(result, lambda path: address(result_id, path), picture)

    def asking(self, result_id: str, question: str | None, classifier: str | None = None) -> ExplainRequest:
        """What a question about a result asks for. Raises UnknownMaskError and what is wrong with the classifier's name."""
        if classifier is not None:
            from tissuetalk.tools.explain.diagnosis import (
                find,  # loads torch, which most questions do not need
            )

            find(classifier, self.bench.roots.paths)
        with self.bench.workspace.reading(result_id) as stored:
            return ExplainRequest.of(question, classifier, ResultFolder(stored.folder).result())

    def explain(
        self,
        result_id: str,
        question: str | None = None,
        classifier: str | None = None,
        *,
        progress: engine.Progress = lambda done, what: None,
        stop: engine.Stop = lambda: False,
    ) -> Answer[ExplainResult]:
        asked = self.asking(result_id, question, classifier)
        return self.explain_asked(result_id, asked, progress=progress, stop=stop)

    def explain_asked(
        self,
        result_id: str,
        asked: ExplainRequest,
        *,
        progress: engine.Progress = lambda done, what: None,
        stop: engine.Stop = lambda: False,
    ) -> Answer[ExplainResult]:
        """Make the evidence and keep it beside the result."""
        with self.bench.workspace.reading(result_id) as stored:
            folder = ResultFolder(stored.folder)
            access = explain.Access(
                self._opener(folder), self.bench.model, self.bench.roots.paths, self.bench.features
            )
            explained = explain.explain(folder, asked, access, Control(progress, stop))
            storage.store(folder, asked, explained)
        return self.explained(result_id, asked)

    def explained(self, result_id: str, asked: ExplainRequest) -> Answer[ExplainResult]:
        """The answer of a finished explain, as it was first given."""
        with self.bench.workspace.reading(result_id) as stored:
            kept = storage.stored(ResultFolder(stored.folder), asked)
        links = {
            "overlay": kept.result.overlay and address(result_id, kept.result.overlay),
            "picture": kept.result.picture and address(result_id, kept.result.picture),
        }
        stability = [
            each.model_copy(update={"map": each.map and address(result_id, each.map)})
            for each in kept.result.stability
        ]
        shown = kept.result.model_copy(update={**links, "stability": stability})
        text = explain.as_text(shown)
        budget = drawing.picture_budget(text, len(shown.model_dump_json()) + 400)
        jpeg = None if kept.picture is None else drawing.as_jpeg_within(kept.picture, budget)
        named = [(shown.picture, "evidence in full size"), (shown.overlay, "outlines of every mask")]
        return Answer(shown, text, jpeg, tuple((uri, name, "image/png") for uri, name in named if uri))

    def view(
        self,
        image: str | None = None,
        result_id: str | None = None,
        *,
        region: Sequence[float] | None = None,
        mask_ids: Sequence[str] | None = None,
        grid: bool = False,
    ) -> Answer[ViewResult]:
        if (image is None) == (result_id is None):
            raise InvalidArgumentError(
                "pass either image or result_id: an image to look at, or a result to see its masks."
            )
        if image is not None:
            if mask_ids:
                raise InvalidArgumentError("mask_ids belong to a result; pass result_id instead of image.")
            with self.bench.open(image) as source:
                return view_source(source, region=region, grid=grid)
        assert result_id is not None
        with self.bench.workspace.reading(result_id) as stored:
            folder = ResultFolder(stored.folder)
            with self._opener(folder)() as source:
                return view_source(source, region=region, grid=grid, folder=folder, mask_ids=mask_ids)

    def library(
        self,
        action: str,
        *,
        result_id: str | None = None,
        format: str | None = None,
        folder: str | None = None,
    ) -> Answer[LibraryResult]:
        actions: dict[str, Callable[[], LibraryResult]] = {
            "images": self._images,
            "results": self._results,
            "save": lambda: self._save(_needed(result_id), format, folder),
            "delete": lambda: self._delete(_needed(result_id)),
        }
        if action not in actions:
            raise InvalidArgumentError(f"unknown action {action[:60]!r}; choose from: {', '.join(actions)}.")
        result = actions[action]()
        lines = [f"{image.path} ({image.size_bytes:,} bytes)" for image in result.images]
        lines += [
            f"{item.result_id} of {item.image_id}, {item.created_at}: {', '.join(item.masks)}"
            for item in result.results
        ]
        return Answer(result, "\n".join([result.message, *lines[:MOST_LISTED], *result.saved]))

    def upload(self, content: bytes) -> dict[str, Any]:
        """Keep an uploaded image and say how to name it."""
        with self.bench.upload(content) as source:
            return {
                "image": f"image://{source.image_id}",
                "image_id": source.image_id,
                "width": source.width,
                "height": source.height,
                "mpp": source.mpp,
            }

    def file(self, result_id: str, path: str) -> bytes:
        """A file of a result by its relative address; derived files are made when first asked for."""
        with self.bench.workspace.reading(result_id) as stored:
            folder = ResultFolder(stored.folder)
            kind, _, name = path.partition("/")
            if path == "overlay.png":
                return (folder.path / path).read_bytes()
            if kind == "explanations":
                return storage.picture_file(folder, name)
            if kind == pictures.FOLDER:
                return pictures.read(folder.path, name)
            if path == "result.json":
                return with_addresses(folder.result()).model_dump_json(indent=1).encode()
            (mask,) = folder.chosen([name.rsplit(".", 1)[0]])
            if kind in ("objects", "tables") and is_slide(folder.path):
                return slide_resource(folder, mask.mask_id, kind, self._opener(folder))
            if kind == "objects":
                return folder.geojson(mask.mask_id).read_bytes()
            if kind == "tables":
                return measure.write_table(folder, mask, self._opener(folder)).encode()
            if kind == "instances" and mask.resources.instances is None:
                raise InvalidArgumentError(
                    f"mask {mask.mask_id} is a region without separate objects; read its mask."
                )
            if kind in ("masks", "instances"):
                return (folder.path / kind / f"{mask.mask_id}.png").read_bytes()
            raise InvalidArgumentError(
                "a result has masks, instances, objects and tables; see its resources."
            )

    def _opener(self, folder: ResultFolder) -> Callable[[], ImageSource]:
        """Opens the image a result was made from; the content decides, not the name."""

        def opened() -> ImageSource:
            source = self.bench.open(folder.request()["image"])
            return folder.require_same_image(source)

        return opened

    def _images(self) -> LibraryResult:
        found = [
            ListedImage(path=item["path"], size_bytes=item["bytes"])
            for item in self.bench.roots.list_images(MOST_LISTED)
        ]
        return _listing("images", f"{len(found)} image(s) in the allowed folders.", images=found)

    def _results(self) -> LibraryResult:
        found = []
        for stored in self.bench.workspace.results(MOST_LISTED):
            masks = [measure.name_of(mask) for mask in ResultFolder(stored.folder).result().masks]
            found.append(
                ListedResult(
                    result_id=stored.result_id,
                    image_id=stored.image_id,
                    created_at=stored.created_at.isoformat(timespec="seconds"),
                    size_bytes=stored.size_bytes,
                    masks=masks,
                )
            )
        return _listing("results", f"{len(found)} result(s) in the workspace, newest first.", results=found)

    def _save(self, result_id: str, format: str | None, folder: str | None) -> LibraryResult:
        format = format or "folder"
        if format not in ("folder", *FORMATS):
            choice = ", ".join(("folder", *FORMATS))
            raise InvalidArgumentError(f"unknown format {format[:40]!r}; choose from: {choice}.")
        if folder is None:
            raise InvalidArgumentError("pass folder: where to save, a new folder inside an allowed root.")
        target = self.bench.new_folder(folder)
        with self.bench.workspace.reading(result_id) as stored:
            result = ResultFolder(stored.folder)
            if format != "folder":
                export(result, format, target / FORMATS[format].file_name, self._opener(result))
            else:
                for mask in () if is_slide(result.path) else result.result().masks:
                    result.geojson(mask.mask_id)
                self.bench.workspace.save(result_id, target)
        saved = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
        return _listing("save", f"saved {len(saved)} file(s) to {folder}.", saved=saved)

    def _delete(self, result_id: str) -> LibraryResult:
        self.bench.workspace.delete(result_id)
        return _listing("delete", f"{result_id} is gone for good.")


def _needed(result_id: str | None) -> str:
    if result_id is None:
        raise InvalidArgumentError("pass result_id; library(action='results') lists them.")
    return result_id


def _listing(
    action: str,
    message: str,
    *,
    images: Sequence[ListedImage] = (),
    results: Sequence[ListedResult] = (),
    saved: Sequence[str] = (),
) -> LibraryResult:
    return LibraryResult.model_validate(
        {"action": action, "images": images, "results": results, "saved": saved, "message": message}
    )


def address(result_id: str, path: str) -> str:
    """The address of a file of a result; ids carry their result, so a link stands alone."""
    return f"result://{result_id}/{path}"


def with_addresses(result: SegmentResult) -> SegmentResult:
    """Links of the folder turned into addresses a client can read."""

    def addressed(mask: Mask) -> Mask:
        links = {
            name: path and address(result.result_id, path)
            for name, path in mask.resources.model_dump().items()
        }
        return mask.model_copy(update={"resources": mask.resources.model_copy(update=links)})

    return result.model_copy(
        update={
            "masks": [addressed(mask) for mask in result.masks],
            "overlay": result.overlay and address(result.result_id, result.overlay),
        }
    )


def _links(result: SegmentResult) -> tuple[tuple[str, str, str], ...]:
    links = []
    for mask in result.masks:
        if mask.found:
            name = measure.name_of(mask)
            links += [
                (mask.resources.mask, f"{name} mask", "image/png"),
                (mask.resources.geojson, f"{name} outlines", "application/geo+json"),
                (mask.resources.table, f"{name} objects", "text/csv"),
            ]
    return tuple(links[:MOST_LINKS])


def segment_text(result: SegmentResult) -> str:
    """One short line per mask, what was left alone and why, warnings."""
    image = result.image
    scale = f"{image.mpp:g} µm/px ({image.mpp_source})" if image.mpp else "scale unknown"
    lines = [f"{result.result_id}: region {image.region} of {image.width} x {image.height} px, {scale}"]
    number = 0
    for mask in result.masks:
        number += mask.found
        mark = f"{number}." if mask.found else "-"
        read_as = f" ({mask.label})" if mask.label else ""
        lines.append(f"{mark} {measure.name_of(mask)}{read_as} [{mask.mask_id}]: {mask.verdict}")
    for item in result.not_segmented:
        nearest = f" Known: {', '.join(item.nearest)}." if item.nearest else ""
        lines.append(f"not segmented ({item.code}): {item.free_form or item.label} — {item.reason}.{nearest}")
    lines += [f"warning {warning.code}: {warning.message}" for warning in result.warnings]
    lines += [f"note: {note}" for note in result.notes]
    if result.measures:
        lines.append(f"The words also ask for {json.dumps(result.measures)}: call measure with result_id.")
    return "\n".join(lines)


def write_command_line_result(bench: Workbench, result_id: str, out: Path) -> SegmentResult:
    """Copy a finished result to a folder the user chose, outlines of everything in one file."""
    bench.workspace.save(result_id, out)
    folder = ResultFolder(out)
    if is_slide(out):
        write_slide_outlines(folder, out / "objects.geojson")
    else:
        (out / "objects.geojson").write_text(folder.all_geojson(), "utf-8")
    return folder.result()
