"""Score a model on annotated images: one row per image and target, then means with 95 % intervals.

A row is on disk before the next image is looked at. An image that cannot be scored keeps its row, with the code of
what went wrong and no score: could not look is never counted as found nothing.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from tissuetalk.models.control import Control
from tissuetalk.models.datasets.manifest import Record, read_manifest
from tissuetalk.models.errors import (
    InvalidArgumentError,
    TissuetalkError,
    UnknownLabelError,
    WorkspaceUnwritableError,
)
from tissuetalk.models.folders import parent_of
from tissuetalk.models.images import open_image
from tissuetalk.models.masks.characteristics import Labels, Mask, components, survey_of
from tissuetalk.models.metrics.annotations import SCORED_KINDS, Annotation, read_annotations
from tissuetalk.models.metrics.levels import levels_csv, members
from tissuetalk.models.metrics.oracles import boxes_as_mask, instance_boxes
from tissuetalk.models.metrics.report import plots, report, trends_csv
from tissuetalk.models.metrics.scores import dice, mask_scores, object_scores
from tissuetalk.models.segmenter import Segmenter
from tissuetalk.models.writing import CsvWriter, write_whole
from tissuetalk.prompts.organs import region_of
from tissuetalk.prompts.readers import make_reader
from tissuetalk.prompts.target import Request
from tissuetalk.prompts.taxonomy import is_label
from tissuetalk.tools.answers.results import TargetArgument
from tissuetalk.tools.evaluate.scores import ScoreRow, Summary, summarise
from tissuetalk.tools.segment.field import FieldOfView, scale_of
from tissuetalk.tools.segment.request import read_request
from tissuetalk.tools.segment.segment import FieldMasks, segment_field
from tissuetalk.tools.storage.features import FeatureCache

MEMORY_BYTES = 256 * 2**20


class ModelUnderTest:
    """One model asked about many images; features of the last images are kept for further questions."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.name, self.segmenter = segmenter.card.name, segmenter
        self.features = FeatureCache(memory_bytes=MEMORY_BYTES)
        self._reader = make_reader("rules")

    def request(self, words: str) -> Request:
        """What the words ask for; a canonical label asks for just that."""
        # read as words, a label of three parts could lead to several targets
        if is_label(words):
            target = [TargetArgument(label=words)]
            return read_request(self._reader, words=None, targets=target, points=None, boxes=None, organ=None)
        return self._reader.translate(words)

    def label_of(self, words: str) -> str:
        """The canonical label the words lead to, "" when they lead to none."""
        try:
            targets = self.request(words).targets
        except TissuetalkError:
            return ""
        return (targets[0].label or "") if targets else ""

    def look(self, image: Path, words: str, mpp: float | None) -> FieldMasks:
        """Everything the model found. Raises UnknownLabelError when it was not made for any of it."""
        request = self.request(words)
        with open_image(image, name=image.name) as source:
            scale = scale_of(source, mpp, self.segmenter)
            field = FieldOfView(source, self.segmenter, source.box, scale, self.features)
            looked = segment_field(field, request)
        if not looked.found:
            reasons = "; ".join(item.reason for item in looked.refused)
            raise UnknownLabelError(f"{words!r} cannot be asked of {self.name}: {reasons}.")
        return looked

    def segment_image(self, image: Path, words: str, mpp: float | None) -> tuple[Mask, Labels | None]:
        """One mask [H, W] of everything found and, where only one target has objects, their labels [H, W].

        Raises a TissuetalkError when the target is not supported or the image cannot be read: an empty mask means
        looked for and not found.
        """
        found = self.look(image, words, mpp).found
        if len(found) == 1:
            return found[0].mask, found[0].instances
        return np.any([each.mask for each in found], axis=0), None


class Probe(Protocol):
    """A further question about every scored image and target, with tables of its own."""

    def look(self, record: Record, row: ScoreRow, target: Annotation, predicted: Mask) -> None:
        """Ask about one image and target. Raises a TissuetalkError when it cannot be asked."""
        ...

    def write(self, out: Path) -> str:
        """Write the probe's tables and plots to ``out``; returns its part of ``report.md``."""
        ...


def evaluate(
    manifest: Path,
    out: Path,
    model: ModelUnderTest,
    *,
    words: str | None,
    probes: Sequence[Probe] = (),
    control: Control = Control(),
) -> Summary:
    """Score every annotated image of a manifest and write ``scores.csv``, ``summary.json``, ``report.md`` and its plots.

    ``words`` asks the same for every image; without them each class is asked for by its own name and organ, or by its
    canonical label where the manifest gives one.
    Raises InvalidArgumentError when the manifest has nothing to score, WorkspaceUnwritableError for ``out``.
    """
    manifest = manifest / "manifest.csv" if manifest.is_dir() else manifest
    records = read_manifest(manifest)
    scored = [record for record in records if record.kind in SCORED_KINDS]
    skipped = Counter(str(record.kind) for record in records if record.kind not in SCORED_KINDS)
    if not scored:
        raise InvalidArgumentError(
            f"{manifest.name} lists no image with a mask; mask_kind must be one of {', '.join(SCORED_KINDS)}"
        )
    started = time.monotonic()
    rows: list[ScoreRow] = []
    with _writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        with parent_of(out / "scores.csv") as folder:
            folder.remove("scores.csv")  # of an earlier run; a link is not written through
            file = os.fdopen(folder.create("scores.csv"), "w", newline="", encoding="utf-8")
    with file:
        writer = CsvWriter(file, [column.name for column in fields(ScoreRow)], line_end="\r\n")
        writer.header()
        for done, record in enumerate(scored):
            control.report(done / len(scored), record.image.name)
            for row in _rows(record, manifest.parent, words, model, probes):
                rows.append(row)
                # flushed row by row: a run that is stopped keeps what it has scored
                with _writing_to(out):
                    writer.row(row.cells())
                    file.flush()
    seconds = time.monotonic() - started
    summary = summarise(
        rows, manifest=str(manifest), model=model.name, words=words, skipped=skipped, seconds=seconds
    )
    with _writing_to(out):
        write_whole(out / "summary.json", summary.model_dump_json(indent=2) + "\n")
        cells = [asdict(row) for row in rows]
        drawn = plots(cells)
        texts = {"levels.csv": levels_csv(members(cells)), "trends.csv": trends_csv(cells)}
        for name, text in {**texts, **drawn}.items():
            if text:
                write_whole(out / name, text)
        parts = [report(cells, model=model.name, pictures=drawn), *(probe.write(out) for probe in probes)]
        write_whole(out / "report.md", "\n".join(part for part in parts if part))
    control.report(1.0, "done")
    return summary


@contextmanager
def _writing_to(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorkspaceUnwritableError(
            f"cannot write to {out}: {error.strerror}; choose another folder"
        ) from error


def default_words(name: str, organ: str) -> str:
    """What to ask for when nobody said it: a canonical label as it is, any other class by its name and known organ."""
    if is_label(name):
        return name
    region = region_of(re.sub(r"\([^)]{0,200}\)", "", organ))
    return f"{name} in {region}" if region else name


def _rows(
    record: Record, folder: Path, words: str | None, model: ModelUnderTest, probes: Sequence[Probe]
) -> Iterator[ScoreRow]:
    inside = record.image.is_relative_to(folder)
    file = str(record.image.relative_to(folder) if inside else record.image)
    source = record.source or folder.resolve().name
    row = ScoreRow(file, record.mask_class, record.group, words or "", source=source)
    try:
        targets = _asked_for(read_annotations(record), words, record)
    except TissuetalkError as error:
        yield replace(row, error=error.code)
        return
    for target in targets:
        asked = words or default_words(target.name, record.organ)
        # label is emptied: it was the last target's
        row = replace(row, mask_class=target.name, words=asked, label="")
        started = time.monotonic()
        try:
            row = replace(row, label=model.label_of(asked))
            mask, instances = model.segment_image(record.image, asked, record.mpp)
            if mask.shape != target.mask.shape:
                raise InvalidArgumentError(
                    f"{file} is {mask.shape[1]}x{mask.shape[0]} pixels and its annotation "
                    f"{target.mask.shape[1]}x{target.mask.shape[0]}; correct the manifest"
                )
        except TissuetalkError as error:
            yield replace(row, error=error.code)
            continue
        scored = _scored(row, target, mask, instances, time.monotonic() - started)
        for probe in probes:
            probe.look(record, scored, target, mask)
        yield scored


def _asked_for(targets: list[Annotation], words: str | None, record: Record) -> list[Annotation]:
    """With ``words``, the one class of several that shares most words with them."""
    if words is None or len(targets) == 1:
        return targets
    said = _stems(words)
    # the share of the class's own words that were said: "tumour" names "tumour" rather than "tumour stroma"
    best = max(targets, key=lambda target: len(said & _stems(target.name)) / len(_stems(target.name)))
    if not said & _stems(best.name):
        raise InvalidArgumentError(
            f"{words!r} names none of the classes of {record.image.name}: "
            f"{', '.join(target.name for target in targets)}; say one of these"
        )
    return [best]


def _stems(text: str) -> set[str]:
    return {word.lower().replace("tumour", "tumor").rstrip("s") for word in re.findall(r"[A-Za-z]+", text)}


def _scored(
    row: ScoreRow, target: Annotation, mask: Mask, instances: Labels | None, seconds: float
) -> ScoreRow:
    height, width = target.mask.shape
    true_objects = components(target.mask) if target.instances is None else target.instances
    shape = survey_of(target.mask)
    row = replace(
        row,
        target_present=bool(target.mask.any()),
        **asdict(mask_scores(mask, target.mask)),
        predicted_px=int(np.count_nonzero(mask)),
        true_px=int(np.count_nonzero(target.mask)),
        everything_dice=dice(np.ones_like(target.mask), target.mask),
        boxes_dice=dice(boxes_as_mask(instance_boxes(true_objects), (height, width)), target.mask),
        irregularity=shape.irregularity[0],
        instance_ratio=shape.mean_part_area / target.mask.size,
        instance_count=len(shape.part_areas),
        instance_dispersion=shape.dispersion,
        seconds=seconds,
    )
    if target.instances is None:
        return row
    # a model without objects is scored on the components of its mask, and the row says so
    objects = object_scores(components(mask) if instances is None else instances, target.instances)
    reached = {name: getattr(objects, name) for name in ("pq", "aji", "f1", "n_true", "n_predicted")}
    return replace(row, **reached, objects_from="components" if instances is None else "model")
