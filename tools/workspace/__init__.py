"""Results, images, cached features and jobs on disk: they survive a restart and a kill at any moment."""

from tissuetalk.tools.workspace.ids import new_id
from tissuetalk.tools.workspace.images import SeenImage
from tissuetalk.tools.workspace.jobs import CancelOutcome, JobRow, JobStore
from tissuetalk.tools.workspace.results import Draft, StoredResult
from tissuetalk.tools.workspace.store import Workspace

__all__ = [
    "CancelOutcome",
    "Draft",
    "JobRow",
    "JobStore",
    "SeenImage",
    "StoredResult",
    "Workspace",
    "new_id",
]
