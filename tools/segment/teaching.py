"""What examples and taught names add to a run: the model that also knows them, places that hold, and what records say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tissuetalk.models.by_example import Learned, Place, Shown, far_from, teach, with_examples
from tissuetalk.models.by_example.learned import LONGEST_NAME
from tissuetalk.models.control import Control
from tissuetalk.models.errors import InvalidArgumentError, shown
from tissuetalk.models.images import ImageSource
from tissuetalk.models.segmenter import Prompt, Segmenter
from tissuetalk.models.writing import write_whole
from tissuetalk.prompts.names import prompt_for
from tissuetalk.prompts.target import Request, Target
from tissuetalk.prompts.taught import is_name_of_a_label
from tissuetalk.tools.answers.results import ExamplePlace, Mask, Taught, Warned
from tissuetalk.tools.segment.field import scale_of
from tissuetalk.tools.segment.places import ShownImage, shown_images
from tissuetalk.tools.segment.request import Lesson, SegmentRequest, name_of
from tissuetalk.tools.storage.targets import read_learned

if TYPE_CHECKING:
    from tissuetalk.models.by_example.learned import Kind
    from tissuetalk.tools.session import Session
    from tissuetalk.tools.storage.result_folder import ResultFolder

FOLDER = "learned"
"""Of a result: the learned targets its masks were made with, each ``<sha256>.safetensors``."""
SUFFIX = "+examples"
ONE_SIDED = (
    "only places where it is were shown, so what is least like them was taken for something else; one or two examples with "
    "is: false, of what is most like it, make it better"
)


@dataclass(frozen=True)
class RunLessons:
    """base: the model without them. model: with them. request: its targets say which learned target they mean.

    held: by the place of a target, the places that its mask must have, or not have, on the image of the run.
    far: why what was learned may not hold here.
    """

    base: Segmenter
    model: Segmenter
    request: Request
    learned: tuple[Learned, ...] = ()
    lessons: tuple[Lesson, ...] = ()
    held: Mapping[int, Sequence[Place]] = field(default_factory=dict)
    far: tuple[Warned, ...] = ()
    parent: str | None = None

    def __bool__(self) -> bool:
        return bool(self.learned or self.lessons)

    @cached_property
    def _by_sha256(self) -> dict[str, Learned]:
        return {each.sha256: each for each in self.learned}

    def lesson_of(self, target: Target) -> Lesson | None:
        return next((each for each in self.lessons if self.request.targets[each.target] == target), None)

    def held_of(self, target: Target) -> Sequence[Place]:
        lesson = self.lesson_of(target)
        return () if lesson is None else self.held.get(lesson.target, ())

    def taught(self, target: Target) -> Taught | None:
        """What the record of a mask says of how it was shown; None where the model knew it by itself."""
        learned, lesson = self._by_sha256.get(target.learned), self.lesson_of(target)
        if learned is None and lesson is None:
            return None
        name = name_of(target)
        known = self.base.capability(prompt_for(replace(target, learned=""))) is not None
        if learned is not None and (lesson is None or lesson.teaches):
            card = learned.card
            positive, negative, images = card.positive, card.negative, card.images
        else:
            assert lesson is not None, "one of the two is there"
            positive = sum(each.is_it for each in lesson.examples)
            negative = len(lesson.examples) - positive
            images = len({each.image for each in lesson.examples})
        return Taught(
            name=name,
            positive=positive,
            negative=negative,
            images=images,
            expected_dice=None if learned is None else learned.card.expected_dice,
            interval=None if learned is None else learned.card.interval,
            learned_sha256=None if learned is None else learned.sha256,
            is_label=known or is_name_of_a_label(name),
        )

    def made_by(self, target: Target) -> tuple[str, str]:
        """Name and weights' hash of what made a mask; of one that was shown, of the model with what was shown."""
        learned = self._by_sha256.get(target.learned)
        if learned is not None:
            alone = with_examples(self.base, [learned])
            return alone.card.name, alone.weights_sha256
        suffix = SUFFIX if self.lesson_of(target) is not None else ""
        return f"{self.base.card.name}{suffix}", self.base.weights_sha256

    def examples_of(self, target: Target) -> list[ExamplePlace]:
        lesson = self.lesson_of(target)
        return [] if lesson is None else [ExamplePlace(**each.model_dump()) for each in lesson.examples]

    def write(self, folder: Path) -> tuple[str, ...]:
        """The learned targets beside the masks of a result; the paths of their files."""
        paths = []
        for each in self.learned:
            path = folder / FOLDER / f"{each.sha256}.safetensors"
            path.parent.mkdir(exist_ok=True)
            write_whole(path, each.to_bytes())
            paths.append(str(path))
        return tuple(paths)

    def keep(self, session: Session) -> None:
        """What the caller gave a name, once its result is there."""
        for lesson in self.lessons:
            if lesson.keep_as is not None:
                session.workspace.targets.keep(self._by_sha256[self.request.targets[lesson.target].learned])


def take_lessons(
    session: Session, order: SegmentRequest, model: Segmenter, source: ImageSource, control: Control
) -> RunLessons:
    """Learn what was shown and find what was learned before. source: of the order, open during the run.

    Raises InvalidArgumentError for what cannot be learned from, for what is gone, and for what was taught on other weights.
    """
    if not order.lessons and not any(target.learned for target in order.request.targets):
        return RunLessons(model, model, order.request)

    def scale(of: ImageSource, is_own: bool) -> float:
        given = order.mpp if is_own or of.mpp is None else None
        return scale_of(of, given, model).mpp

    targets = list(order.request.targets)
    kept = {target.learned: _find(session, target.learned) for target in targets if target.learned}
    far = [
        Warned(
            code="low_agreement",
            message=f"{shown(each.name)} was taught elsewhere: {why}; look before you quote it.",
        )
        for each in kept.values()
        if (why := far_from(each, source, scale(source, True))) is not None
    ]
    far += [
        Warned(code="low_agreement", message=f"{name_of(targets[lesson.target])}: {ONE_SIDED}.")
        for lesson in order.lessons
        if lesson.teaches and all(each.is_it for each in lesson.examples)
    ]
    held: dict[int, list[Place]] = {}
    learned = dict(kept)
    for number, lesson in enumerate(order.lessons):
        part = control.part(number / len(order.lessons), (number + 1) / len(order.lessons))
        part.report(0.0, "learning from the examples")
        with shown_images(session, source, lesson.examples, scale) as images:
            if lesson.teaches:
                target = targets[lesson.target]
                like = prompt_for(replace(target, learned=""))
                name = lesson.keep_as or name_of(target)[:LONGEST_NAME]
                taught = learn(images, model, name=name, like=like, control=part)
                learned[taught.sha256] = taught
                targets[lesson.target] = replace(target, learned=taught.sha256)
            if lesson.holds:
                held[lesson.target] = [
                    one.place
                    for image in images
                    if image.source.image_id == source.image_id
                    for one in image.examples
                ]
    used = [learned[sha256] for sha256 in dict.fromkeys(target.learned for target in targets) if sha256]
    request = replace(order.request, targets=tuple(targets))
    taught_model = with_examples(model, used) if used else model
    return RunLessons(
        model, taught_model, request, tuple(used), order.lessons, held, tuple(far), order.parent
    )


def learn(
    images: Sequence[ShownImage],
    model: Segmenter,
    *,
    name: str,
    like: Prompt,
    kind: Kind | None = None,
    control: Control = Control(),
) -> Learned:
    """What the examples show. like: what its name means to the model, where it means anything."""
    shown_places = [Shown(each.source, each.mpp, [one.place for one in each.examples]) for each in images]
    known = like if model.capability(like) is not None else None
    return teach(model, shown_places, name=name, kind=kind, like=known, control=control)


def _find(session: Session, sha256: str) -> Learned:
    """Of those that are kept, or beside a result that was made with it."""
    if (learned := session.workspace.targets.by_sha256(sha256)) is not None:
        return learned
    if (path := session.workspace.learned_in_results(sha256)) is not None:
        found = read_learned(path)
        if found.sha256 == sha256:
            return found
    raise InvalidArgumentError(
        "what was taught under that name has been forgotten or taught anew meanwhile; ask again, or show examples."
    )


def model_of(folder: ResultFolder, mask: Mask, load: Callable[[str], Segmenter]) -> Segmenter:
    """The model that made a mask of a stored result; what it was taught lies beside the mask."""
    base = load(mask.provenance.model.removesuffix(SUFFIX))
    if mask.taught is None or mask.taught.learned_sha256 is None:
        return base
    learned = read_learned(folder.path / FOLDER / f"{mask.taught.learned_sha256}.safetensors")
    return with_examples(base, [learned])
