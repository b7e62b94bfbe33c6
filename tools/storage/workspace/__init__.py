"""Results, images, cached features and jobs on disk: they survive a restart and a kill at any moment."""

from tissuetalk.tools.storage.workspace.database import new_id
from tissuetalk.tools.storage.workspace.jobs import JobRow, JobStore
from tissuetalk.tools.storage.workspace.results import StoredResult
from tissuetalk.tools.storage.workspace.workspace import Workspace

__all__ = ["JobRow", "JobStore", "StoredResult", "Workspace", "new_id"]
