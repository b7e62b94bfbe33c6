"""PathSegmentor (arXiv 2506.20988): train on the PathSeg sources, score each, CoNSeP outside, beside BiomedParse and MedSAM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from tissuetalk.models import registry
from tissuetalk.models.control import Control
from tissuetalk.models.datasets.pathseg.source import sources
from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.metrics.levels import published
from tissuetalk.models.segmentation.pathsegmentor.base_segmenter import PlainSentences
from tissuetalk.models.segmentation.pathsegmentor.base_segmenter import load as load_base
from tissuetalk.models.segmentation.pathsegmentor.text_tower import MINILM
from tissuetalk.tools.evaluate.evaluate import ModelUnderTest, evaluate
from tissuetalk.tools.evaluate.probes import BoxProbe, load_box_model
from tissuetalk.tools.train.reproduce.drawn import draw_set
from tissuetalk.tools.train.reproduce.grid import GridCell, Need, Paper, PaperFigure, mean_of, rows_of

CONSEP: Final = "CoNSeP"
BIOMEDPARSE: Final = "biomedparse_v1.pt"
TRAIN_HOURS: Final = 20 * 229_714 / 32 * 6 / 3600
EVALUATE_HOURS: Final = 0.25
METHODS: Final = {
    "pathsegmentor": "PathSegmentor", "biomedparse": "BiomedParse", "medsam_union_box": "MedSAM, union box",
    "sam_med2d_union_box": "SAM-Med2D, union box", "nnunet": "nnU-Net", "deeplabv3plus": "DeepLabV3+",
    "sam_path": "SAM-Path",
}  # fmt: skip
"""Columns of the published tables to their names."""
LITTLE: Final = {
    "model": {"size": "tiny", "vocabulary": 30522}, "steps": 2, "batch": 2, "side_px": 64, "points": 64, "threads": 1,
}  # fmt: skip


def internal() -> list[str]:
    """The sources that are trained on, by name."""
    return [name for name in sources() if name != CONSEP]


class PathSegmentorPaper(Paper):
    """Data: a folder per source as `tissuetalk data prepare` writes it, ``biomedparse_v1.pt`` and ``vocab.txt``."""

    name: ClassVar[str] = "pathsegmentor"
    title: ClassVar[str] = "PathSegmentor (arXiv 2506.20988)"
    hours: ClassVar[str] = (
        "Assumed, not measured: 143,571 steps of 32 tiles at 6 GPU seconds each, a quarter of an hour to score a source. The paper "
        "trains on four GPUs and gives no times."
    )
    left_out: ClassVar[tuple[str, ...]] = (
        "nnU-Net, DeepLabV3+, SAM-Path and SAM-Med2D: specialised runs or weights of others; their published figures are in the tables.",
        "Dice by region, structure and object type: in report.md of every scored source.",
    )
    figures_are: ClassVar[str] = "Dice"
    percent: ClassVar[bool] = False

    def needs(self, data: Path) -> list[Need]:
        found = []
        for name in (*internal(), CONSEP):
            missing = None if _manifest(data, name).is_file() else f"no {name}/test.csv in the data folder"
            found.append(Need(name, missing, f"`tissuetalk data prepare {name} FOLDER --out DIR/{name}`"))
        trainable = any((data / name / "train.csv").is_file() for name in internal())
        none = "none of the sources is there"
        found.append(
            Need("PathSeg", None if trainable else none, "the 16 sources below, as many as you have")
        )
        lacks = None if (data / BIOMEDPARSE).is_file() else f"no {BIOMEDPARSE} in the data folder"
        found.append(Need("BiomedParse", lacks, "huggingface.co/microsoft/BiomedParse, biomedparse_v1.pt"))
        words = None if (data / "vocab.txt").is_file() else "no vocab.txt in the data folder"
        return [
            *found,
            Need("vocabulary", words, "vocab.txt of PubMedBERT (abstract), beside the checkpoint"),
        ]

    def cells(self, data: Path, *, dry: bool, seeds: Sequence[int]) -> list[GridCell]:
        data = data.resolve()
        recipe: dict[str, Any] = {"preset": "base", "name": "pathsegmentor"}
        here = [name for name in internal() if (data / name / "train.csv").is_file()]
        recipe["manifests"] = [str(data / name / "train.csv") for name in here]
        needs: tuple[str, ...] = ("PathSeg",)
        if dry:
            recipe |= LITTLE
        else:
            recipe |= {"start_from": str(data / BIOMEDPARSE), "vocabulary": str(data / "vocab.txt")}
            needs = ("PathSeg", "BiomedParse", "vocabulary")
        found = []
        for seed in seeds:
            found.append(GridCell(f"train/seed-{seed}", recipe | {"seed": seed}, TRAIN_HOURS, needs))
            for name in (*internal(), CONSEP):
                asked = {"evaluate": str(_manifest(data, name)), "boxes": not dry}
                score = f"pathsegmentor/{name}/seed-{seed}"
                found.append(
                    GridCell(score, asked | {"trained": f"train/seed-{seed}"}, EVALUATE_HOURS, (name, *needs))
                )
        for name in (*internal(), CONSEP):
            asked = {"evaluate": str(_manifest(data, name)), "weights": str(data / BIOMEDPARSE)}
            released = "BiomedParse"
            if dry:
                asked["weights"], released = str(data / "biomedparse"), "PathSeg"
            found.append(GridCell(f"biomedparse/{name}/released", asked, EVALUATE_HOURS, (name, released)))
        return found

    def run(self, cell: GridCell, folder: Path, control: Control) -> None:
        if "evaluate" not in cell.values:
            super().run(cell, folder, control)
            return
        # a cell's folder is three steps below the grid's
        weights = cell.values.get("weights") or folder.parents[2] / cell.values["trained"] / "weights"
        if not Path(weights).exists():
            raise ModelUnavailableError(f"{cell.values['trained']} has left no weights; run it first.")
        model = PlainSentences(Path(weights)) if "weights" in cell.values else load_base(weights)
        boxed = ["medsam"] if cell.values.get("boxes") and registry.MODELS["medsam"].why_not() is None else []
        probes = [BoxProbe({name: load_box_model(name) for name in boxed})] if boxed else []
        manifest = Path(cell.values["evaluate"])
        evaluate(manifest, folder, ModelUnderTest(model), words=None, probes=probes, control=control)

    def figures(self, out: Path, seeds: Sequence[int]) -> list[PaperFigure]:
        ours = _Scored(out, seeds)
        found = []
        for table, key in (("By source", "by_source"), ("CoNSeP, never trained on", "external_consep")):
            for row, methods in published(key).items():
                for method, title in METHODS.items():
                    reached = ours.of(method, row, external=key == "external_consep")
                    found.append(PaperFigure(table, row, title, methods[method], reached))
        for row, methods in published("by_category").items():
            for method in ("pathsegmentor", "biomedparse", "medsam_union_box"):
                reached = ours.label(method, row)
                found.append(PaperFigure("By category", row, METHODS[method], methods[method], reached))
        return found

    def draw(self, folder: Path) -> None:
        import torch

        from tissuetalk.models.segmentation.pathsegmentor.base import BaseConfig, build_base
        from tissuetalk.models.segmentation.pathsegmentor.base_segmenter import save_base

        names = [("a", "train"), ("b", "train"), ("c", "test")]
        for number, name in enumerate(internal()):
            types = ("breast-nuclei-epithelial", "breast-tissue-tumor")
            draw_set(folder / name, names, types, seed=number, organs=("breast",))
        types = ("colon-cell-malignant epithelial", "colon-cell-inflammatory")
        draw_set(folder / CONSEP, names[2:], types, seed=99, organs=("colon",))
        if not (folder / "biomedparse").is_dir():
            torch.manual_seed(0)
            config = BaseConfig(**{**vars(BaseConfig.tiny()), "vocabulary": 30522})
            words = MINILM.find().with_name("vocab.txt")
            save_base(
                build_base(config),
                config,
                folder / "biomedparse",
                labels=(),
                vocabulary=words,
                shown_at_px=64,
            )


def _manifest(data: Path, name: str) -> Path:
    return data / name / "test.csv"


class _Scored:
    """Dice of scored images, over all seeds. Rows without a score (errors) count nowhere."""

    def __init__(self, out: Path, seeds: Sequence[int]) -> None:
        self.rows: dict[str, list[Mapping[str, str]]] = {"pathsegmentor": [], "biomedparse": []}
        self.boxes: dict[str, list[Mapping[str, str]]] = {}
        self.done: dict[str, set[str]] = {"pathsegmentor": set(), "biomedparse": set()}
        for name in (*internal(), CONSEP):
            places = {"pathsegmentor": [out / f"pathsegmentor/{name}/seed-{seed}" for seed in seeds]}
            places["biomedparse"] = [out / f"biomedparse/{name}/released"]
            for method, folders in places.items():
                rows = [
                    row | {"of": name} for at in folders for row in rows_of(at / "scores.csv") if row["dice"]
                ]
                self.rows[method] += rows
                if rows:
                    self.done[method].add(name.casefold())
            self.boxes[name.casefold()] = [
                row
                for at in places["pathsegmentor"]
                for row in rows_of(at / "boxes.csv")
                if row["method"] == "medsam, union box"
            ]

    def of(self, method: str, row: str, *, external: bool) -> float | None:
        """row: a source, an object type of CoNSeP, or ``overall``, which needs every source."""
        if method == "medsam_union_box":
            return _mean(each["dice"] for each in self._boxed(row, external=external))
        if method not in self.rows:
            return None
        inside = [each for each in self.rows[method] if (each["of"] == CONSEP) == external]
        if row.casefold() != "overall":
            key = "label" if external else "of"
            inside = [each for each in inside if each[key].split("-", 2)[-1].casefold() == row.casefold()]
        elif not external and len(self.done[method] - {CONSEP.casefold()}) < len(internal()):
            return None
        return _mean(each["dice"] for each in inside)

    def _boxed(self, row: str, *, external: bool) -> list[Mapping[str, str]]:
        if external:
            found = self.boxes[CONSEP.casefold()]
            return [each for each in found if row == "overall" or each["mask_class"].endswith(f"-{row}")]
        if row.casefold() != "overall":
            return self.boxes.get(row.casefold(), [])
        every = [self.boxes[name.casefold()] for name in internal()]
        return [each for rows in every for each in rows] if all(every) else []

    def label(self, method: str, label: str) -> float | None:
        """A canonical label, over the sources that are trained on."""
        if method == "medsam_union_box":
            boxed = [row for name in internal() for row in self.boxes[name.casefold()]]
            return _mean(row["dice"] for row in boxed if row["mask_class"] == label)
        return _mean(
            row["dice"] for row in self.rows[method] if row["label"] == label and row["of"] != CONSEP
        )


def _mean(values: Iterable[str]) -> float | None:
    return mean_of([float(value) for value in values])
