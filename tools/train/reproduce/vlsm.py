"""VLSM transfer (arXiv 2308.07706): four networks, ten prompts, zero-shot, fine-tuned, frozen, pooled, out of distribution."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import cv2
import numpy as np

from tissuetalk.models.datasets.manifest import read_manifest
from tissuetalk.models.errors import TissuetalkError
from tissuetalk.models.metrics.tables import csv_text
from tissuetalk.models.segmentation import clipseg
from tissuetalk.models.segmentation.vlsm.networks import NAMES
from tissuetalk.models.writing import write_whole
from tissuetalk.tools.train.reproduce.grid import GridCell, Need, Paper, PaperFigure, mean_of, rows_of_seeds
from tissuetalk.tools.train.reproduce.vlsm_tables import (
    COLUMNS,
    FROZEN,
    INDIVIDUAL,
    OUT_OF_SET,
    POOLED,
    POOLED_ENDOSCOPY,
)

CLASSES: Final = {
    "kvasir": "polyp", "clinicdb": "polyp", "bkai": "polyp", "cvc-300": "polyp", "colondb": "polyp", "etis": "polyp",
    "isic": "skin melanoma", "dfu": "foot ulcer",
}  # fmt: skip
"""Data sets whose prompts are built, each a folder of that name with a manifest, and the class in its prompts."""
SOURCES: Final = {
    "kvasir": "datasets.simula.no/kvasir-seg",
    "clinicdb": "polyp.grand-challenge.org/CVCClinicDB",
    "bkai": "kaggle.com/c/bkai-igh-neopolyp",
    "cvc-300": "with ColonDB and ETIS in the test sets of PraNet",
    "colondb": "as cvc-300",
    "etis": "as cvc-300",
    "isic": "challenge.isic-archive.com, 2016, task 1",
    "dfu": "dfu-challenge.github.io, 2022 (on request)",
}
ENDOSCOPY: Final = ("kvasir", "clinicdb", "bkai", "cvc-300", "colondb", "etis")
TRAINABLE: Final = ("kvasir", "clinicdb", "bkai", "isic", "dfu")
PROMPTS: Final = tuple(f"P{number}" for number in range(10))
MINUTES: Final = {"clipseg": 40, "cris": 60, "biomedclipseg": 20, "biomedclipseg-d": 30}
"""A run, as published."""
WEIGHTS: Final = {
    "clipseg": "", "cris": "cris.pth", "biomedclipseg": "biomedclip/open_clip_pytorch_model.bin",
    "biomedclipseg-d": "biomedclip/open_clip_pytorch_model.bin",
}  # fmt: skip
"""Below the data folder; CLIPSeg from the hub cache."""
LITTLE: Final = {"size": "little", "epochs": 1, "batch": 2, "threads": 1}


class VlsmPaper(Paper):
    """Data: a folder per set with ``manifest.csv`` (splits train, val, test), ``cris.pth`` and ``biomedclip/``."""

    name: ClassVar[str] = "vlsm"
    title: ClassVar[str] = "Transfer of vision-language segmentation models (arXiv 2308.07706)"
    hours: ClassVar[str] = (
        "Mean minutes of a run as the paper gives them for its GPU: CLIPSeg 40, CRIS 60, BiomedCLIPSeg 20, -D 30; of pooled runs "
        "assumed five times as many, of zero-shot runs 2 minutes."
    )
    left_out: ClassVar[tuple[str, ...]] = (
        "CAMUS, BUSI and CheXlocalize: by recipes of their own (`kind: heart`, `breast`, `chest` and a table `studies`).",
        "U-Net, U-Net++ and DeepLabV3+: no trainer; their published figures are in the tables.",
        "Reports as prompts (MIMIC): by a recipe of its own (`kind: report`, prompts P0 and P1).",
        "Attributes of photographs are our colours and shapes; a VQA model's words come in by the columns shape and color of `studies`.",
    )

    def needs(self, data: Path) -> list[Need]:
        def lacks(place: str) -> str | None:
            return None if (data / place).is_file() else f"no {place} in the data folder"

        found = [
            Need(
                name,
                _unready(data / name),
                f"{where}; list its files in {name}/manifest.csv with their split",
            )
            for name, where in SOURCES.items()
        ]
        cris = "trained on RefCOCO, unofficial: see github.com/DerrickWang005/CRIS.pytorch"
        biomedclip = "`hf download microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224`"
        return [
            *found,
            Need("CLIPSeg", clipseg.WEIGHTS.missing(), f"`hf download {clipseg.WEIGHTS.hub_id}`"),
            Need("CRIS", lacks(WEIGHTS["cris"]), cris),
            Need("BiomedCLIP", lacks(WEIGHTS["biomedclipseg"]), biomedclip),
        ]

    def cells(self, data: Path, *, dry: bool, seeds: Sequence[int]) -> list[GridCell]:
        grid = _Grid(data, dry)
        return [cell for seed in seeds for cell in grid.cells(seed)]

    def figures(self, out: Path, seeds: Sequence[int]) -> list[PaperFigure]:
        ours = _Ours(out, seeds)
        found = [
            PaperFigure(
                "Trained on each set, best prompt",
                row,
                column,
                value,
                ours.best(f"fine-tuned/{row}/{column}", column),
            )
            for row, values in INDIVIDUAL.items()
            for column, value in values.items()
        ]
        for name, cell, published in (
            ("All sets pooled", "pooled-all", POOLED),
            ("Endoscopy pooled", "pooled-endoscopy", POOLED_ENDOSCOPY),
        ):
            for row, numbers in published.items():
                for column, value in zip(COLUMNS, numbers, strict=False):
                    found.append(PaperFigure(name, row, column, value, ours.of(f"{cell}/{row}", column)))
        for (trained, row), six in OUT_OF_SET.items():
            for column, value in zip(ENDOSCOPY, six, strict=True):
                reached = ours.best(f"fine-tuned/{row}/{trained}", column)
                found.append(
                    PaperFigure("Out of distribution", f"{row} trained on {trained}", column, value, reached)
                )
        for (row, column), three in FROZEN.items():
            start = f"{'frozen' if row == 'cris' else 'fine-tuned'}/{row}/{column}"
            for prompt, value in zip(("P0", "P1", "best"), three, strict=True):
                reached = (
                    ours.best(start, column) if prompt == "best" else ours.of(f"{start}/{prompt}", column)
                )
                found.append(PaperFigure("Encoders frozen", f"{row} on {column}", prompt, value, reached))
        return found

    def draw(self, folder: Path) -> None:
        for number, name in enumerate(CLASSES):
            if not (folder / name / "manifest.csv").is_file():
                _draw_set(folder / name, np.random.default_rng(number), trains=name in TRAINABLE)


def _unready(folder: Path) -> str | None:
    """What keeps a set from being used; one without test rows would be scored on what it was trained on."""
    try:
        splits = {record.split for record in read_manifest(folder)}
    except TissuetalkError as error:
        return str(error)
    wanted = {"train", "val", "test"} if folder.name in TRAINABLE else {"test"}
    return f"no row of the split {', '.join(sorted(wanted - splits))}" if wanted - splits else None


class _Grid:
    """All cells over the sets of one data folder."""

    def __init__(self, data: Path, dry: bool) -> None:
        self.data, self.dry = data.resolve(), dry

    def cells(self, seed: int) -> list[GridCell]:
        every = tuple(CLASSES)
        found = [
            self._cell(f"zero-shot/{network}/{prompt}", network, seed, prompt, (), every, 2, epochs=0)
            for network in ("clipseg", "cris")
            for prompt in PROMPTS
        ]
        for network in NAMES:
            # CLIPSeg's and BiomedCLIP's encoders learned nothing in the paper's runs either
            found += self._single("fine-tuned", network, seed, train_encoders=network == "cris")
        found += self._single("frozen", "cris", seed, train_encoders=False)
        for network in ("clipseg", "cris"):
            learns = {"train_encoders": network == "cris"}
            for name, sets, test in (("all", TRAINABLE, every), ("endoscopy", ENDOSCOPY[:3], ENDOSCOPY)):
                minutes = 5 * MINUTES[network]
                found.append(
                    self._cell(
                        f"pooled-{name}/{network}", network, seed, "random", sets, test, minutes, **learns
                    )
                )
        return found

    def _single(self, kind: str, network: str, seed: int, **learns: bool) -> list[GridCell]:
        found = []
        for name in TRAINABLE:
            for prompt in PROMPTS:
                # what was trained on one endoscopy set is tested on all of them
                test = ENDOSCOPY if name in ENDOSCOPY else (name,)
                asked = {"wrong_attributes": prompt == "P6" and kind == "fine-tuned"} | learns
                minutes = MINUTES[network]
                found.append(
                    self._cell(
                        f"{kind}/{network}/{name}/{prompt}",
                        network,
                        seed,
                        prompt,
                        (name,),
                        test,
                        minutes,
                        **asked,
                    )
                )
        return found

    def _cell(
        self,
        name: str,
        network: str,
        seed: int,
        prompt: str,
        train: Sequence[str],
        test: Sequence[str],
        minutes: float,
        **changes: Any,
    ) -> GridCell:
        values: dict[str, Any] = {
            "preset": "vlsm",
            "name": network,
            "network": network,
            "prompt": prompt,
            "seed": seed,
        }
        values |= {"train": [self._set(each) for each in train], "test": [self._set(each) for each in test]}
        needs = [*dict.fromkeys((*train, *test))]
        if self.dry:
            values |= LITTLE
        else:
            values |= {"weights": str(self.data / WEIGHTS[network])} if WEIGHTS[network] else {}
            needs += {
                "clipseg": ["CLIPSeg"],
                "cris": ["CRIS", "CLIPSeg"],
                "biomedclipseg-d": ["BiomedCLIP", "CLIPSeg"],
            }.get(network, ["BiomedCLIP"])
        return GridCell(f"{name}/seed-{seed}", values | changes, minutes / 60, tuple(needs))

    def _set(self, name: str) -> dict[str, str]:
        return {"manifest": str(self.data / name), "label": CLASSES[name]}


class _Ours:
    """Dice of finished cells, mean over seeds."""

    def __init__(self, out: Path, seeds: Sequence[int]) -> None:
        self.out, self.seeds = out, seeds

    def of(self, cell: str, column: str) -> float | None:
        rows = rows_of_seeds(self.out, cell, self.seeds)
        return mean_of([float(row["dice"]) for row in rows if row["set"] == column and row["dice"]])

    def best(self, start: str, column: str) -> float | None:
        """Over prompts, which is how the paper's tables seem to be made."""
        reached = [value for prompt in PROMPTS if (value := self.of(f"{start}/{prompt}", column)) is not None]
        return max(reached, default=None)


def _draw_set(folder: Path, random: np.random.Generator, *, trains: bool) -> None:
    """Four pictures of a disc each: two to learn from, one to validate on, one to test on; or two to test on."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, split in enumerate(("train", "train", "val", "test") if trains else ("test", "test")):
        mask = np.zeros((64, 64), np.uint8)
        x, y = (int(value) for value in random.integers(20, 44, 2))
        cv2.circle(mask, (x, y), int(random.integers(8, 16)), 255, -1)
        picture = np.where(mask[..., None] > 0, (90, 60, 200), (120, 150, 220)) + random.normal(
            0, 8, (64, 64, 3)
        )
        cv2.imwrite(str(folder / f"images/{number}.png"), picture.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(folder / f"images/{number}-mask.png"), mask)
        rows.append(
            [
                f"images/{number}.png",
                f"images/{number}-mask.png",
                "binary",
                folder.name,
                str(number),
                "",
                "unknown",
                split,
            ]
        )
    columns = ("file", "mask", "mask_kind", "mask_class", "group", "organ", "mpp_um", "split")
    write_whole(folder / "manifest.csv", csv_text([dict(zip(columns, row, strict=True)) for row in rows]))
