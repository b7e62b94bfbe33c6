"""The table of metrics, the same for pictures and slides.

Cheap to import, because descriptions and completions are made from the table; a function is imported when it measures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from tissuetalk.models.errors import InvalidArgumentError

if TYPE_CHECKING:
    from tissuetalk.tools.masks.stored import SegmentedRegion
    from tissuetalk.tools.measure.values import Finding

Need = Literal["objects", "scale", "two masks", "pixels"]


@dataclass(frozen=True)
class Metric:
    """One entry. rule: in short; every number carries its own in full.

    Args:
        function: module:function, of one mask, or of all where ``together``; yields values and pictures.
        unit: where the scale is known.
        needs: what there must be; without it the metric is refused.
    """

    function: str
    unit: str
    rule: str
    needs: tuple[Need, ...] = ()
    by_default: bool = False
    together: bool = False

    def findings(self, masks: SegmentedRegion) -> Iterator[Finding]:
        """Of every mask that can have it."""
        module, _, name = self.function.partition(":")
        function = getattr(import_module(module), name)
        if self.together:
            yield from function(masks) if masks.layers else ()
            return
        for layer in masks.layers:
            if layer.has_objects or "objects" not in self.needs:
                yield from ((layer, value) for value in function(layer))


# fmt: off
METRICS: dict[str, Metric] = {
    "area": Metric("tissuetalk.tools.measure.masks:area", "µm²", "of all its pixels", by_default=True),
    "area_fraction": Metric("tissuetalk.tools.measure.pairs:area_fraction", "of the region", "mask over region", by_default=True, together=True),
    "count": Metric("tissuetalk.tools.measure.masks:count", "objects", "as separated by the model", ("objects",), by_default=True),
    "density": Metric("tissuetalk.tools.measure.pairs:density", "per mm²", "objects per area of the region", ("objects",), by_default=True, together=True),
    "size": Metric("tissuetalk.tools.measure.masks:size", "µm²", "area of each object", ("objects",), by_default=True),
    "shape": Metric("tissuetalk.tools.measure.masks:shape", "", "circularity, solidity, eccentricity of the objects", ("objects",), by_default=True),
    "distance": Metric("tissuetalk.tools.measure.masks:distance", "µm", "from each object to the nearest other one", ("objects",)),
    "intensity": Metric("tissuetalk.tools.measure.masks:intensity", "0..255 or OD", "luminance, hematoxylin, eosin", ("pixels",)),
    "texture": Metric("tissuetalk.tools.measure.masks:texture", "", "entropy, contrast, homogeneity of the luminance", ("pixels",)),
    "irregularity": Metric("tissuetalk.tools.measure.masks:irregularity", "", "1 - 4π·area/perimeter²", by_default=True),
    "instance_count": Metric("tissuetalk.tools.measure.masks:instance_count", "parts", "connected parts of the mask", by_default=True),
    "instance_ratio": Metric("tissuetalk.tools.measure.masks:instance_ratio", "of the region", "mean area of a part", by_default=True),
    "instance_dispersion": Metric("tissuetalk.tools.measure.masks:instance_dispersion", "µm", "largest distance of two parts", by_default=True),
    "ratio": Metric("tissuetalk.tools.measure.pairs:ratio", "", "area and count of one mask over another's", ("two masks",), together=True),
    "tissue": Metric("tissuetalk.tools.measure.pairs:tissue", "mm²", "its area; masks and objects per tissue", ("scale", "pixels"), together=True),
    "hotspot": Metric("tissuetalk.tools.measure.pictures:hotspots", "objects", "the densest 2 mm², drawn", ("objects", "scale", "pixels"), together=True),
    "density_in": Metric("tissuetalk.tools.measure.pairs:density_in", "per mm²", "objects of one mask in another: TILs in a tumour", ("two masks", "objects", "scale"), together=True),
    "distance_to": Metric("tissuetalk.tools.measure.pairs:distance_to", "µm", "objects of one mask to the border of another", ("two masks", "objects"), together=True),
    "tumour_stroma": Metric("tissuetalk.tools.measure.pairs:tumour_stroma", "", "areas of tumour and stroma", together=True),
    "heatmap": Metric("tissuetalk.tools.measure.pictures:heat_maps", "per mm²", "density in squares, drawn", ("scale", "pixels"), together=True),
    "histogram": Metric("tissuetalk.tools.measure.pictures:histograms", "µm² and µm", "of sizes and distances, drawn", ("objects",), together=True),
}
# fmt: on
"""A new metric is a function and an entry here."""
BY_DEFAULT = tuple(name for name, metric in METRICS.items() if metric.by_default)


def described() -> str:
    """The table in one line."""
    return "; ".join(
        f"{name} ({metric.rule}{', ' if metric.unit else ''}{metric.unit})"
        for name, metric in METRICS.items()
    )


def require(name: str, masks: SegmentedRegion) -> None:
    """Raise InvalidArgumentError, which says what is missing, for a metric that no mask here can have."""
    needs, have = METRICS[name].needs, ", ".join(layer.name for layer in masks.layers)
    with_objects = any(layer.has_objects for layer in masks.layers)
    if "scale" in needs:
        masks.needs_scale(name)
    if "two masks" in needs and (len(masks.layers) < 2 or ("objects" in needs and not with_objects)):
        kind = ", one of them separate objects" if "objects" in needs else ""
        raise InvalidArgumentError(
            f"{name} needs two masks{kind}; this result has: {have or 'none'}. Segment both targets in one call."
        )
    if "objects" in needs and masks.layers and not with_objects:
        regions = [
            each for each, metric in METRICS.items() if metric.by_default and "objects" not in metric.needs
        ]
        raise InvalidArgumentError(
            f"{name} needs separate objects, and this result has only regions: {have}. Ask for {', '.join(regions)}, "
            "or segment nuclei, cells or glands."
        )
