"""teach: images and what was drawn on them in, learned targets out, each a small file with a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tissuetalk.models.by_example import Learned
from tissuetalk.models.control import Control
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.prompts.names import prompt_of
from tissuetalk.tools.answers.arguments import ExampleArgument
from tissuetalk.tools.segment.field import scale_of
from tissuetalk.tools.segment.lessons import require_teachable
from tissuetalk.tools.segment.places import require_sound, shown_images
from tissuetalk.tools.segment.teaching import learn
from tissuetalk.tools.teach.drawn import Drawing

if TYPE_CHECKING:
    from tissuetalk.models.by_example.learned import Kind
    from tissuetalk.models.images import ImageSource
    from tissuetalk.tools.session import Session


@dataclass(frozen=True)
class DrawnOn:
    """An image and what was drawn on it."""

    image: Path
    drawing: Drawing


def paired(images: Sequence[Path], files: Sequence[Path]) -> list[DrawnOn]:
    """Every image with its file: in the order given, or all of one folder by their names.

    Raises InvalidArgumentError where it is not clear what was drawn on which image.
    """
    if len(files) == 1 and files[0].is_dir():
        named = {path.name.split(".")[0]: path for path in sorted(files[0].glob("*.geojson"))}
        missing = [image.name for image in images if image.name.split(".")[0] not in named]
        if missing:
            raise InvalidArgumentError(
                f"{files[0].name} has no annotations called {missing[0].split('.')[0]}.geojson; name the file as its image."
            )
        files = [named[image.name.split(".")[0]] for image in images]
    if len(files) != len(images):
        raise InvalidArgumentError(
            f"{len(images)} image(s) and {len(files)} file(s) of annotations; pass --examples once for each image, in the "
            "same order, or a folder of files called as the images."
        )
    return [DrawnOn(image, Drawing.read(file)) for image, file in zip(images, files, strict=True)]


def teach_classes(
    session: Session,
    drawn: Sequence[DrawnOn],
    classes: Mapping[str, str],
    *,
    model: str | None = None,
    mpp: float | None = None,
    kind: Kind | None = None,
    control: Control = Control(),
) -> list[Learned]:
    """One learned target for every name. classes: the class that is drawn for each name.

    Raises InvalidArgumentError for drawings that cannot be learned from, or that belong to another image.
    """
    segmenter = session.model(model)
    learned = []
    for number, (name, class_name) in enumerate(classes.items()):
        part = control.part(number / len(classes), (number + 1) / len(classes))
        examples = [
            example for each in drawn for example in each.drawing.examples(class_name, str(each.image))
        ]
        require_teachable(segmenter, examples)

        def scale(source: ImageSource, is_own: bool) -> float:
            return scale_of(source, mpp if source.mpp is None else None, segmenter).mpp

        with (
            session.open(drawn[0].image) as first,
            shown_images(session, first, examples, scale) as images,
        ):
            for each, image in zip(drawn, images, strict=False):
                require_of_image(each.drawing, image.source)
            require_sound(images)
            like = prompt_of(None, name, name)
            learned.append(learn(images, segmenter, name=name, like=like, kind=kind, control=part))
    return learned


def require_of_image(drawing: Drawing, source: ImageSource) -> None:
    """Raises InvalidArgumentError for what says that it was drawn on another image."""
    if drawing.image_id is not None and drawing.image_id != source.image_id:
        raise InvalidArgumentError(
            f"{drawing.file} was drawn on another image than {source.name}; pass the annotations of this one."
        )


def examples_on(file: Path, name: str, image: str, session: Session) -> tuple[ExampleArgument, ...]:
    """What a file of annotations says of a name, on an image of the session. Raises InvalidArgumentError."""
    drawing = Drawing.read(file)
    with session.open(image) as source:
        require_of_image(drawing, source)
    return tuple(drawing.examples(drawing.class_for(name)))
