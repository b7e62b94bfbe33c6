"""Images and masks in tiles, and an object's numbers: what a viewer asks for while somebody pans and zooms."""

from tissuetalk.tools.view.viewing import Viewing

__all__ = ["Viewing"]
