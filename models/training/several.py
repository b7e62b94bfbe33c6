"""One run on several GPUs: started with ``accelerate launch $(which tissuetalk) train RECIPE``.

Every process takes its share of each batch; gradients are brought together before each step. Only the first process writes.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

from torch import nn


class ProcessShare(NamedTuple):
    """Which of how many processes this one is."""

    rank: int
    processes: int

    @property
    def first(self) -> bool:
        return self.rank == 0


@lru_cache(maxsize=1)
def share() -> ProcessShare:
    """Of this process; joins the others the first time it is asked. Alone where nobody launched several."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return ProcessShare(0, 1)
    accelerate: Any = import_module("accelerate")  # untyped
    state = accelerate.PartialState(
        cpu=os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    )
    return ProcessShare(state.process_index, state.num_processes)


def bring_together(network: nn.Module) -> None:
    """Replace every gradient by its mean over all processes."""
    accelerate: Any = import_module("accelerate.utils")  # untyped
    for weight in network.parameters():
        if weight.requires_grad:
            # a part that only one process needed has no gradient in the others, and all must take part
            if weight.grad is None:
                weight.grad = weight.new_zeros(weight.shape)
            weight.grad = accelerate.reduce(weight.grad, reduction="mean")
