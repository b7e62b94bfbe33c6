"""Published BiomedParse- and PathSegmentor-style checkpoints, key by key, into the base preset."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.pathsegmentor.base import PathSegmentor
from tissuetalk.models.segmentation.pathsegmentor.clip_tower import ClipSizes, ClipTower

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
            return "clip" if value.shape[0] == ClipSizes().width else "pubmedbert"
    return "pubmedbert"


def load_published(model: PathSegmentor, tensors: Mapping[str, Tensor]) -> LoadReport:
    """Copy every tensor that has a place and say exactly what did not.

    Raises ModelUnavailableError when nothing at all fits.
    """
    other_tower = TOWERS["pubmedbert" if isinstance(model.text_encoder, ClipTower) else "clip"]
    own = model.state_dict()
    loaded, unexpected, mismatched, skipped = [], [], [], []
    for key, value in tensors.items():
        bare = key.removeprefix("module.").removeprefix("model.")
        name = rename(bare)
        if SKIPPED.search(bare) or other_tower in bare:
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
