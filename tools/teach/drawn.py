"""Annotations drawn in QuPath or elsewhere, read from GeoJSON as examples: a class is the target or something else.

``classification.name`` is the class. ``not NAME`` and ``Ignore*`` say what is not meant; what is drawn as another class
is something else, too, except where it overlaps what is drawn as the target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import LinearRing, LineString, MultiPolygon, Point, Polygon, shape
from shapely.ops import split

from tissuetalk.models.errors import InvalidArgumentError, shown
from tissuetalk.models.reading import MOST_JSON_BYTES, content_of, json_in
from tissuetalk.tools.answers.arguments import MOST_CORNERS, ExampleArgument

MOST_FEATURES = 50_000
MOST_OF_A_KIND = 250
"""Of the target, and of other things, that are learned from: of more, every n-th."""
_LEAST_AREA_PX = 1.0


@dataclass(frozen=True)
class DrawnPlace:
    """One polygon without holes, or a point. class_name: as drawn, empty where there is none. number: of its feature, from 1."""

    class_name: str
    outline: Polygon | Point
    number: int

    def example(self, is_it: bool, image: str | None) -> ExampleArgument:
        said = {"is": is_it, "image": image}
        if isinstance(self.outline, Point):
            return ExampleArgument.model_validate({**said, "point": [self.outline.x, self.outline.y]})
        ring, tolerance = self.outline.exterior, 0.5
        while len(ring.coords) > MOST_CORNERS:
            ring, tolerance = LinearRing(self.outline.exterior.simplify(tolerance).coords), tolerance * 2
        corners = [[float(x), float(y)] for x, y in ring.coords[:-1]]
        return ExampleArgument.model_validate({**said, "polygon": corners})


@dataclass(frozen=True)
class Drawing:
    """What was drawn on one image. image_id: of the image, where the file says it."""

    file: str
    places: tuple[DrawnPlace, ...]
    image_id: str | None = None

    @property
    def classes(self) -> list[str]:
        """Of what is drawn as something, the most frequent first."""
        names = Counter(each.class_name for each in self.places if each.class_name)
        return [name for name, _ in names.most_common() if not _is_negative(name)]

    @classmethod
    def read(cls, path: Path) -> Drawing:
        """Raises InvalidArgumentError for anything that is not GeoJSON with places in it."""
        try:
            content = json_in(content_of(path, MOST_JSON_BYTES))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InvalidArgumentError(
                f"{path.name} cannot be read as GeoJSON ({reason}); export annotations from QuPath as GeoJSON."
            ) from error
        features = _features(content, path.name)
        about = content.get("tissuetalk") if isinstance(content, dict) else None
        image_id = about.get("image_id") if isinstance(about, dict) else None
        places = tuple(
            place
            for number, feature in enumerate(features, start=1)
            for place in _places(feature, number, path.name)
        )
        if not places:
            raise InvalidArgumentError(
                f"{path.name} has no polygon and no point; draw where it is, and where it is not."
            )
        return cls(path.name, places, image_id if isinstance(image_id, str) else None)

    def class_for(self, name: str) -> str:
        """The class that is drawn for a name: the one called so, else the only one. Raises InvalidArgumentError."""
        classes = self.classes
        for each in classes:
            if _plain(each) == _plain(name):
                return each
        if len(classes) <= 1:
            return classes[0] if classes else ""
        raise InvalidArgumentError(
            f"{self.file} has no class {shown(name)}; say which one is meant with --class: "
            f"{', '.join(shown(each) for each in classes[:20])}."
        )

    def examples(self, class_name: str, image: str | None = None) -> list[ExampleArgument]:
        """Where the class is and where it is not. image: what to call the image they are on."""
        named = [each for each in self.places if each.class_name or not self.classes]
        positive = [each for each in named if _plain(each.class_name) == _plain(class_name)]
        negative = [each for each in named if _is_other(each.class_name, class_name)]
        drawn = shapely.STRtree([each.outline for each in positive])
        apart = [
            each
            for each in negative
            if _is_negative(each.class_name) or not len(drawn.query(each.outline, predicate="intersects"))
        ]
        chosen = [each.example(True, image) for each in _some(positive)]
        return chosen + [each.example(False, image) for each in _some(apart)]


def _some(places: Sequence[DrawnPlace]) -> Sequence[DrawnPlace]:
    """At most so many, from all over the file."""
    return places[:: -(-len(places) // MOST_OF_A_KIND)] if places else places


def _features(content: Any, file: str) -> list[Any]:
    """Of a collection, of a list as older versions of QuPath write it, or the only one."""
    if isinstance(content, dict):
        content = content.get("features", [content])
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        raise InvalidArgumentError(f"{file} is not GeoJSON: it has no list of features.")
    if len(content) > MOST_FEATURES:
        raise InvalidArgumentError(
            f"{file} has {len(content)} features; export annotations, not detections, at most {MOST_FEATURES}."
        )
    return content


def _places(feature: dict[str, Any], number: int, file: str) -> Iterator[DrawnPlace]:
    name = _class_of(feature.get("properties"))
    try:
        geometry = shape(feature["geometry"])
    except (KeyError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
        raise InvalidArgumentError(f"feature {number} of {file} has no geometry that can be read.") from error
    for part in getattr(geometry, "geoms", [geometry]):
        if isinstance(part, Point) and not part.is_empty:
            yield DrawnPlace(name, Point(part.x, part.y), number)
        elif isinstance(part, Polygon) and not part.is_empty:
            if not part.is_valid:
                why = shapely.is_valid_reason(part).split("[")[0].lower()
                raise InvalidArgumentError(
                    f"the polygon of feature {number} of {file} crosses itself or has no area ({why}); draw it again."
                )
            for piece in _without_holes(part):
                yield DrawnPlace(name, piece, number)


def _without_holes(polygon: Polygon) -> Iterator[Polygon]:
    """The same area as polygons without holes, cut through the middle of each."""
    if not polygon.interiors:
        if polygon.area >= _LEAST_AREA_PX:
            yield Polygon([(each[0], each[1]) for each in polygon.exterior.coords])
        return
    x = Polygon(polygon.interiors[0]).centroid.x
    _, low, _, high = polygon.bounds
    for part in split(polygon, LineString([(x, low - 1), (x, high + 1)])).geoms:
        for each in part.geoms if isinstance(part, MultiPolygon) else (part,):
            if isinstance(each, Polygon):
                yield from _without_holes(each)


def _class_of(properties: Any) -> str:
    said = properties.get("classification") if isinstance(properties, dict) else None
    name = said.get("name") if isinstance(said, dict) else said
    return name.strip()[:200] if isinstance(name, str) else ""


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())


def _is_negative(class_name: str) -> bool:
    """``Ignore*`` for every target, ``not NAME`` for one."""
    return _plain(class_name).startswith(("ignore", "not "))


def _is_other(class_name: str, target: str) -> bool:
    plain = _plain(class_name)
    if plain.startswith("not "):
        return plain == f"not {_plain(target)}" or not target
    return plain.startswith("ignore") or (bool(plain) and plain != _plain(target))
