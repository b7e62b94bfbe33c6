"""Annotation as arrays: NumPy stacks (CoNIC, PanNuke), MATLAB files (CoNSeP) and HDF5 (CoCaHis)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from tissuetalk.models.datasets.pathseg.reading import (
    Annotated,
    Picture,
    Split,
    files_of,
    group_of,
    read_picture,
    told_apart,
)
from tissuetalk.models.datasets.pathseg.source import ANY, Source
from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError, UnreadableImageError


def conic(source: Source, folder: Path) -> Iterator[Picture]:
    """images.npy [N, 256, 256, 3] and labels.npy [N, 256, 256, 2]: object number, class number."""
    ((path, _),) = list(files_of(source, folder, source.images[0]))[:1]
    images, labels = _stack(path), _stack(path.with_name("labels.npy"))
    groups = _patch_groups(path.with_name("patch_info.csv"), len(images))
    known = tuple(source.classes.values())
    for index in range(len(images)):

        def read(index: int = index) -> Annotated:
            objects, kinds = labels[index, ..., 0].astype(np.int32), labels[index, ..., 1]
            typed = {
                label: np.where(kinds == number, objects, 0).astype(np.int32)
                for number, label in source.classes.items()
            }
            return Annotated(np.asarray(images[index], np.uint8), typed)

        yield Picture(f"patch_{index:05d}", groups[index], None, known, read)


def _patch_groups(path: Path, count: int) -> list[str]:
    """The image a patch was cut from: ``consep_1-0000`` is a part of ``consep_1``."""
    if not path.is_file():
        return [f"patch_{index:05d}" for index in range(count)]
    with path.open(encoding="utf-8", newline="") as lines:
        rows = [next(iter(row.values())) for row in csv.DictReader(lines)]
    return [row.rpartition("-")[0] or row for row in rows]


def pannuke(source: Source, folder: Path) -> Iterator[Picture]:
    """images.npy and types.npy of every fold, masks.npy [N, 256, 256, 6] with the object numbers of five types."""
    for path, _ in files_of(source, folder, source.images[0]):
        masks_at = Path(
            *("masks" if part == "images" else part for part in path.relative_to(folder).parts[:-1])
        )
        masks_path, types_path = folder / masks_at / "masks.npy", path.with_name("types.npy")
        images, masks, types = _stack(path), _stack(masks_path), _stack(types_path)
        fold = path.parent.name
        for index in range(len(images)):
            region = (
                str(types[index])
                .lower()
                .replace("_gland", "")
                .replace("-", " ")
                .replace("headneck", "head neck")
            )
            labels = {number: f"{region}-nuclei-{name}" for number, name in source.classes.items()}

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


def matlab(source: Source, folder: Path) -> Iterator[Picture]:
    """CoNSeP: ``inst_map`` numbers the nuclei, ``type_map`` (or ``inst_type``) types them."""
    known = tuple(dict.fromkeys(source.classes.values()))
    for image, annotation in files_of(source, folder, source.images[0]):
        name = image.relative_to(folder).with_suffix("").as_posix().replace("/", "__")
        reader = partial(_read_matlab, source, image, annotation)
        yield Picture(name, group_of(source, image.stem), None, known, reader)


def _read_matlab(source: Source, image: Path, annotation: Path) -> Annotated:
    try:
        stored = loadmat(str(annotation))
        objects = np.asarray(stored["inst_map"], np.int32)
        if "type_map" in stored:
            kinds = np.asarray(stored["type_map"], np.int32)
        else:
            types = np.concatenate([[0], np.asarray(stored["inst_type"], np.int32).ravel()])
            kinds = types[objects]
    except (KeyError, ValueError, OSError, IndexError, NotImplementedError) as error:
        raise UnreadableImageError(
            f"{annotation} holds no inst_map with type_map or inst_type ({error}); fetch it again."
        ) from error
    typed = {
        label: np.where(kinds == number, objects, 0).astype(np.int32)
        for number, label in source.classes.items()
    }
    return Annotated(read_picture(image), typed)


def hdf5(source: Source, folder: Path) -> Iterator[Picture]:
    """CoCaHis.hdf5: HE/raw, GT/GT_majority_vote, and the patient and split of every image as attributes of HE."""
    try:
        import h5py  # type: ignore[import-untyped]  # h5py ships no types
    except ImportError as error:
        raise ModelUnavailableError("reading HDF5 needs h5py; run: pip install 'tissuetalk[data]'") from error
    ((path, _),) = list(files_of(source, folder, source.images[0]))[:1]
    try:
        with h5py.File(path, "r") as file:
            count = len(file["HE/raw"])
            attributes = {
                key: [_text(value) for value in file["HE"].attrs[key]]
                for key in ("train_test_split", "patient_num")
            }
    except (OSError, KeyError) as error:
        raise UnreadableImageError(
            f"{path} is not CoCaHis as published ({error}); fetch it again."
        ) from error
    for index in range(count):

        def read(index: int = index) -> Annotated:
            with h5py.File(path, "r") as file:
                image = np.asarray(file["HE/raw"][index], np.uint8)
                mask = np.asarray(file["GT/GT_majority_vote"][index], np.int32)
            return Annotated(image, {source.classes[ANY]: told_apart(source, mask)})

        split: Split = "test" if attributes["train_test_split"][index] == "test" else "train"
        patient = attributes["patient_num"][index]
        yield Picture(f"image_{index:03d}", patient, split, (source.classes[ANY],), read)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
