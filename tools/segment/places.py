"""Where users pointed, checked: every example becomes a place in its image, or is refused with what to do about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from tissuetalk.models.by_example import Place
from tissuetalk.models.by_example.places import POINT_UM
from tissuetalk.models.errors import InvalidArgumentError, UnknownMaskError, UnknownResultError
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.tools.answers.arguments import ExampleArgument
from tissuetalk.tools.masks.layer import layers_of
from tissuetalk.tools.masks.rasters import Tissue, tissue_mask

if TYPE_CHECKING:
    from tissuetalk.tools.session import Session

MOST_IMAGES = 20
"""That the examples of one call lie on."""
MOST_MASK_PX = 64_000_000
"""Of a mask that is an example."""
CLOSED_UM = 60.0
"""Gaps of tissue up to twice as wide lie inside its outline, also where the picture cuts them: fat cells and lumina."""
AROUND_UM, CLOSE_PX = 250.0, 1024
"""How far around a place, and in how large a view, is looked closely before it is said to lie on glass."""
LEAST_ON_TISSUE = 0.1
CONTRADICTS = 0.25
"""Share of the smaller of two places, one shown as the target and one as not, that may not be both."""


@dataclass(frozen=True)
class PlacedExample:
    """number: as the caller counts, from 1. outline: in full-resolution pixels; of a mask the box around it."""

    number: int
    example: ExampleArgument
    place: Place
    outline: shapely.Polygon

    @property
    def said(self) -> str:
        return f"example {self.number} (is: {str(self.example.is_it).lower()})"


@dataclass(frozen=True)
class ShownImage:
    """One image and the examples on it, open as long as the block it came from. mpp: µm per full-resolution pixel."""

    source: ImageSource
    mpp: float
    examples: list[PlacedExample]


ScaleOf = Callable[[ImageSource, bool], float]
"""µm per full-resolution pixel of an image; whether it is the call's own."""


@contextmanager
def shown_images(
    session: Session, source: ImageSource, examples: Sequence[ExampleArgument], scale: ScaleOf
) -> Iterator[list[ShownImage]]:
    """The images in the order they are named, each once. source: the call's, for examples that name none.

    Raises InvalidArgumentError for examples that cannot be what they say, and what opening
    the other images raises.
    """
    with ExitStack() as opened:
        images: dict[str, ShownImage] = {}
        by_path: dict[str | None, ShownImage] = {}
        for number, example in enumerate(examples, start=1):
            if example.image not in by_path:
                by_path[example.image] = _image_of(session, source, example.image, images, scale, opened)
            image = by_path[example.image]
            image.examples.append(_placed(session, number, example, image))
        yield list(images.values())


def require_sound(images: Sequence[ShownImage]) -> None:
    """Raises InvalidArgumentError for examples that contradict each other, and for a target on glass."""
    for image in images:
        _require_consistent(image)
        _require_on_tissue(image)


def _image_of(
    session: Session,
    source: ImageSource,
    path: str | None,
    images: dict[str, ShownImage],
    scale: ScaleOf,
    opened: ExitStack,
) -> ShownImage:
    """One entry per content: the same image may be named in several ways."""
    other = source if path is None else opened.enter_context(session.open(path))
    if other.image_id not in images:
        if len(images) >= MOST_IMAGES:
            raise InvalidArgumentError(
                f"the examples lie on more than {MOST_IMAGES} images; choose the most telling ones."
            )
        mpp = scale(other, other.image_id == source.image_id)
        images[other.image_id] = ShownImage(other, mpp, [])
    return images[other.image_id]


def _placed(session: Session, number: int, example: ExampleArgument, image: ShownImage) -> PlacedExample:
    """Raises InvalidArgumentError for anything that is not exactly one sound place in its image."""
    source, said = image.source, f"example {number}"
    given = [name for name in ("box", "point", "polygon", "mask_id") if getattr(example, name) is not None]
    if len(given) != 1:
        raise InvalidArgumentError(
            f"{said} has {' and '.join(given) or 'no place'}; give exactly one of box, point, polygon and mask_id."
        )
    corners = [example.point] if example.point else example.polygon or []
    numbers = [*(example.box or ()), *(value for xy in corners for value in xy)]
    if not all(map(math.isfinite, numbers)):
        raise InvalidArgumentError(f"{said} has a coordinate that is no number; give pixels of the image.")
    if example.mask_id is not None:
        place = _place_of_mask(session, example.mask_id, example.is_it, said, source)
        box = place.extent(image.mpp)
        return PlacedExample(number, example, place, shapely.box(box.x0, box.y0, box.x1, box.y1))
    if example.box is not None:
        x0, y0, x1, y1 = example.box
        if x1 <= x0 or y1 <= y0:
            raise InvalidArgumentError(
                f"the box of {said} is empty; boxes are [x0, y0, x1, y1] with x0 < x1, y0 < y1."
            )
        outline, place = shapely.box(x0, y0, x1, y1), Place(example.is_it, box=(x0, y0, x1, y1))
    elif example.point is not None:
        x, y = example.point
        outline = shapely.Point(x, y).buffer(POINT_UM / image.mpp / 2)
        place = Place(example.is_it, point=(x, y))
    else:
        outline = shapely.Polygon(corners)
        if not outline.is_valid or outline.area <= 0:
            why = shapely.is_valid_reason(outline).split("[")[0].lower()
            raise InvalidArgumentError(
                f"the polygon of {said} crosses itself or has no area ({why}); give its corners in order, each once."
            )
        place = Place(example.is_it, polygon=tuple((x, y) for x, y in corners))
    inside = shapely.box(0, 0, source.width, source.height)
    there = outline.representative_point() if example.point is None else shapely.Point(example.point)
    if not (inside.covers(there) if example.point else inside.intersection(outline).area > 0):
        raise InvalidArgumentError(
            f"{said} lies outside its image of {source.width} x {source.height} px: give pixels of that image "
            "(view with grid=true names them), or say with image which one it is on."
        )
    return PlacedExample(number, example, place, outline)


def _place_of_mask(session: Session, mask_id: str, is_it: bool, said: str, source: ImageSource) -> Place:
    """All of an earlier result's mask."""
    result_id = session.workspace.result_with(mask_id)
    if result_id is None:
        raise InvalidArgumentError(
            f"{said} names a mask that no result has; take a mask_id of a result that is still there."
        )
    try:
        with session.reading(result_id) as stored:
            if stored.folder.result().image.image_id != source.image_id:
                raise InvalidArgumentError(
                    f"the mask of {said} is of another image than the example; say with image which one it is on."
                )
            (layer,) = layers_of(stored.folder, stored.folder.chosen([mask_id]))
            if layer.region_px > MOST_MASK_PX:
                raise InvalidArgumentError(
                    f"the mask of {said} covers a whole slide; show boxes or polygons of it instead."
                )
            marked = layer.in_full() > 0
            if not marked.any():
                raise InvalidArgumentError(f"the mask of {said} is empty; show a place instead.")
            return Place(is_it, mask=marked, mask_at=(layer.region.x0, layer.region.y0))
    except (UnknownResultError, UnknownMaskError) as error:
        raise InvalidArgumentError(f"the mask of {said} is gone; show the place itself.") from error


def contradict(one: PlacedExample, other: PlacedExample) -> bool:
    """Whether one place says that it is there and another that it is not, of much the same pixels."""
    if one.example.is_it == other.example.is_it:
        return False
    if one.place.mask is not None or other.place.mask is not None:
        return False  # compared by what they mark, when learned from
    shared = one.outline.intersection(other.outline).area
    return bool(shared >= CONTRADICTS * min(one.outline.area, other.outline.area))


def _require_consistent(image: ShownImage) -> None:
    positive = [each for each in image.examples if each.example.is_it]
    negative = [each for each in image.examples if not each.example.is_it]
    near = shapely.STRtree([each.outline for each in negative])
    for one in positive:
        for at in near.query(one.outline):
            if contradict(one, negative[at]):
                raise InvalidArgumentError(
                    f"{one.said} and {negative[at].said} contradict each other: they show the same place; "
                    "leave one of them out, or draw them apart."
                )


def _require_on_tissue(image: ShownImage) -> None:
    """Only of positive ones: that glass is not the target is worth showing."""
    positive = [each for each in image.examples if each.example.is_it]
    if not positive:
        return
    tissue = Tissue.of(image.source)
    inside = within_outline(tissue.mask, tissue.step_x * image.mpp)
    for each in positive:
        if _share(each.place, image, inside, (0.0, 0.0), tissue.step_x) < LEAST_ON_TISSUE and _on_glass(
            each, image
        ):
            raise InvalidArgumentError(
                f"{each.said} lies on glass, outside the tissue; show a place in the tissue "
                "(with is: false, glass may be shown)."
            )


def _on_glass(example: PlacedExample, image: ShownImage) -> bool:
    """Looked at closely: the walls of fat cells cannot be seen in a view of a whole slide."""
    source = image.source
    around = (
        example.place.extent(image.mpp)
        .grown(round(AROUND_UM / image.mpp))
        .clipped_to(source.width, source.height)
    )
    scale = min(1.0, CLOSE_PX / max(around.width, around.height))
    view = source.read_scaled(around, scale)
    step = around.width / view.shape[1]
    inside = within_outline(tissue_mask(view), step * image.mpp)
    return _share(example.place, image, inside, (around.x0, around.y0), step) < LEAST_ON_TISSUE


def _share(
    place: Place, image: ShownImage, inside: NDArray[np.bool_], corner_xy: tuple[float, float], step: float
) -> float:
    """Of a place, that is marked in a picture with its corner there and ``step`` full-resolution pixels a pixel."""
    extent = place.extent(image.mpp)
    left, top = round(corner_xy[0] / step), round(corner_xy[1] / step)
    whole = Box(left, top, left + inside.shape[1], top + inside.shape[0])
    x0, y0 = int(extent.x0 / step), int(extent.y0 / step)
    view = Box(x0, y0, max(int(extent.x1 / step), x0) + 1, max(int(extent.y1 / step), y0) + 1).intersection(
        whole
    )
    if view is None:
        return 1.0
    marked = place.drawn(view, step, image.mpp)
    return float(inside[view.inside(whole)][marked].mean()) if marked.any() else 1.0


def within_outline(tissue: NDArray[np.bool_], um_per_px: float) -> NDArray[np.bool_]:
    """[h, w]: tissue of a view, and what it surrounds."""
    from scipy import ndimage  # slow to import; few calls have examples

    reach = int(np.clip(CLOSED_UM / um_per_px, 1, 100))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    closed = cv2.morphologyEx(tissue.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    return np.asarray(ndimage.binary_fill_holes(closed > 0), bool)
