"""How much a mask depends on its wording: the same target said in other words, over the same features.

Source: spec prompt_groups.md section 9 (E11). The sentences are the test split of our own bank, one per quality level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.data.wordings import Wording as Rephrasing
from tissuetalk.models.data.wordings import rephrasings
from tissuetalk.models.evaluation.robustness import agreement
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.interface import Capability, Prompt, Segmenter
from tissuetalk.tools import engine
from tissuetalk.tools.features import FeatureCache
from tissuetalk.tools.measure import name_of
from tissuetalk.tools.results import Mask, Stability, Wording


@dataclass(frozen=True)
class Rephrased:
    """The answer for one mask, and [H, W] where the wordings split, 0 to 1 (None when wording plays no part)."""

    answer: Stability
    uncertainty: NDArray[np.float32] | None


def rephrase(
    mask: Mask,
    model: Segmenter,
    source: ImageSource,
    *,
    features: FeatureCache | None = None,
    stop: engine.Stop = lambda: False,
) -> Rephrased:
    """Ask for the mask's target three more times, in low, medium and high quality wording.

    Points, boxes and relations are left out: the whole target is compared. Raises CancelledError.
    """
    name = name_of(mask)
    said = Prompt(mask.label, mask.free_form or mask.evidence, mask.prompt)
    capability = model.capability(said)
    if model.card.prompts != "text" or capability is None:
        statement = f"{name}: {model.card.name} does not read words, so no wording can change the mask."
        return Rephrased(
            Stability(
                mask_id=mask.mask_id,
                name=name,
                reliability=None,
                wordings=[],
                disputed_fraction=None,
                statement=statement,
            ),
            None,
        )
    others = rephrasings(capability.target)
    found = _ask(said, [other.text for other in others], capability, mask, model, source, features, stop)
    return _compared(mask.mask_id, name, others, found)


def _ask(
    said: Prompt,
    sentences: Sequence[str],
    capability: Capability,
    mask: Mask,
    model: Segmenter,
    source: ImageSource,
    features: FeatureCache | None,
    stop: engine.Stop,
) -> list[NDArray[np.bool_]]:
    """The mask as it was asked for, then one per sentence."""
    prompts = [said, *(Prompt(said.label, said.words, sentence, verbatim=True) for sentence in sentences)]
    record = mask.provenance
    found = engine.look_for(
        model,
        source,
        Box.from_sequence(record.region),
        record.mpp,
        [(prompt, capability) for prompt in prompts],
        features=features,
        stop=stop,
    )
    return [each.mask for each in found]


def _compared(
    mask_id: str, name: str, others: Sequence[Rephrasing], masks: Sequence[NDArray[np.bool_]]
) -> Rephrased:
    compared = agreement(masks)
    disputed = float((compared.uncertainty > 0).mean())
    wordings = [
        Wording(quality=other.level, sentence=other.text, dice=float(with_stored))
        for other, with_stored in zip(others, compared.pairwise_dice[0, 1:], strict=True)
    ]
    statement = (
        f"{name}: {len(masks)} wordings agree with a mean Dice of {compared.mean:.3f}; "
        f"{disputed:.2%} of the region is marked by some of them only."
    )
    return Rephrased(
        Stability(
            mask_id=mask_id,
            name=name,
            reliability=round(compared.mean, 4),
            wordings=wordings,
            disputed_fraction=round(disputed, 5),
            statement=statement,
        ),
        compared.uncertainty,
    )
