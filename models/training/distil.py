"""What a teacher says of a batch, as something to learn beside the truth: soft answers, known only where the teacher agrees with itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tissuetalk.models.segmentation.layers import soft_dice
from tissuetalk.models.segmentation.pathsegmentor.mini import MiniPathSegmentor
from tissuetalk.models.training.recipes import DistilRecipe
from tissuetalk.models.training.sampler import Batch


@dataclass(frozen=True)
class SoftAnswers:
    """Probabilities at the temperature of ``told``, and where they may be learned.

    mask, mask_known, distance, distance_known: [B, S, h, w]. presence, presence_known: [B, S].
    """

    told: DistilRecipe
    mask: Tensor
    mask_known: Tensor
    distance: Tensor
    distance_known: Tensor
    presence: Tensor
    presence_known: Tensor


@torch.no_grad()
def soft_answers(teacher: MiniPathSegmentor, batch: Batch, told: DistilRecipe) -> SoftAnswers:
    """Mean of two looks: the crop as the student sees it, and mirrored in another staining.

    A question whose two masks overlap too little is not taught at all; of the others, pixels where the looks differ too much are not.
    """
    assert batch.again is not None, "the sampler of a distilling recipe draws it"
    with torch.autocast(batch.tiles.device.type, dtype=torch.bfloat16):
        one = teacher(batch.tiles, batch.text)
        other = teacher(batch.again.flip(-1), batch.text)
    first, second = one.mask.float(), other.mask.float().flip(-1)
    overlap = 1 - soft_dice((first > 0).float(), (second > 0).float())
    agreed = (overlap >= told.agreement).float()
    close = ((first.sigmoid() - second.sigmoid()).abs() <= told.tolerance).float()
    known = close * agreed[..., None, None]
    distance = (one.distance.float() + other.distance.float().flip(-1)) / 2
    presence = (one.presence.float() + other.presence.float()) / 2
    return SoftAnswers(
        told,
        ((first + second) / 2 / told.temperature).sigmoid(),
        known,
        (distance / told.temperature).sigmoid(),
        known * batch.objects[..., None, None],
        (presence / told.temperature).sigmoid(),
        agreed,
    )
