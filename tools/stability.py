"""How much a mask depends on its wording: the same target said in other words, over the same features.

Source: spec prompt_groups.md section 9 (E11). The sentences are the test split of our own bank, one per quality level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.data.wordings import Wording as Rephrasing
from tissuetalk.models.data.wordings import rephrasings
from tissuetalk.models.evaluation.scores import dice
from tissuetalk.models.images import Box, ImageSource
from tissuetalk.models.interface import Capability, Prompt, Segmenter
from tissuetalk.tools import engine
from tissuetalk.tools.features import FeatureCache
from tissuetalk.tools.measure import name_of
from tissuetalk.tools.results import Mask, Stability, Wording


@dataclass(frozen=True)
class Rephrased:
    """The answer for one mask, and [H, W] the share of wordings that mark each pixel (None when wording plays no part)."""

    answer: Stability
    agreement: NDArray[np.float32] | None


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
    agreement: NDArray[np.float32] = np.asarray(np.mean(masks, axis=0, dtype=np.float32))
    reliability = float(np.mean([dice(one, other) for one, other in combinations(masks, 2)]))
    disputed = float(((agreement > 0) & (agreement < 1)).mean())
    wordings = [
        Wording(quality=other.level, sentence=other.text, dice=dice(masks[0], seen))
        for other, seen in zip(others, masks[1:], strict=True)
    ]
    statement = (
        f"{name}: {len(masks)} wordings agree with a mean Dice of {reliability:.3f}; "
        f"{disputed:.2%} of the region is marked by some of them only."
    )
    return Rephrased(
        Stability(
            mask_id=mask_id,
            name=name,
            reliability=round(reliability, 4),
            wordings=wordings,
            disputed_fraction=round(disputed, 5),
            statement=statement,
        ),
        agreement,
    )
