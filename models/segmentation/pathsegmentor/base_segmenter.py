"""The full-size PathSegmentor behind the seam that every model offers, and its weights.

Those are its own folders, or published BiomedParse-style checkpoints, read key by key.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.gathering import gathered
from tissuetalk.models.segmentation.open_vocabulary import OpenVocabulary
from tissuetalk.models.segmentation.pathsegmentor.base import (
    CLIP_WIDTH,
    BaseConfig,
    BaseFeatures,
    ClipTower,
    PathSegmentor,
    build_base,
)
from tissuetalk.models.segmentation.pathsegmentor.card import (
    BASE_CARD,
    BASE_WEIGHTS,
    READ_AT_MPP,
    SHOWN_AT_PX,
    BaseLabels,
    has_objects,
    read_config,
)
from tissuetalk.models.segmentation.pathsegmentor.segmenter import TileFeatures, padded, unpacked
from tissuetalk.models.segmentation.pretrained import (
    device,
    read_tensors,
    token_table,
    tokenizer_from,
    weights_hash,
)
from tissuetalk.models.segmenter import RGB, Context, Decoded, Prompt
from tissuetalk.models.writing import write_tensors, write_whole

Tokens = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""Sentences to ([B, L] ids, [B, L] True where padded)."""


def word_pieces(vocabulary: Path, context: int) -> Tokens:
    """BERT's tokens in lower case, with [CLS] and [SEP]. Raises ModelUnavailableError without a usable vocabulary."""
    from tokenizers import BertWordPieceTokenizer

    words = vocabulary.read_text(encoding="utf-8").splitlines() if vocabulary.is_file() else []
    if missing := {"[CLS]", "[SEP]", "[UNK]", "[PAD]"} - set(words):
        raise ModelUnavailableError(
            f"{vocabulary} is not a BERT vocabulary (it lacks {', '.join(sorted(missing))}); put the text tower's "
            "vocab.txt beside the weights."
        )
    tokenizer = BertWordPieceTokenizer({word: number for number, word in enumerate(words)}, lowercase=True)
    tokenizer.enable_truncation(context)
    return lambda sentences: token_table([tokenizer.encode(sentence).ids for sentence in sentences])


def byte_pairs(folder: Path, context: int) -> Tokens:
    """CLIP's tokens. Raises ModelUnavailableError when the folder holds no tokenizer."""
    tokenizer = tokenizer_from(folder, "pathsegmentor")

    def tokens(sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        return token_table(tokenizer(list(sentences), truncation=True, max_length=context)["input_ids"])

    return tokens


def label_sentence(label: str, organ: str = "") -> str:
    """PathSegmentor's prompt for a canonical label; any other name goes into the same sentence without a structure."""
    region, *rest = label.split("-", 2)
    if len(rest) == 2:
        return f"{rest[0]}-level {rest[1]} in {region} pathology"
    return f"{label} in {organ or 'unspecified'} pathology"


RULES: tuple[tuple[str, str], ...] = (
    (r"backbone\.patch_embed\.proj\.", "image_encoder.body.embeddings.patch_embeddings.projection."),
    (r"backbone\.patch_embed\.norm\.", "image_encoder.body.embeddings.norm."),
    (r"backbone\.layers\.(\d+)\.blocks\.(\d+)\.modulation\.f\.", r"image_encoder.body.encoder.stages.\1.layers.\2.modulation.projection_in."),
    (r"backbone\.layers\.(\d+)\.blocks\.(\d+)\.modulation\.h\.", r"image_encoder.body.encoder.stages.\1.layers.\2.modulation.projection_context."),
    (r"backbone\.layers\.(\d+)\.blocks\.(\d+)\.modulation\.proj\.", r"image_encoder.body.encoder.stages.\1.layers.\2.modulation.projection_out."),
    (r"backbone\.layers\.(\d+)\.blocks\.(\d+)\.", r"image_encoder.body.encoder.stages.\1.layers.\2."),
    (r"backbone\.layers\.(\d+)\.downsample\.proj\.", r"image_encoder.body.encoder.stages.\1.downsample.projection."),
    (r"backbone\.layers\.(\d+)\.downsample\.norm\.", r"image_encoder.body.encoder.stages.\1.downsample.norm."),
    (r"backbone\.norm(\d)\.", r"image_encoder.norms.\1."),
    (r"sem_seg_head\.pixel_decoder\.input_proj\.", "pixel_decoder.input_proj."),
    (r"sem_seg_head\.pixel_decoder\.transformer\.encoder\.layers\.(\d+)\.", r"pixel_decoder.encoder.\1."),
    (r"sem_seg_head\.pixel_decoder\.adapter_(\d)\.norm\.", r"pixel_decoder.adapters.\1-1.1."),
    (r"sem_seg_head\.pixel_decoder\.adapter_(\d)\.", r"pixel_decoder.adapters.\1-1.0."),
    (r"sem_seg_head\.pixel_decoder\.layer_(\d)\.norm\.", r"pixel_decoder.outputs.\1-1.1."),
    (r"sem_seg_head\.pixel_decoder\.layer_(\d)\.", r"pixel_decoder.outputs.\1-1.0."),
    (r"sem_seg_head\.pixel_decoder\.mask_features\.", "pixel_decoder.mask_features."),
    (r"sem_seg_head\.predictor\.lang_encoder\.(biomed_encoder|lang_encoder)\.", "text_encoder.body."),
    (r"sem_seg_head\.predictor\.lang_encoder\.lang_proj$", "text_encoder.lang_proj"),
    (r"sem_seg_head\.predictor\.lang_encoder\.logit_scale$", "logit_scale"),
    (r"sem_seg_head\.predictor\.transformer_(cross|self)_attention_layers\.", r"joint.transformer_\1_attention_layers."),
    (r"sem_seg_head\.predictor\.(query_feat|query_embed|level_embed|transformer_ffn_layers|decoder_norm|mask_embed|class_embed)", r"joint.\1"),
)  # fmt: skip
"""Published key prefix to ours, first match wins; ``N-1`` in a result is reckoned out."""

SKIPPED = re.compile(r"mask_sptial_embed|spatial_|pn_indicator|criterion|\.attn_mask|position_ids|\.pooler\.")
"""Click prompts, and what only training or other uses of the parts need."""
TOWERS = {"pubmedbert": "lang_encoder.biomed_encoder.", "clip": "lang_encoder.lang_encoder."}
"""Where each text tower lies in a published checkpoint, which may hold both."""


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint gave. missing: ours that it lacks. unexpected: its keys no rule knows. mismatched: wrong shapes."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    skipped: tuple[str, ...]


def rename(key: str) -> str | None:
    """Our name of a published key, or None when no rule knows it."""
    for pattern, ours in RULES:
        if re.match(pattern, key):
            return re.sub(
                r"(\d)-1", lambda found: str(int(found.group(1)) - 1), re.sub(pattern, ours, key, count=1)
            )
    return None


def tower_of(tensors: Mapping[str, Tensor]) -> Literal["pubmedbert", "clip"]:
    """The tower a published checkpoint was trained with: its projection has that tower's width."""
    for key, value in tensors.items():
        if key.endswith("lang_encoder.lang_proj"):
            return "clip" if value.shape[0] == CLIP_WIDTH else "pubmedbert"
    return "pubmedbert"


def load_published(model: PathSegmentor, tensors: Mapping[str, Tensor]) -> LoadReport:
    """Copy every tensor of a published checkpoint that has a place and say exactly what did not.

    Raises ModelUnavailableError when nothing at all fits.
    """
    # A published file may hold both towers; only one was trained.
    other_tower = TOWERS["pubmedbert" if isinstance(model.text_encoder, ClipTower) else "clip"]

    def named(key: str) -> str | None:
        bare = key.removeprefix("module.").removeprefix("model.")
        return "" if SKIPPED.search(bare) or other_tower in bare else rename(bare)

    return load_named(model, tensors, named)


def load_named(
    model: PathSegmentor, tensors: Mapping[str, Tensor], named: Callable[[str], str | None]
) -> LoadReport:
    """Copy tensors to where ``named`` says: our name, None for an unknown key, "" for one to skip; shapes must agree."""
    own = model.state_dict()
    loaded, unexpected, mismatched, skipped = [], [], [], []
    for key, value in tensors.items():
        name = named(key)
        if name == "":
            skipped.append(key)
        elif name is None or name not in own:
            unexpected.append(key)
        elif own[name].shape != value.shape:
            mismatched.append(f"{key}: {tuple(value.shape)} for {tuple(own[name].shape)}")
        else:
            own[name].copy_(value)
            loaded.append(name)
    if not loaded:
        raise ModelUnavailableError(
            "no tensor of this file belongs to PathSegmentor; name a BiomedParse-style checkpoint."
        )
    missing = tuple(sorted(set(own) - set(loaded)))
    return LoadReport(tuple(loaded), missing, tuple(unexpected), tuple(mismatched), tuple(skipped))


OWN_PREFIX: Final = "image_encoder."
WEIGHT_FILE: Final = "model.safetensors"
UNUSED_WHEN_ANSWERING: Final = frozenset({"logit_scale"})


@dataclass(frozen=True)
class Loaded:
    """A network with its tokenizer. report: what the weight file gave."""

    model: PathSegmentor
    tokens: Tokens
    report: LoadReport


def save_base(
    model: PathSegmentor,
    config: BaseConfig,
    folder: Path,
    *,
    labels: Sequence[str],
    vocabulary: Path,
    shown_at_px: int = SHOWN_AT_PX,
) -> Path:
    """Write ``model.safetensors``, ``config.json`` and ``vocab.txt``; returns the weight file.

    vocabulary: the text tower's file, or of the clip tower the folder of its tokenizer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WEIGHT_FILE
    write_tensors(path, model.state_dict())
    told = {"model": asdict(config), "labels": sorted(labels), "mpp": READ_AT_MPP}
    told |= {"shown_at_px": shown_at_px}
    write_whole(folder / "config.json", json.dumps(told, indent=1) + "\n")
    if vocabulary.is_dir():
        tokenizer_from(vocabulary, "pathsegmentor").save_pretrained(folder)
    elif vocabulary.resolve() != (folder / "vocab.txt").resolve():
        shutil.copyfile(vocabulary, folder / "vocab.txt")
    return path


def load_weights(model: PathSegmentor, file: Path) -> LoadReport:
    """Fill a network from our own weights or a published checkpoint, and say exactly what did not fit.

    Raises ModelUnavailableError when the file cannot be read or nothing in it fits.
    """
    tensors = read_tensors(file)
    ours = any(name.startswith(OWN_PREFIX) for name in tensors)
    return load_named(model, tensors, str) if ours else load_published(model, tensors)


def sizes_of(file: Path) -> BaseConfig:
    """As config.json beside the file says, else the paper's, with the tower the checkpoint was trained with."""
    config = read_config(file.parent)
    if config:
        sizes = config["model"]
        if unknown := set(sizes) - {entry.name for entry in fields(BaseConfig)}:
            raise ModelUnavailableError(
                f"{file.parent / 'config.json'} has unknown sizes {', '.join(sorted(unknown))}; remove them."
            )
        given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in sizes.items()}
        return BaseConfig(**given)
    return BaseConfig.released_clip() if tower_of(read_tensors(file)) == "clip" else BaseConfig()


def examine(file: Path) -> LoadReport:
    """What a file gives to a network of its sizes, without building one in memory. Raises ModelUnavailableError."""
    with torch.device("meta"):
        model = build_base(sizes_of(file))
    return load_weights(model, file)


def open_base(file: Path) -> Loaded:
    """A network ready to answer, with its tokenizer.

    Raises ModelUnavailableError when a weight that answers need is missing, naming how many and which.
    """
    settings = sizes_of(file)
    model = build_base(settings)
    report = load_weights(model, file)
    lacking = sorted(set(report.missing) - UNUSED_WHEN_ANSWERING)
    if lacking:
        raise ModelUnavailableError(
            f"{file} lacks {len(lacking)} of {len(model.state_dict())} weights, among them {', '.join(lacking[:3])}; "
            f"unexpected: {len(report.unexpected)}, of another shape: {len(report.mismatched)}. "
            f"`tissuetalk training weights {file}` lists them all."
        )
    clip, folder = settings.text_tower == "clip", file.parent
    read = (byte_pairs, folder) if clip else (word_pieces, folder / "vocab.txt")
    return Loaded(model.eval(), read[0](read[1], settings.context), report)


BaseTile = TileFeatures[BaseFeatures]


class BaseSegmenter(OpenVocabulary):
    """PathSegmentor ``base``: encodes a tile once; every prompt is decoded in a pass of its own."""

    card = BASE_CARD
    tile_px = 1024
    margin_px = 128

    def __init__(self, file: Path) -> None:
        found = open_base(file)
        self.model, self.tokens, self.report = found.model.to(device()), found.tokens, found.report
        self.repertoire: BaseLabels = BaseLabels.of(file)
        self.presence_is = "mean probability" if self.repertoire.mean_presence else "strongest pixel"
        self.weights_sha256 = weights_hash(file)
        self._gathered = gathered(self._encode_all, lambda tile: tile.shape, on_a_gpu=device().type == "cuda")

    def sent(self, prompt: Prompt) -> str:
        return prompt.text or prompt.words

    def assume_mpp(self, overview: RGB, reduction: float = 1.0) -> float:
        return self.repertoire.mpp

    def mpp_of_picture(self, mpp: float, width_um: float, height_um: float) -> float:
        return self.repertoire.mpp_of_picture(mpp, width_um, height_um)

    def has_objects(self, prompt: Prompt) -> bool:
        return has_objects(prompt)

    @torch.inference_mode()
    def encode(self, tile: RGB, context: Context) -> BaseTile:
        """tile: [H, W, 3] of any size; it is mirrored up to a multiple of 32."""
        return TileFeatures(self._gathered(padded(tile)), tile.shape[0], tile.shape[1])

    def _encode_all(self, tiles: Sequence[Tensor]) -> list[BaseFeatures]:
        made = self.model.encode_image(torch.cat(list(tiles)).to(device()))
        if len(tiles) == 1:
            return [made]
        # copies: kept, a part would keep the whole
        return [
            BaseFeatures(
                tuple(level[at : at + 1].clone() for level in made.levels), made.pixels[at : at + 1].clone()
            )
            for at in range(len(tiles))
        ]

    def pack(self, features: BaseTile) -> bytes:
        """Half precision, for the feature cache."""
        kept = features.features
        tensors = {f"level{number}": level for number, level in enumerate(kept.levels)}
        tensors["pixels"] = kept.pixels
        return features.packed({name: value.half().cpu() for name, value in tensors.items()})

    def unpack(self, stored: bytes) -> BaseTile:
        halves, height, width = unpacked(stored)
        tensors = {name: value.float().to(device()) for name, value in halves.items()}
        levels = tuple(tensors[f"level{number}"] for number in range(3))
        return TileFeatures(BaseFeatures(levels, tensors["pixels"]), height, width)

    @torch.inference_mode()
    def decode(self, features: BaseTile, prompts: Sequence[Prompt]) -> list[Decoded]:
        decoded = []
        for prompt in prompts:
            ids, padding = self.tokens([self.sent(prompt)])
            chosen = self.model.decode(features.features, ids.to(device()), padding.to(device()))
            decoded.append(Decoded(features.enlarged(chosen.masks[0])))
        return decoded


class PlainSentences(BaseSegmenter):
    """The released BiomedParse, which was taught sentences without a structure (A4)."""

    def __init__(self, place: Path) -> None:
        super().__init__(BASE_WEIGHTS.at(place))

    def sent(self, prompt: Prompt) -> str:
        if prompt.label is None or prompt.verbatim:
            return super().sent(prompt)
        region, _, kind = prompt.label.split("-", 2)
        return f"{kind} in {region} pathology"


def load(source: str | Path | None = None) -> BaseSegmenter:
    """The full-size model from a checkpoint or folder. Raises ModelUnavailableError."""
    return BaseSegmenter(BASE_WEIGHTS.find(source))
