"""measure: numbers with units from a stored result, each with the rule that computed it. Nothing is segmented again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import Image

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.tools.answers.results import Answer, Measured, MeasureResult
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.masks.layer import OpenImage
from tissuetalk.tools.masks.stored import open_masks
from tissuetalk.tools.measure import pictures
from tissuetalk.tools.measure.metrics import BY_DEFAULT, METRICS, require
from tissuetalk.tools.measure.values import measured
from tissuetalk.tools.storage.result_folder import ResultFolder


def measure_folder(
    folder: ResultFolder,
    *,
    metrics: Sequence[str] | None,
    mask_ids: Sequence[str] | None,
    open_image: OpenImage,
) -> MeasureResult:
    """The asked metrics of the asked masks (default: all masks, everything that needs no pixels).

    Raises InvalidArgumentError for an unknown metric and for one that cannot be had here, which says why;
    UnknownMaskError; and ImageChangedError when pixels are needed and the image is no longer the one that was segmented.
    """
    unknown = [name for name in metrics or () if name not in METRICS]
    if unknown:
        raise InvalidArgumentError(f"unknown metric {unknown[0][:60]!r}; choose from: {', '.join(METRICS)}.")
    masks = open_masks(folder, open_image, mask_ids or ())
    found: dict[tuple[str, str, str | None], Measured] = {}
    drawn: dict[str, str] = {}
    for name in dict.fromkeys(metrics or BY_DEFAULT):
        if metrics:
            require(name, masks)
        # by default a metric that a mask cannot have is left out; one that was asked for is refused
        findings = list(METRICS[name].findings(masks))
        if metrics and masks.layers and not findings:
            raise InvalidArgumentError(
                f"{name} cannot be had of {', '.join(layer.name for layer in masks.layers)}: too large to be measured in "
                "one piece; segment a part of the slide with region=[x0, y0, x1, y1]."
            )
        for layer, finding in findings:
            if isinstance(finding, Image.Image):
                title = f"{name} {layer.record.mask_id}"
                drawn[title] = pictures.write_picture(folder.path, name, layer, finding)
            else:
                # two metrics can give the same number, such as density.tissue
                key = layer.record.mask_id, finding.metric, finding.name
                found.setdefault(key, measured(layer, finding))
    with_objects = [layer.record for layer in masks.layers if layer.has_objects]
    return MeasureResult(
        result_id=masks.result.result_id,
        image=masks.result.image,
        measurements=list(found.values()),
        tables={each.mask_id: each.resources.table for each in with_objects},
        pictures=drawn,
        warnings=[warning for warning in masks.result.warnings if warning.code != "language"],
    )


def as_text(result: MeasureResult) -> str:
    """The same numbers, one line per mask."""
    lines: dict[str, list[str]] = {}
    for row in result.measurements:
        value = "n/a" if row.value is None else f"{row.value:.4g}"
        lines.setdefault(row.name, []).append(f"{row.metric} {value} {row.unit}".rstrip())
    text = [f"{name}: " + "; ".join(parts) for name, parts in lines.items()] or ["No masks to measure."]
    return "\n".join([*text, *(f"warning {warning.code}: {warning.message}" for warning in result.warnings)])


def answer(
    result: MeasureResult, address: Callable[[str], str], picture: Image.Image | None = None
) -> Answer[MeasureResult]:
    """address: of a file of the result, as the caller's transport names it. picture: what was drawn, on one sheet."""
    shown = result.model_copy(
        update={
            "tables": {mask_id: address(path) for mask_id, path in result.tables.items()},
            "pictures": {title: address(path) for title, path in result.pictures.items()},
        }
    )
    text = as_text(shown)
    links = [(uri, f"{mask_id}.csv", "text/csv") for mask_id, uri in shown.tables.items()]
    links += [(uri, title, "image/png") for title, uri in shown.pictures.items()]
    budget = drawing.picture_budget(text, len(shown.model_dump_json()) + 150 * len(links))
    jpeg = None if picture is None else drawing.as_jpeg_within(picture, budget)
    return Answer(shown, text, jpeg, tuple(links))
