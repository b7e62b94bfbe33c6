"""Results, images, cached features and jobs on disk: they survive a restart and a kill at any moment."""

from tissuetalk.tools.storage.workspace.ids import new_id
from tissuetalk.tools.storage.workspace.images import SeenImage
from tissuetalk.tools.storage.workspace.jobs import CancelOutcome, JobRow, JobStore
from tissuetalk.tools.storage.workspace.results import Draft, StoredResult
from tissuetalk.tools.storage.workspace.store import Workspace

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
