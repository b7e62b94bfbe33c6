"""segment for regions that do not fit in memory: the same question, the same answer, worked on block by block on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.control import Control
from tissuetalk.models.images import Box
from tissuetalk.models.memory import give_back
from tissuetalk.models.segmenter import encoder_of
from tissuetalk.models.writing import disk_errors, library, remove, write_whole
from tissuetalk.prompts.target import Request
from tissuetalk.tools.answers.results import Mask, NotSegmented, SegmentResult
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.masks.rasters import RULE
from tissuetalk.tools.segment import algebra, first_look, unfinished
from tissuetalk.tools.segment.algebra import LabelImage, Renumbered
from tissuetalk.tools.segment.engine import Plan, ScaleLayer
from tissuetalk.tools.segment.field import FieldOfView, image_info
from tissuetalk.tools.segment.first_look import FirstLook
from tissuetalk.tools.segment.grid import SlideSettings
from tissuetalk.tools.segment.objects import Measuring, paint, read_rows, row_alone, write_tables
from tissuetalk.tools.segment.records import RULES_VERSION, MaskOutcome, record_of, warnings_of
from tissuetalk.tools.segment.request import SegmentRequest, Wanted, read_as
from tissuetalk.tools.segment.schedule import LocalRunner, Runner, drive
from tissuetalk.tools.segment.stitching import StitchedLabels, WindowStore, number, stitch
from tissuetalk.tools.segment.unsure import unsure_box
from tissuetalk.tools.storage.database import new_id
from tissuetalk.tools.storage.result_folder import ResultFolder
from tissuetalk.tools.storage.results import Draft

if TYPE_CHECKING:
    from tissuetalk.tools.session import Session

FORMAT = 2
"""Of the unfinished work; work of another format is not taken up."""
LAYOUT = 1
"""Of slide.json."""
DRIVEN_SHARE = 0.93
"""Part of the work, for the progress, after which only numbering and painting are left."""


def segment_slide(
    session: Session,
    order: SegmentRequest,
    request: Request,
    field: FieldOfView,
    asked: Sequence[Wanted],
    refused: list[NotSegmented],
    control: Control,
) -> SegmentResult:
    """Begin or go on; the finished result is in the workspace. request: the order's, whose targets say what was taught.

    Raises BusyError while the same order is being worked on, CancelledError, ImageChangedError and
    UnreadableImageError. Whatever ends it, finished blocks are kept for the next call with the same order.
    """
    with (
        disk_errors(session.workspace.folder),
        unfinished.run_folder(session.workspace.folder, order.as_json()) as folder,
    ):
        identity = _identity(field, asked, order, session.slides)
        known = unfinished.begin(folder, identity)
        control.check()
        control.report(0.0, "going on with earlier work" if known else "finding the tissue")
        files = ResultFolder(folder)
        result_id = new_id("res")
        if (folder / "result.json").exists():
            result = files.result().model_copy(update={"result_id": result_id})
        else:
            files.write_request(order.without_names().as_json())
            run = _Run(field, request, tuple(asked), files, identity)
            result = run.result(session, result_id, refused, control)
        files.write_result(result)
        for name in (first_look.JSON_NAME, first_look.PICTURE_NAME):
            remove(folder / name)
        remove(folder / "slide" / "work")
        session.workspace.adopt_result(Draft(result_id, folder, field.source.image_id, "segment"))
        return result


def _identity(
    field: FieldOfView, asked: Sequence[Wanted], order: SegmentRequest, settings: SlideSettings
) -> dict[str, Any]:
    """Everything that decides the result."""
    return {
        "format": FORMAT,
        "rules": RULES_VERSION,
        "version": version("tissuetalk"),
        "image_sha256": field.source.sha256,
        "model": field.model.card.name,
        "weights_sha256": field.model.weights_sha256,
        "tile_px": settings.tile_px or field.model.tile_px,
        "margin_px": field.model.margin_px,
        "window_px": settings.window_px,
        "region": field.region.as_list(),
        "mpp": field.scale.mpp,
        "mpp_source": field.scale.source,
        "prompts": [asdict(each.prompt) | {"target": asdict(each.capability)} for each in asked],
        "request": order.as_json()["request"],
        **({"encoder": encoder} if (encoder := encoder_of(field.model)) else {}),
        **({"lessons": order.as_json()["lessons"]} if order.lessons else {}),
    }


@dataclass(frozen=True)
class _Mapped:
    """All objects of one target before any choice, joined over windows."""

    layer: ScaleLayer
    base: StitchedLabels
    presence: float


@dataclass(frozen=True)
class _Run:
    """One question about one region, and the folder its result is made in."""

    field: FieldOfView
    request: Request
    asked: tuple[Wanted, ...]
    files: ResultFolder
    identity: dict[str, Any]

    @property
    def slide(self) -> Path:
        return self.files.path / "slide"

    def result(
        self, session: Session, result_id: str, refused: list[NotSegmented], control: Control
    ) -> SegmentResult:
        """Do or go on with the work, and write labels, objects and records."""
        field, prompts = self.field, [(each.prompt, each.capability) for each in self.asked]
        plan = Plan.make(field, prompts, session.slides, self.slide / "work")
        tissue = field.tissue.picture(field.region)
        done, png = cv2.imencode(".png", tissue.astype("uint8") * 255)
        assert done, "OpenCV encodes any 8-bit picture"
        write_whole(self.slide / "tissue.png", png.tobytes())
        for name in ("labels", "objects"):
            remove(self.slide / name)
        features = session.features.for_slides(session.workspace.cache.quota_bytes)
        runner = (session.runner or LocalRunner)(field.source, field.model, features, session.slides)
        try:
            self._drive(plan, runner, control.part(0, DRIVEN_SHARE))
        finally:
            runner.close()
        control.report(DRIVEN_SHARE, "numbering the objects")
        outcomes, shrunk = self._outcomes(plan, control.part(DRIVEN_SHARE, 1))
        field.source.verify_unchanged()
        masks = [
            record_of(outcome, each, index, field, self.request)
            for index, (each, outcome) in enumerate(zip(self.asked, outcomes, strict=True))
        ]
        caveats = _caveats(plan, shrunk)
        write_whole(self.slide / "slide.json", json.dumps(_about(plan, masks, caveats, tissue), indent=1))
        overlay = drawing.overlay_of(self.files, field.source, field.region, masks, field.scale.known_mpp)
        (self.files.path / "overlay.png").write_bytes(drawing.as_png(overlay))
        field.source.verify_unchanged()
        return SegmentResult(
            result_id=result_id,
            image=image_info(field.source, field.region, field.scale),
            masks=masks,
            not_segmented=refused,
            warnings=warnings_of(field, masks, outcomes),
            overlay="overlay.png",
            measures=[*self.request.measures, *self.request.place_measures],
            notes=[*self.request.notes, *caveats],
            job_id=None,
            read_as=read_as(self.request, masks),
            parent=None if field.lessons is None else field.lessons.parent,
        )

    def _drive(self, plan: Plan, runner: Runner, control: Control) -> None:
        near = [*self.request.points]
        near += [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in self.request.boxes]
        look = FirstLook(plan, self.asked, self.files.path)
        look.take()
        drive(plan, runner, near=near, control=control, on_window=look.add)

    def _outcomes(self, plan: Plan, control: Control) -> tuple[list[MaskOutcome], int]:
        """What became of every target, and how many large objects were measured on a shrunk picture."""
        mapped = [self._map(plan, index, control) for index in range(len(self.asked))]
        targets = [each.target for each in self.asked]
        mpp = self.field.scale.mpp
        masks: list[LabelImage] = [each.base for each in mapped]
        if not any(each.told for each in self.asked):
            masks = algebra.related(self.request, targets, masks, mpp)
        if (lessons := self.field.lessons) is not None:
            masks = [
                algebra.corrected(mask, lessons.held_of(target), mpp)
                for mask, target in zip(masks, targets, strict=True)
            ]
        outcomes, shrunk = [], 0
        for index, (each, mask) in enumerate(zip(mapped, masks, strict=True)):
            control.report(index / len(masks), "writing labels and objects")
            outcome, here = self._write(each, mask, index, control)
            outcomes.append(outcome)
            shrunk += here
        return outcomes, shrunk

    def _map(self, plan: Plan, index: int, control: Control) -> _Mapped:
        layer = plan.layer_of(index)
        at = layer.targets.index(index)
        store = WindowStore(plan.folder(layer, "windows"), layer.grid, layer.windows, at)
        capability = self.asked[index].capability
        objects = capability.objects
        stitched = stitch(store, objects=objects, control=control)
        presence = stitched.evidence.presence(layer.question(self.field.model, at))
        base = number(store, stitched, objects=objects, present=presence >= capability.present_from)
        store.forget()
        give_back()
        return _Mapped(layer, base, presence)

    def _write(
        self, mapped: _Mapped, mask: LabelImage, index: int, control: Control
    ) -> tuple[MaskOutcome, int]:
        """Labels, objects and thumbnails of one target."""
        base, layer, mpp = mapped.base, mapped.layer, self.field.scale.known_mpp
        mask_id = _mask_id(self.identity, index)
        how = Measuring(self.field.source, layer.grid, mpp)
        shrunk: list[bool] = []
        derived = mask
        if mask is base:
            tables = _base_rows(base, how, shrunk)
        else:
            areas = algebra.areas_of(mask)
            mask = Renumbered(mask, algebra.numbering(areas))
            tables = _derived_rows(mask, areas, how, shrunk)
        about = {
            "mask_id": mask_id,
            "image_sha256": self.field.source.sha256,
            "model_mpp": layer.model_mpp,
            "rules": RULES_VERSION,
        }
        painted = paint(self.slide / "labels" / f"{mask_id}.ome.zarr", mask, mpp, about, control)
        write_tables(self.slide / "objects" / f"{mask_id}.parquet", tables, mpp, control)
        present = mapped.presence >= self.asked[index].capability.present_from
        note = "" if painted.area or not present else algebra.why_empty(derived, mapped.presence)
        base.store.forget()
        outcome = MaskOutcome(
            mask_id=mask_id,
            resources=self.files.write_mask(
                mask_id, painted.mask, painted.labels.astype(np.int32) if mask.objects else None
            ),
            labels=mask,
            area_px=painted.area,
            count=mask.count if mask.objects else None,
            box=painted.box,
            presence=mapped.presence,
            model_mpp=layer.model_mpp,
            tile_px=layer.grid.tile_px,
            weak_px=0 if present else base.stitched.area,
            note=note,
            expected_dice=base.stitched.evidence.expected_dice if present else None,
            specks=base.stitched.specks if present else 0,
            unsure=unsure_box(base.stitched.evidence.unsure, layer.grid) if present else None,
        )
        return outcome, sum(shrunk)


def _base_rows(base: StitchedLabels, how: Measuring, shrunk: list[bool]) -> Iterator[Any]:
    """Rows of whole objects from the files of the windows under their final ids, and of the large ones measured here."""
    arrow = library("pyarrow")
    starting: dict[tuple[int, int], list[int]] = {}
    for index in base.group_ids:
        starting.setdefault(base.stitched.groups[index].pieces[0][0], []).append(index)
    for at in base.store.order():
        table = read_rows(base.store.files[at].rows(base.store.prompt))
        ids = base.numbers[at][table["object_id"].to_numpy()].astype(np.int64)
        table = table.set_column(0, "object_id", arrow.array(ids, arrow.int64())).filter(arrow.array(ids > 0))
        tables = [table]
        for index in starting.get(at, []):
            group = base.stitched.groups[index]
            assert group.box is not None, "a group has at least one fragment"
            beyond = f" +{len(group.pieces) - 1}" if len(group.pieces) > 1 else ""
            block = f"{how.grid.model_mpp:g}:window {at[0]}_{at[1]}{beyond}"
            row, was_shrunk = row_alone(base, base.group_ids[index], group.box, block, how)
            tables.append(row)
            shrunk.append(was_shrunk)
        yield arrow.concat_tables(tables)


@dataclass(frozen=True)
class _Source:
    """Where rows of a derived mask may come from: numbers of a base go on after ``offset``."""

    base: StitchedLabels
    offset: int


def _sources_of(mask: LabelImage) -> list[_Source]:
    """The masks whose objects a derived one is made of."""
    if isinstance(mask, StitchedLabels):
        return [_Source(mask, 0)]
    if isinstance(mask, algebra.Combined) and mask.op == "union":
        after = [_Source(each.base, each.offset + mask.base.count) for each in _sources_of(mask.reference)]
        return [*_sources_of(mask.base), *after]
    assert isinstance(mask, algebra.Derived), "every other mask is derived from one"
    return _sources_of(mask.base)


def _derived_rows(
    mask: Renumbered, areas: NDArray[np.int64], how: Measuring, shrunk: list[bool]
) -> Iterator[Any]:
    """Rows of objects that were only chosen are taken over, those that were cut are measured anew.

    areas: [mask.base.count + 1] full-resolution pixels of every number before renumbering.
    """
    arrow = library("pyarrow")
    corrected = mask.base if isinstance(mask.base, algebra.Corrected) else None
    grown = {} if corrected is None else corrected.grown
    reach = {int(mask.table[old]): box for old, box in grown.items() if mask.table[old]}
    for source in _sources_of(mask.base):
        for table in _base_rows(source.base, how, []):
            old = table["object_id"].to_numpy() + source.offset
            ids = mask.table[old].astype(np.int64)
            whole = (areas[old] == np.rint(table["area_px"].to_numpy())) & (ids > 0)
            renamed = table.set_column(0, "object_id", arrow.array(ids, arrow.int64()))
            yield renamed.filter(arrow.array(whole))
            cut = renamed.filter(arrow.array((ids > 0) & ~whole))
            for row in cut.select(
                ["object_id", "block", "bbox_x0", "bbox_y0", "bbox_x1", "bbox_y1"]
            ).to_pylist():
                box = Box(row["bbox_x0"], row["bbox_y0"], row["bbox_x1"], row["bbox_y1"])
                box = box.hull(reach[row["object_id"]]) if row["object_id"] in reach else box
                measured, was_shrunk = row_alone(mask, row["object_id"], box, row["block"], how)
                shrunk.append(was_shrunk)
                yield measured
    for old, box in grown.items():
        if corrected and old > corrected.base.count and (new := int(mask.table[old])):
            measured, was_shrunk = row_alone(mask, new, box, f"{how.grid.model_mpp:g}:added", how)
            shrunk.append(was_shrunk)
            yield measured


def _mask_id(identity: dict[str, Any], number: int) -> str:
    """The same work has the same ids, also after an interruption."""
    text = json.dumps([identity, number], sort_keys=True, ensure_ascii=False)
    return f"msk_{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _about(
    plan: Plan, masks: Sequence[Mask], caveats: Sequence[str], tissue: NDArray[np.bool_]
) -> dict[str, Any]:
    """slide.json. tissue: [h, w] over the region."""
    field, region = plan.field, plan.field.region
    finest = min(plan.layers, key=lambda layer: layer.model_mpp, default=None)
    tissue_px = float(tissue.mean()) * region.width * region.height
    known = field.scale.known_mpp
    return {
        "version": LAYOUT,
        "rules": RULES_VERSION,
        "mpp": field.scale.mpp,
        "mpp_source": field.scale.source,
        "model_mpp": finest.model_mpp if finest else None,
        "region": region.as_list(),
        "width": region.width,
        "height": region.height,
        "block_px": finest.grid.block_px if finest else 0,
        "window_px": finest.grid.window_px if finest else 0,
        "tissue_area_px": round(tissue_px),
        "tissue_area_mm2": None if known is None else tissue_px * known**2 / 1e6,
        "tissue_rule": RULE,
        "blocks": [
            {
                "id": f"{layer.model_mpp:g}:{block.name}",
                "model_mpp": layer.model_mpp,
                "box_xyxy": layer.grid.covered(block.core, field.source).as_list(),
                "done": True,
            }
            for layer in plan.layers
            for block in layer.blocks
        ],
        "masks": {
            mask.mask_id: {
                "model_mpp": mask.provenance.model_mpp,
                "width": region.width,
                "height": region.height,
                "objects": mask.count is not None,
                "label_px": 1.0,
            }
            for mask in masks
        },
        "caveats": list(caveats),
    }


def _caveats(plan: Plan, shrunk: int) -> list[str]:
    if not plan.layers:
        return []
    blocks = sum(len(layer.blocks) for layer in plan.layers)
    caveats = [f"worked on in {blocks} blocks over tissue only ({RULE})"]
    if not blocks:
        caveats = ["no tissue was found, so there was nothing to look at"]
    if shrunk:
        caveats.append(
            f"shape and stain of {shrunk} very large part(s) were measured on a shrunk picture; areas are exact"
        )
    return caveats
