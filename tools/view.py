"""view: look at an image or a region of it, with or without masks, with a grid that names pixels."""

from __future__ import annotations

from collections.abc import Sequence

from tissuetalk.models.images import ImageSource
from tissuetalk.tools.answers.results import Answer, ViewResult
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.segment.field import Scale, image_info, region_of
from tissuetalk.tools.storage.result_folder import ResultFolder


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
        if stored.mpp is not None and stored.mpp_source in ("file", "given"):
            scale = Scale(stored.mpp, stored.mpp_source)
        masks = [mask for mask in folder.chosen(list(mask_ids or ())) if mask.found or mask_ids]
    width, height = drawing.picture_size(box)
    pixels = source.read_region(box, width=width, height=height)
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
    )
    shown = "".join(f"\n{number}. {mask.name}" for number, mask in enumerate(masks, start=1))
    text = (
        f"{result.image.image_id}: region {box.as_list()} of {source.width} x {source.height} px; one picture pixel is "
        f"{shrink:.3g} image pixels"
        + (f", {result.um_per_picture_px:.3g} µm." if scale else "; the scale is unknown.")
    )
    budget = drawing.picture_budget(text + shown, len(result.model_dump_json()))
    return Answer(result, text + shown, drawing.as_jpeg_within(picture, budget))
