"""Sentences as token ids, from the vocabulary files that lie beside a model's weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tissuetalk.models.errors import ModelUnavailableError

Tokens = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""Sentences to ([B, L] ids, [B, L] True where padded)."""


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of ids as one table, and where it is filled up."""
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    empty = torch.ones(len(rows), longest, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        empty[number, : len(row)] = False
    return ids, empty


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
    return lambda sentences: padded([tokenizer.encode(sentence).ids for sentence in sentences])


def byte_pairs(folder: Path, context: int) -> Tokens:
    """CLIP's tokens. Raises ModelUnavailableError when the folder holds no tokenizer."""
    from tissuetalk.models.segmentation.pretrained import tokenizer_from

    tokenizer = tokenizer_from(folder, "pathsegmentor")

    def tokens(sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        return padded(tokenizer(list(sentences), truncation=True, max_length=context)["input_ids"])

    return tokens


def label_sentence(label: str, organ: str = "") -> str:
    """PathSegmentor's prompt for a canonical label; any other name goes into the same sentence without a structure."""
    region, *rest = label.split("-", 2)
    if len(rest) == 2:
        return f"{rest[0]}-level {rest[1]} in {region} pathology"
    return f"{label} in {organ or 'unspecified'} pathology"
