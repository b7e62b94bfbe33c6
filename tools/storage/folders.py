"""Results in folders the user chose: measure and export without a workspace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tissuetalk.models import registry
from tissuetalk.models.errors import UnknownImageError, WorkspaceUnwritableError
from tissuetalk.models.images import ImageSource, open_image
from tissuetalk.tools.answers.explained import ExplainResult
from tissuetalk.tools.answers.results import MeasureResult
from tissuetalk.tools.drawing import drawing
from tissuetalk.tools.explain.explain import Access, explain
from tissuetalk.tools.explain.request import ExplainRequest
from tissuetalk.tools.export import export
from tissuetalk.tools.measure import measure
from tissuetalk.tools.storage.result_folder import ResultFolder


def measure_path(path: Path, metrics: Sequence[str] | None) -> MeasureResult:
    """Numbers for a folder written by ``tissuetalk segment``. Raises UnknownResultError and measure's errors."""
    folder = ResultFolder.existing(path)
    return measure.measure_folder(
        folder, metrics=metrics, mask_ids=None, open_image=lambda: _image_of(folder)
    )


def explain_path(
    path: Path, question: str | None, classifier: str | None = None, picture: Path | None = None
) -> ExplainResult:
    """Evidence for a folder written by ``tissuetalk segment``; its picture goes to ``picture`` (default: into the folder).

    Raises UnknownResultError, explain's errors, and WorkspaceUnwritableError where the picture cannot be written.
    """
    folder = ResultFolder.existing(path)
    request = ExplainRequest.of(question, classifier, folder.result())
    explained = explain(folder, request, Access(lambda: _image_of(folder), registry.load))
    if explained.picture is None:
        return explained.result
    target = picture or path / "explanation.png"
    maps = {mask_id: target.with_name(f"{target.stem}-{mask_id}.png") for mask_id in explained.maps}
    try:
        target.write_bytes(drawing.as_png(explained.picture))
        for mask_id, place in maps.items():
            place.write_bytes(drawing.as_png(explained.maps[mask_id]))
    except OSError as error:
        raise WorkspaceUnwritableError(
            f"cannot write {target}: {error.strerror}; pass --picture elsewhere."
        ) from error
    stability = [
        each.model_copy(update={"map": str(maps[each.mask_id])}) for each in explained.result.stability
    ]
    return explained.result.model_copy(update={"picture": str(target), "stability": stability})


def _image_of(folder: ResultFolder) -> ImageSource:
    """The image the result was made from, wherever the request said it lies; its content is checked."""
    path = Path(folder.request()["image"])
    if not path.is_file():
        raise UnknownImageError(f"the image {path} is gone; put it back: this needs its pixels.")
    return folder.require_same_image(open_image(path, name=path.name))


def export_path(path: Path, format: str, out: Path) -> Path:
    """Write the result of a folder in another format. Raises UnknownResultError and export's errors."""
    folder = ResultFolder.existing(path)
    return export(folder, format, out, lambda: _image_of(folder))
