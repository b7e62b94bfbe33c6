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
        function: module:function of this folder; in ``values`` of one mask, elsewhere of all together. It yields values
            and pictures.
        unit: where the scale is known.
        needs: what there must be; without it the metric is refused.
    """

    function: str
    unit: str
    rule: str
    needs: tuple[Need, ...] = ()

    def findings(self, masks: SegmentedRegion) -> Iterator[Finding]:
        """Of every mask that can have it."""
        module, _, name = self.function.partition(":")
        function = getattr(import_module(f"{__package__}.{module}"), name)
        if module != "values":
            yield from function(masks) if masks.layers else ()
            return
        for layer in masks.layers:
            if layer.has_objects or "objects" not in self.needs:
                yield from ((layer, value) for value in function(layer))


METRICS = {
    "area": Metric("values:area", "µm²", "of all its pixels"),
    "area_fraction": Metric("pairs:area_fraction", "of the region", "mask over region"),
    "count": Metric("values:count", "objects", "as separated by the model", ("objects",)),
    "density": Metric("pairs:density", "per mm²", "objects per area of the region", ("objects",)),
    "size": Metric("values:size", "µm²", "area of each object", ("objects",)),
    "shape": Metric("values:shape", "", "circularity, solidity, eccentricity of the objects", ("objects",)),
    "distance": Metric("values:distance", "µm", "from each object to the nearest other one", ("objects",)),
    "intensity": Metric("values:intensity", "0..255 or OD", "luminance, hematoxylin, eosin", ("pixels",)),
    "texture": Metric("values:texture", "", "entropy, contrast, homogeneity of the luminance", ("pixels",)),
    "irregularity": Metric("values:irregularity", "", "1 - 4π·area/perimeter²"),
    "instance_count": Metric("values:instance_count", "parts", "connected parts of the mask"),
    "instance_ratio": Metric("values:instance_ratio", "of the region", "mean area of a part"),
    "instance_dispersion": Metric("values:instance_dispersion", "µm", "largest distance of two parts"),
    "ratio": Metric("pairs:ratio", "", "area and count of one mask over another's", ("two masks",)),
    "tissue": Metric("pairs:tissue", "mm²", "its area; masks and objects per tissue", ("scale", "pixels")),
    "hotspot": Metric(
        "pictures:hotspots", "objects", "the densest 2 mm², drawn", ("objects", "scale", "pixels")
    ),
    "density_in": Metric(
        "pairs:density_in",
        "per mm²",
        "objects of one mask in another: TILs in a tumour",
        ("two masks", "objects", "scale"),
    ),
    "distance_to": Metric(
        "pairs:distance_to", "µm", "objects of one mask to the border of another", ("two masks", "objects")
    ),
    "tumour_stroma": Metric("pairs:tumour_stroma", "", "areas of tumour and stroma"),
    "heatmap": Metric("pictures:heat_maps", "per mm²", "density in squares, drawn", ("scale", "pixels")),
    "histogram": Metric("pictures:histograms", "µm² and µm", "of sizes and distances, drawn", ("objects",)),
}
"""A new metric is a function and an entry here."""
BY_DEFAULT: tuple[str, ...] = ("area", "area_fraction", "count", "density", "size", "shape")
BY_DEFAULT += ("irregularity", "instance_count", "instance_ratio", "instance_dispersion")


def described() -> str:
    """The table in one line."""
    told = {name: ", ".join(filter(None, (metric.rule, metric.unit))) for name, metric in METRICS.items()}
    return "; ".join(f"{name} ({about})" for name, about in told.items())


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
        regions = [each for each in BY_DEFAULT if "objects" not in METRICS[each].needs]
        raise InvalidArgumentError(
            f"{name} needs separate objects, and this result has only regions: {have}. Ask for {', '.join(regions)}, "
            "or segment nuclei, cells or glands."
        )
