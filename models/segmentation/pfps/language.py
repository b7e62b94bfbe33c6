"""What is asked for, as a vector: a sentence through a language model with LoRA, or rows of learned tables."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tissuetalk.models.segmentation.entry import HubWeights
from tissuetalk.models.segmentation.pretrained import from_hub, tokenizer_from

TINYLLAMA: Final = HubWeights(
    "tinyllama", "TISSUETALK_TINYLLAMA", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "Apache-2.0"
)
RANK, ALPHA, DROPOUT = 8, 16, 0.05
HIDDEN: Final = 1024
"""Width between the two layers that project the sentence vector."""
UNITS: Final = ("pt", "dt", "tuft", "capsule")
TASKS: Final = 9


class LoraLinear(nn.Module):
    """A frozen linear layer plus a trained product of two thin ones; equal to the frozen layer before training."""

    def __init__(
        self, base: nn.Linear, *, rank: int = RANK, alpha: float = ALPHA, dropout: float = DROPOUT
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.dropout = nn.Dropout(dropout)
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        change = functional.linear(functional.linear(self.dropout(x), self.down), self.up)
        out: Tensor = self.base(x) + self.scale * change
        return out


def add_lora(model: nn.Module) -> None:
    """LoRA on the query and value projections of every layer; everything else is frozen."""
    model.requires_grad_(False)
    for module in list(model.modules()):
        for name in ("q_proj", "v_proj"):
            base = getattr(module, name, None)
            if isinstance(base, nn.Linear):
                setattr(module, name, LoraLinear(base))


class SentenceVector(nn.Module):
    """The last token of a causal language model, projected to the image encoder's width."""

    def __init__(self, language_model: Any, tokenizer: Any, *, width: int, lora: bool = True) -> None:
        """lora: without it the language model stays as published (the paper's ablation)."""
        super().__init__()
        self.language_model = language_model
        self.tokenizer = tokenizer
        if lora:
            add_lora(language_model)
        else:
            language_model.requires_grad_(False)
        hidden = language_model.config.hidden_size
        self.project = nn.Sequential(nn.Linear(hidden, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, width))

    def forward(self, sentences: list[str]) -> Tensor:
        """[B, 1, C], one token a sentence."""
        where = next(self.project.parameters()).device
        lines = [self.tokenizer(text)["input_ids"] for text in sentences]
        longest = max(len(line) for line in lines)
        tokens = torch.zeros(len(lines), longest, dtype=torch.long, device=where)
        known = torch.zeros_like(tokens)
        for row, line in enumerate(lines):
            tokens[row, : len(line)] = torch.tensor(line, device=where)
            known[row, : len(line)] = 1
        states = self.language_model(input_ids=tokens, attention_mask=known).last_hidden_state
        last = states[torch.arange(len(lines), device=where), known.sum(1) - 1]
        vector: Tensor = self.project(last.float())
        return vector[:, None]


class OneSetIds(nn.Module):
    """One row for every pair of unit and task."""

    tokens = 1

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pairs = nn.Embedding(len(UNITS) * TASKS, width)

    def forward(self, units: Tensor, tasks: Tensor) -> Tensor:
        """[B] units 0..3 and [B] tasks 1..9 to [B, 1, C]."""
        row: Tensor = self.pairs(units * TASKS + tasks - 1)
        return row[:, None]


class TwoSetIds(nn.Module):
    """One row for the unit and one for the task, so that an unseen pair is made of seen parts."""

    tokens = 2

    def __init__(self, width: int) -> None:
        super().__init__()
        self.units = nn.Embedding(len(UNITS), width)
        self.tasks = nn.Embedding(TASKS, width)

    def forward(self, units: Tensor, tasks: Tensor) -> Tensor:
        """[B] units 0..3 and [B] tasks 1..9 to [B, 2, C]."""
        return torch.stack([self.units(units), self.tasks(tasks - 1)], dim=1)


def load_tinyllama(source: str | Path | None = None) -> tuple[Any, Any]:
    """TinyLlama and its tokenizer from a hub id in the local cache or a folder. Raises ModelUnavailableError."""
    model, folder = from_hub("LlamaModel", TINYLLAMA, source)
    return model, tokenizer_from(folder, TINYLLAMA.model)
