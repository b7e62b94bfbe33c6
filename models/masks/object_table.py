"""One row of numbers per object: where it is, how large, what shape, how it is stained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.masks.characteristics import Labels, nearest_neighbour_px

Table = dict[str, NDArray[Any]]
"""Columns of equal length, in a fixed order."""

GREY_LEVELS: Final = 32

RULES: Final[dict[str, str]] = {
    "id": "label of the object in the instance image",
    "centroid_x": "mean x of the object's pixels, pixel centres at whole numbers",
    "centroid_y": "mean y of the object's pixels, pixel centres at whole numbers",
    "bbox_x0": "left edge of the bounding box",
    "bbox_y0": "top edge of the bounding box",
    "bbox_x1": "right edge of the bounding box, exclusive",
    "bbox_y1": "bottom edge of the bounding box, exclusive",
    "area_px": "number of pixels",
    "perimeter_px": "chain code of all outlines, holes included: 0.980 per straight step, 1.406 per diagonal step, "
    "-0.091 per corner (Vossepoel and Smeulders 1982), plus pi per outer and minus pi per inner outline to move "
    "from pixel centres to pixel edges",
    "equivalent_diameter_px": "diameter of the disc of the same area",
    "major_axis_px": "long axis of the ellipse with the same second moments",
    "minor_axis_px": "short axis of the ellipse with the same second moments",
    "eccentricity": "eccentricity of that ellipse: 0 circle, towards 1 line",
    "solidity": "area over the number of pixels whose centres lie in the convex hull of the object's pixel centres",
    "circularity": "4*pi*area/perimeter^2, at most 1",
    "orientation_deg": "direction of the long axis, counter-clockwise from the x axis as seen on screen, 0 to 180",
    "feret_max_px": "largest distance between two corners of the object's pixels",
    "touches_border": "whether the bounding box reaches the edge of the segmented region",
    "nearest_neighbour_px": "distance between centroids to the nearest other object",
    "mean_intensity": "mean luminance (0.299 R + 0.587 G + 0.114 B), 0 black to 255 white",
    "sd_intensity": "standard deviation of the luminance",
    "mean_hematoxylin_od": "mean hematoxylin optical density after colour deconvolution (Ruifrok and Johnston 2001)",
    "mean_eosin_od": "mean eosin optical density after colour deconvolution (Ruifrok and Johnston 2001)",
    "texture_entropy_bits": "Shannon entropy of the luminance in 32 grey levels",
    "texture_contrast": "contrast of the co-occurrence matrix: mean squared difference of 32 grey levels between "
    "neighbours to the right and below inside the object",
    "texture_homogeneity": "homogeneity of the same co-occurrence matrix: mean of 1/(1 + squared difference)",
}
"""The rule behind every column; a ``_um`` or ``_um2`` column is its ``_px`` column times mpp or mpp²."""


def object_table(
    labels: Labels,
    box: Box,
    *,
    mpp: float | None,
    source: ImageSource | None = None,
    step: float = 1.0,
    region: Box | None = None,
) -> Table:
    """Measure every object of a label image.

    Args:
        labels: [box.height, box.width] int32 in full-resolution pixels, 0 background; numbers need not be consecutive.
        box: where the labels lie in the image.
        mpp: µm per full-resolution pixel, for the ``_um`` and ``_um2`` columns; None leaves them out.
        source: the image, for the intensity, stain and texture columns; None leaves them out.
        step: full-resolution pixels per pixel at which staining and texture are measured: the model's scale.
        region: what was segmented, for ``touches_border``; by default the box.

    Returns:
        Columns with one row per object in order of number, positions in full-resolution pixels of the image; ``RULES``
        says how each was computed.
    """
    table = geometry(labels, box, region)
    if source is not None:
        grid = CoarseGrid.over(box, step)
        table |= staining(grid.labels(labels, box, table), grid.pixels(source), table["id"])
    if mpp is not None:
        table |= in_micrometres(table, mpp)
    return table


def geometry(labels: Labels, box: Box, region: Box | None = None) -> Table:
    """Columns that need no pixels, up to ``nearest_neighbour_px``. Arguments as in ``object_table``.

    Sums run over positions in the image, not in the box: an object has the same numbers whatever box it is read in.
    """
    at = np.flatnonzero(labels > 0)
    y, x = np.divmod(at, labels.shape[1])
    ids, rank = _ranked(labels.ravel()[at])
    # whole numbers of the image, summed exactly in float64: the same whatever the window
    x, y = x + box.x0, y + box.y0
    table: Table = {"id": ids}
    table |= _position(x, y, rank, ids.size)
    table |= _ellipse(x, y, rank, table)
    table |= _outline(labels, box, table)
    edge = region or box
    table["touches_border"] = (
        (table["bbox_x0"] <= edge.x0)
        | (table["bbox_y0"] <= edge.y0)
        | (table["bbox_x1"] >= edge.x1)
        | (table["bbox_y1"] >= edge.y1)
    )
    centres = np.stack([table["centroid_x"], table["centroid_y"]], axis=1)
    table["nearest_neighbour_px"] = nearest_neighbour_px(centres)
    return {name: table[name] for name in RULES if name in table}


@dataclass(frozen=True)
class CoarseGrid:
    """Pixels of ``step`` full-resolution pixels, counted from the image's corner, whose middles lie in a box.

    x0, y0: number of the first column and row. step is never below 1: an enlarged picture holds no more.
    """

    x0: int
    y0: int
    width: int
    height: int
    step: float

    @classmethod
    def over(cls, box: Box, step: float) -> CoarseGrid:
        step = max(step, 1.0)
        # pixel k has its middle at (k + 0.5) * step
        x0, y0 = math.ceil(box.x0 / step - 0.5), math.ceil(box.y0 / step - 0.5)
        x1, y1 = math.ceil(box.x1 / step - 0.5), math.ceil(box.y1 / step - 0.5)
        return cls(x0, y0, max(1, x1 - x0), max(1, y1 - y0), step)

    def pixels(self, source: ImageSource) -> NDArray[np.uint8]:
        """[height, width, 3], each the mean of what it covers."""
        x, y = ((first * self.step, self.step) for first in (self.x0, self.y0))
        return source.read_grid(x, y, width=self.width, height=self.height)

    def labels(self, labels: Labels, box: Box, table: Table) -> Labels:
        """[height, width]: the label under the middle of every pixel. An object under no middle gets its centroid's."""
        if self.step == 1.0:
            return labels
        columns = self._under(self.x0, self.width, box.x0, box.width)
        rows = self._under(self.y0, self.height, box.y0, box.height)
        coarse = np.ascontiguousarray(labels[np.ix_(rows, columns)])
        lost = ~np.isin(table["id"], coarse)
        x = ((table["centroid_x"][lost] + 0.5) / self.step).astype(np.int64) - self.x0
        y = ((table["centroid_y"][lost] + 0.5) / self.step).astype(np.int64) - self.y0
        # smaller than the model can see; it takes one pixel from whatever lies there
        coarse[np.clip(y, 0, self.height - 1), np.clip(x, 0, self.width - 1)] = table["id"][lost]
        return coarse

    def _under(self, first: int, count: int, start: int, length: int) -> NDArray[np.int64]:
        middles = np.floor((first + np.arange(count) + 0.5) * self.step).astype(np.int64)
        return np.asarray(np.clip(middles - start, 0, length - 1), np.int64)


def column_names(mpp: float | None) -> list[str]:
    """Columns of an object table with pixels, in order; those in µm only where the scale is known."""
    lengths = [f"{name[:-2]}um" for name in RULES if name.endswith("_px") and name != "area_px"]
    return list(RULES) if mpp is None else [*RULES, "area_um2", *lengths]


def _ranked(numbers: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The numbers that occur, ascending, and of each entry the place of its number among them."""
    if not numbers.size or int(numbers.max()) > numbers.size:
        ids, rank = np.unique(numbers, return_inverse=True)
        return ids, rank.astype(np.int64)
    found = np.bincount(numbers) > 0
    return np.flatnonzero(found).astype(np.int32), (np.cumsum(found) - 1)[numbers]


def in_micrometres(table: Table, mpp: float) -> Table:
    """The ``_um`` and ``_um2`` columns of a table, of mpp µm per pixel."""
    scaled = {name[:-2] + "um": column * mpp for name, column in table.items() if name.endswith("_px")}
    del scaled["area_um"]
    return {"area_um2": table["area_px"] * mpp**2} | scaled


def _position(x: NDArray[np.intp], y: NDArray[np.intp], rank: NDArray[np.int64], n: int) -> Table:
    area = np.bincount(rank, minlength=n)
    box: Table = {}
    for name, values in (("x", x), ("y", y)):
        low = np.full(n, np.iinfo(np.int64).max)
        high = np.full(n, -1)
        np.minimum.at(low, rank, values)
        np.maximum.at(high, rank, values)
        box |= {
            f"centroid_{name}": np.bincount(rank, weights=values, minlength=n) / np.maximum(area, 1),
            f"bbox_{name}0": low,
            f"bbox_{name}1": high + 1,
        }
    return box | {"area_px": area, "equivalent_diameter_px": np.sqrt(4.0 * area / math.pi)}


def _ellipse(x: NDArray[np.intp], y: NDArray[np.intp], rank: NDArray[np.int64], table: Table) -> Table:
    """Ellipse of equal second moments; a pixel is a unit square, hence the 1/12."""
    n, area = len(table["id"]), np.maximum(table["area_px"], 1)
    dx, dy = x - table["centroid_x"][rank], y - table["centroid_y"][rank]
    xx = np.bincount(rank, weights=dx * dx, minlength=n) / area + 1.0 / 12.0
    yy = np.bincount(rank, weights=dy * dy, minlength=n) / area + 1.0 / 12.0
    xy = np.bincount(rank, weights=dx * dy, minlength=n) / area
    middle, half_gap = (xx + yy) / 2.0, np.hypot((xx - yy) / 2.0, xy)
    large, small = middle + half_gap, np.maximum(middle - half_gap, 0.0)
    return {
        "major_axis_px": 4.0 * np.sqrt(large),
        "minor_axis_px": 4.0 * np.sqrt(small),
        "eccentricity": np.sqrt(1.0 - small / np.maximum(large, 1e-12)),
        "orientation_deg": np.degrees(0.5 * np.arctan2(-2.0 * xy, xx - yy)) % 180.0,
    }


def _outline(instances: Labels, box: Box, table: Table) -> Table:
    """Columns that need each object's outline. The only loop over objects finds outlines; they are measured together."""
    n = len(table["id"])
    outlines: list[NDArray[Any]] = []
    hulls: list[NDArray[Any]] = []
    owners: list[int] = []
    holes: list[NDArray[np.bool_]] = []
    corner = {"x": box.x0, "y": box.y0}
    edges = [(table[f"bbox_{edge}"] - corner[edge[0]]).tolist() for edge in ("x0", "y0", "x1", "y1")]
    places = zip(table["id"].tolist(), *edges, strict=True)
    for row, (label, x0, y0, x1, y1) in enumerate(places):
        shape = (instances[y0:y1, x0:x1] == label).view(np.uint8)
        contours, levels = cv2.findContours(shape, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        outlines += contours
        holes.append(levels[0, :, 3] >= 0)
        owners += [row] * len(contours)
        hulls.append(cv2.convexHull(contours[0] if len(contours) == 1 else np.concatenate(contours)))
    if not n:
        return dict.fromkeys(("perimeter_px", "solidity", "circularity", "feret_max_px"), np.zeros(0))
    lengths = _chain_lengths(_Loops.of(outlines), np.concatenate(holes))
    perimeter = np.bincount(owners, weights=lengths, minlength=n)
    around = _Loops.of(hulls)
    circularity = 4.0 * math.pi * table["area_px"] / np.maximum(perimeter, 1e-9) ** 2
    return {
        "perimeter_px": perimeter,
        "solidity": table["area_px"] / _lattice_points(around),
        "circularity": np.minimum(circularity, 1.0),
        "feret_max_px": _ferets(around),
    }


@dataclass(frozen=True)
class _Loops:
    """Closed lines, one after the other. corners: [N, 2] x, y. first, count: of each line's corners."""

    corners: NDArray[np.int64]
    first: NDArray[np.int64]
    count: NDArray[np.int64]

    @classmethod
    def of(cls, lines: list[NDArray[Any]]) -> _Loops:
        """Lines as OpenCV has them, [n, 1, 2] each."""
        count = np.array([len(line) for line in lines], np.int64)
        return cls(np.concatenate(lines)[:, 0].astype(np.int64), np.cumsum(count) - count, count)

    def following(self, values: NDArray[Any]) -> NDArray[Any]:
        """The value of the corner after each; after a line's last comes its first."""
        after = np.roll(values, -1, axis=0)
        after[self.first + self.count - 1] = values[self.first]
        return after

    def sums(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Of each line, over its corners."""
        return np.add.reduceat(values, self.first, dtype=np.int64)


def _chain_lengths(lines: _Loops, inner: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Length of closed outlines of pixel centres, moved to the pixel edges."""
    steps = lines.following(lines.corners) - lines.corners
    diagonal = lines.sums(steps[:, 0] & steps[:, 1] & 1)
    direction = steps[:, 0] * 3 + steps[:, 1]
    corners = lines.sums(lines.following(direction) != direction)
    offset = np.where(inner, -math.pi, math.pi)
    length = 0.980 * (lines.count - diagonal) + 1.406 * diagonal - 0.091 * corners + offset
    return np.where(lines.count < 2, offset, np.maximum(length, 0.0))


def _lattice_points(hulls: _Loops) -> NDArray[np.int64]:
    """Whole-number points in convex polygons with whole-number corners, edges included (Pick's theorem)."""
    here, following = hulls.corners, hulls.following(hulls.corners)
    doubled_area = np.abs(hulls.sums(here[:, 0] * following[:, 1] - here[:, 1] * following[:, 0]))
    steps = np.abs(following - here)
    on_edge = hulls.sums(np.gcd(steps[:, 0], steps[:, 1]))
    return np.asarray((doubled_area + on_edge) // 2 + 1, np.int64)


def _ferets(hulls: _Loops) -> NDArray[np.float64]:
    """Largest distance between two corners of pixels whose centres are corners of a hull."""
    order = np.argsort(-hulls.count, kind="stable")
    sizes = hulls.count[order]
    first = np.cumsum(sizes) - sizes
    owner = np.repeat(np.arange(len(order)), sizes)
    place = np.arange(len(owner)) - first[owner]
    x, y = hulls.corners[hulls.first[order][owner] + place].T
    longest = np.full(len(order), 2, np.int64)  # across a single pixel, squared
    for apart in range(1, int(sizes[0]) // 2 + 1):
        far = int(np.searchsorted(-sizes, -2 * apart, side="right"))  # hulls with so many corners come first
        stop = int(first[far - 1] + sizes[far - 1])
        of = owner[:stop]
        other = first[of] + (place[:stop] + apart) % sizes[of]
        gap = (np.abs(x[:stop] - x[other]) + 1) ** 2 + (np.abs(y[:stop] - y[other]) + 1) ** 2
        np.maximum(longest[:far], np.maximum.reduceat(gap, first[:far]), out=longest[:far])
    ferets = np.empty(len(order))
    ferets[order] = np.sqrt(longest)
    return ferets


_STAINS: Final = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
"""Optical density of hematoxylin and of eosin in red, green and blue (Ruifrok and Johnston 2001)."""


def stain_od(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Hematoxylin and eosin optical densities, [N, 2], of [N, 3] RGB pixels."""
    unit = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)
    residual = np.cross(unit[0], unit[1])
    basis = np.vstack([unit, residual / np.linalg.norm(residual)])
    density = -np.log10((np.arange(256, dtype=np.float32) + 1.0) / 256.0)
    unmix = np.linalg.inv(basis).astype(np.float32)
    return np.asarray(density[pixels] @ unmix[:, :2], dtype=np.float32)


def staining(labels: Labels, rgb: NDArray[np.uint8], ids: NDArray[np.int32]) -> Table:
    """Columns that need pixels. labels: [H, W]; rgb: [H, W, 3]; ids: ascending, with every number of ``labels``.

    An object without a pixel here has numbers of nothing: zeros.
    """
    at = np.flatnonzero(labels > 0)
    rank = np.searchsorted(ids, labels.ravel()[at])
    pixels = rgb.reshape(-1, 3)[at]
    luminance = np.asarray(pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32), dtype=np.float32)
    return _stains(pixels, luminance, rank, ids.size) | _texture(luminance, labels, at, rank, ids.size)


def _stains(
    pixels: NDArray[np.uint8], luminance: NDArray[np.float32], rank: NDArray[np.int64], n: int
) -> Table:
    count = np.maximum(np.bincount(rank, minlength=n), 1)

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(rank, weights=values, minlength=n) / count)

    grey = luminance.astype(np.float64)
    average = mean(grey)
    stains = stain_od(pixels)
    return {
        "mean_intensity": average,
        "sd_intensity": np.sqrt(mean((grey - average[rank]) ** 2)),
        "mean_hematoxylin_od": mean(stains[:, 0]),
        "mean_eosin_od": mean(stains[:, 1]),
    }


def _texture(
    luminance: NDArray[np.float32],
    instances: Labels,
    at: NDArray[np.intp],
    rank: NDArray[np.int64],
    n: int,
) -> Table:
    """luminance, rank: of the pixels ``at``, places in the flattened ``instances``."""
    numbers, width = instances.ravel(), instances.shape[1]
    levels = np.zeros(numbers.shape, dtype=np.int16)
    grey_level = (luminance * (GREY_LEVELS / 256.0)).astype(np.int16)
    levels[at] = grey_level
    histogram = np.bincount(rank * GREY_LEVELS + grey_level, minlength=n * GREY_LEVELS)
    share = histogram.reshape(n, GREY_LEVELS) / np.maximum(np.bincount(rank, minlength=n), 1)[:, None]
    entropy = -(share * np.log2(np.where(share > 0, share, 1.0))).sum(axis=1)

    pairs, squared, closeness = np.zeros(n), np.zeros(n), np.zeros(n)
    not_last_column = at % width != width - 1
    for beside, inside in ((1, not_last_column), (width, at < numbers.size - width)):
        near = np.flatnonzero(inside)
        near = near[numbers[at[near] + beside] == numbers[at[near]]]
        step = (levels[at[near] + beside] - grey_level[near]).astype(np.float64) ** 2
        of = rank[near]
        pairs += np.bincount(of, minlength=n)
        squared += np.bincount(of, weights=step, minlength=n)
        closeness += np.bincount(of, weights=1.0 / (1.0 + step), minlength=n)
    any_pair = np.maximum(pairs, 1)
    return {
        "texture_entropy_bits": entropy,
        "texture_contrast": squared / any_pair,
        "texture_homogeneity": np.where(pairs > 0, closeness / any_pair, 1.0),
    }
