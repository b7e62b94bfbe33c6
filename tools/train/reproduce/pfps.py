"""PFPs (arXiv 2407.09979): three ways to say a request, complete and incomplete training, language model frozen or with LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from tissuetalk.models.errors import TissuetalkError
from tissuetalk.models.segmentation.pfps.network import TINYLLAMA
from tissuetalk.models.segmentation.pfps.training import read_patches
from tissuetalk.tools.train.reproduce.grid import GridCell, Need, Paper, PaperFigure, mean_of, rows_of

UNITS: Final = ("dt", "capsule", "pt", "tuft")
STRATEGIES: Final = {"one-set": "one-set ID", "two-set": "two-set ID", "text": "free text"}
READINGS: Final = {"incomplete": (1, 2, 6), "incomplete-1": (1,), "incomplete-12": (1, 2)}
"""What the paper may mean by its incomplete training set; its evaluation rule holds for the first alone."""
SCORED_INCOMPLETE: Final = ("3", "4", "5", "7", "8", "9")
COMPLETE: Final = {
    "one-set": (67.28, 76.46, 66.61, 75.85),
    "two-set": (67.77, 78.14, 67.41, 78.47),
    "text": (66.90, 72.46, 65.24, 72.30),
}
INCOMPLETE: Final = {
    "one-set": (22.00, 13.25, 65.90, 75.16),
    "two-set": (46.30, 64.70, 67.98, 77.00),
    "text": (37.69, 56.72, 64.23, 70.90),
}
ABLATION: Final = (
    ("frozen, other sentences", "text-complete-frozen", "test", (44.39, 46.03, 48.79, 51.85)),
    ("LoRA, sentences of training", "text-complete", "train", (68.88, 77.49, 68.70, 77.38)),
    ("LoRA, other sentences", "text-complete", "test", (66.90, 72.46, 65.24, 72.30)),
)
"""Dice in percent of UNITS in order."""
HOURS: Final = 900 * 1000 * 0.15 / 3600
LITTLE: Final = {
    "size": "little", "train_encoder": True, "epochs": 1, "samples_per_epoch": 4, "batch": 2, "validate_every": 1,
    "drawn_patches": 4, "test_sentences": 1, "threads": 1,
}  # fmt: skip


class PfpsPaper(Paper):
    """Data: the folder with ``patches.csv`` and ``efficient_sam_vits.pt``."""

    name: ClassVar[str] = "pfps"
    title: ClassVar[str] = "PFPs: point and language prompts for kidney pathology (arXiv 2407.09979)"
    hours: ClassVar[str] = (
        "Assumed, not measured: 900,000 steps of 0.15 s each on one GPU. The paper gives no times."
    )
    left_out: ClassVar[tuple[str, ...]] = (
        "SAM, EfficientSAM, MedSAM, Omni-Seg, HATs, SEEM and LISA, which the paper compares with: no adapters with its protocol.",
        "The paper's own data (NEPTUNE) is not public; figures from other kidneys are not comparable with its.",
    )

    def needs(self, data: Path) -> list[Need]:
        try:
            counts = [len(read_patches(data, split)) for split in ("train", "val", "test")]
            missing = None if all(counts) else f"train, val and test have {counts} patches"
        except TissuetalkError as error:
            missing = str(error)
        folder = data / "tinyllama"
        return [
            Need(
                "patches",
                missing,
                "yours: patches.csv with image, units, nuclei, unit, split (docs/other-models.md)",
            ),
            Need(
                "EfficientSAM-S",
                None
                if (data / "efficient_sam_vits.pt").is_file()
                else "no efficient_sam_vits.pt in the data folder",
                "github.com/yformer/EfficientSAM, weights/efficient_sam_vits.pt (Apache-2.0)",
            ),
            Need(
                "TinyLlama",
                None if folder.is_dir() else TINYLLAMA.missing(),
                f"`hf download {TINYLLAMA.hub_id}`, or the folder tinyllama in the data folder",
            ),
        ]

    def cells(self, data: Path, *, dry: bool, seeds: Sequence[int]) -> list[GridCell]:
        llama = data / "tinyllama"
        published = {
            "data": str(data.resolve()),
            "efficient_sam": str((data / "efficient_sam_vits.pt").resolve()),
        }
        found = []
        for name, strategy, changes in _runs():
            for seed in seeds:
                values: dict[str, Any] = {"preset": "pfps", "name": name, "strategy": strategy, "seed": seed}
                values |= changes | (LITTLE if dry else published)
                if strategy == "text" and llama.is_dir():
                    values["language_model"] = str(llama.resolve())
                needs = ["patches", "EfficientSAM-S"] if not dry else []
                needs += ["TinyLlama"] if strategy == "text" else []
                found.append(GridCell(f"{name}/seed-{seed}", values, HOURS, tuple(needs)))
        return found

    def figures(self, out: Path, seeds: Sequence[int]) -> list[PaperFigure]:
        found = []
        for strategy, row in STRATEGIES.items():
            for column, published in zip(UNITS, COMPLETE[strategy], strict=True):
                ours = _ours(out, f"{strategy}-complete", seeds, column)
                found.append(PaperFigure("Complete training set", row, column, published, ours))
        for reading, kept in READINGS.items():
            name = f"Incomplete training set, tasks {', '.join(map(str, kept))} of dt and capsule kept"
            for strategy, row in STRATEGIES.items():
                for column, published in zip(UNITS, INCOMPLETE[strategy], strict=True):
                    ours = _ours(out, f"{strategy}-{reading}", seeds, column, SCORED_INCOMPLETE)
                    found.append(PaperFigure(name, row, column, published, ours))
        for row, cell, sentences, values in ABLATION:
            for column, published in zip(UNITS, values, strict=True):
                ours = _ours(out, cell, seeds, column, sentences=sentences)
                found.append(PaperFigure("Language model and sentences", row, column, published, ours))
        return found

    def draw(self, folder: Path) -> None:
        from tissuetalk.models.segmentation.little import save_little_llama

        if not (folder / "tinyllama").is_dir():
            save_little_llama(folder / "tinyllama")


def _runs() -> list[tuple[str, str, dict[str, Any]]]:
    """Name, strategy and what differs from the paper's main setting."""
    runs: list[tuple[str, str, dict[str, Any]]] = []
    for strategy in STRATEGIES:
        runs.append((f"{strategy}-complete", strategy, {}))
        runs += [
            (f"{strategy}-{name}", strategy, {"keep_tasks": list(kept)}) for name, kept in READINGS.items()
        ]
    return [*runs, ("text-complete-frozen", "text", {"lora": False})]


def _ours(
    out: Path,
    cell: str,
    seeds: Sequence[int],
    unit: str,
    tasks: Sequence[str] | None = None,
    sentences: str = "test",
) -> float | None:
    """Mean Dice of a unit over tasks, and over the seeds that are done."""
    reached = []
    for seed in seeds:
        rows = rows_of(out / cell / f"seed-{seed}" / "scores.csv")
        chosen = [row for row in rows if row["unit"] == unit and row["sentences"] == sentences]
        values = [float(row["dice"]) for row in chosen if tasks is None or row["task"] in tasks]
        if values:
            reached.append(sum(values) / len(values))
    return mean_of(reached)
