"""What a call means before anything is looked for: words, examples, names that were taught, and results to correct."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from tissuetalk.models.by_example import Learned
from tissuetalk.models.errors import InvalidArgumentError, NoTargetInWordsError, shown
from tissuetalk.models.images import ImageSource
from tissuetalk.models.segmenter import Repertoire, is_situated
from tissuetalk.prompts.lexicon import names_nobody
from tissuetalk.prompts.names import prompt_for
from tissuetalk.prompts.prompt_sets import words_of_tasks
from tissuetalk.prompts.target import Reader, Request, Target
from tissuetalk.prompts.taught import named_in, same_thing, target_of_name
from tissuetalk.prompts.words import clean
from tissuetalk.tools.answers.arguments import ExampleArgument
from tissuetalk.tools.segment.places import ScaleOf, contradict, require_sound, shown_images
from tissuetalk.tools.segment.request import (
    RULED_OUT,
    Lesson,
    SegmentArguments,
    SegmentRequest,
    name_of,
    read_request,
    reference_of,
    with_places,
    with_references,
)
from tissuetalk.tools.storage.targets import key_of

if TYPE_CHECKING:
    from tissuetalk.tools.session import Session

UNNAMED = "what was shown"
LONGEST_TITLE = 60
LONGEST_SENTENCE = 300
"""Characters of a request that goes to a network as it stands; more than that is no single sentence."""
MOST_IN_ALL = 1_000
"""Examples of one target, with those of the results it corrects."""
ASSUMED_MPP = 0.5


def understand(session: Session, asked: SegmentArguments) -> SegmentRequest:
    """Words to targets, examples to lessons.

    Raises InvalidArgumentError, UnknownLabelError, NoTargetInWordsError, the reader's errors, and for a correction
    UnknownResultError.
    """
    if asked.base_result is not None:
        return _correction(session, asked, asked.base_result)
    if asked.examples or asked.name is not None:
        return _shown(session, asked)
    model = session.model(asked.model)
    kept = kept_for(session, model)
    request = read_with_names(session.reader, asked, model, kept)
    request = replace(request, notes=(*request.notes, *_taught_on_others(session, request, model)))
    if is_situated(model) and not asked.targets:
        request = replace(request, sentence=_own_sentence(request, asked.words or ""))
    return SegmentRequest(asked.image, request, asked.region, asked.mpp, asked.model)


def _own_sentence(request: Request, words: str) -> str:
    """What the caller said, as it stands, where it is more than the name of what to look for.

    It becomes part of the record, so it is left out where it could name a person or say a date.
    """
    said, only = words.strip(), [target for target in request.targets if target.assertion not in RULED_OUT]
    is_name = len(only) == 1 and said.casefold() in (name_of(only[0]).casefold(), only[0].label)
    if request.kind == "report" or is_name or not only or len(said) > LONGEST_SENTENCE:
        return ""
    public = names_nobody(said, 0, len(said), words_of_tasks()) and not any(
        letter.isdigit() for letter in said
    )
    return said if public else ""


def kept_for(session: Session, model: Repertoire) -> list[Learned]:
    """The targets of the workspace that were taught on this model, newest first."""
    kept = [each.learned for each in session.workspace.targets.listed() if each.learned is not None]
    return [each for each in kept if each.base == model.card.name]


def _taught_on_others(session: Session, request: Request, model: Repertoire) -> list[str]:
    """Where a target was taught, but on another model than the one that is asked."""
    kept = [each.learned for each in session.workspace.targets.listed() if each.learned is not None]
    others = [each for each in kept if each.base != model.card.name]
    return [
        f"{shown(each.name)} was taught on {each.base}; pass model={each.base!r} to find it"
        for each in others
        if any(
            not target.learned
            and target.assertion not in RULED_OUT
            and same_thing(each.name, target)
            and model.capability(prompt_for(target)) is None
            for target in request.targets
        )
    ]


def read_with_names(
    reader: Reader, asked: SegmentArguments, model: Repertoire, kept: Sequence[Learned]
) -> Request:
    """The words, in which names that were taught mean what was taught where the model knows nothing of that name.

    Raises what ``read_request`` does.
    """
    if asked.learned and not asked.words and not asked.targets:  # a file that was named is what to look for
        by_sha256 = {each.sha256: each for each in kept}
        chosen = [by_sha256[sha256] for sha256 in asked.learned if sha256 in by_sha256]
        targets = tuple(Target(None, each.name, evidence=each.name, learned=each.sha256) for each in chosen)
        return Request("request", targets, asked.organ)
    names = [] if asked.targets else named_in(asked.words or "", [each.name for each in kept])
    try:
        request = _read(reader, asked)
    except NoTargetInWordsError:
        if not names:
            raise
        request = _nothing_read(asked)
    if not kept:
        return request
    missing = [name for name in names if not any(same_thing(name, target) for target in request.targets)]
    added = [target_of_name(reader, asked.words or "", name, asked.organ) for name in missing]
    return replace(request, targets=_with_names((*request.targets, *added), asked, model, kept))


def _with_names(
    targets: Sequence[Target], asked: SegmentArguments, model: Repertoire, kept: Sequence[Learned]
) -> tuple[Target, ...]:
    """The targets, those that mean a taught one saying so; references of relations that do so behind them."""
    if not kept:
        return tuple(targets)
    named, at = [], len(targets)
    for place, each in enumerate(with_references(targets)):
        sha256 = _means(each, asked, model, kept)
        if sha256 is not None:
            named.append(replace(each, learned=sha256, ambiguous=""))
        elif place < at:
            named.append(each)
    return tuple(named)


def _means(target: Target, asked: SegmentArguments, model: Repertoire, kept: Sequence[Learned]) -> str | None:
    """SHA-256 of the learned target that this one means, if it does."""
    if target.assertion in RULED_OUT:
        return None
    named = [each for each in kept if same_thing(each.name, target)]
    chosen = [each for each in named if each.sha256 in asked.learned]
    if not chosen and model.capability(prompt_for(target)) is not None:
        return None
    return next((each.sha256 for each in (*chosen, *named)), None)


def _read(reader: Reader, asked: SegmentArguments) -> Request:
    return read_request(
        reader,
        words=asked.words,
        targets=asked.targets,
        points=asked.points,
        boxes=asked.boxes,
        organ=asked.organ,
    )


def _nothing_read(asked: SegmentArguments) -> Request:
    """The request of words that name nothing, with the places that were passed."""
    return with_places(Request("request", organ=asked.organ), asked.points, asked.boxes)


def _shown(session: Session, asked: SegmentArguments) -> SegmentRequest:
    """Examples of what the words mean, or a name alone that was taught before."""
    model = session.model(asked.model)
    require_teachable(model, asked.examples)
    try:
        request = _read(session.reader, asked) if asked.words or asked.targets else _nothing_read(asked)
    except NoTargetInWordsError:
        request = _nothing_read(asked)
    subject = _subject(request, asked.name, model)
    title = asked.name or (name_of(subject) if subject is not None else _title(asked.words))
    learned = ""
    if not asked.examples:
        learned = _kept_under(session, title, model).sha256
    taught = replace(
        subject or Target(None, title, evidence=title, reason="shown by examples"),
        words=title,
        relation=None,
        ambiguous="",
        learned=learned,
    )
    if asked.name is not None and subject is not None and not same_thing(asked.name, subject):
        taught = replace(taught, label=None)
    others = [target for target in request.targets if target is not subject]
    if asked.examples and subject is not None and reference_of(subject, others) is not None:
        note = "the examples say what is meant, so its relation to other structures was left aside"
        request = replace(request, notes=(*request.notes, note))
    named = _with_names(others, asked, model, kept_for(session, model))
    request = replace(request, targets=(taught, *named))
    lessons = (Lesson(tuple(asked.examples), keep_as=asked.name),) if asked.examples else ()
    order = SegmentRequest(asked.image, request, asked.region, asked.mpp, asked.model, lessons)
    _require_sound(session, order)
    return order


def _subject(request: Request, name: str | None, model: Repertoire) -> Target | None:
    """The target of the words that is shown: the one that is called so, else the first that no model knows, else the first."""
    named = [
        target for target in request.targets if target.assertion not in RULED_OUT and not target.surveyed
    ]
    if name is not None:
        called = [target for target in named if same_thing(name, target)]
        return called[0] if called else named[0] if len(named) == 1 else None
    unknown = [target for target in named if model.capability(prompt_for(target)) is None]
    return next(iter([*unknown, *named]), None)


def _title(words: str | None) -> str:
    """What to call something whose words no reader understands."""
    return clean(words or "")[:LONGEST_TITLE].strip() or UNNAMED


def _kept_under(session: Session, name: str, model: Repertoire) -> Learned:
    for each in session.workspace.targets.listed():
        if each.learned is None or key_of(each.learned.name) != key_of(name):
            continue
        if each.learned.base != model.card.name:
            raise InvalidArgumentError(
                f"{shown(name)} was taught on {each.learned.base}; pass model={each.learned.base!r}, or teach it again."
            )
        return each.learned
    raise InvalidArgumentError(
        f"nothing that was taught is called {shown(name)}; library(action='targets') lists what is, and examples teach it."
    )


def require_teachable(model: Repertoire, examples: Sequence[ExampleArgument]) -> None:
    """Raises InvalidArgumentError for a model that only knows places, and where nothing shows what is meant."""
    if not examples:
        return
    _require_few(examples)
    if model.card.prompts == "boxes and points":
        raise InvalidArgumentError(
            f"{model.card.name} outlines what a box holds and cannot be taught; leave model out to teach by examples."
        )
    if not any(each.is_it for each in examples):
        raise InvalidArgumentError(
            "every example says where it is not; add at least one that shows where it is (is: true)."
        )


def _require_few(examples: Sequence[ExampleArgument]) -> None:
    if len(examples) > MOST_IN_ALL:
        raise InvalidArgumentError(
            f"{len(examples)} examples, with those of results before; at most {MOST_IN_ALL} are learned from. Pass the most "
            "telling ones: a few teach as much as many that are alike."
        )


def _require_sound(session: Session, order: SegmentRequest) -> None:
    """What is wrong with the examples is said now, not when the work begins."""
    with session.open(order.image) as source:
        for lesson in order.lessons:
            with shown_images(session, source, lesson.examples, _known_scale(order)) as images:
                require_sound(images)


def _known_scale(order: SegmentRequest) -> ScaleOf:
    """µm per pixel as far as somebody said it; here a guess will do, which loads no model."""
    return lambda source, is_own: (order.mpp if is_own else None) or source.mpp or ASSUMED_MPP


def _correction(session: Session, asked: SegmentArguments, base_result: str) -> SegmentRequest:
    """The order of an earlier result with further examples: a result of its own."""
    with session.reading(base_result) as stored:
        order, result = SegmentRequest.from_json(stored.folder.request()), stored.folder.result()
    for field in ("region", "mpp", "model"):
        if getattr(asked, field) not in (None, getattr(order, field)):
            raise InvalidArgumentError(
                f"a correction keeps the {field} of its base_result; leave {field} out."
            )
    if asked.points or asked.boxes:
        raise InvalidArgumentError(
            "a correction is said with examples: box or point with is: true to add, is: false to take away."
        )
    at = _corrected(session, asked, order)
    target = order.request.targets[at]
    earlier = next((lesson for lesson in order.lessons if lesson.target == at), None)
    made = any(
        mask.evidence == target.evidence
        and mask.label == target.label
        and (mask.label or mask.free_form == target.words)
        for mask in result.masks
    )
    with session.open(asked.image) as source:
        if source.image_id != result.image.image_id:
            raise InvalidArgumentError(
                f"{base_result} is of another image; pass the image it was made from, or leave base_result out."
            )
        lesson = _continued(
            session, asked, order, source, Lesson((), at, teaches=not made) if earlier is None else earlier
        )
    if lesson.teaches and lesson.keep_as is not None:
        target = replace(target, words=lesson.keep_as, learned="")
    targets = [target if place == at else each for place, each in enumerate(order.request.targets)]
    request = replace(order.request, targets=tuple(targets))
    lessons = [each for each in order.lessons if each is not earlier]
    corrected = replace(
        order, image=asked.image, request=request, lessons=(*lessons, lesson), parent=base_result
    )
    _require_sound(session, corrected)
    return corrected


def _continued(
    session: Session, asked: SegmentArguments, order: SegmentRequest, source: ImageSource, earlier: Lesson
) -> Lesson:
    """An earlier lesson with the examples of this call; where they contradict, the later ones hold."""
    if not asked.examples and not (asked.name is not None and earlier.teaches and earlier.examples):
        raise InvalidArgumentError(
            "nothing to correct: pass examples, places to add (is: true) or to take away (is: false); a name alone is for "
            "a result that examples have taught."
        )
    teaches = earlier.teaches or asked.name is not None
    examples = (*earlier.examples, *asked.examples)
    _require_few(examples)
    with shown_images(session, source, examples, _known_scale(order)) as images:
        dropped = {
            old.number
            for image in images
            for old in image.examples
            if old.number <= len(earlier.examples)
            and any(new.number > len(earlier.examples) and contradict(old, new) for new in image.examples)
        }
    kept = tuple(each for number, each in enumerate(examples, start=1) if number not in dropped)
    if teaches:
        require_teachable(session.model(order.model), kept)
    return Lesson(kept, earlier.target, teaches, earlier.holds or bool(asked.examples), asked.name)


def _corrected(session: Session, asked: SegmentArguments, order: SegmentRequest) -> int:
    """The place of the target that is corrected: what the words or the name say, the taught one, or the only one."""
    there = [at for at, each in enumerate(order.request.targets) if each.assertion not in RULED_OUT]
    said = [Target(None, asked.name)] if asked.name is not None else []
    if asked.words or asked.targets:
        with suppress(NoTargetInWordsError):  # "that one is wrong" names nothing
            said += _read(session.reader, asked).targets
    for name in said:
        for at in there:
            target = order.request.targets[at]
            if same_thing(name.words, target) or (name.label is not None and name.label == target.label):
                return at
    taught = [lesson.target for lesson in order.lessons]
    for only in (taught, there):
        if len(only) == 1:
            return only[0]
    names = ", ".join(shown(name_of(order.request.targets[at])) for at in there) or "nothing"
    raise InvalidArgumentError(
        f"say with words which of its masks is corrected; {asked.base_result} has: {names}."
    )
