"""A finished result in the formats other software opens."""

from tissuetalk.tools.export.formats import FORMATS, export

__all__ = ["FORMATS", "export"]
