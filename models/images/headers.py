"""What a file's header may claim: how large an image may be before it is refused, and which µm per pixel are believed."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from math import isfinite

from tissuetalk.models.errors import ImageTooLargeError, UnreadableImageError


@dataclass(frozen=True)
class Limits:
    """Checked against the header, before any pixel is allocated.

    file_bytes: of any file. decoded_pixels: of an image that must be decoded as a whole (no tiles, no pyramid).
    slide_side and slide_pixels: of an image that is read tile by tile. segment_pixels: of one tile or strip.
    output_pixels: of one region handed back. directories: TIFF directories that are looked at.
    """

    file_bytes: int = 64 * 2**30
    decoded_pixels: int = 400_000_000
    slide_side: int = 500_000
    slide_pixels: int = 100_000_000_000
    segment_pixels: int = 64_000_000
    output_pixels: int = 100_000_000
    directories: int = 256

    def require_decodable(self, size: tuple[int, int], name: str) -> None:
        """Raise for an image (width, height) without pixels, or with more than may be decoded as a whole."""
        width, height = size
        if width < 1 or height < 1:
            raise UnreadableImageError(f"{name} has no pixels ({width} by {height}); save it again")
        if width * height > self.decoded_pixels or max(size) > self.slide_side:
            raise ImageTooLargeError(
                f"{name} has {width} by {height} pixels and must be decoded as a whole; the limit is "
                f"{self.decoded_pixels} pixels: crop it, or save it as a tiled pyramidal TIFF"
            )

    def require_readable_in_tiles(self, size: tuple[int, int], name: str) -> None:
        """Raise for an image (width, height) larger than any slide."""
        if max(size) > self.slide_side or size[0] * size[1] > self.slide_pixels:
            raise ImageTooLargeError(
                f"{name} claims {size[0]} by {size[1]} pixels; the limit is {self.slide_side} a side"
            )


DECODER_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    EOFError,
    MemoryError,
    RuntimeError,
    UserWarning,
    DeprecationWarning,
    struct.error,
    zlib.error,
)
"""What Pillow, tifffile and the codecs raise on damaged input; each is a refusal of that file, not a crash."""

PLAUSIBLE_MPP = (0.05, 20.0)
"""A microscope's range in µm/px; 72, 96 or 300 dpi (353, 265, 85 µm/px) are screen and print defaults."""

_MICRONS = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}
_INCH_UM, _CENTIMETRE_UM = 25_400.0, 10_000.0
# A pattern instead of an XML parser: no entity is expanded, no schema fetched.
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]{0,4000}>")
_ATTRIBUTE = re.compile(r"\b(SizeX|PhysicalSize[XY](?:Unit)?)\s*=\s*[\"']([^\"']{1,40})[\"']")


def plausible_mpp(mpp_x: float | None, mpp_y: float | None = None) -> float | None:
    """One µm/px for both directions, or None when it is missing, not a microscope's, or differs by over 5 %."""
    if mpp_x is None or not isfinite(mpp_x) or not PLAUSIBLE_MPP[0] <= mpp_x <= PLAUSIBLE_MPP[1]:
        return None
    if mpp_y is None:
        return mpp_x
    if not isfinite(mpp_y) or abs(mpp_x - mpp_y) > 0.05 * mpp_x:
        return None
    return (mpp_x + mpp_y) / 2


def mpp_from_dpi(dpi_x: float, dpi_y: float) -> float | None:
    """From dots per inch, when that is a microscope's resolution."""
    if dpi_x <= 0 or dpi_y <= 0:
        return None
    return plausible_mpp(_INCH_UM / dpi_x, _INCH_UM / dpi_y)


def mpp_from_tiff(per_unit_x: float, per_unit_y: float, unit: int) -> float | None:
    """From the TIFF tags XResolution, YResolution and ResolutionUnit (2 inch, 3 centimetre; 1 says nothing)."""
    length_um = {2: _INCH_UM, 3: _CENTIMETRE_UM}.get(unit)
    if length_um is None or per_unit_x <= 0 or per_unit_y <= 0:
        return None
    return plausible_mpp(length_um / per_unit_x, length_um / per_unit_y)


def mpp_from_ome(description: str, width: int) -> float | None:
    """PhysicalSizeX of the OME image that is ``width`` pixels wide; the unit defaults to µm."""
    for element in _PIXELS.findall(description):
        values = dict(_ATTRIBUTE.findall(element))
        if values.get("SizeX") == str(width) and "PhysicalSizeX" in values:
            size_x = _microns(values["PhysicalSizeX"], values.get("PhysicalSizeXUnit", "µm"))
            if "PhysicalSizeY" not in values:
                return plausible_mpp(size_x)
            return plausible_mpp(
                size_x, _microns(values["PhysicalSizeY"], values.get("PhysicalSizeYUnit", "µm"))
            )
    return None


def mpp_from_imagej(description: str, per_unit_x: float, per_unit_y: float) -> float | None:
    """ImageJ keeps the unit in its description and pixels per unit in the resolution tags."""
    unit = re.search(r"^unit=(\S{1,12})\s*$", description, re.MULTILINE)
    if not description.startswith("ImageJ=") or unit is None or per_unit_x <= 0 or per_unit_y <= 0:
        return None
    name = unit.group(1).replace("\\u00B5", "µ")  # ImageJ writes Java's escape
    size_x, size_y = _microns(str(1 / per_unit_x), name), _microns(str(1 / per_unit_y), name)
    return plausible_mpp(size_x, size_y)


def _microns(value: str, unit: str) -> float | None:
    try:
        return float(value) * _MICRONS[unit.replace("&#181;", "µ").replace("&#xB5;", "µ")]
    except (KeyError, ValueError):
        return None
