"""Segment, measure, explain, look: one method per verb of the product's contract.

What a verb needs is imported by the verb: a server's first answer must not wait for the libraries of the others.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, Unpack

from tissuetalk.models import registry
from tissuetalk.models.control import Control
from tissuetalk.models.errors import (
    InvalidArgumentError,
    TissuetalkError,
    UnknownImageError,
)
from tissuetalk.models.images import ImageSource, open_image
from tissuetalk.models.segmenter import Segmenter
from tissuetalk.prompts.readers import make_reader
from tissuetalk.prompts.target import Reader
from tissuetalk.tools.answers.arguments import MAX_UPLOAD_BYTES, SegmentOptions
from tissuetalk.tools.answers.explained import ExplainResult
from tissuetalk.tools.answers.results import (
    Answer,
    LibraryResult,
    MeasureResult,
    ReadAs,
    SegmentAnswer,
    ViewResult,
)
from tissuetalk.tools.segment import grid
from tissuetalk.tools.session import library, results
from tissuetalk.tools.session.results import Segmentation, view_source
from tissuetalk.tools.storage.archives import Archive, Archives, archive_named, in_archive
from tissuetalk.tools.storage.copies import Copies
from tissuetalk.tools.storage.features import FeatureCache
from tissuetalk.tools.storage.result_folder import ResultFolder
from tissuetalk.tools.storage.roots import Roots
from tissuetalk.tools.storage.state import State
from tissuetalk.tools.storage.workspace import DEFAULT_QUOTA_BYTES, Workspace

if TYPE_CHECKING:
    from tissuetalk.tools.explain.request import ExplainRequest
    from tissuetalk.tools.segment.request import SegmentArguments, SegmentRequest
    from tissuetalk.tools.segment.schedule import MakeRunner

Place = str | Path | Segmentation
"""A result: its id in the workspace, a folder that the command line wrote (always a Path), or what segment gave."""


@dataclass(frozen=True)
class Stored:
    """A result while it is read. address: of one of its files, as answers name it."""

    folder: ResultFolder
    open_image: Callable[[], ImageSource]
    address: Callable[[str], str]


class Session:
    """Images in some folders, a workspace for results, a reader of words, models as they are needed.

    Holds no state about any image beyond what the workspace keeps on disk; any number of threads may call it.

    >>> with Session() as session:
    ...     found = session.segment("slide.png", "outline the glands", mpp=0.5)
    ...     found.masks[0].mask, found.masks[0].objects, found.overlay
    """

    def __init__(
        self,
        roots: str | Path | Sequence[str | Path] | None = None,
        workspace: str | Path | None = None,
        *,
        reader: str = "rules",
        slides: grid.SlideSettings | None = None,
        runner: MakeRunner | None = None,
        quota_bytes: int = DEFAULT_QUOTA_BYTES,
        state: State | None = None,
        archives: Sequence[Archive] = (),
        patience_s: float | None = None,
    ) -> None:
        """roots: the only folders images are read from, by default the current one; ``/`` and a home folder only where named.

        workspace: where results are kept; a temporary one, gone with the session, by default. reader: of words: rules,
        llm or hybrid. slides: when and how regions are worked on block by block. runner: who does the blocks, threads
        here by default. quota_bytes: what the workspace may hold. state: a database and a bucket that several servers share.
        archives: that may be asked for slides; copies of those may then take half of the quota. patience_s: how long a
        question waits for a slide on its way, then ``busy``; None for as long as it takes. Work with a control waits as that says.
        """
        self._scratch = None
        if workspace is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="tissuetalk-", ignore_cleanup_errors=True)
            workspace = self._scratch.name
        for_copies = quota_bytes // 2 if archives else 0
        self.workspace = Workspace(Path(workspace), quota_bytes=quota_bytes - for_copies, state=state)
        self.archives = Archives(archives)
        copies_folder = self.workspace.folder / "archive"
        self.copies = Copies(copies_folder, self.workspace.owners.folder, self.archives, for_copies)
        given = [roots] if isinstance(roots, str | Path) else [Path.cwd()] if roots is None else roots
        self.roots = Roots(
            [Path(each) for each in given],
            explicit=roots is not None,
            private=[self.workspace.uploads_folder],
            copies=self.copies,
            hidden=self.workspace.folder,
            lookup=self.workspace.image_path,
        )
        self.features = FeatureCache(self.workspace.cache)
        self.slides = slides or grid.SlideSettings()
        self.runner = runner
        self._patient = Control(patience_s=patience_s)
        self._reader = reader

    @cached_property
    def reader(self) -> Reader:
        return make_reader(self._reader)

    def model(self, name: str | None) -> Segmenter:
        """A model by name, loaded once per process when it is first needed. Raises ModelUnavailableError."""
        return registry.on_demand(name)

    def close(self) -> None:
        """Give the workspace back; a temporary one is removed."""
        self.copies.close()
        self.workspace.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def open(
        self, image: str | Path, *, name: str | None = None, control: Control | None = None
    ) -> ImageSource:
        """An image by path inside a root, or by image:// URI; it is remembered, so that its URI works later.

        name: what messages call it, in place of its path. control: stops the way of a slide from its archive.
        """
        source = self.roots.open(str(image), name=name, control=control or self._patient)
        try:
            self._remember(source)
        except TissuetalkError:
            source.close()
            raise
        return source

    def _remember(self, source: ImageSource) -> None:
        self.roots.register(source)
        if source.path is not None:
            self.workspace.remember_image(source.image_id, source.path)

    def upload(self, content: bytes | BinaryIO) -> dict[str, Any]:
        """Keep an uploaded image and say how to name it. Raises the reader's errors, and then keeps nothing."""
        stream = io.BytesIO(content) if isinstance(content, bytes) else content
        about: dict[str, Any] = {}

        def look(part: Path) -> None:
            with open_image(part, name="upload", alone=True) as source:
                size = {"width": source.width, "height": source.height}
                about.update(image_id=source.image_id, **size, mpp=source.mpp)

        path = self.workspace.store_upload(stream, ".img", MAX_UPLOAD_BYTES, look)
        self.workspace.remember_image(about["image_id"], path)
        return {"image": f"image://{about['image_id']}", **about}

    def segment(
        self,
        image: str | Path,
        words: str | None = None,
        *,
        control: Control = Control(),
        **options: Unpack[SegmentOptions],
    ) -> Segmentation:
        """Outline what the words name.

        Options as in the contract: targets, points, boxes, region, organ, mpp, model; examples, name, base_result.
        """
        from tissuetalk.tools.segment.request import SegmentArguments

        return self.segment_request(self.understand(SegmentArguments.of(image, words, **options)), control)

    def understand(self, arguments: SegmentArguments) -> SegmentRequest:
        """Words to targets; nothing is looked for yet. Raises what is wrong with the arguments or the words."""
        from tissuetalk.tools.segment.lessons import understand

        return understand(self, arguments)

    def read(
        self, image: str | Path, words: str | None = None, **options: Unpack[SegmentOptions]
    ) -> Answer[SegmentAnswer]:
        """What ``segment`` would look for, and how the words were read; nothing is segmented."""
        from tissuetalk.tools.segment.request import SegmentArguments

        return self.read_request(self.understand(SegmentArguments.of(image, words, **options)))

    def read_request(self, asked: SegmentRequest) -> Answer[SegmentAnswer]:
        """The answer of a dry run."""
        from tissuetalk.tools.segment.request import name_of, read_as

        request = asked.request
        wanted = [target for target in request.targets if target.assertion in ("present", "uncertain")]
        left = [target for target in request.targets if target not in wanted]
        notes = [
            f"would look for {name_of(target)} ({target.label or 'in words'}): {target.assertion}"
            for target in wanted
        ]
        notes += [f"would not look for {name_of(target)}: {target.assertion}" for target in left]
        answer = results.without_masks(
            self,
            asked,
            measures=[*request.measures, *request.place_measures],
            notes=[*notes, *request.notes],
            read_as=read_as(request),
        )
        text = ["dry run: nothing was segmented", *answer.notes, *results.read_lines(answer)]
        text += [f"warning {warning.code}: {warning.message}" for warning in answer.warnings]
        return Answer(answer, "\n".join(text))

    def segment_request(self, request: SegmentRequest, control: Control = Control()) -> Segmentation:
        """What was understood, or is stored with a result as its request."""
        from tissuetalk.tools.segment.request import read_as
        from tissuetalk.tools.segment.segment import segment

        result = segment(self, request, control)
        return self.result(result.result_id, read_as=read_as(request.request, result.masks))

    def result(self, place: str | Path, *, read_as: Sequence[ReadAs] = ()) -> Segmentation:
        """The answer of a finished segment, as it was first given. Raises UnknownResultError.

        read_as: how the sentences of a report were read, from whoever still has them: they are not kept with the result.
        """
        with self.reading(place) as stored:
            result = stored.folder.result()
            if read_as:
                result = result.model_copy(update={"read_as": list(read_as)})
            return results.segmentation(self, place, stored.folder.path, result, stored.address)

    def measure(
        self, result: Place, metrics: Sequence[str] | None = None, mask_ids: Sequence[str] | None = None
    ) -> Answer[MeasureResult]:
        """Numbers with units, each with its rule. By default all metrics that need no pixels, of all masks."""
        from tissuetalk.tools.measure import measure, pictures

        with self.reading(result) as stored:
            measured = measure.measure_folder(
                stored.folder, metrics=metrics, mask_ids=mask_ids, open_image=stored.open_image
            )
            picture = pictures.sheet(stored.folder.path, list(measured.pictures.values()))
            return measure.answer(measured, stored.address, picture)

    def explain(
        self,
        result: Place,
        question: str | None = None,
        classifier: str | None = None,
        *,
        picture: Path | None = None,
        control: Control = Control(),
    ) -> Answer[ExplainResult]:
        """Evidence. picture: where the picture of a result in a folder goes, explanation.png in the folder by default."""
        request = self.explain_request_of(result, question, classifier)
        if isinstance(result, Path):
            return self._explain_folder(result, request, picture, control)
        return self.explain_request(_id_of(result), request, control)

    def explain_request_of(
        self, result: Place, question: str | None = None, classifier: str | None = None
    ) -> ExplainRequest:
        """What a question about a result asks for. Raises UnknownMaskError and what is wrong with the classifier's name."""
        from tissuetalk.tools.explain.request import ExplainRequest

        if classifier is not None and not isinstance(result, Path):
            from tissuetalk.models.classifiers.card import classifier_in_roots

            classifier_in_roots(classifier, self.roots.paths)
        with self.reading(result) as stored:
            return ExplainRequest.of(question, classifier, stored.folder.result())

    def explain_request(
        self,
        result_id: str,
        request: ExplainRequest,
        control: Control = Control(),
    ) -> Answer[ExplainResult]:
        """Make the evidence and keep it with the result."""
        from tissuetalk.tools.explain import explain

        with self.reading(result_id, control) as stored:
            x0, y0, x1, y1 = stored.folder.result().image.region
            control.covers((x1 - x0) * (y1 - y0))
            access = explain.Access(stored.open_image, self.model, self.roots.paths, self.features)
            explained = explain.explain(stored.folder, request, access, control)
            explain.store(stored.folder, request, explained)
        return self.explanation(result_id, request)

    def explanation(self, result_id: str, request: ExplainRequest) -> Answer[ExplainResult]:
        """The answer of a finished explain, as it was first given. Raises UnknownResultError."""
        from tissuetalk.tools.explain import explain

        with self.reading(result_id) as stored:
            return results.explanation(explain.stored(stored.folder, request), stored.address)

    def _explain_folder(
        self, path: Path, request: ExplainRequest, picture: Path | None, control: Control
    ) -> Answer[ExplainResult]:
        from tissuetalk.tools.explain import explain

        with self.reading(path) as stored:
            access = explain.Access(stored.open_image, self.model)
            explained = explain.explain(stored.folder, request, access, control)
        return results.explanation_beside(explained, picture or path / "explanation.png")

    def view(
        self,
        image: str | None = None,
        result_id: str | None = None,
        *,
        region: Sequence[float] | None = None,
        mask_ids: Sequence[str] | None = None,
        grid: bool = False,
    ) -> Answer[ViewResult]:
        """A picture of an image, or of a result with its masks; grid names its pixels."""
        if (image is None) == (result_id is None):
            raise InvalidArgumentError(
                "pass either image or result_id: an image to look at, or a result to see its masks."
            )
        if image is not None:
            if mask_ids:
                raise InvalidArgumentError("mask_ids belong to a result; pass result_id instead of image.")
            with self.open(image) as source:
                return view_source(source, region=region, grid=grid)
        assert result_id is not None
        with self.reading(result_id) as stored, stored.open_image() as source:
            return view_source(source, region=region, grid=grid, folder=stored.folder, mask_ids=mask_ids)

    def library(
        self,
        action: str,
        *,
        result_id: str | None = None,
        format: str | None = None,
        folder: str | None = None,
        organ: str | None = None,
        name: str | None = None,
    ) -> Answer[LibraryResult]:
        """images, results: what is there. labels: what targets are called, in one organ or all. targets: what words can find.

        save: a result, or a taught target by its name, to a new folder in a root. delete: a result, forget: a taught target.
        """
        return library.library(self, action, result_id, format, folder, organ, name)

    def export(self, result: Place, format: str, out: Path, *, keep_identifiers: bool = False) -> Path:
        """Write a result to a new file in a format other software opens. Raises export's errors.

        keep_identifiers: of a DICOM slide's patient, and the name of the image's file; they are left out otherwise.
        """
        from tissuetalk.tools.export import export

        with self.reading(result) as stored:
            return export(stored.folder, format, out, stored.open_image, keep_identifiers=keep_identifiers)

    def store(self, result: Place, format: str, archive: str) -> str:
        """Send a result to the archive its slide lies in, as a DICOM object about that slide. Returns the object's UID.

        archive: ``dicomweb:NAME``. Raises InvalidArgumentError for another format or a slide from elsewhere, and what the archive says.
        """
        from tissuetalk.tools.export.archive import store

        with self.reading(result) as stored:
            return store(
                stored.folder,
                format,
                self.archives.named(archive_named(archive)),
                stored.open_image,
                self.copies,
            )

    def adopt(self, folder: Path) -> str:
        """Copy a result that the command line wrote into the workspace. Returns its id. Raises UnknownResultError."""
        result = ResultFolder.existing(folder).result()
        made_for_readers = ("objects.geojson", "explanation.png")
        self.workspace.import_result(folder, result.result_id, result.image.image_id, made_for_readers)
        return result.result_id

    def file(self, result: Place, path: str) -> bytes:
        """A file of a result by its relative address; derived files are made when first asked for."""
        with self.reading(result) as stored:
            return library.file_of(stored.folder, path, stored.open_image, stored.address)

    @contextmanager
    def reading(self, result: Place, control: Control | None = None) -> Iterator[Stored]:
        """A result that nobody removes while the block runs. control: of work that opens its image. Raises UnknownResultError."""
        if isinstance(result, Segmentation):
            result = result.place
        if isinstance(result, Path):
            folder = ResultFolder.existing(result)
            in_place = in_archive(folder.request()["image"])
            opener = partial(self._image_of, folder) if in_place else partial(image_anywhere, folder)
            yield Stored(folder, opener, lambda path: path)
            return
        name = result
        with self.workspace.reading(name) as stored:
            folder = ResultFolder(stored.folder)
            opener = partial(self._image_of, folder, control)
            yield Stored(folder, opener, lambda path: f"result://{name}/{path}")

    def _image_of(self, folder: ResultFolder, control: Control | None = None) -> ImageSource:
        """The image a result was made from; the content decides, not the name, which its reader need not know."""
        image_id = folder.result().image.image_id
        asked = folder.request()["image"]
        return folder.require_same_image(self.open(asked, name=image_id, control=control))


def image_anywhere(folder: ResultFolder) -> ImageSource:
    """The image of a result in a folder, wherever the request said it lies; its content is checked."""
    path = Path(folder.request()["image"])
    if not path.is_file():
        raise UnknownImageError(f"the image {path} is gone; put it back: this needs its pixels.")
    return folder.require_same_image(open_image(path, name=path.name))


def _id_of(result: str | Segmentation) -> str:
    return result.result.result_id if isinstance(result, Segmentation) else result
