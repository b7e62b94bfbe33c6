"""The tools as one thing to call: the same for Python, the server and the command line."""

from tissuetalk.tools.session.results import Segmentation, SegmentedMask
from tissuetalk.tools.session.session import Session

__all__ = ["Segmentation", "SegmentedMask", "Session"]
