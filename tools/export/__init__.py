"""A finished result in the formats other software opens."""

from tissuetalk.tools.export.formats import FORMATS, export, resource, write_all_outlines, write_outlines

__all__ = ["FORMATS", "export", "resource", "write_all_outlines", "write_outlines"]
