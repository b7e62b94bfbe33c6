"""The eight formats that the sources come in, each as ``(source, folder) -> pictures``.

Mask pictures beside the images, NumPy stacks, MATLAB files, HDF5, and outlines as Aperio XML, tables or MS COCO. A box without
an outline is painted as the box: it is all that is known of the object.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from tissuetalk.models.datasets.example import Instances
from tissuetalk.models.datasets.pathseg.source import (
    ANY,
    Annotated,
    PathSegSource,
    Picture,
    Split,
    by_class,
    class_table,
    files_of,
    group_of,
    read_numbers,
    read_picture,
    split_table,
    told_apart,
)
from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError, UnreadableImageError
from tissuetalk.models.reading import table_of

MaskFiles = list[tuple[Path, Mapping[Any, str]]]
Outline = NDArray[np.float64]
"""[N, 2] x, y in pixels."""
ReadOutlines = Callable[[Path], list[tuple[str, Outline]]]


def _name(image: Path, folder: Path) -> str:
    return image.relative_to(folder).with_suffix("").as_posix().replace("/", "__")


def _typed(source: PathSegSource, objects: Instances, kinds: NDArray[Any]) -> dict[str, Instances]:
    """Label to its objects, from [H, W] object numbers and [H, W] class numbers."""
    classes = source.classes.items()
    return {label: np.where(kinds == number, objects, 0).astype(np.int32) for number, label in classes}


def pictures(source: PathSegSource, folder: Path) -> Iterator[Picture]:
    """Every image with all of its masks; an image may have one mask per label (RINGS)."""
    found: dict[Path, tuple[Split | None, MaskFiles]] = {}
    for files in source.images:
        for image, mask in files_of(source, folder, files):
            _, masks = found.setdefault(image, (files.split, []))
            masks.append((mask, files.classes))
    if not found:
        raise InvalidArgumentError(f"{source.name}: no images below {folder}; expected {source.layout}.")
    published, classes = split_table(source, folder), class_table(source, folder)
    for image, (split, masks) in found.items():
        # RINGS has a folder of masks per label; the other sets one mask with numbers for all of them.
        told = [(mask, own or classes) for mask, own in masks]
        known = tuple(dict.fromkeys(label for _, own in told for label in own.values()))
        split, read = split or published.get(image.name), partial(_read_pictures, source, image, told)
        yield Picture(_name(image, folder), group_of(source, image.stem), split, known, read)


def _read_pictures(source: PathSegSource, image: Path, masks: MaskFiles) -> Annotated:
    pixels = read_picture(image)
    labels: dict[str, Instances] = {}
    for path, classes in masks:
        numbers = read_numbers(path)
        if numbers.shape != pixels.shape[:2]:
            raise UnreadableImageError(
                f"{path} is {numbers.shape[1]}x{numbers.shape[0]} px and its image {pixels.shape[1]}x{pixels.shape[0]}; "
                "fetch both again."
            )
        labels |= by_class(source, numbers, classes)
    return Annotated(pixels, labels)


def conic(source: PathSegSource, folder: Path) -> Iterator[Picture]:
    """images.npy [N, 256, 256, 3] and labels.npy [N, 256, 256, 2]: object number, class number."""
    ((path, _),) = list(files_of(source, folder, source.images[0]))[:1]
    images, labels = _stack(path), _stack(path.with_name("labels.npy"))
    groups = _patch_groups(path.with_name("patch_info.csv"), len(images))
    known = tuple(source.classes.values())
    for index in range(len(images)):
        # The index is bound as a default: the closure is called after the loop has gone on.
        def read(index: int = index) -> Annotated:
            typed = _typed(source, labels[index, ..., 0].astype(np.int32), labels[index, ..., 1])
            return Annotated(np.asarray(images[index], np.uint8), typed)

        yield Picture(f"patch_{index:05d}", groups[index], None, known, read, cut_from=groups[index])


def _patch_groups(path: Path, count: int) -> list[str]:
    """The image each patch was cut from: ``consep_1-0000`` is a part of ``consep_1``."""
    if not path.is_file():
        raise InvalidArgumentError(
            f"{path.name} is missing beside images.npy; without it patches of one image would stand on both sides of the "
            "split. It is part of the published download."
        )
    columns, rows = table_of(path)
    groups = [row[columns[0]].rpartition("-")[0] or row[columns[0]] for row in rows]
    if len(groups) != count:
        raise InvalidArgumentError(
            f"{path.name} names {len(groups)} patches, images.npy holds {count}; fetch both again."
        )
    return groups


def pannuke(source: PathSegSource, folder: Path) -> Iterator[Picture]:
    """images.npy and types.npy of every fold, masks.npy [N, 256, 256, 6] with the object numbers of five types."""
    for path, _ in files_of(source, folder, source.images[0]):
        parts = path.relative_to(folder).parts[:-1]
        masks_at = folder.joinpath(*("masks" if part == "images" else part for part in parts), "masks.npy")
        images, masks, types = _stack(path), _stack(masks_at), _stack(path.with_name("types.npy"))
        fold = path.parent.name
        for index in range(len(images)):
            # Types are written Bile-duct, Adrenal_gland, HeadNeck; canonical labels say bile duct, adrenal, head neck.
            organ = str(types[index]).lower().replace("_gland", "").replace("-", " ")
            organ = organ.replace("headneck", "head neck")
            labels = {number: f"{organ}-nuclei-{name}" for number, name in source.classes.items()}

            def read(
                index: int = index, images: Any = images, masks: Any = masks, labels: dict[int, str] = labels
            ) -> Annotated:
                typed = {label: np.asarray(masks[index, ..., n], np.int32) for n, label in labels.items()}
                return Annotated(np.asarray(images[index], np.uint8), typed)

            name = f"{fold}_{index:05d}"
            yield Picture(name, name, None, tuple(labels.values()), read)


def _stack(path: Path) -> NDArray[Any]:
    """A NumPy file, mapped rather than read; nothing in it is executed."""
    if not path.is_file():
        raise InvalidArgumentError(
            f"there is no {path}; the arrays of a set belong together, fetch it again."
        )
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UnreadableImageError(f"{path} is not a NumPy array ({error}); fetch it again.") from error
    return found


def matlab(source: PathSegSource, folder: Path) -> Iterator[Picture]:
    """CoNSeP: ``inst_map`` numbers the nuclei, ``type_map`` (or ``inst_type``) types them."""
    known = tuple(dict.fromkeys(source.classes.values()))
    for image, annotation in files_of(source, folder, source.images[0]):
        reader = partial(_read_matlab, source, image, annotation)
        yield Picture(_name(image, folder), group_of(source, image.stem), None, known, reader)


def _read_matlab(source: PathSegSource, image: Path, annotation: Path) -> Annotated:
    try:
        stored = loadmat(str(annotation))
        objects = np.asarray(stored["inst_map"], np.int32)
        if "type_map" in stored:
            kinds = np.asarray(stored["type_map"], np.int32)
        else:
            types = np.concatenate([[0], np.asarray(stored["inst_type"], np.int32).ravel()])
            kinds = types[objects]  # a type per nucleus, here spread over its pixels
    except (KeyError, ValueError, OSError, IndexError, NotImplementedError) as error:
        raise UnreadableImageError(
            f"{annotation} holds no inst_map with type_map or inst_type ({error}); fetch it again."
        ) from error
    return Annotated(read_picture(image), _typed(source, objects, kinds))


def hdf5(source: PathSegSource, folder: Path) -> Iterator[Picture]:
    """CoCaHis.hdf5: HE/raw, GT/GT_majority_vote, and the patient and split of every image as attributes of HE."""
    try:
        import h5py  # type: ignore[import-untyped]  # h5py ships no types
    except ImportError as error:
        raise ModelUnavailableError("reading HDF5 needs h5py; run: pip install 'tissuetalk[data]'") from error
    ((path, _),) = list(files_of(source, folder, source.images[0]))[:1]
    try:
        with h5py.File(path, "r") as file:
            count = len(file["HE/raw"])
            stored = [list(file["HE"].attrs[key]) for key in ("train_test_split", "patient_num")]
    except (OSError, KeyError) as error:
        raise UnreadableImageError(
            f"{path} is not CoCaHis as published ({error}); fetch it again."
        ) from error
    splits, patients = ([v.decode() if isinstance(v, bytes) else str(v) for v in each] for each in stored)
    for index in range(count):
        # Opened anew for each image: an open HDF5 file cannot be handed to another process.
        def read(index: int = index) -> Annotated:
            with h5py.File(path, "r") as file:
                image = np.asarray(file["HE/raw"][index], np.uint8)
                mask = np.asarray(file["GT/GT_majority_vote"][index], np.int32)
            return Annotated(image, {source.classes[ANY]: told_apart(source, mask)})

        split: Split = "test" if splits[index] == "test" else "train"
        yield Picture(f"image_{index:03d}", patients[index], split, (source.classes[ANY],), read)


def painted(
    outlines: Sequence[tuple[str, Outline]], classes: Mapping[Any, str], shape: tuple[int, int]
) -> dict[str, Instances]:
    """Label to objects, numbered from 1 in the order given; outlines of other classes are left out."""
    labels: dict[str, Instances] = {label: np.zeros(shape, np.int32) for label in classes.values()}
    for number, (name, outline) in enumerate(outlines, start=1):
        if name in classes:
            corners = np.round(outline).astype(np.int32)
            cv2.fillPoly(labels[classes[name]], [corners], (number,))
    return labels


def box_outline(x0: float, y0: float, x1: float, y1: float) -> Outline:
    """The corners of a half-open box."""
    # fillPoly paints its last corner too, so the far sides lie one pixel in.
    return np.array([[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]], np.float64)


def outlined(source: PathSegSource, folder: Path, read: ReadOutlines) -> Iterator[Picture]:
    """Images with one file of outlines each."""
    known = tuple(dict.fromkeys(source.classes.values()))
    for files in source.images:
        for image, annotation in files_of(source, folder, files):
            reader = partial(_read_outlined, source, image, partial(read, annotation))
            yield Picture(_name(image, folder), group_of(source, image.stem), files.split, known, reader)


def _read_outlined(
    source: PathSegSource, image: Path, read: Callable[[], Sequence[tuple[str, Outline]]]
) -> Annotated:
    pixels = read_picture(image)
    return Annotated(pixels, painted(read(), source.classes, (pixels.shape[0], pixels.shape[1])))


def read_aperio(path: Path) -> list[tuple[str, Outline]]:
    """Class and outline of every region of ImageScope XML. Raises UnreadableImageError.

    Every Annotation names its class in an Attribute and holds Regions of Vertices.
    """
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
            if len(corners) >= 3:  # rulers and points are regions too
                found.append((name, np.array(corners)))
    return found


def read_outline_table(path: Path) -> list[tuple[str, Outline]]:
    """Class and outline (or box) of every row of a NuCLS table. Raises UnreadableImageError.

    A row per nucleus with raw_classification, a box, and coords_x and coords_y where it was outlined.
    """
    found = []
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            try:
                x, y = row.get("coords_x") or "", row.get("coords_y") or ""
                # A rectangle is listed with corners as well, which are no outline.
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


def coco(source: PathSegSource, folder: Path) -> Iterator[Picture]:
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
        reader = partial(_read_outlined, source, image, partial(list, objects[row["id"]]))
        yield Picture(image.stem, group_of(source, image.stem), None, known, reader)


def _coco_outline(row: Mapping[str, Any]) -> Outline:
    """The first polygon, else the box. COCO boxes are x, y, width, height; MIDOG's are corners."""
    polygons = row.get("segmentation")
    if isinstance(polygons, list) and polygons and len(polygons[0]) >= 6:
        return np.asarray(polygons[0], np.float64).reshape(-1, 2)
    x0, y0, x1, y1 = (float(value) for value in row["bbox"])
    return box_outline(x0, y0, x1, y1)


READERS: Final[Mapping[str, Callable[[PathSegSource, Path], Iterator[Picture]]]] = {
    "pictures": pictures,
    "conic": conic,
    "pannuke": pannuke,
    "matlab": matlab,
    "hdf5": hdf5,
    "aperio": partial(outlined, read=read_aperio),
    "outline-table": partial(outlined, read=read_outline_table),
    "coco": coco,
}
"""Format of a source, as ``sources.yaml`` names it, to its reader."""
