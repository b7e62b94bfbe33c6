"""What is said about an id that is not there: always the same sentence, whether it is wrong, evicted or deleted."""

from __future__ import annotations

from tissuetalk.models.errors import UnknownImageError, UnknownJobError, UnknownResultError
from tissuetalk.tools.storage.workspace.ids import shown


def no_result(result_id: str) -> UnknownResultError:
    """The id was never given out, or its result was deleted or made room for newer ones."""
    return UnknownResultError(
        f"there is no result {shown(result_id)} (it may have been deleted, or removed to make room); "
        "list the results with library, or segment the image again"
    )


def no_image(image_id: str) -> UnknownImageError:
    """No image with this id was ever opened here, or its upload made room for newer results."""
    return UnknownImageError(
        f"there is no image {shown(image_id)} (an upload may have been removed to make room); "
        "list the images with library, give a path inside an allowed root, or upload it again"
    )


def no_job(job_id: str) -> UnknownJobError:
    """No job has this id, or it ended so long ago that its record was removed."""
    return UnknownJobError(
        f"there is no job {shown(job_id)}; use the job_id that came with the answer that started the work, "
        "or start the work again"
    )
