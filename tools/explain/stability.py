"""How much a mask depends on its wording and on how the picture was taken, and where.

Wordings share the features the mask was made from. Pictures have to be encoded again, so one look at everything is
changed in all ways at once, and each change alone is tried where that look differed most.
Source of the wordings: spec prompt_groups.md section 9; the sentences are the test split of our own bank.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.control import Control
from tissuetalk.models.datasets.wordings import BankSentence, rephrasings
from tissuetalk.models.images import Box
from tissuetalk.models.metrics.robustness import agreement
from tissuetalk.models.metrics.scores import dice
from tissuetalk.models.segmenter import TAUGHT, Capability, Context, Prompt, Segmenter
from tissuetalk.prompts.names import prompt_of
from tissuetalk.prompts.taxonomy import Label, pathsegmentor_prompt
from tissuetalk.tools.answers.explained import PictureChange, Stability, UnsurePlace, Wording
from tissuetalk.tools.answers.reliability import level_of, reliability_of
from tissuetalk.tools.answers.results import Mask
from tissuetalk.tools.explain import windows
from tissuetalk.tools.explain.perturbations import KINDS, TOGETHER, Perturbation, PerturbedSegmenter
from tissuetalk.tools.segment import engine
from tissuetalk.tools.segment.field import FieldOfView

MOST_WORKING_PX = 1024 * 1024
"""Largest part, in pixels at the model's scale, that is looked at again; of a larger region the part with most outline."""
CLOSE_LOOK_PX = 320
"""Side of the part on which each change is tried alone, in pixels at the model's scale."""
MOST_PLACES, PLACE_SHARE, LEAST_DISPUTED = 3, 6, 0.05
"""Unsure places named, the fraction of the window's side they have, the least share of disputed pixels in one."""

Mask2D = NDArray[np.bool_]


def asked_again(mask: Mask) -> Prompt:
    """What a mask's model was sent, by its record; early records hold the sentence of the label, whatever was sent."""
    if mask.taught is not None and mask.taught.learned_sha256 is not None:
        return Prompt(mask.label, mask.name, mask.name, True, f"{TAUGHT}{mask.taught.learned_sha256}")
    by_label = None if mask.label is None else pathsegmentor_prompt(Label.parse(mask.label))
    verbatim = mask.prompt not in ("", by_label)
    return prompt_of(mask.label, mask.free_form or mask.evidence, mask.prompt, verbatim=verbatim)


@dataclass(frozen=True)
class CheckedMask:
    """The answer for one mask, with [H, W] 0..1 where the answers split over ``window``."""

    answer: Stability
    window: Box
    uncertainty: NDArray[np.float32]


@dataclass(frozen=True)
class Looks:
    """Masks of one target over a window: as asked, in other words, and of the picture changed in all ways at once."""

    stored: Mask2D
    expected_dice: float
    reworded: list[Mask2D]
    together: Mask2D
    presence: float

    @cached_property
    def uncertainty(self) -> NDArray[np.float32]:
        """[H, W] 0..1, where they split."""
        return agreement([self.stored, *self.reworded, self.together]).uncertainty

    @property
    def wording_agreement(self) -> float | None:
        """Mean Dice of every pair of wordings; None when the model reads no words."""
        return agreement([self.stored, *self.reworded]).mean if self.reworded else None

    @property
    def agreement(self) -> float:
        """Wording and picture weigh the same."""
        with_picture = dice(self.stored, self.together)
        words = self.wording_agreement
        return with_picture if words is None else (words + with_picture) / 2

    @property
    def signal(self) -> float:
        """What reliability is read from: a mask has to be stable and its pixels sure, one alone is not enough."""
        return self.agreement * self.expected_dice


class StabilityCheck:
    """One model on one image; what both need is prepared once. field: its region plays no part.

    context: of the image, where it is not to be computed from it.
    """

    def __init__(
        self, field: FieldOfView, control: Control = Control(), context: Context | None = None
    ) -> None:
        self.field, self.control, self.context = field, control, context
        self._prepared: dict[float, Segmenter] = {}

    def of(self, mask: Mask, painted: Mask2D) -> CheckedMask:
        """Ask for the mask's target again in other words and on changed pictures.

        painted: [h, w] the stored mask at any scale. Points, boxes and relations are left out: the whole target is
        compared. Raises CancelledError.
        """
        model, mpp = self.field.model, self.field.scale.mpp
        said = asked_again(mask)
        capability = model.capability(said)
        assert capability is not None, "the mask was made by this model"
        window, zoom = Box.from_sequence(mask.provenance.region), mpp / capability.mpp
        if window.width * window.height * zoom * zoom > MOST_WORKING_PX:
            side = round(MOST_WORKING_PX**0.5 / zoom)
            window = windows.busiest(windows.edges(painted), window, side, side)
        reads = bool(model.sent(said)) and not (said.concept or "").startswith(TAUGHT)
        others = rephrasings(capability.target) if reads else ()
        looks = self.looks(said, capability, others, window)
        changes = self._alone(said, capability, looks, window)
        return CheckedMask(_answer(mask, looks, others, changes, window), window, looks.uncertainty)

    def looks(
        self, said: Prompt, capability: Capability, others: Sequence[BankSentence], window: Box
    ) -> Looks:
        """The masks that reliability is computed from."""
        prompts = [said, *(replace(said, text=other.text, verbatim=True) for other in others)]
        stored, *reworded = self._found(window, prompts, capability)
        (together,) = self._found(window, [said], capability, TOGETHER)
        expected = stored.expected_dice or 0.0
        return Looks(stored.mask, expected, [each.mask for each in reworded], together.mask, stored.presence)

    def _alone(self, said: Prompt, capability: Capability, looks: Looks, window: Box) -> list[PictureChange]:
        """Each change by itself where the answers differ most, against the unchanged picture of the same part."""
        side = max(16, round(CLOSE_LOOK_PX * capability.mpp / self.field.scale.mpp))
        # where nothing is disputed the outline decides, not the top left corner
        weight = looks.uncertainty + 0.05 * windows.edges(looks.stored)
        part = windows.busiest(np.asarray(weight, np.float32), window, side, side)
        (plain,) = self._found(part, [said], capability)
        changes = []
        for kind in KINDS:
            (found,) = self._found(part, [said], capability, kind)
            same, place = round(float(dice(plain.mask, found.mask)), 4), part.as_list()
            changes.append(PictureChange(kind=kind.name, change=kind.words, region=place, dice=same))
        return changes

    def _found(
        self,
        region: Box,
        prompts: Sequence[Prompt],
        capability: Capability,
        change: Perturbation | None = None,
    ) -> list[engine.FoundMask]:
        """One answer per prompt. Only the picture as it is has features worth keeping: nobody asks for the others again."""
        if capability.mpp not in self._prepared:
            context = self.context or self.field.context(capability.mpp / self.field.scale.mpp)
            # the same model, which already knows the image's statistics; its features are found under the same key
            self._prepared[capability.mpp] = copy.copy(self.field.model)
            setattr(self._prepared[capability.mpp], "prepare", lambda overview: context)  # noqa: B010
        model = self._prepared[capability.mpp]
        field = self.field.changed(
            region=region,
            model=model if change is None else PerturbedSegmenter(model, change),
            features=self.field.features if change is None else None,
        )
        asked = [(prompt, capability) for prompt in prompts]
        return engine.find_masks(field, asked, Control(stop=self.control.stop))


def _answer(
    mask: Mask,
    looks: Looks,
    others: Sequence[BankSentence],
    changes: list[PictureChange],
    window: Box,
) -> Stability:
    if mask.taught is not None:
        reliability = mask.taught.expected_dice
    else:
        reliability = reliability_of(
            mask.provenance.weights_sha256,
            "explain",
            looks.signal,
            presence=mask.presence,
            target=mask.target,
        )
    weakest, words = min(changes, key=lambda change: change.dice), looks.wording_agreement
    values = [round(float(dice(looks.stored, reworded)), 4) for reworded in looks.reworded]
    wordings = [
        Wording(quality=other.level, sentence=other.text, dice=value)
        for other, value in zip(others, values, strict=True)
    ]
    answer = Stability(
        mask_id=mask.mask_id,
        name=mask.name,
        reliability=reliability,
        level=None if reliability is None else level_of(reliability),
        agreement=round(looks.agreement, 4),
        wordings=wordings,
        wording_agreement=None if words is None else round(words, 4),
        changes=changes,
        most_sensitive_to=weakest.kind if weakest.dice < 0.99 else None,
        disputed_fraction=round(float((looks.uncertainty > 0).mean()), 5),
        unsure=_places(looks, window),
        checked_region=window.as_list(),
        statement="",
    )
    picture = float(dice(looks.stored, looks.together))
    return answer.model_copy(update={"statement": _statement(answer, picture, weakest, mask)})


def _statement(answer: Stability, picture: float, weakest: PictureChange, mask: Mask) -> str:
    """picture: agreement with the picture changed in all ways at once."""
    unknown = "too few examples to say" if mask.taught is not None else "never calibrated for this model"
    sure = (
        f"reliability unknown ({unknown})"
        if answer.reliability is None
        else f"reliability {answer.reliability:.2f} ({answer.level}; the Dice to expect against an expert)"
    )
    worded = (
        f"{'what was taught' if mask.taught else mask.provenance.model} does not read words, so no wording can change it"
        if answer.wording_agreement is None
        else f"other wordings agree to {answer.wording_agreement:.2f}"
    )
    moved = f", most sensitive to {weakest.kind} ({weakest.dice:.2f})" if answer.most_sensitive_to else ""
    whole = answer.checked_region == mask.provenance.region
    part = "" if whole else f"; checked on {answer.checked_region} only"
    presence = f"; presence is only {mask.presence:.2f}" if mask.presence < 0.8 else ""
    return f"{answer.name}: {sure}; {worded}; changed pictures agree to {picture:.2f}{moved}{presence}{part}."


def _places(looks: Looks, window: Box) -> list[UnsurePlace]:
    """The parts with most disputed pixels, and whether outlines move there or whole objects come and go."""
    # a pixel counts as disputed however few answers disagree
    disputed = (looks.uncertainty > 0).astype(np.float32)
    side = max(8, min(window.width, window.height) // PLACE_SHARE)
    outline = cv2.dilate(windows.edges(looks.stored), np.ones((7, 7), np.uint8)) > 0
    places = []
    for box, share in windows.hot_spots(disputed, window, side, MOST_PLACES, LEAST_DISPUTED):
        part = windows.inside(box, window, disputed.shape)
        of_outline = float((disputed[part] * outline[part]).sum() / max(1.0, disputed[part].sum()))
        # half of the disputed pixels, in one wording alone
        by_words = any((looks.stored[part] != other[part]).mean() > share / 2 for other in looks.reworded)
        what = "the outline moves" if of_outline > 0.6 else "whole objects or areas come and go"
        when = "with the wording" if by_words else "when the picture changes a little"
        places.append(UnsurePlace(box=box.as_list(), share=round(share, 3), why=f"{what} {when}"))
    return places
