"""Class activation maps as pictures: where a slide classifier's answer comes from, by patch and by object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tissuetalk.models.classifiers.activation_maps import ObjectMap, Overlap, mask_at, paint_patch
from tissuetalk.models.classifiers.bags import PatchBag
from tissuetalk.models.classifiers.classifier import ObjectPrediction
from tissuetalk.models.classifiers.objects import OTHER
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.segmenter import RGB
from tissuetalk.tools.drawing import drawing, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Map = NDArray[np.float32]
PANEL_PX = 380
OUTLINED = 3
"""So many of the best-ranked objects are outlined and numbered."""
FOR, AGAINST, ABSENT = "#c8141e", "#1e46c8", "#f0f0f0"
FOOT = "Shares of the logit of a research classifier, not a diagnosis. Research use only."


@dataclass(frozen=True)
class View:
    """What maps are painted on. pixels: [H, W, 3] of ``box`` (full-resolution pixels). places: of every patch in these pixels.

    um_per_px: of these pixels, or None.
    """

    pixels: RGB
    places: tuple[Box, ...]
    box: Box
    um_per_px: float | None = None


def view_of_image(
    source: ImageSource, boxes: Sequence[Box], mpp: float | None, longest_px: int = PANEL_PX
) -> View:
    """The part of an image that its patches cover. mpp: µm per full-resolution pixel."""
    edges = np.array([box.as_list() for box in boxes])
    around = Box.from_sequence([*edges[:, :2].min(0).tolist(), *edges[:, 2:].max(0).tolist()]).clipped_to(
        source.width, source.height
    )
    scale = longest_px / max(around.width, around.height)
    width, height = max(1, round(around.width * scale)), max(1, round(around.height * scale))
    places = np.round((edges - np.tile([around.x0, around.y0], 2)) * scale).astype(int)
    return View(
        source.read_region(around, width=width, height=height),
        tuple(Box.from_sequence(place.tolist()).clipped_to(width, height) for place in places),
        around,
        None if mpp is None else mpp / scale,
    )


def patches_painted(view: View, values: Map) -> Map:
    """[H, W]: every patch in its value [N], or in its tokens [N, h, w]; NaN outside patches."""
    canvas = np.full(view.pixels.shape[:2], np.nan, np.float32)
    for place, value in zip(view.places, values, strict=True):
        tokens, size = np.atleast_2d(np.asarray(value, np.float32)), (place.width, place.height)
        shown = cv2.resize(tokens, size, interpolation=cv2.INTER_NEAREST_EXACT)
        canvas[place.y0 : place.y1, place.x0 : place.x1] = shown
    return canvas


def objects_painted(
    view: View, bag: PatchBag, shares: ObjectMap, *, fine: bool = False, overlap: Overlap = "largest"
) -> Map:
    """[H, W]: every pixel in the value of its object; ``fine`` shows the share of the object in that patch alone."""
    canvas = np.full(view.pixels.shape[:2], np.nan, np.float32)
    for index, place in enumerate(view.places):
        painted = paint_patch(shares, bag, index, (place.height, place.width), fine=fine, overlap=overlap)
        canvas[place.y0 : place.y1, place.x0 : place.x1] = painted
    return canvas


def map_panel(
    view: View, painted: Map, title: str, notes: Sequence[str] = (), unit: str = "share of the logit"
) -> sheet.Panel:
    """A map over the grey tissue with its own scale below; both ends are equally far from 0."""
    known = ~np.isnan(painted)
    # as far to both sides: 0 is then always bare grey
    limit = (float(np.abs(painted[known]).max()) if known.any() else 0.0) or 1.0
    picture = Image.fromarray(sheet.signed(view.pixels, np.nan_to_num(painted), limit, known))

    def draw(figure: Figure) -> None:
        """A colour bar from -limit to +limit, on mid-grey tissue."""
        axes, ramp = figure.subplots(), np.linspace(-limit, limit, 256, dtype=np.float32)[None]
        colours = sheet.signed(np.full((1, 256, 3), 170, np.uint8), ramp, limit)
        axes.imshow(colours, extent=(-limit, limit, 0, 1), aspect="auto")
        axes.set(yticks=[], xlabel=f"blue: against, red: for ({unit})")

    scaled = drawing.stacked([[picture], [drawing.plotted(max(picture.width, 280), 72, draw)]])
    return sheet.Panel(scaled, title, tuple(notes))


def tissue_panel(view: View, bag: PatchBag, shares: ObjectMap) -> sheet.Panel:
    """The tissue with the best-ranked objects outlined; numbers are ranks."""
    found = [share for share in shares.ranking if share.name != OTHER and share.patches][:OUTLINED]
    marks = []
    for number, share in enumerate(found):
        labels = np.zeros(view.pixels.shape[:2], np.int32)
        for index, place in enumerate(view.places):
            there = mask_at(bag, index, share.name, (place.height, place.width))
            labels[place.y0 : place.y1, place.x0 : place.x1] = there
        caption = f"{share.rank}  {share.name}"
        marks.append(drawing.DrawnMask(labels, drawing.colour_of(number), caption, share.rank))
    picture = sheet.marked(view.pixels, marks, view.um_per_px)
    keys = tuple((mark.colour, mark.caption) for mark in marks)
    return sheet.Panel(picture, "The tissue and its objects, by rank", keys=keys)


def ranking_panel(shares: ObjectMap, width: int) -> sheet.Panel:
    """All objects, best first, with value, share of the area and number of patches."""
    limit = max(abs(each.share) for each in shares.ranking) or 1.0
    rows = []
    for each in shares.ranking:
        told, colour = "not in these patches", ABSENT
        if each.patches:
            patches = f"{each.patches} patch{'es' * (each.patches > 1)}"
            told = f"{each.share:+.2f}   {each.area_fraction:.1%} of the area, {patches}"
            colour = FOR if each.share > 0 else AGAINST
        name = "all other tissue" if each.name == OTHER else each.name
        rows.append(sheet.Bar(f"{each.rank}  {name}", each.share, told, colour))
    title = f"Objects by what they add to the logit of {shares.logit:.2f} (offset {shares.bias:+.2f})"
    side = round(limit, 2)
    return sheet.bars(title, rows, width, low=-side, high=side, foot="red: for, blue: against")


def evidence_picture(evidence: ObjectPrediction, view: View, *, overlap: Overlap = "largest") -> Image.Image:
    """Everything about one slide on one page: tissue, object map, fine map, ranking."""
    shares, name = evidence.shares, evidence.classes[evidence.shares.class_index]
    coarse = objects_painted(view, evidence.patches, shares, overlap=overlap)
    fine = objects_painted(view, evidence.patches, shares, fine=True, overlap=overlap)
    within = ("where inside an object class the share sits",)
    maps = [
        map_panel(view, coarse, "What each object adds"),
        map_panel(view, fine, "The same, patch by patch", within),
    ]
    top = sheet.row([tissue_panel(view, evidence.patches, shares), *maps])
    pairs = zip(evidence.classes, evidence.probabilities, strict=True)
    told = ", ".join(f"{one} {value:.2f}" for one, value in pairs)
    said = evidence.classes[evidence.label]
    return sheet.sheet(
        f"The classifier says “{said}” ({told}). Red speaks for “{name}”, blue against it.",
        [top, sheet.row([ranking_panel(shares, min(top.width, 760))])],
        FOOT,
    )
