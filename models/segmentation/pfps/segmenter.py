"""A trained PFPs network at the seam of all models: whole units and all nuclei by words; the tool adds points and relations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tissuetalk.models.segmentation.open_vocabulary import OpenVocabulary
from tissuetalk.models.segmentation.pfps.card import CARD, MPP, UNIT_WORDS, WEIGHTS, KidneyUnits, target_of
from tissuetalk.models.segmentation.pfps.folder import load as load_folder
from tissuetalk.models.segmentation.pfps.language import UNITS
from tissuetalk.models.segmentation.pfps.network import Pfps
from tissuetalk.models.segmentation.pfps.training import pixels_of
from tissuetalk.models.segmentation.pretrained import device, to_size, weights_hash
from tissuetalk.models.segmenter import RGB, Context, Decoded, Prompt


class PfpsSegmenter(OpenVocabulary):
    """Answers tasks 1 (a kind of unit) and 2 (nuclei); all other tasks are algebra on these two."""

    card, repertoire = CARD, KidneyUnits()
    margin_px = 64
    objects = True

    def __init__(self, model: Pfps, *, weights_sha256: str) -> None:
        self.model = model.eval()
        self.tile_px = model.sizes.sam.image_px
        self.weights_sha256 = weights_sha256

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        return MPP

    def encode(self, tile: RGB, context: Context) -> tuple[Tensor, tuple[int, int]]:
        """Only the pixels: the request enters the image encoder, so there is nothing to share."""
        return pixels_of(tile, self.tile_px), (tile.shape[0], tile.shape[1])

    @torch.inference_mode()
    def decode(self, features: tuple[Tensor, tuple[int, int]], prompts: Sequence[Prompt]) -> list[Decoded]:
        pixels, (height, width) = features
        nowhere = torch.zeros(1, 2, device=device())
        unpointed = torch.zeros(1, dtype=torch.bool, device=device())
        decoded = []
        for prompt in prompts:
            logits = self.model(pixels, self._request(prompt), nowhere, unpointed)
            decoded.append(Decoded(to_size(logits[:, 1] - logits[:, 0], height, width)[0]))
        return decoded

    def _request(self, prompt: Prompt) -> Tensor:
        """[1, T, C]. Nuclei belong to no unit: by ID, the four units' requests are averaged."""
        target = target_of(prompt)
        if self.model.sizes.strategy == "text":
            said = UNIT_WORDS.get(target or "", "nucleus")
            vector: Tensor = self.model.request(
                [prompt.text if prompt.verbatim else f"Segment every {said}."]
            )
            return vector
        units = [UNITS.index(target)] if target in UNITS else list(range(len(UNITS)))
        tasks = torch.full((len(units),), 1 if target in UNITS else 2, device=device())
        rows: Tensor = self.model.request(torch.tensor(units, device=device()), tasks)
        return rows.mean(dim=0, keepdim=True)


def load(source: str | Path | None = None) -> PfpsSegmenter:
    """The network in a folder, by default the one TISSUETALK_PFPS names. Raises ModelUnavailableError."""
    folder = WEIGHTS.find(source)
    return PfpsSegmenter(load_folder(folder), weights_sha256=weights_hash(folder))
