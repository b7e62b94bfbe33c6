"""The head that judges a picture as a whole (scale, tissue or not), fitted last on features that no longer change.

During training it lags behind the features; and pictures that are no tissue are too rare there.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional

from tissuetalk.models.segmentation.pathsegmentor.mini import Features, MiniPathSegmentor
from tissuetalk.models.training.sampler import Sampler

COUNTER_SHARE = 0.35
BATCHES = 130
STEPS = 400
FIRST_BATCH = 10_000_000
"""Batches are drawn from steps that no training reaches."""


def fit_image_head(
    model: MiniPathSegmentor, sampler: Sampler, *, batches: int = BATCHES, steps: int = STEPS
) -> None:
    """Refit ``model.image_head`` in place on frozen features of augmented crops."""
    sampler.recipe = replace(sampler.recipe, counter_share=COUNTER_SHARE)
    model.eval()
    columns = []
    with torch.inference_mode():
        for step in range(FIRST_BATCH, FIRST_BATCH + batches):
            batch = sampler.batch(step)
            pooled = model.encode_image(batch.tiles).pooled.mean(1)
            columns.append((pooled, batch.scale, batch.scale_known, batch.tissue))
    pooled, scale, scale_known, tissue = (torch.cat(column).clone() for column in zip(*columns, strict=True))
    optimiser = torch.optim.AdamW(model.image_head.parameters(), lr=2e-3, weight_decay=0.05)
    model.image_head.train()
    for _ in range(steps):
        rows = torch.randint(len(pooled), (128,))
        features = Features(torch.empty(0), pooled[rows][:, None])
        guess, logit = model.describe_image(features)
        error = functional.smooth_l1_loss(guess, scale[rows], reduction="none") * scale_known[rows]
        loss = error.mean() + functional.binary_cross_entropy_with_logits(logit, tissue[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships this method untyped
        optimiser.step()
    model.eval()
