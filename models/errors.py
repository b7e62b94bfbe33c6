"""Every error this package raises on purpose.

TissuetalkError
├── BadRequestError             the caller can fix it: the message says how
│   ├── UnknownImageError       unknown_image
│   ├── OutsideRootsError       outside_roots
│   ├── UnreadableImageError    unreadable_image
│   ├── ImageTooLargeError      image_too_large
│   ├── ImageChangedError       image_changed
│   ├── InvalidArgumentError    invalid_argument
│   ├── UnknownLabelError       unknown_label
│   ├── NoTargetInWordsError    no_target_in_words
│   ├── PointOutsideImageError  point_outside_image
│   ├── UnknownResultError      unknown_result
│   ├── UnknownMaskError        unknown_mask
│   └── UnknownJobError         unknown_job
├── ResourceError               the operator must fix it
│   ├── ModelUnavailableError   model_unavailable
│   ├── WorkspaceFullError      workspace_full
│   └── WorkspaceUnwritableError workspace_unwritable
└── InterruptedWorkError        nobody's fault: try again
    ├── BusyError               busy
    └── CancelledError          cancelled

The codes are fixed by the product's contract; ``str(error)`` never repeats the code and always says what to do next.
"""

from __future__ import annotations

from typing import ClassVar

LONGEST_SHOWN = 160


def shown(foreign: str) -> str:
    """Text of others, such as a file's name, inside a message: in quotation marks that it cannot close, on one line, cut."""
    cut = foreign if len(foreign) <= LONGEST_SHOWN else f"{foreign[:LONGEST_SHOWN]}…"
    return f"“{''.join(each if each.isprintable() and each not in '“”' else '?' for each in cut)}”"


class TissuetalkError(Exception):
    """Root of the tree; ``code`` is what an assistant can act on."""

    code: ClassVar[str] = "error"


class BadRequestError(TissuetalkError):
    """The caller can fix it."""

    code = "invalid_argument"


class UnknownImageError(BadRequestError):
    code = "unknown_image"


class OutsideRootsError(BadRequestError):
    code = "outside_roots"


class UnreadableImageError(BadRequestError):
    code = "unreadable_image"


class ImageTooLargeError(BadRequestError):
    code = "image_too_large"


class ImageChangedError(BadRequestError):
    code = "image_changed"


class InvalidArgumentError(BadRequestError):
    code = "invalid_argument"


class UnknownLabelError(BadRequestError):
    code = "unknown_label"


class NoTargetInWordsError(BadRequestError):
    code = "no_target_in_words"


class PointOutsideImageError(BadRequestError):
    code = "point_outside_image"


class UnknownResultError(BadRequestError):
    code = "unknown_result"


class UnknownMaskError(BadRequestError):
    code = "unknown_mask"


class UnknownJobError(BadRequestError):
    code = "unknown_job"


class NotPermittedError(BadRequestError):
    """Of a server with accounts: the caller is known, and may not do this."""

    code = "not_permitted"


class ResourceError(TissuetalkError):
    """The operator must fix it: a missing weight file, a full disk.

    place: which folder or file; for the operator and the log, never told to a caller over the protocol.
    """

    code = "model_unavailable"

    def __init__(self, message: str, place: str | None = None) -> None:
        super().__init__(message)
        self.place = place


class ModelUnavailableError(ResourceError):
    code = "model_unavailable"


class WorkspaceFullError(ResourceError):
    code = "workspace_full"


class WorkspaceUnwritableError(ResourceError):
    code = "workspace_unwritable"


class InterruptedWorkError(TissuetalkError):
    """The work stopped before it was done; asking again is right."""

    code = "busy"


class BusyError(InterruptedWorkError):
    code = "busy"


class StateAwayError(BusyError):
    """The database or the bucket that several servers share does not answer; nothing of the call was kept."""


class CancelledError(InterruptedWorkError):
    code = "cancelled"
