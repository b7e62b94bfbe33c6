"""Results as objects: masks as arrays, objects as tables, overlays as pictures; and the same for a host, as text and links."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tissuetalk.models.control import Control
from tissuetalk.models.errors import WorkspaceUnwritableError
from tissuetalk.models.images import ImageSource
from tissuetalk.models.writing import write_whole
from tissuetalk.tools.answers.explained import ExplainResult
from tissuetalk.tools.answers.results import (
    Answer,
    Mask,
    NotSegmented,
    SegmentAnswer,
    SegmentResult,
    ViewResult,
)
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.segment.field import Scale, image_info, region_cut, region_of
from tissuetalk.tools.storage.result_folder import ResultFolder

if TYPE_CHECKING:
    import pandas as pd

    from tissuetalk.tools.explain.explain import Explained
    from tissuetalk.tools.segment.request import SegmentRequest
    from tissuetalk.tools.session.session import Session

MOST_READ = 40
"""Sentences of a report listed in the text of an answer; all of them are in its fields."""
MOST_LINKS = 12


@dataclass(frozen=True)
class Segmentation(Answer[SegmentResult]):
    """What ``segment`` found. Pixels and tables are read when they are asked for, while the session is open.

    place: the result's id in the workspace, or the folder it lies in.
    """

    session: Session = field(kw_only=True, repr=False, compare=False)
    place: str | Path = field(kw_only=True)

    @property
    def masks(self) -> list[SegmentedMask]:
        """One per target that was looked for, found or not."""
        return [SegmentedMask(self, record) for record in self.result.masks]

    @property
    def objects(self) -> pd.DataFrame:
        """The objects of all masks, one a row; ``mask`` names theirs. Lengths in px and, where the scale is known, µm."""
        import pandas as pd

        tables = [mask.objects.assign(mask=mask.name) for mask in self.masks if mask.record.count is not None]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    @property
    def overlay(self) -> Image.Image:
        """The segmented region with the outlines of every mask that was found."""
        with self.session.reading(self.place) as stored:
            return _picture(stored.folder.path / "overlay.png")

    def save(self, folder: Path, *, within: Path | None = None) -> Segmentation:
        """Copy the result to a new folder, outlines of everything in one file, and open it there.

        within: a real folder above, below which no link is followed.
        """
        from tissuetalk.tools.export.links import write_all_outlines

        assert isinstance(self.place, str), "a result in a folder is saved already"
        workspace = self.session.workspace
        with tempfile.TemporaryDirectory(dir=workspace.owners.folder) as private:
            with self.session.reading(self.place) as stored:
                write_all_outlines(stored.folder, Path(private) / "objects.geojson")
                if (image := workspace.image_path(self.result.image.image_id)) is not None:
                    # the request names the image as this session's roots do; the folder must find it without them
                    asked = {**stored.folder.request(), "image": str(image)}
                    ResultFolder(Path(private)).write_request(asked)
            workspace.save(self.place, folder, within=within, more=Path(private))
        return self.session.result(folder, read_as=self.result.read_as)


@dataclass(frozen=True)
class SegmentedMask:
    """One mask. record: its fields as the contract names them."""

    segmentation: Segmentation = field(repr=False)
    record: Mask

    @property
    def name(self) -> str:
        return self.record.name

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """[H, W] of the segmented region in full-resolution pixels. Raises ImageTooLargeError on a large slide."""
        return self._labels() > 0

    @cached_property
    def instances(self) -> NDArray[np.int32] | None:
        """[H, W] labels, 0 background and 1..N objects; None for a region. Raises ImageTooLargeError on a large slide."""
        return self._labels() if self.record.resources.instances is not None else None

    def _labels(self) -> NDArray[np.int32]:
        from tissuetalk.tools.masks.layer import layers_of

        with self.segmentation.session.reading(self.segmentation.place) as stored:
            (layer,) = layers_of(stored.folder, [self.record])
            return layer.in_full()

    @cached_property
    def objects(self) -> pd.DataFrame:
        """One row per object: position in source pixels, size, shape, staining, texture; the unit is in the column's name."""
        import pandas as pd

        at = self.segmentation
        table = at.session.file(at.place, f"tables/{self.record.mask_id}.csv")
        return pd.read_csv(io.BytesIO(table))

    @property
    def overlay(self) -> Image.Image:
        """The segmented region with the outlines of this mask alone, at most 1024 px."""
        region = self.segmentation.result.image.region
        with (
            self.segmentation.session.reading(self.segmentation.place) as stored,
            stored.open_image() as source,
        ):
            seen = view_source(source, region=region, folder=stored.folder, mask_ids=[self.record.mask_id])
        assert seen.image is not None, "a view is a picture"
        return seen.image

    def to_json(self) -> str:
        return self.record.model_dump_json(indent=1)


def segmentation(
    session: Session, place: str | Path, folder: Path, stored: SegmentResult, address: Callable[[str], str]
) -> Segmentation:
    """The answer about a stored result; a result in a folder keeps its relative links and has no picture to send."""
    result = with_addresses(stored, address)
    text = segment_text(result)
    if isinstance(place, Path):
        return Segmentation(result, text, session=session, place=place)
    budget = drawing.picture_budget(text, len(result.model_dump_json()) + 150 * MOST_LINKS)
    picture = drawing.as_jpeg_within(_picture(folder / "overlay.png"), budget)
    return Segmentation(result, text, picture, _links(result), session=session, place=place)


def with_addresses(result: SegmentResult, address: Callable[[str], str]) -> SegmentResult:
    """Links of the folder turned into addresses a client can read."""

    def addressed(mask: Mask) -> Mask:
        links = {name: path and address(path) for name, path in mask.resources.model_dump().items()}
        return mask.model_copy(update={"resources": mask.resources.model_copy(update=links)})

    masks = [addressed(mask) for mask in result.masks]
    return result.model_copy(update={"masks": masks, "overlay": result.overlay and address(result.overlay)})


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
        lines.append(f"{mark} {mask.name}{read_as} [{mask.mask_id}]: {mask.verdict}")
    lines += _left_alone(result.not_segmented)
    lines += read_lines(result)
    lines += [f"warning {warning.code}: {warning.message}" for warning in result.warnings]
    lines += [f"note: {note}" for note in result.notes]
    if result.measures:
        lines.append(f"The words also ask for {json.dumps(result.measures)}: call measure with result_id.")
    return "\n".join(lines)


def _left_alone(refused: Sequence[NotSegmented]) -> list[str]:
    """One line for all that share a reason: ten rows that say the same hide the one that does not."""
    alike: dict[tuple[str, str], list[NotSegmented]] = {}
    for item in refused:
        alike.setdefault((item.code, item.reason), []).append(item)
    lines = []
    for (code, reason), items in alike.items():
        names = dict.fromkeys(
            item.free_form or (item.label or "").removeprefix("unspecified-") for item in items
        )
        known = dict.fromkeys(name for item in items for name in item.nearest)
        nearest = f" Known: {', '.join(known)}." if known else ""
        lines.append(f"not segmented ({code}): {', '.join(names)} — {reason}.{nearest}")
    return lines


def read_lines(answer: SegmentAnswer) -> list[str]:
    """How the sentences of a report were read, the first of them."""
    read = answer.read_as[:MOST_READ]
    return [f"read as: “{line.sentence}” → {line.finding}: {line.assertion}" for line in read]


def without_masks(
    session: Session, asked: SegmentRequest, control: Control | None = None, **known: Any
) -> SegmentAnswer:
    """The answer while nothing is known but the image and what the words said."""
    with session.open(asked.image, control=control) as source:
        about: dict[str, Any] = {
            "image": image_info(source, region_of(source, asked.region), None),
            "warnings": region_cut(source, asked.region),
        }
    return without_image(about | known)


def without_image(known: dict[str, Any]) -> SegmentAnswer:
    """The answer while nothing is known but the words."""
    nothing: dict[str, Any] = {
        "result_id": None,
        "masks": [],
        "not_segmented": [],
        "warnings": [],
        "overlay": None,
    }
    return SegmentAnswer.model_validate({**nothing, "image": None, "measures": [], "job_id": None, **known})


def explanation(stored: Explained, address: Callable[[str], str]) -> Answer[ExplainResult]:
    """The answer about an explanation kept with its result."""
    from tissuetalk.tools.explain.explain import as_text

    kept = stored.result
    links = {
        name: link and address(link) for name, link in (("overlay", kept.overlay), ("picture", kept.picture))
    }
    stability = [each.model_copy(update={"map": each.map and address(each.map)}) for each in kept.stability]
    shown = kept.model_copy(update={**links, "stability": stability})
    text = as_text(shown)
    budget = drawing.picture_budget(text, len(shown.model_dump_json()) + 400)
    jpeg = None if stored.picture is None else drawing.as_jpeg_within(stored.picture, budget)
    named = [(shown.picture, "evidence in full size"), (shown.overlay, "outlines of every mask")]
    return Answer(shown, text, jpeg, tuple((uri, name, "image/png") for uri, name in named if uri))


def explanation_beside(explained: Explained, target: Path) -> Answer[ExplainResult]:
    """The answer about a result in a folder, its pictures written to ``target`` and beside it.

    Raises WorkspaceUnwritableError where they cannot be written.
    """
    from tissuetalk.tools.explain.explain import as_text

    result = explained.result
    if explained.picture is not None:
        maps = {mask_id: target.with_name(f"{target.stem}-{mask_id}.png") for mask_id in explained.maps}
        try:
            write_whole(target, drawing.as_png(explained.picture))
            for mask_id, path in maps.items():
                write_whole(path, drawing.as_png(explained.maps[mask_id]))
        except OSError as error:
            raise WorkspaceUnwritableError(
                f"cannot write {target}: {error.strerror}; pass --picture elsewhere."
            ) from error
        stability = [each.model_copy(update={"map": str(maps[each.mask_id])}) for each in result.stability]
        result = result.model_copy(update={"picture": str(target), "stability": stability})
    return Answer(result, as_text(result))


def _links(result: SegmentResult) -> tuple[tuple[str, str, str], ...]:
    links = []
    for mask in result.masks:
        if mask.found:
            name = mask.name
            links += [
                (mask.resources.mask, f"{name} mask", "image/png"),
                (mask.resources.geojson, f"{name} outlines", "application/geo+json"),
                (mask.resources.table, f"{name} objects", "text/csv"),
            ]
    return tuple(links[:MOST_LINKS])


def _picture(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def view_source(
    source: ImageSource,
    *,
    region: Sequence[float] | None = None,
    grid: bool = False,
    folder: ResultFolder | None = None,
    mask_ids: Sequence[str] | None = None,
) -> Answer[ViewResult]:
    """A picture of at most 1024 px. Masks come from ``folder``, all that were found unless ``mask_ids`` chooses.

    Raises InvalidArgumentError for a region outside the image and UnknownMaskError.
    """
    box = region_of(source, region)
    scale = None if source.mpp is None else Scale(source.mpp, "file")
    masks = []
    if folder is not None:
        stored = folder.result().image
        if stored.known_mpp is not None:
            scale = Scale(stored.known_mpp, stored.mpp_source)
        masks = [mask for mask in folder.chosen(list(mask_ids or ())) if mask.found or mask_ids]
    pixels = drawing.pixels_of(source, box)
    source.verify_unchanged()
    width = pixels.shape[1]
    layers = drawing.layers_in(folder, masks, box) if folder is not None else []
    picture = drawing.draw(pixels, box, layers=layers, mpp=None if scale is None else scale.mpp, grid=grid)
    shrink = box.width / width
    result = ViewResult(
        image=image_info(source, box, scale),
        mask_ids=[mask.mask_id for mask in masks],
        picture_width=picture.width,
        picture_height=picture.height,
        px_per_picture_px=shrink,
        um_per_picture_px=None if scale is None else shrink * scale.mpp,
        warnings=region_cut(source, region),
    )
    shown = "".join(f"\n{number}. {mask.name}" for number, mask in enumerate(masks, start=1))
    shown += "".join(f"\nwarning {warning.code}: {warning.message}" for warning in result.warnings)
    text = (
        f"{result.image.image_id}: region {box.as_list()} of {source.width} x {source.height} px; one picture pixel is "
        f"{shrink:.3g} image pixels"
        + (f", {result.um_per_picture_px:.3g} µm." if scale else "; the scale is unknown.")
    )
    budget = drawing.picture_budget(text + shown, len(result.model_dump_json()))
    return Answer(result, text + shown, drawing.as_jpeg_within(picture, budget))
