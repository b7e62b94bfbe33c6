"""VLSM transfer (arXiv 2308.07706): four networks, ten prompts, zero-shot, fine-tuned, frozen, pooled, out of distribution."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, product
from pathlib import Path
from typing import Any, ClassVar, Final

import cv2
import numpy as np

from tissuetalk.models.datasets.manifest import read_manifest
from tissuetalk.models.errors import TissuetalkError
from tissuetalk.models.metrics.tables import csv_text
from tissuetalk.models.segmentation import clipseg
from tissuetalk.models.segmentation.vlsm.card import CNNS, CnnName
from tissuetalk.models.segmentation.vlsm.cnn import RESNET
from tissuetalk.models.segmentation.vlsm.networks import NAMES, SETTINGS
from tissuetalk.models.writing import write_whole
from tissuetalk.prompts.attributes import PromptId
from tissuetalk.prompts.studies import RICHEST_OF, StudyKind, prompts_of
from tissuetalk.tools.train.reproduce.grid import (
    GridCell,
    Need,
    Paper,
    PaperFigure,
    mean_of,
    rows_of,
    rows_of_seeds,
)
from tissuetalk.tools.train.reproduce.vlsm_tables import (
    COLUMNS,
    FROZEN,
    INDIVIDUAL,
    OUT_OF_SET,
    POOLED,
    POOLED_ENDOSCOPY,
    REPORTS,
)
from tissuetalk.tools.train.vlsm_data import RICHEST

CLASSES: Final = {
    "kvasir": "polyp", "clinicdb": "polyp", "bkai": "polyp", "cvc-300": "polyp", "colondb": "polyp", "etis": "polyp",
    "isic": "skin melanoma", "dfu": "foot ulcer", "busi": "tumor", "mimic": "lungs",
}  # fmt: skip
"""Data sets whose prompts are built, each a folder of that name with a manifest, and the class in its prompts."""
PARTS: Final = {
    "camus": ("left ventricular cavity", "myocardium", "left atrium cavity"),
    "chexlocalize": (
        "airspace opacity", "atelectasis", "cardiomegaly", "consolidation", "edema", "enlarged cardiomediastinum",
        "lung lesion", "pleural effusion", "pneumothorax", "support devices",
    ),
}  # fmt: skip
"""Data sets of several classes, each with a manifest of its own in the set's folder, such as ``pleural-effusion.csv``."""
KINDS: Final[dict[str, StudyKind]] = {
    "camus": "heart",
    "busi": "breast",
    "chexlocalize": "chest",
    "mimic": "report",
}
"""Sets with prompts of their own, which also need ``studies.csv`` in their folder."""
SOURCES: Final = {
    "kvasir": "datasets.simula.no/kvasir-seg",
    "clinicdb": "polyp.grand-challenge.org/CVCClinicDB",
    "bkai": "kaggle.com/c/bkai-igh-neopolyp",
    "cvc-300": "with ColonDB and ETIS in the test sets of PraNet",
    "colondb": "as cvc-300",
    "etis": "as cvc-300",
    "isic": "challenge.isic-archive.com, 2016, task 1",
    "dfu": "dfu-challenge.github.io, 2022 (on request)",
    "camus": "creatis.insa-lyon.fr/Challenge/camus",
    "busi": "scholar.cu.edu.eg/?q=afahmy/pages/dataset",
    "chexlocalize": "stanfordaimi.azurewebsites.net, CheXlocalize",
    "mimic": "physionet.org, MIMIC-CXR with lung masks (on request); reports in studies.csv",
}
ENDOSCOPY: Final = ("kvasir", "clinicdb", "bkai", "cvc-300", "colondb", "etis")
TRAINABLE: Final = ("kvasir", "clinicdb", "bkai", "isic", "dfu", "camus", "busi", "chexlocalize")
ALONE: Final = "mimic"
"""In no pool and no other table: asked without words about its images (P0), and with the whole report (P1)."""
BASELINES: Final[dict[str, CnnName]] = {"U-Net": "unet", "U-Net++": "unet++", "DeepLabV3+": "deeplabv3+"}
SWEPT: Final = (0.1, 0.3, 1.0, 3.0)
"""Times the learning rate of the paper, for ten epochs on Kvasir."""
PROMPTS: Final = tuple(f"P{number}" for number in range(10))
MINUTES: Final = {
    "clipseg": 40, "cris": 60, "biomedclipseg": 20, "biomedclipseg-d": 30, "unet": 30, "unet++": 30, "deeplabv3+": 30,
}  # fmt: skip
"""A run, as published; of the baselines assumed."""
WEIGHTS: Final = {
    "clipseg": "", "cris": "cris.pth", "biomedclipseg": "biomedclip/open_clip_pytorch_model.bin",
    "biomedclipseg-d": "biomedclip/open_clip_pytorch_model.bin", "unet": "", "unet++": "", "deeplabv3+": "",
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
        "Attributes of photographs are our colours and shapes; a VQA model's come in by `tissuetalk training describe`.",
    )

    def needs(self, data: Path) -> list[Need]:
        def lacks(place: str) -> str | None:
            return None if (data / place).is_file() else f"no {place} in the data folder"

        found = [
            Need(
                name,
                _unready(data / name),
                f"{where}; list its files in {' and '.join(_manifests(name))} with their split",
            )
            for name, where in SOURCES.items()
        ]
        resnet = Need("ResNet-50", RESNET.missing(), f"`hf download {RESNET.hub_id}`")
        cris = "trained on RefCOCO, unofficial: see github.com/DerrickWang005/CRIS.pytorch"
        biomedclip = "`hf download microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224`"
        return [
            *found,
            Need("CLIPSeg", clipseg.WEIGHTS.missing(), f"`hf download {clipseg.WEIGHTS.hub_id}`"),
            resnet,
            Need("CRIS", lacks(WEIGHTS["cris"]), cris),
            Need("BiomedCLIP", lacks(WEIGHTS["biomedclipseg"]), biomedclip),
        ]

    def cells(self, data: Path, *, dry: bool, seeds: Sequence[int]) -> list[GridCell]:
        grid = _Grid(data, dry)
        return [cell for seed in seeds for cell in grid.cells(seed)]

    def figures(self, out: Path, seeds: Sequence[int]) -> list[PaperFigure]:
        ours = _Ours(out, seeds)
        table = "Trained on each set, best prompt"
        found = [
            PaperFigure(table, row, column, value, ours.trained(row, column, column))
            for row, values in INDIVIDUAL.items()
            for column, value in values.items()
        ]
        for name, cell, published in (
            ("All sets pooled", "pooled-all", POOLED),
            ("Endoscopy pooled", "pooled-endoscopy", POOLED_ENDOSCOPY),
        ):
            for row, numbers in published.items():
                for column, value in zip(COLUMNS, numbers, strict=False):
                    reached = ours.of(f"{cell}/{BASELINES.get(row, row)}", column)
                    found.append(PaperFigure(name, row, column, value, reached))
        for (trained, row), six in OUT_OF_SET.items():
            for column, value in zip(ENDOSCOPY, six, strict=True):
                reached = ours.trained(row, trained, column)
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
        for network in NAMES:
            for factor in SWEPT:
                table = "Ten epochs on kvasir, best Dice of validation rows, by learning rate"
                found.append(PaperFigure(table, network, f"x{factor:g}", None, ours.swept(network, factor)))
        for (reader, kind), pair in REPORTS.items():
            for prompt, column, value in zip(("P0", "P1"), ("class", "report"), pair, strict=True):
                reached = ours.of(f"{kind}/{reader}/{ALONE}/{prompt}", ALONE)
                found.append(
                    PaperFigure("Reports as prompts, MIMIC", f"{reader}, {kind}", column, value, reached)
                )
        return found + ours.wrong_attributes()

    def draw(self, folder: Path) -> None:
        for number, name in enumerate((*CLASSES, *PARTS)):
            if not (folder / name / "images").is_dir():
                trains = name in (*TRAINABLE, ALONE)
                _draw_set(folder / name, np.random.default_rng(number), trains=trains)


def _manifests(name: str) -> tuple[str, ...]:
    """Tables of a set, below the data folder."""
    if name in PARTS:
        return tuple(f"{name}/{part.replace(' ', '-')}.csv" for part in PARTS[name])
    return (f"{name}/manifest.csv",)


def _unready(folder: Path) -> str | None:
    """What keeps a set from being used; one without test rows would be scored on what it was trained on."""
    if folder.name in KINDS and not (folder / "studies.csv").is_file():
        return f"no {folder.name}/studies.csv in the data folder"
    try:
        tables = [folder.parent / name for name in _manifests(folder.name)]
        splits = set.intersection(*({record.split for record in read_manifest(table)} for table in tables))
    except TissuetalkError as error:
        return str(error)
    wanted = {"train", "val", "test"} if folder.name in (*TRAINABLE, ALONE) else {"test"}
    return f"no row of the split {', '.join(sorted(wanted - splits))}" if wanted - splits else None


class _Grid:
    """All cells over the sets of one data folder."""

    def __init__(self, data: Path, dry: bool) -> None:
        self.data, self.dry = data.resolve(), dry

    def cells(self, seed: int) -> list[GridCell]:
        every = COLUMNS
        found = [
            self._cell(f"zero-shot/{network}/{prompt}", network, seed, prompt, (), sets, 2, epochs=0)
            for network in ("clipseg", "cris")
            for prompt in PROMPTS
            if (sets := [name for name in every if prompt in _prompts(name)])
        ]
        for network in NAMES:
            # CLIPSeg's and BiomedCLIP's encoders learned nothing in the paper's runs either
            found += self._single("fine-tuned", network, seed, train_encoders=network == "cris")
        found += self._single("frozen", "cris", seed, train_encoders=False)
        pools = {"all": (TRAINABLE, every), "endoscopy": (ENDOSCOPY[:3], ENDOSCOPY)}
        for pooled, (name, (learned, tested)) in product(("clipseg", "cris", *CNNS), pools.items()):
            learns = {"train_encoders": pooled == "cris"}
            cell, minutes = f"pooled-{name}/{pooled}", 5.0 * MINUTES[pooled]
            found.append(self._cell(cell, pooled, seed, "random", learned, tested, minutes, **learns))
        for baseline, name in product(CNNS, TRAINABLE):
            tested = ENDOSCOPY if name in ENDOSCOPY else (name,)
            cell, minutes = f"baseline/{baseline}/{name}", MINUTES[baseline]
            found.append(self._cell(cell, baseline, seed, "random", (name,), tested, minutes))
        for reader, prompt in product(("clipseg", "cris"), _prompts(ALONE)):
            learns, cell = {"train_encoders": reader == "cris"}, f"{reader}/{ALONE}/{prompt}"
            found += [
                self._cell(f"zero-shot/{cell}", reader, seed, prompt, (), (ALONE,), 2, epochs=0),
                self._cell(
                    f"fine-tuned/{cell}",
                    reader,
                    seed,
                    prompt,
                    (ALONE,),
                    (ALONE,),
                    MINUTES[reader],
                    **learns,
                ),
            ]
        for network, factor in product(NAMES, SWEPT):
            rate = factor * SETTINGS["paper", network == "cris"].rate
            changes = {"learning_rate": rate, "epochs": 10, "train_encoders": network == "cris"}
            cell, minutes = f"sweep/{network}/x{factor:g}", MINUTES[network] / 9
            found.append(self._cell(cell, network, seed, RICHEST, ("kvasir",), (), minutes, **changes))
        return found

    def _single(self, kind: str, network: str, seed: int, **learns: bool) -> list[GridCell]:
        found = []
        for name in TRAINABLE:
            for prompt in _prompts(name):
                # what was trained on one endoscopy set is tested on all of them
                test = ENDOSCOPY if name in ENDOSCOPY else (name,)
                wrong = prompt == RICHEST_OF[KINDS.get(name, "photograph")] and kind == "fine-tuned"
                asked = {"wrong_attributes": wrong} | learns
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
        values |= {"train": [*chain(*map(self._sets, train))], "test": [*chain(*map(self._sets, test))]}
        needs = [*dict.fromkeys((*train, *test))]
        if self.dry:
            changes |= LITTLE | {"epochs": min(1, changes.get("epochs", 1))}
        else:
            values |= {"weights": str(self.data / WEIGHTS[network])} if WEIGHTS[network] else {}
            needs += {
                "clipseg": ["CLIPSeg"],
                "cris": ["CRIS", "CLIPSeg"],
                "biomedclipseg-d": ["BiomedCLIP", "CLIPSeg"],
                "biomedclipseg": ["BiomedCLIP"],
            }.get(network, ["ResNet-50"])
        return GridCell(f"{name}/seed-{seed}", values | changes, minutes / 60, tuple(needs))

    def _sets(self, name: str) -> list[dict[str, str]]:
        labels = PARTS.get(name) or (CLASSES[name],)
        told = [
            {"manifest": str(self.data / table), "label": label}
            for table, label in zip(_manifests(name), labels, strict=True)
        ]
        if name not in KINDS and not (self.data / name / "studies.csv").is_file():
            return told
        kind = KINDS.get(name, "photograph")
        return [each | {"kind": kind, "studies": str(self.data / name / "studies.csv")} for each in told]


def _prompts(name: str) -> tuple[PromptId, ...]:
    """Those of a set's kind; photographs have P10, too, which is ours."""
    return tuple(prompt for prompt in prompts_of(KINDS.get(name, "photograph")) if prompt in PROMPTS)


class _Ours:
    """Dice of finished cells, mean over seeds."""

    def __init__(self, out: Path, seeds: Sequence[int]) -> None:
        self.out, self.seeds = out, seeds

    def of(self, cell: str, column: str) -> float | None:
        """Of a set of several classes the mean over all its images."""
        names = {Path(table).stem for table in _manifests(column)} if column in PARTS else {column}
        rows = rows_of_seeds(self.out, cell, self.seeds)
        told = [(float(row["dice"]), int(row["n"])) for row in rows if row["set"] in names and row["dice"]]
        count = sum(number for _, number in told)
        return sum(dice * number for dice, number in told) / count if count else None

    def trained(self, row: str, on: str, column: str) -> float | None:
        """Of a row of the paper's tables, trained on one set."""
        if row in BASELINES:
            return self.of(f"baseline/{BASELINES[row]}/{on}", column)
        return self.best(f"fine-tuned/{row}/{on}", column)

    def swept(self, network: str, factor: float) -> float | None:
        logs = [rows_of(self.out / f"sweep/{network}/x{factor:g}/seed-{seed}/log.csv") for seed in self.seeds]
        return mean_of([max(float(row["validation_dice"]) for row in log) for log in logs if log])

    def wrong_attributes(self) -> list[PaperFigure]:
        """Change of Dice where one attribute of a prompt is wrong, by set; the paper shows a figure without numbers."""
        found = []
        for network, name in product(NAMES, TRAINABLE):
            cell = f"fine-tuned/{network}/{name}/{RICHEST_OF[KINDS.get(name, 'photograph')]}"
            tables = [
                rows_of(self.out / cell / f"seed-{seed}" / "wrong_attributes.csv") for seed in self.seeds
            ]
            rows = [row for some in tables for row in some]
            for attribute, swap in dict.fromkeys((row["attribute"], row["swap"]) for row in rows):
                key = (attribute, swap)
                changes = [
                    float(r["change_percent"]) / 100 for r in rows if (r["attribute"], r["swap"]) == key
                ]
                table = f"Change of Dice by a wrong attribute, {network}"
                found.append(PaperFigure(table, name, f"{attribute}, {swap}", None, mean_of(changes)))
        return found

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
    text = csv_text([dict(zip(columns, row, strict=True)) for row in rows])
    for table in _manifests(folder.name):
        write_whole(folder.parent / table, text)
    if folder.name in KINDS:
        studies = [
            {
                "file": row[0],
                "view": "frontal",
                "tumour": "benign",
                "cycle": "end of systole",
                "report": "Clear lungs.",
            }
            for row in rows
        ]
        write_whole(folder / "studies.csv", csv_text(studies))
