"""The four models by name: where their weights come from, how pictures and words are prepared, what is trained."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.segmentation.cards import weights_of
from tissuetalk.models.segmentation.loading import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    device,
    from_folder,
    normalised,
    resized,
    tokenizer_from,
)
from tissuetalk.models.segmentation.pathsegmentor.checkpoint import read_tensors
from tissuetalk.models.segmentation.vlsm.biomedclip import LEGACY_LAYERS, BiomedClipSeg, BiomedSizes
from tissuetalk.models.segmentation.vlsm.clipseg import ClipSeg
from tissuetalk.models.segmentation.vlsm.cris import THRESHOLD, Cris, CrisSizes
from tissuetalk.models.segmenter import RGB

Name = Literal["clipseg", "cris", "biomedclipseg", "biomedclipseg-d"]
NAMES: Final[tuple[Name, ...]] = get_args(Name)
CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)
_UNUSED: Final = ("logit_scale", "text.transformer.embeddings.position_ids", "text.transformer.pooler.")


class Vlsm(nn.Module):
    """A network with its tokenizer. Pictures of any size and words in, logits at the network's own size out."""

    def __init__(self, name: Name, network: Any, tokenizer: Any, *, side_px: int, context: int) -> None:
        """context: tokens a sentence is cut to."""
        super().__init__()
        self.name: Name = name
        self.network = network
        self.tokenizer = tokenizer
        self.side_px = side_px
        self.context = context
        self.threshold = THRESHOLD if name == "cris" else 0.5

    def forward(self, images: Sequence[RGB], texts: Sequence[str]) -> Tensor:
        """[B, S, S] logits."""
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if self.name == "clipseg" else (CLIP_MEAN, CLIP_STD)
        pixels = torch.cat(
            [normalised(resized(one, self.side_px, self.side_px), mean, std) for one in images]
        )
        lines = [
            self.tokenizer(text, truncation=True, max_length=self.context)["input_ids"] for text in texts
        ]
        longest = max(len(line) for line in lines)
        tokens = torch.zeros(len(lines), longest, dtype=torch.long, device=pixels.device)
        known = torch.zeros(len(lines), longest, dtype=torch.bool, device=pixels.device)
        for row, line in enumerate(lines):
            tokens[row, : len(line)] = torch.tensor(line, device=pixels.device)
            known[row, : len(line)] = True
        logits: Tensor = self.network(pixels, tokens, known)
        return logits[:, 0]

    @torch.inference_mode()
    def segment(self, image: RGB, text: str) -> Mask:
        """[H, W] mask at the image's own size: Dice is computed there, as in the paper."""
        self.eval()
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

    weights: hub id or folder (CLIPSeg), checkpoint file (CRIS, BiomedCLIP's open_clip file). tokenizer: folder; by default
    beside the weights (for CRIS that of CLIPSeg). decoder: CLIPSeg's hub id or folder, for -D. sizes: for other than the
    published size.
    """
    network: Any
    if name == "clipseg":
        folder = weights_of("clipseg", weights)
        from transformers import CLIPSegForImageSegmentation

        loaded = from_folder(CLIPSegForImageSegmentation, folder, name)
        network, words = ClipSeg(loaded), tokenizer_from(Path(tokenizer) if tokenizer else folder, name)
        vision, text = loaded.config.vision_config, loaded.config.text_config
        side, context = vision.image_size, text.max_position_embeddings
    elif name == "cris":
        shape = sizes if isinstance(sizes, CrisSizes) else CrisSizes()
        network = Cris(shape)
        _fill(network, _tensors(_file(name, weights)), name)
        words = tokenizer_from(Path(tokenizer) if tokenizer else weights_of("clipseg"), name)
        side, context = shape.side_px, shape.clip.context
    else:
        form = sizes if isinstance(sizes, BiomedSizes) else BiomedSizes()
        if legacy_layers:
            form = BiomedSizes(**{**vars(form), "layers": LEGACY_LAYERS})
        file = _file(name, weights)
        network = BiomedClipSeg(form)
        _fill(network, _tensors(file), name, parts=("visual.", "text."))
        if name == "biomedclipseg-d":
            _copy_decoder(network, decoder)
        words = tokenizer_from(Path(tokenizer) if tokenizer else file.parent, name)
        side, context = form.side_px, form.context
    return Vlsm(name, network.to(device()), words, side_px=side, context=context)


def _copy_decoder(network: BiomedClipSeg, source: str | None) -> None:
    from transformers import CLIPSegForImageSegmentation

    published = from_folder(CLIPSegForImageSegmentation, weights_of("clipseg", source), "clipseg").decoder
    _fill(network.decoder, published.state_dict(), "biomedclipseg-d")


def _file(name: str, weights: str | None) -> Path:
    what = (
        "a CRIS checkpoint" if name == "cris" else "open_clip_pytorch_model.bin or .safetensors of BiomedCLIP"
    )
    if weights is None or not Path(weights).expanduser().is_file():
        raise ModelUnavailableError(f"{name}: give weights, the path of {what}; nothing is downloaded")
    return Path(weights).expanduser()


def _tensors(file: Path) -> Mapping[str, Tensor]:
    """The state dictionary of a file, whatever it is wrapped in; nothing in the file is executed."""
    if file.suffix == ".safetensors":
        return read_tensors(file)
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelUnavailableError(
            f"{file.name} cannot be read as plain weights ({type(error).__name__}); fetch it again"
        ) from error
    state = stored.get("state_dict", stored) if isinstance(stored, dict) else {}
    return {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}


def _fill(
    network: nn.Module, weights: Mapping[str, Tensor], name: str, *, parts: tuple[str, ...] = ("",)
) -> None:
    """All weights of the parts, all of the right shape, or ModelUnavailableError."""
    own = network.state_dict()
    given = {key: value for key, value in weights.items() if not key.startswith(_UNUSED)}
    missing = [
        key
        for key in own
        if key.startswith(parts) and key not in given and not key.endswith("num_batches_tracked")
    ]
    wrong = [key for key, value in given.items() if key not in own or own[key].shape != value.shape]
    if missing or wrong:
        raise ModelUnavailableError(
            f"{name}: the weights do not fit: {len(missing)} are missing and {len(wrong)} differ, among them "
            f"{(missing + wrong)[0]}; give the published file"
        )
    network.load_state_dict(given, strict=False)
