"""Annotation as outlines: Aperio XML (MoNuSAC), a table per image (NuCLS) and MS COCO (MIDOG).

A box without an outline is painted as the box: it is all that is known of the object.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.datasets.pathseg.reading import Annotated, Picture, files_of, group_of, read_picture
from tissuetalk.models.datasets.pathseg.source import Source
from tissuetalk.models.datasets.pathseg.standardise import Objects
from tissuetalk.models.errors import InvalidArgumentError, UnreadableImageError

Outline = NDArray[np.float64]
"""[N, 2] x, y in pixels."""
ReadOutlines = Callable[[Path], list[tuple[str, Outline]]]


def painted(
    outlines: Sequence[tuple[str, Outline]], classes: Mapping[Any, str], shape: tuple[int, int]
) -> dict[str, Objects]:
    """Label to objects, numbered from 1 in the order given; outlines of other classes are left out."""
    labels: dict[str, Objects] = {label: np.zeros(shape, np.int32) for label in classes.values()}
    for number, (name, outline) in enumerate(outlines, start=1):
        if name in classes:
            corners = np.round(outline).astype(np.int32)
            cv2.fillPoly(labels[classes[name]], [corners], (number,))
    return labels


def box_outline(x0: float, y0: float, x1: float, y1: float) -> Outline:
    """The corners of a half-open box."""
    return np.array([[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]], np.float64)


def outlined(source: Source, folder: Path, read: ReadOutlines) -> Iterator[Picture]:
    """Images with one file of outlines each."""
    known = tuple(dict.fromkeys(source.classes.values()))
    for files in source.images:
        for image, annotation in files_of(source, folder, files):
            name = image.relative_to(folder).with_suffix("").as_posix().replace("/", "__")
            reader = partial(_read, source, image, annotation, read)
            yield Picture(name, group_of(source, image.stem), files.split, known, reader)


def _read(source: Source, image: Path, annotation: Path, read: ReadOutlines) -> Annotated:
    pixels = read_picture(image)
    return Annotated(pixels, painted(read(annotation), source.classes, (pixels.shape[0], pixels.shape[1])))


def aperio(source: Source, folder: Path) -> Iterator[Picture]:
    """ImageScope XML: every Annotation names its class in an Attribute and holds Regions of Vertices."""
    return outlined(source, folder, read_aperio)


def read_aperio(path: Path) -> list[tuple[str, Outline]]:
    """Class and outline of every region. Raises UnreadableImageError."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise UnreadableImageError(f"{path} is not ImageScope XML ({error}); fetch it again.") from error
    found = []
    for annotation in root.iter("Annotation"):
        attribute = annotation.find("./Attributes/Attribute")
        name = attribute.get("Name", "") if attribute is not None else annotation.get("Name", "")
        for region in annotation.iter("Region"):
            corners = [(float(v.get("X", 0)), float(v.get("Y", 0))) for v in region.iter("Vertex")]
            if len(corners) >= 3:
                found.append((name, np.array(corners)))
    return found


def outline_table(source: Source, folder: Path) -> Iterator[Picture]:
    """NuCLS: a row per nucleus with raw_classification, a box, and coords_x and coords_y where it was outlined."""
    return outlined(source, folder, read_outline_table)


def read_outline_table(path: Path) -> list[tuple[str, Outline]]:
    """Class and outline (or box) of every row. Raises UnreadableImageError."""
    found = []
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            try:
                x, y = row.get("coords_x") or "", row.get("coords_y") or ""
                if x.count(",") >= 2 and row.get("type") != "rectangle":
                    outline = np.array([[float(v) for v in axis.split(",")] for axis in (x, y)]).T
                else:
                    outline = box_outline(*(float(row[key]) for key in ("xmin", "ymin", "xmax", "ymax")))
                found.append((row["raw_classification"], outline))
            except (KeyError, ValueError, TypeError) as error:
                raise UnreadableImageError(
                    f"{path} is not a NuCLS table ({error}); it needs raw_classification, xmin, ymin, xmax, ymax, "
                    "coords_x and coords_y."
                ) from error
    return found


def coco(source: Source, folder: Path) -> Iterator[Picture]:
    """MS COCO: one file for all images; listed images that are not in the folder are not asked for."""
    ((path, _),) = list(files_of(source, folder, source.images[0]))[:1]
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        kinds = {row["id"]: row["name"] for row in listed["categories"]}
        objects: dict[int, list[tuple[str, Outline]]] = {row["id"]: [] for row in listed["images"]}
        for row in listed["annotations"]:
            objects[row["image_id"]].append((kinds[row["category_id"]], _coco_outline(row)))
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableImageError(f"{path} is not an MS COCO file ({error}); fetch it again.") from error
    here = {file.name: file for file in folder.rglob("*") if file.is_file()}
    images = [row for row in listed["images"] if Path(row["file_name"]).name in here]
    if not images:
        raise InvalidArgumentError(
            f"{source.name}: none of the {len(objects)} images of {path.name} is below {folder}; expected {source.layout}."
        )
    known = tuple(dict.fromkeys(source.classes.values()))
    for row in images:
        image = here[Path(row["file_name"]).name]

        def read(image: Path = image, outlines: list[tuple[str, Outline]] = objects[row["id"]]) -> Annotated:
            pixels = read_picture(image)
            return Annotated(pixels, painted(outlines, source.classes, (pixels.shape[0], pixels.shape[1])))

        yield Picture(image.stem, group_of(source, image.stem), None, known, read)


def _coco_outline(row: Mapping[str, Any]) -> Outline:
    """The first polygon, else the box. COCO boxes are x, y, width, height; MIDOG's are corners."""
    polygons = row.get("segmentation")
    if isinstance(polygons, list) and polygons and len(polygons[0]) >= 6:
        return np.asarray(polygons[0], np.float64).reshape(-1, 2)
    x0, y0, x1, y1 = (float(value) for value in row["bbox"])
    return box_outline(x0, y0, x1, y1)
