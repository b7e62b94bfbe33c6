"""Explainable diagnosis (arXiv 2506.20988): standard and object-aware classifier of IDC and ILC, and what they relied on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import cv2
import numpy as np

from tissuetalk.models.classifiers.occlusion import OCCLUSIONS
from tissuetalk.models.errors import TissuetalkError
from tissuetalk.models.reading import table_of
from tissuetalk.models.segmentation.pathsegmentor.card import BASE_WEIGHTS
from tissuetalk.models.writing import write_whole
from tissuetalk.tools.train.reproduce.grid import GridCell, Need, Paper, PaperFigure, mean_of

CLASSES: Final = ("IDC", "ILC")
OCCLUDED: Final = tuple(OCCLUSIONS)
RUNS: Final[dict[str, dict[str, Any]]] = {
    "standard": {},
    "object-aware": {"preset": "diagnosis-objects"},
    "standard-unbalanced": {"balanced": False},
    "object-aware-unbalanced": {"preset": "diagnosis-objects", "balanced": False},
    "standard-plain-128": {"gated": False, "hidden": 128},
    "standard-blur": {"further_sigmas_px": [5, 10, 40]},
    "standard-maps": {"occlusions": list(OCCLUDED)},
}
"""What the paper runs, and what it leaves open: whether classes are balanced, whether attention is gated, how far is blurred."""
PUBLISHED: Final = {"standard": (0.936, 0.825, 0.835), "object-aware": (0.953, 0.857, 0.868)}
MEASURES: Final = {"macro AUC": "macro_auc", "macro accuracy": "macro_accuracy", "macro F1": "macro_f1"}
MOST_IMPORTANT: Final = (
    "breast-nuclei-ductal epithelium", "breast-cell-cancerous", "breast-nuclei-neoplastic", "breast-tissue-tumor",
    "breast-nuclei-epithelial", "breast-tissue-dcis",
)  # fmt: skip
"""For IDC, as the paper lists them."""
HOURS: Final = {"standard": 60.0, "object-aware": 400.0}
LITTLE: Final[dict[str, Any]] = {
    "patch_px": 64, "patch_um": 32.0, "mpp": 0.5, "least_patches": 2, "suffixes": [".png"], "epochs": 2,
    "objects": ["breast-nuclei-nuclei"], "segmenter": "classical-nuclei", "occlusion_patches": 1,
}  # fmt: skip
"""Objects that are found on drawn slides, or every table about objects would stay empty."""


class DiagnosisPaper(Paper):
    """Data: ``slides/*.svs``, ``labels.csv`` (slide, label, patient), ``encoder`` (a ViT or a CONCH checkpoint)."""

    name: ClassVar[str] = "diagnosis"
    title: ClassVar[str] = "Explainable diagnosis on TCGA-BRCA (arXiv 2506.20988)"
    hours: ClassVar[str] = (
        "Assumed, not measured: encoding 985 slides and blurring twelve objects in 296 of them 60 GPU hours, segmenting 21 objects in "
        "all of them 400. Every run reads the slides anew. The paper gives no times."
    )
    left_out: ClassVar[tuple[str, ...]] = (
        "The paper's spread (0.014 to 0.027) is not said to be over slides or seeds; metrics.json has both.",
    )
    figures_are: ClassVar[str] = "Scores of test slides"
    percent: ClassVar[bool] = False

    def needs(self, data: Path) -> list[Need]:
        return [
            Need(
                "slides",
                _unready(data),
                "portal.gdc.cancer.gov, TCGA-BRCA, diagnostic slides; see docs/diagnosis.md",
            ),
            Need(
                "encoder",
                None if (data / "encoder").exists() else "no encoder in the data folder",
                "CONCH (huggingface.co/MahmoodLab/CONCH, on request), or any ViT in the transformers format",
            ),
            Need("PathSegmentor", BASE_WEIGHTS.missing(), "a checkpoint that knows the objects"),
        ]

    def cells(self, data: Path, *, dry: bool, seeds: Sequence[int]) -> list[GridCell]:
        data = data.resolve()
        values: dict[str, Any] = {
            "preset": "diagnosis", "images": str(data / "slides"), "labels": str(data / "labels.csv"),
            "classes": {name: [name] for name in CLASSES}, "tissue": "tcga", "feature": "tokens",
        }  # fmt: skip
        values |= {"encoder": str(data / "encoder")} | ({} if dry else {"segmenter": "pathsegmentor"})
        found = []
        for run, changes in RUNS.items():
            aware = changes.get("preset") == "diagnosis-objects"
            listed = LITTLE if dry else {"objects": "breast" if aware else "breast-idc-ilc"}
            for seed in seeds:
                told = values | {"name": run, "seeds": [seed]} | listed | changes
                hours = HOURS["object-aware" if aware else "standard"]
                needs = () if dry else ("slides", "encoder", "PathSegmentor")
                found.append(GridCell(f"{run}/seed-{seed}", told, hours, needs))
        return found

    def figures(self, out: Path, seeds: Sequence[int]) -> list[PaperFigure]:
        found = []
        for run in RUNS:
            if run in ("standard-blur", "standard-maps"):
                continue
            scores = [_json(out / run / f"seed-{seed}" / "metrics.json").get("test", {}) for seed in seeds]
            for number, (column, key) in enumerate(MEASURES.items()):
                reached = [float(score[key]["value"]) for score in scores if key in score]
                told = PUBLISHED[run][number] if run in PUBLISHED else None
                found.append(PaperFigure("Test slides", run, column, told, mean_of(reached)))
        sigmas = {"20": "importance.json"} | {f"{s}": f"importance-sigma-{s}.json" for s in (5, 10, 40)}
        for sigma, file in sigmas.items():
            table = f"Object importance, blur of {sigma} px: rise of the mean loss; of random pixels"
            run = "standard" if sigma == "20" else "standard-blur"
            rows = [row for seed in seeds for row in _objects(out, run, seed, file)]
            for name in dict.fromkeys((*MOST_IMPORTANT, *(row["name"] for row in rows))):
                for column in (*CLASSES, "all"):
                    here = [row for row in rows if row["name"] == name and row["class"] == column]
                    for key, title in (("ratio_of_means", column), ("control", f"{column}, random")):
                        values = [float(row[key]) for row in here if row[key] is not None]
                        found.append(PaperFigure(table, name, title, None, mean_of(values)))
        return [*found, *self._ranks(out, seeds), *self._maps(out, seeds)]

    def _maps(self, out: Path, seeds: Sequence[int]) -> list[PaperFigure]:
        """How well maps that know no objects find each of them."""
        table = "Maps that know no objects: area under the ROC curve of an object's pixels (0.5 is chance)"
        rows = [row for seed in seeds for row in _objects(out, "standard-maps", seed, "occlusion.json")]
        found = []
        for name in dict.fromkeys(row["name"] for row in rows):
            for method in OCCLUDED:
                values = [row["found"] for row in rows if (row["name"], row["method"]) == (name, method)]
                found.append(PaperFigure(table, name, method, None, mean_of(values)))
        return found

    def _ranks(self, out: Path, seeds: Sequence[int]) -> list[PaperFigure]:
        """Place of every object for IDC, the paper's order of those it names and ours."""
        places: dict[str, list[float]] = {name: [] for name in MOST_IMPORTANT}
        for seed in seeds:
            rows = _objects(out, "standard", seed, "importance.json")
            idc = [row for row in rows if row["class"] == "IDC"]
            idc.sort(key=lambda row: -float(row["ratio_of_means"]))
            for place, row in enumerate(idc, start=1):
                places.setdefault(row["name"], []).append(float(place))
        table, told = "Place among objects for IDC", dict(zip(MOST_IMPORTANT, range(1, 7), strict=True))
        return [
            PaperFigure(table, name, "place", told.get(name), mean_of(ours)) for name, ours in places.items()
        ]

    def draw(self, folder: Path) -> None:
        if (folder / "labels.csv").is_file():
            return
        from tissuetalk.models.segmentation.little import save_little_vit  # loads every network

        save_little_vit(folder / "encoder")
        (folder / "slides").mkdir(parents=True, exist_ok=True)
        rows = ["slide,label,patient"]
        for number in range(6):
            kind = CLASSES[number % 2]
            random = np.random.default_rng(number)
            paper = (230, 180, 210) if kind == "IDC" else (215, 170, 225)
            picture = (random.integers(-8, 9, (128, 128, 3)) + np.array(paper)).astype(np.uint8)
            for x, y in random.integers(8, 120, (24, 2)).tolist():
                cv2.ellipse(picture, (x, y), (5, 4), float(random.uniform(0, 180)), 0, 360, (90, 50, 140), -1)
            cv2.imwrite(str(folder / f"slides/S{number}.png"), picture[..., ::-1])
            rows.append(f"S{number},{kind},P{number}")
        write_whole(folder / "labels.csv", "\n".join(rows) + "\n")


def _unready(data: Path) -> str | None:
    """What keeps the cohort from being used."""
    if not (data / "slides").is_dir():
        return "no folder slides in the data folder"
    if not (data / "labels.csv").is_file():
        return "no labels.csv in the data folder"
    try:
        columns, _ = table_of(data / "labels.csv", "utf-8-sig")
    except TissuetalkError as error:
        return str(error)
    lacking = {"slide", "label", "patient"} - set(columns)
    return f"labels.csv lacks {', '.join(sorted(lacking))}" if lacking else None


def _objects(out: Path, run: str, seed: int, file: str) -> list[dict[str, Any]]:
    """What a run that is done says of each object."""
    found: list[dict[str, Any]] = _json(out / run / f"seed-{seed}" / file).get("objects", [])
    return found


def _json(file: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return read
