"""What words can find here: the model's own targets, and those that were taught; a taught one as a file for others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tissuetalk.models import registry
from tissuetalk.models.by_example import Learned
from tissuetalk.models.errors import InvalidArgumentError, shown
from tissuetalk.models.writing import write_whole
from tissuetalk.prompts.taught import is_name_of_a_label
from tissuetalk.tools.answers.results import ListedTarget
from tissuetalk.tools.storage.targets import key_of

if TYPE_CHECKING:
    from tissuetalk.tools.session.session import Session


def listed_targets(session: Session) -> dict[str, Any]:
    """The default model's targets, then what was taught, newest first."""
    model = registry.repertoire()
    found = [ListedTarget(name=name, source="shipped", model=model.card.name) for name in model.card.targets]
    kept = session.workspace.targets.listed()
    for each in kept:
        if each.learned is None:
            problem = f"{each.problem}; the operator can look with tissuetalk doctor --workspace"
            found.append(ListedTarget(name=each.path.name, source="taught", model="", problem=problem))
            continue
        created = each.created_at.isoformat(timespec="seconds")
        found.append(listing_of(each.learned).model_copy(update={"created_at": created}))
    message = (
        f"{len(model.card.targets)} target(s) that {model.card.name} knows, {len(kept)} taught by example. "
        "segment(image, words) finds them by name; examples with a name teach another."
    )
    return {"message": message, "targets": found}


def listing_of(learned: Learned) -> ListedTarget:
    """What a list says of it."""
    card = learned.card
    own = {key_of(name) for name in registry.repertoire().card.targets}
    return ListedTarget(
        name=learned.name,
        source="taught",
        model=learned.base,
        kind=learned.kind,
        positive=card.positive,
        negative=card.negative,
        images=card.images,
        expected_dice=card.expected_dice,
        interval=card.interval,
        learned_sha256=learned.sha256,
        is_label=is_name_of_a_label(learned.name) or key_of(learned.name) in own,
    )


def forget(session: Session, name: str | None) -> dict[str, Any]:
    """The name means nothing any more; results that were made with it stay."""
    if name is None:
        raise InvalidArgumentError("pass name: of the taught target; library(action='targets') lists them.")
    session.workspace.targets.forget(name)
    return {"message": f"{shown(name)} is forgotten; results made with it stay as they are."}


def kept_as(session: Session, name: str) -> Learned:
    """What is kept under a name. Raises InvalidArgumentError."""
    for each in session.workspace.targets.listed():
        if each.learned is not None and key_of(each.learned.name) == key_of(name):
            return each.learned
    raise InvalidArgumentError(
        f"no taught target is called {shown(name)}; library(action='targets') lists them."
    )


def write_learned(learned: Learned, path: Path) -> list[str]:
    """The file, and beside it a card that people read. Their names."""
    card = path.with_suffix(".md")
    write_whole(path, learned.to_bytes())
    write_whole(card, card_of(learned))
    return sorted((path.name, card.name))


def card_of(learned: Learned) -> str:
    """What a colleague should know before using it."""
    card = learned.card
    good = (
        "too few examples to say (one of a kind)"
        if card.expected_dice is None or card.interval is None
        else f"Dice {card.expected_dice:.2f} ({card.interval[0]:.2f} to {card.interval[1]:.2f}), leaving one example out at a time"
    )
    scales = ", ".join(f"{mpp:.3g}" for mpp in dict.fromkeys(card.taught_at_mpp))
    return "\n".join(
        [
            f"# {learned.name}",
            "",
            "A target taught by example. Research use only.",
            "",
            f"- shown: {card.positive} places of it and {card.negative} of other things, on {card.images} image(s)",
            f"- expected: {good}",
            f"- kind: {learned.kind}" + (f", among the {learned.objects_of}" if learned.objects_of else ""),
            f"- made for: {learned.base}, weights {learned.base_sha256[:12]}",
            f"- taught at: {scales} µm per pixel; works at {learned.mpp:.3g}",
            f"- SHA-256: {learned.sha256}",
            "",
            "Use it: `tissuetalk segment IMAGE --learned FILE --out DIR`. On slides of another stain or scale it warns.",
            "",
        ]
    )
