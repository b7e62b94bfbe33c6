"""A plain U-Net of 1.6 million weights for one target, trained on the data that the shipped model was trained on.

What somebody would build in an afternoon: no words, no ImageNet, one network per target. It goes through the same crops,
augmentation and loop as the shipped model, for so many minutes, and goes on where it was stopped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.datasets.augment import counterexamples
from tissuetalk.models.datasets.sources import load
from tissuetalk.models.datasets.wordings import LEVELS
from tissuetalk.models.segmentation.layers import ConvNormAct
from tissuetalk.models.segmentation.pathsegmentor.card import OBJECT_TARGETS
from tissuetalk.models.segmentation.pathsegmentor.mini import normalise
from tissuetalk.models.segmentation.pathsegmentor.segmenter import padded
from tissuetalk.models.segmentation.pathsegmentor.splitting import split_objects, tidy
from tissuetalk.models.segmenter import RGB, Finished
from tissuetalk.models.training import mini
from tissuetalk.models.training.loop import TrainingRun, adamw, prepare_torch
from tissuetalk.models.training.recipes import MiniRecipe
from tissuetalk.models.training.sampler import STRIDE, Batch, Sampler

WIDTHS = (16, 32, 64, 128, 218)
RECIPE = Path(mini.__file__).parents[1] / "recipes" / "mini.yaml"
TEXT_WIDTH = 384
LEAST_SHARE = 0.01
"""Of the learning rate, at the end."""


class UNet(nn.Module):
    """[B, 3, H, W] pixels 0..255, H and W multiples of 16, to logits [B, H, W]."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.down = nn.ModuleList(_twice(i, o) for i, o in zip((3, *widths), widths, strict=False))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.narrow = nn.ModuleList(nn.Conv2d(below, width, 1) for below, width in pairs)
        self.up = nn.ModuleList(_twice(2 * width, width) for _, width in pairs)
        self.read = nn.Conv2d(widths[0], 1, 1)

    def forward(self, tiles: Tensor) -> Tensor:
        maps = [self.down[0](normalise(tiles))]
        for block in self.down[1:]:
            maps.append(block(functional.max_pool2d(maps[-1], 2)))
        x = maps.pop()
        for narrow, block in zip(self.narrow, self.up, strict=True):
            wide = functional.interpolate(narrow(x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = block(torch.cat([wide, maps.pop()], dim=1))
        logits: Tensor = self.read(x)[:, 0]
        return logits

    def found(self, tile: RGB, target: str) -> Finished:
        """What is there on a tile at the target's scale; objects are parted by the distance from their outline alone."""
        height, width = tile.shape[:2]
        with torch.inference_mode():
            logits = self.eval()(padded(tile))[0, :height, :width].numpy()
        mask = tidy(logits > 0, target)
        if target not in OBJECT_TARGETS:
            return Finished(mask, None, 1.0)
        instances = split_objects(mask, np.zeros_like(logits), target)
        return Finished(instances > 0, instances, 1.0)


def _twice(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(ConvNormAct(inside, outside), ConvNormAct(outside, outside))


class UNetRun(TrainingRun[Batch]):
    """One target of the shipped model's recipe."""

    log_every = 20

    def __init__(self, recipe: MiniRecipe, sampler: Sampler, out: Path) -> None:
        self.recipe, self.sampler, self.network = recipe, sampler, UNet()
        super().__init__(recipe, self.network, out, adamw(self.network, recipe), clip_norm=recipe.clip_norm)
        self.network.to(self.place)

    def batch(self, step: int) -> Batch:
        return self.sampler.batch(step)

    def done(self) -> float:
        assert self.recipe.minutes is not None, "this run is told how long"
        return min(1.0, self.seconds / (60 * self.recipe.minutes))

    def update(self, batch: Batch) -> dict[str, float]:
        warm = min(1.0, (self.step + 1) / max(1, self.recipe.warm_up_steps))
        fall = LEAST_SHARE + (1 - LEAST_SHARE) * 0.5 * (1 + math.cos(math.pi * self.done()))
        here = batch.to(self.place)
        self.network.train()
        with torch.autocast(self.place.type, dtype=torch.bfloat16):
            logits = self.network(here.tiles).float()
        seen = functional.avg_pool2d(logits[:, None], STRIDE)[:, 0]
        truth, known = here.mask[:, 0], here.mask_known[:, 0]
        loss = (mini.masked_bce(seen, truth, known) + mini.masked_dice(seen, truth, known)).mean()
        self.descend(loss, self.recipe.learning_rate * warm * fall)
        return {"loss": float(loss.detach())}


def trained(target: str, data: Path, out: Path, minutes: float, threads: int) -> UNet:
    """The network after so many minutes of training; the rest of them where it was stopped, none where it is done."""
    whole = MiniRecipe.read(RECIPE)
    mix = {entry: share for entry, share in whole.mix.items() if entry.partition("/")[2] == target}
    recipe = whole.model_copy(
        update={
            "name": f"U-Net, {target}",
            "data_root": data,
            "mix": mix,
            "minutes": minutes,
            "group_size": 1,
            "threads": threads,
        }
    )
    prepare_torch(recipe)
    sets = sorted({entry.partition("/")[0] for entry in mix})
    examples = [each for name in sets for each in load(data, name) if recipe.trains_on(each)]
    nothing = {target: {level: np.zeros((1, TEXT_WIDTH), np.float32) for level in LEVELS}}
    run = UNetRun(recipe, Sampler([*examples, *counterexamples(recipe.seed)], recipe, nothing), out)
    run.go(recipe.name)
    run.save()
    return run.network.to("cpu").eval()
