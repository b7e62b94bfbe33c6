"""What is true about the targets of one annotated image, read from its mask file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.datasets.manifest import Record
from tissuetalk.models.errors import InvalidArgumentError, UnreadableImageError
from tissuetalk.models.masks.characteristics import Labels, Mask

SCORED_KINDS: Final = ("instance", "binary", "class-index")
"""Kinds with a mask to compare with; ``boxes`` and ``class-label`` rows have none."""

UNNAMED_CLASSES: Final = ("background", "unlabelled", "unlabeled", "ignore", "void")


@dataclass(frozen=True)
class Annotation:
    """One target of one image: [H, W] mask, and its objects where they were annotated one by one."""

    name: str
    mask: Mask
    instances: Labels | None


def class_name(mask_class: str) -> str:
    """The words of a class without remarks: ``nucleus (all)`` and ``nucleus; type per label`` are ``nucleus``."""
    return re.sub(r"\([^)]{0,200}\)", "", mask_class.split(";")[0]).strip()


def indexed_classes(mask_class: str) -> dict[int, str]:
    """Names by number from ``1=tumour epithelium 2=stroma 0=background``, without background and unlabelled."""
    pairs = re.findall(r"(?<!\d)(\d{1,9})\s*=\s*(.*?)\s*(?=[,;]?\s*\d+\s*=|$)", mask_class)
    named = {int(number): class_name(name.rstrip(",; ")) for number, name in pairs}
    return {
        number: name for number, name in named.items() if name.split("/")[0].lower() not in UNNAMED_CLASSES
    }


def read_annotations(record: Record) -> list[Annotation]:
    """Read the mask of a record: one annotation, or one per named class of a ``class-index`` mask.

    Raises UnreadableImageError for a missing or foreign mask file, InvalidArgumentError for unexplained classes.
    """
    if record.kind not in SCORED_KINDS or record.mask is None:
        raise InvalidArgumentError(
            f"{record.image.name} has no mask to compare with; give mask and mask_kind "
            f"({', '.join(SCORED_KINDS)}) in the manifest"
        )
    values = _read_mask(record.mask)
    if record.kind == "instance":
        labels = values.astype(np.int32)
        return [Annotation(class_name(record.mask_class), labels > 0, labels)]
    if record.kind == "binary":
        # 0/1 as well as 0/255 masks are in use
        return [Annotation(class_name(record.mask_class), values > (127 if values.max() > 1 else 0), None)]
    classes = indexed_classes(record.mask_class)
    if not classes:
        raise InvalidArgumentError(
            f"mask_class of {record.image.name} does not explain the numbers; write it as '1=gland 2=stroma'"
        )
    return [Annotation(name, np.asarray(values == number), None) for number, name in classes.items()]


def _read_mask(path: Path) -> NDArray[Any]:
    try:
        # not cv2.imread: it cannot open every file name on Windows, and says nothing when it fails
        encoded = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UnreadableImageError(
            f"cannot read the mask {path}: {error.strerror}; correct the manifest"
        ) from error
    values = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED) if encoded.size else None
    if values is None or values.dtype not in (np.uint8, np.uint16):
        raise UnreadableImageError(f"{path.name} is not an 8- or 16-bit image; masks are PNG or TIFF files")
    if values.ndim == 3:
        colours = values[..., :3]
        # a grey picture saved as RGB is still one number per pixel
        if (colours != colours[..., :1]).any():
            raise UnreadableImageError(f"{path.name} is a colour picture; a mask has one number per pixel")
        values = colours[..., 0]
    return np.asarray(values)
