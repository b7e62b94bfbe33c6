"""Reading images and whole slides: ``open_image`` gives an ``ImageSource``."""

from tissuetalk.models.images.files import CheckedFile, Limits
from tissuetalk.models.images.opening import open_image
from tissuetalk.models.images.source import Box, ImageSource, Level

__all__ = ["Box", "CheckedFile", "ImageSource", "Level", "Limits", "open_image"]
