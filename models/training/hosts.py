"""Networks that prompt-group-aware training can be put around: one look at an image, any number of sentences about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.segmentation import sam3
from tissuetalk.models.segmentation.little import byte_tokenizer, little_sam3, little_vlsm
from tissuetalk.models.segmentation.pathsegmentor.base import BaseConfig, BaseFeatures, build_base, cosine
from tissuetalk.models.segmentation.pathsegmentor.base_segmenter import (
    Tokens,
    open_base,
    save_base,
    sizes_of,
    word_pieces,
)
from tissuetalk.models.segmentation.pathsegmentor.card import BASE_WEIGHTS, MINI_WEIGHTS
from tissuetalk.models.segmentation.pathsegmentor.joint import QueryAnswers
from tissuetalk.models.segmentation.pathsegmentor.mini import (
    MiniConfig,
    MiniPathSegmentor,
    load_mini,
    save_mini,
)
from tissuetalk.models.segmentation.pathsegmentor.text_tower import MINILM, MiniLMSentences
from tissuetalk.models.segmentation.pretrained import (
    device,
    from_hub,
    normalised,
    resized,
    tokenizer_from,
    word_ids,
)
from tissuetalk.models.segmentation.vlsm.networks import Vlsm, build
from tissuetalk.models.segmentation.vlsm.segmenter import save_vlsm
from tissuetalk.models.segmenter import RGB
from tissuetalk.models.training.base import LARGEST_SCALE, best_query

HostName = Literal["sam3", "base", "clipseg", "mini"]
Size = Literal["published", "little"]
Aggregation = Literal["queries", "semantic"]
MATCHING_POINTS: Final = 12544
LITTLE_PX: Final = 64


@dataclass(frozen=True)
class Said:
    """What a network answers to K sentences about one image. masks: [K, h, w] logits, as its masks are made when it serves.

    presence: [K] logits, None where the network does not say. queries, similarity: of one that chooses among queries.
    """

    masks: Tensor
    presence: Tensor | None = None
    queries: QueryAnswers | None = None
    similarity: Tensor | None = None


class GroupHost(ABC):
    """A network with its tokenizer. side_px: the square it is shown. text_encoder, image_encoder: parts that may stay frozen."""

    network: nn.Module
    side_px: int
    text_encoder: Sequence[nn.Module]
    image_encoder: Sequence[nn.Module]

    @abstractmethod
    def see(self, image: RGB) -> Any:
        """Once an image, whatever is asked about it."""

    @abstractmethod
    def answer(self, seen: Any, sentences: Sequence[str]) -> Said: ...

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Weights in the form that ``segment`` loads."""

    def named(self, said: Said, truth: Tensor) -> Tensor:
        """[K] a loss of the network's own, beside those of the mask. truth: [h, w] at the size of its masks."""
        return said.masks.new_zeros(len(said.masks))

    def freeze(self, *, train_text: bool, train_image: bool) -> None:
        self.network.requires_grad_(True)
        for parts, learns in ((self.text_encoder, train_text), (self.image_encoder, train_image)):
            for part in parts:
                part.requires_grad_(learns)

    def train(self) -> None:
        """Frozen parts keep their normalisation statistics."""
        self.network.train()
        for part in (*self.text_encoder, *self.image_encoder):
            if not any(weight.requires_grad for weight in part.parameters()):
                part.eval()

    @torch.inference_mode()
    def probabilities(self, image: RGB, sentences: Sequence[str]) -> Tensor:
        """[K, H, W] at the image's own size."""
        self.network.eval()
        masks = self.answer(self.see(image), sentences).masks.float().sigmoid()
        grown = functional.interpolate(masks[:, None], image.shape[:2], mode="bilinear", align_corners=False)
        return grown[:, 0].cpu()


class ClipSegHost(GroupHost):
    """CLIPSeg; says nothing about presence."""

    def __init__(self, size: Size, weights: str | None) -> None:
        self.model: Vlsm = little_vlsm("clipseg") if size == "little" else build("clipseg", weights=weights)
        self.network, self.side_px = self.model.network, self.model.side_px
        clip = self.model.network.clip
        self.text_encoder = (clip.text_model, clip.text_projection)
        self.image_encoder = (clip.vision_model, clip.visual_projection)

    def see(self, image: RGB) -> Any:
        return self.model.see([image])

    def answer(self, seen: Any, sentences: Sequence[str]) -> Said:
        shared = tuple(level.expand(len(sentences), -1, -1) for level in seen)
        return Said(self.model.answer(shared, list(sentences)))

    def save(self, folder: Path) -> None:
        save_vlsm(self.model, folder, mpp=None)


class MiniHost(GroupHost):
    """The shipped model. Its text tower never learns; the map that tells its objects apart is not taught here."""

    def __init__(self, size: Size, weights: str | None) -> None:
        if size == "little":
            config = MiniConfig((8,) * 5, (0,) * 5, (8,) * 5, hidden=16, queries=2)
            model = MiniPathSegmentor(config)
        else:
            model = load_mini(Path(weights) if weights else MINI_WEIGHTS)
        self.model = model.to(device())
        self.network, self.side_px = model, LITTLE_PX if size == "little" else 256
        self.text = MiniLMSentences()
        self.text_encoder, self.image_encoder = (), (model.image_encoder,)

    def see(self, image: RGB) -> Any:
        return self.model.encode_image(_pixels(image, self.side_px))

    def answer(self, seen: Any, sentences: Sequence[str]) -> Said:
        # clones: the tower's vectors are made without gradients, and cannot be kept for a backward pass
        answers = self.model.decode(seen, self.text(list(sentences)).clone().to(device()))
        return Said(answers.mask[0], answers.presence[0])

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_mini(self.model, folder / "mini.safetensors")


class BaseHost(GroupHost):
    """The full-size PathSegmentor: its mask is that of the query most like the sentence, so the likeness learns, too."""

    similarity_weight = 0.8
    tokens: Tokens

    def __init__(self, size: Size, weights: str | None) -> None:
        self.vocabulary = MINILM.find().with_name("vocab.txt")
        if size == "little":
            self.config = replace(BaseConfig.tiny(), vocabulary=30522)
            model, self.tokens = build_base(self.config), word_pieces(self.vocabulary, self.config.context)
        else:
            file = BASE_WEIGHTS.find(weights)
            found = open_base(file)
            model, self.config = found.model, sizes_of(file)
            self.tokens = found.tokens
            self.vocabulary = (
                file.with_name("vocab.txt") if self.config.text_tower == "pubmedbert" else file.parent
            )
        self.model = model.to(device())
        self.network, self.side_px = model, LITTLE_PX if size == "little" else 1024
        self.text_encoder, self.image_encoder = (model.text_encoder,), (model.image_encoder,)

    def see(self, image: RGB) -> Any:
        return self.model.encode_image(_pixels(image, self.side_px))

    def answer(self, seen: BaseFeatures, sentences: Sequence[str]) -> Said:
        count = len(sentences)
        levels = tuple(level.expand(count, -1, -1, -1) for level in seen.levels)
        ids, padding = (part.to(device()) for part in self.tokens(sentences))
        steps, vectors = self.model.answers(
            BaseFeatures(levels, seen.pixels.expand(count, -1, -1, -1)), ids, padding
        )
        last = steps[-1]
        similarity = cosine(last.classes.float(), vectors.float())
        rows = torch.arange(count, device=similarity.device)
        return Said(
            last.masks[rows, similarity.argmax(-1)].float(),
            None,
            last,
            self.model.logit_scale.exp().clamp(max=LARGEST_SCALE) * similarity,
        )

    def named(self, said: Said, truth: Tensor) -> Tensor:
        """The query whose mask is nearest is to be the one most like the sentence."""
        if said.queries is None or said.similarity is None or not truth.any():
            return super().named(said, truth)
        count = len(said.masks)
        points = torch.rand(count, min(MATCHING_POINTS, truth.numel()), 2, device=truth.device)
        matched = best_query(said.queries, said.similarity, truth.expand(count, -1, -1), points)
        return self.similarity_weight * functional.cross_entropy(said.similarity, matched, reduction="none")

    def save(self, folder: Path) -> None:
        save_base(
            self.model,
            self.config,
            folder,
            labels=(),
            vocabulary=self.vocabulary,
            shown_at_px=self.side_px,
        )


class Sam3Host(GroupHost):
    """SAM 3: every pixel takes the highest, over queries, of the smaller of mask logit and score logit, as when it serves."""

    def __init__(self, size: Size, weights: str | None, aggregation: Aggregation = "queries") -> None:
        if size == "little":
            self.model, self.tokenizer = little_sam3(), byte_tokenizer()
        else:
            self.model, folder = from_hub("Sam3Model", sam3.WEIGHTS, weights)
            self.tokenizer = tokenizer_from(folder, "sam3")
        self.network = self.model.to(device())
        self.side_px, self.aggregation = int(self.model.config.image_size), aggregation
        self.text_encoder, self.image_encoder = (self.model.text_encoder,), (self.model.vision_encoder,)

    def see(self, image: RGB) -> Any:
        pixels = normalised(resized(image, self.side_px, self.side_px), sam3.HALF, sam3.HALF)
        return self.model.get_vision_features(pixels)

    def answer(self, seen: Any, sentences: Sequence[str]) -> Said:
        masks, presence = [], []
        for sentence in sentences:
            tokens = word_ids(self.tokenizer, sentence, sam3.most_tokens(self.model))
            found = self.model(vision_embeds=seen, **tokens)
            presence.append(found.presence_logits[0].reshape(()).float())
            if self.aggregation == "semantic":
                masks.append(found.semantic_seg[0, 0].float())
            else:
                masks.append(sam3.union_of_queries(found)[0])
        return Said(torch.stack(masks), torch.stack(presence))

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


HOSTS: Final[Mapping[HostName, Callable[[Size, str | None], GroupHost]]] = {
    "sam3": Sam3Host,
    "base": BaseHost,
    "clipseg": ClipSegHost,
    "mini": MiniHost,
}


def host_named(
    name: HostName, size: Size, weights: str | None = None, aggregation: Aggregation = "queries"
) -> GroupHost:
    """weights: as the network's model wants them. Raises InvalidArgumentError, ModelUnavailableError."""
    if name == "sam3":
        return Sam3Host(size, weights, aggregation)
    if aggregation != "queries":
        raise InvalidArgumentError(f"only sam3 has a semantic map; {name} aggregates queries.")
    return HOSTS[name](size, weights)


def _pixels(image: RGB, side: int) -> Tensor:
    """[1, 3, side, side] of 0..255."""
    pixels = np.ascontiguousarray(resized(image, side, side).transpose(2, 0, 1), np.float32)
    return torch.from_numpy(pixels)[None].to(device())
