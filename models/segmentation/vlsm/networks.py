"""The four models by name: where their weights come from, how pictures and words are prepared, and how they are trained.

Losses and optimisers have the settings of the paper and of the code released later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.segmentation import clipseg
from tissuetalk.models.segmentation.layers import soft_dice
from tissuetalk.models.segmentation.pretrained import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    device,
    fill,
    from_hub,
    normalised,
    read_tensors,
    resized,
    token_table,
    tokenizer_from,
)
from tissuetalk.models.segmentation.vlsm.card import CNNS, CnnName
from tissuetalk.models.segmentation.vlsm.clipseg import LEGACY_LAYERS, BiomedClipSeg, BiomedSizes, ClipSeg
from tissuetalk.models.segmentation.vlsm.cnn import pretrained_cnn
from tissuetalk.models.segmentation.vlsm.cris import THRESHOLD, Cris, CrisSizes
from tissuetalk.models.segmenter import RGB

Preset = Literal["paper", "released"]
WordsName = Literal["clipseg", "cris", "biomedclipseg", "biomedclipseg-d"]
Name = WordsName | CnnName
NAMES: Final[tuple[WordsName, ...]] = get_args(WordsName)
CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)
CLIPSEG: Final = "CLIPSegForImageSegmentation"
ADVICE: Final = "give the published file"
_UNUSED: Final = (
    "logit_scale",
    "backbone.logit_scale",
    "text.transformer.embeddings.position_ids",
    "text.transformer.pooler.",
)


class Vlsm(nn.Module):
    """A network with its tokenizer. Pictures of any size and words in, logits at the network's own size out."""

    def __init__(self, name: Name, network: Any, tokenizer: Any, *, side_px: int, context: int) -> None:
        """tokenizer: None for a network that reads no words. context: tokens a sentence is cut to."""
        super().__init__()
        self.name: Name = name
        self.network = network
        self.tokenizer = tokenizer
        self.side_px = side_px
        self.context = context
        self.threshold = THRESHOLD if name == "cris" else 0.5

    def forward(self, images: Sequence[RGB], texts: Sequence[str]) -> Tensor:
        """[B, S, S] logits."""
        return self.answer(self.see(images), texts)

    def see(self, images: Sequence[RGB]) -> Any:
        """What the network reads of pictures, for any number of questions about each."""
        clip = self.name != "clipseg" and self.name not in CNNS
        mean, std = (CLIP_MEAN, CLIP_STD) if clip else (IMAGENET_MEAN, IMAGENET_STD)
        pixels = [normalised(resized(one, self.side_px, self.side_px), mean, std) for one in images]
        return self.network.see(torch.cat(pixels))

    def answer(self, seen: Any, texts: Sequence[str]) -> Tensor:
        """[B, S, S] logits, one text a picture."""
        if self.tokenizer is None:
            blind: Tensor = self.network.answer(seen)
            return blind[:, 0]
        lines = [
            self.tokenizer(text, truncation=True, max_length=self.context)["input_ids"] for text in texts
        ]
        where = next(self.network.parameters()).device
        tokens, padding = (table.to(where) for table in token_table(lines))
        logits: Tensor = self.network.answer(seen, tokens, ~padding)
        return logits[:, 0]

    @torch.inference_mode()
    def segment(self, image: RGB, text: str) -> Mask:
        """[H, W] mask at the image's own size: Dice is computed there, as in the paper."""
        self.eval()
        # Probabilities are enlarged, not logits: the threshold is one of probability.
        probability = self([image], [text])[:, None].sigmoid()
        grown = functional.interpolate(probability, image.shape[:2], mode="bilinear", align_corners=False)
        return np.asarray((grown[0, 0] > self.threshold).cpu().numpy())

    def freeze(self, *, train_encoders: bool) -> None:
        """Only what is below the encoders learns, unless ``train_encoders``."""
        self.requires_grad_(True)
        if not train_encoders:
            for part in self.network.encoders:
                part.requires_grad_(False)

    def train(self, mode: bool = True) -> Vlsm:
        """Frozen encoders keep their normalisation statistics."""
        super().train(mode)
        for part in self.network.encoders:
            if not any(weight.requires_grad for weight in part.parameters()):
                part.eval()
        return self


def build(
    name: Name,
    *,
    weights: str | None = None,
    tokenizer: str | None = None,
    decoder: str | None = None,
    legacy_layers: bool = False,
    sizes: CrisSizes | BiomedSizes | None = None,
) -> Vlsm:
    """A model with published weights, ready for zero-shot use or training. Raises ModelUnavailableError.

    weights: hub id or folder (CLIPSeg, ResNet-50 of the baselines), checkpoint file (CRIS, BiomedCLIP's open_clip file). tokenizer: folder; by default
    beside the weights (for CRIS that of CLIPSeg). decoder: CLIPSeg's hub id or folder, for -D. sizes: for other than the
    published size.
    """
    network: Any
    if name in CNNS:
        network = pretrained_cnn(name, weights)
        return Vlsm(name, network.to(device()), None, side_px=network.sizes.side_px, context=0)
    if name == "clipseg":
        loaded, folder = from_hub(CLIPSEG, clipseg.WEIGHTS, weights)
        network, words = ClipSeg(loaded), tokenizer_from(Path(tokenizer) if tokenizer else folder, name)
        vision, text = loaded.config.vision_config, loaded.config.text_config
        side, context = vision.image_size, text.max_position_embeddings
    elif name == "cris":
        shape = sizes if isinstance(sizes, CrisSizes) else CrisSizes()
        network = Cris(shape)
        fill(network, _used(_file(name, weights)), name, ADVICE)
        words = tokenizer_from(Path(tokenizer) if tokenizer else clipseg.WEIGHTS.find(), name)
        side, context = shape.side_px, shape.clip.context
    else:
        form = sizes if isinstance(sizes, BiomedSizes) else BiomedSizes()
        if legacy_layers:
            form = BiomedSizes(**{**vars(form), "layers": LEGACY_LAYERS})
        file = _file(name, weights)
        network = BiomedClipSeg(form)
        fill(network, _used(file), name, ADVICE, needed=lambda key: key.startswith(("visual.", "text.")))
        if name == "biomedclipseg-d":
            published, _ = from_hub(CLIPSEG, clipseg.WEIGHTS, decoder)
            fill(network.decoder, published.decoder.state_dict(), name, ADVICE)
        words = tokenizer_from(Path(tokenizer) if tokenizer else file.parent, name)
        side, context = form.side_px, form.context
    return Vlsm(name, network.to(device()), words, side_px=side, context=context)


def _file(name: str, weights: str | None) -> Path:
    what = (
        "a CRIS checkpoint" if name == "cris" else "open_clip_pytorch_model.bin or .safetensors of BiomedCLIP"
    )
    if weights is None or not Path(weights).expanduser().is_file():
        raise ModelUnavailableError(f"{name}: give weights, the path of {what}; nothing is downloaded")
    return Path(weights).expanduser()


def _used(file: Path) -> dict[str, Tensor]:
    """The weights of a file that the networks here have a place for. ``net.`` is how the paper's own runs save them."""
    weights = {key.removeprefix("net."): value for key, value in read_tensors(file).items()}
    return {key: value for key, value in weights.items() if not key.startswith(_UNUSED)}


@dataclass(frozen=True)
class TrainingSettings:
    """rate: of the decoder; encoder_rate: of trained encoders. dice, cross: weights of the two losses."""

    dice: float
    cross: float
    rate: float
    encoder_rate: float
    patience: int
    decay: float = 0.0
    clip_norm: float | None = None
    batch: int = 16


SETTINGS: Final[dict[tuple[Preset, bool], TrainingSettings]] = {
    ("paper", False): TrainingSettings(1.0, 0.2, 1e-3, 1e-3, 50),
    ("paper", True): TrainingSettings(0.0, 1.0, 1e-5, 1e-6, 10),
    ("released", False): TrainingSettings(1.0, 0.2, 2e-4, 2e-4, 50, decay=1e-3, clip_norm=0.5),
    ("released", True): TrainingSettings(0.0, 1.0, 2e-5, 2e-5, 10, decay=1e-3, clip_norm=0.5),
}
"""By preset and whether the model is CRIS."""
CNN_SETTINGS: Final[dict[Preset, TrainingSettings]] = {
    "paper": TrainingSettings(1.0, 0.0, 1e-3, 1e-3, 50),
    "released": TrainingSettings(1.0, 0.0, 2e-4, 2e-4, 50, decay=1e-3, clip_norm=0.5),
}


def settings_of(model: Vlsm, preset: Preset) -> TrainingSettings:
    return SETTINGS[preset, model.name == "cris"]


def vlsm_loss(logits: Tensor, truth: Tensor, settings: TrainingSettings) -> Tensor:
    """Weighted soft Dice and cross-entropy of [B, S, S] logits; truth in 0..1."""
    dice = soft_dice(logits.sigmoid(), truth)
    cross = functional.binary_cross_entropy_with_logits(logits, truth)
    return settings.dice * dice.mean() + settings.cross * cross


def optimiser_of(model: Vlsm, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Adam, or AdamW where weights decay; encoders at their own rate."""
    inside = {id(weight) for part in model.network.encoders for weight in part.parameters()}
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in learned if id(weight) not in inside], "lr": settings.rate},
        {"params": [weight for weight in learned if id(weight) in inside], "lr": settings.encoder_rate},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.decay:
        return torch.optim.AdamW(groups, weight_decay=settings.decay)
    return torch.optim.Adam(groups)


def loss_of(
    model: Vlsm,
    settings: TrainingSettings,
    images: Sequence[RGB],
    texts: Sequence[str],
    masks: Sequence[Mask],
) -> Tensor:
    """The loss of a batch in training; masks [H, W] are brought to the network's size."""
    model.train()
    logits = model(images, texts)
    size = (logits.shape[-1], logits.shape[-2])
    small = [cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) for mask in masks]
    return vlsm_loss(logits, torch.from_numpy(np.stack(small)).to(logits), settings)
