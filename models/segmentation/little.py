"""Random networks of a few thousand weights, to try a whole grid of runs on a CPU. What they learn is of no use."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from tissuetalk.models.segmentation.pretrained import device
from tissuetalk.models.segmentation.vlsm.card import CNNS
from tissuetalk.models.segmentation.vlsm.clipseg import BiomedClipSeg, BiomedSizes, ClipSeg
from tissuetalk.models.segmentation.vlsm.cnn import CnnSegmenter, CnnSizes
from tissuetalk.models.segmentation.vlsm.cris import ClipResnetSizes, Cris, CrisSizes
from tissuetalk.models.segmentation.vlsm.networks import Name, Vlsm

PAD, START, END = 0, 1, 258
VOCABULARY: Final = 259
CONTEXT: Final = 77
SIDE_PX: Final = 64
CRIS: Final = CrisSizes(
    ClipResnetSizes(8, (1, 1, 1, 1), 4, 2, 32, 16, 1, 2, VOCABULARY, CONTEXT),
    (8, 16, 32),
    1,
    2,
    32,
    side_px=SIDE_PX,
)
BIOMED: Final = BiomedSizes(SIDE_PX, 32, 4, 2, 16, 16, 1, 2, VOCABULARY, CONTEXT, 16, 32, (1, 2, 3))


def byte_tokenizer() -> Any:
    """A token for every byte, between a start and an end; the end is the largest id, as CLIP has it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = {"<pad>": PAD, "<start>": START, "<end>": END}
    words = Tokenizer(models.BPE(special | {letter: START + 1 + n for n, letter in enumerate(letters)}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", START), ("<end>", END)]
    )
    kind: Any = PreTrainedTokenizerFast  # untyped
    return kind(tokenizer_object=words, pad_token="<pad>", bos_token="<start>", eos_token="<end>")


def little_vlsm(name: Name) -> Vlsm:
    """One of the four networks, or of the baselines without words."""
    network: Any
    if name == "clipseg":
        network = _clipseg()
    elif name == "cris":
        network = Cris(CRIS)
    elif name in CNNS:
        sizes = CnnSizes(name, SIDE_PX, 8, (8, 8, 16, 16), (1, 1, 1, 1), (16, 8, 8, 8, 8), 8, 8, (1, 2, 3))
        return Vlsm(name, CnnSegmenter(sizes).to(device()), None, side_px=SIDE_PX, context=0)
    else:
        network = BiomedClipSeg(BIOMED)
    if name == "biomedclipseg-d":
        network.decoder.load_state_dict(_clipseg().decoder.state_dict())
    return Vlsm(name, network.to(device()), byte_tokenizer(), side_px=SIDE_PX, context=CONTEXT)


def _clipseg() -> ClipSeg:
    import transformers

    text = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "max_position_embeddings": CONTEXT, "pad_token_id": PAD}
    text |= {"bos_token_id": START, "eos_token_id": END}
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = transformers.CLIPSegConfig(
        text_config=text,
        vision_config=vision | {"image_size": SIDE_PX, "patch_size": 16},
        projection_dim=16,
        extract_layers=[1, 2, 3],
        reduce_dim=16,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=32,
        use_complex_transposed_convolution=True,
    )
    return ClipSeg(transformers.CLIPSegForImageSegmentation(config))


def little_sam3() -> Any:
    """SAM 3 of transformers, for pictures of 56 px and ``byte_tokenizer``'s words."""
    import transformers

    parts = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_layers": 2,
        "dropout": 0.0,
    }
    seen = {
        "model_type": "sam3_vit_model",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
    }
    seen |= {"num_attention_heads": 2, "image_size": 56, "pretrain_image_size": 28, "patch_size": 14}
    vision = {"fpn_hidden_size": 16, "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}
    text = {
        "model_type": "clip_text_model",
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 32,
    }
    text |= {
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
        "projection_dim": 16,
    }
    text |= {"pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END}
    config = transformers.Sam3Config(
        vision_config=vision | {"backbone_config": seen | {"window_size": 2, "global_attn_indexes": [1]}},
        text_config=text,
        geometry_encoder_config=parts,
        detr_encoder_config=parts,
        detr_decoder_config={**parts, "num_queries": 5},
        mask_decoder_config={"hidden_size": 16, "num_attention_heads": 2},
    )
    return transformers.Sam3Model(config)


def save_little_vit(folder: Path) -> Path:
    """A ViT of one layer, as ``transformers`` saves any; a recipe's ``encoder``."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=224,
        patch_size=16,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def save_little_llama(folder: Path) -> None:
    """A causal language model with its tokenizer, as a recipe's ``language_model``."""
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=END,
    )
    LlamaModel(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
