"""Prompt-group-aware training (arXiv 2603.06384): two sets, four hosts, plain and in groups, and what each part of it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from tissuetalk.models.datasets.manifest import read_manifest
from tissuetalk.models.errors import TissuetalkError
from tissuetalk.models.segmentation import clipseg, sam3
from tissuetalk.models.segmentation.pathsegmentor.card import BASE_WEIGHTS
from tissuetalk.tools.train.reproduce.drawn import draw_set
from tissuetalk.tools.train.reproduce.grid import GridCell, Need, Paper, PaperFigure, mean_of, rows_of_seeds

SETS: Final = {"pannuke": "PanNuke", "consep": "CoNSeP"}
CROSS: Final = {
    "histology": "Histology", "cpm15": "CPM15", "cpm17": "CPM17", "kumar-same": "Kumar-same",
    "kumar-diff": "Kumar-diff", "cryonuseg": "CryoNuSeg",
}  # fmt: skip
"""Folders of the sets that nothing is trained on, to their columns; each is scored where it is there."""
HOST_HOURS: Final = {"sam3": 1.2, "base": 1.2, "clipseg": 0.4, "mini": 0.2}
WEIGHTS_OF: Final = {"sam3": "SAM 3", "base": "PathSegmentor", "clipseg": "CLIPSeg"}
PLAIN: Final[dict[str, Any]] = {"group_size": 1, "consistency": 0.0}
Setting = tuple[str, dict[str, Any]]
"""A row of the ablation, and what it changes in a recipe."""
BY_K: Final[dict[str, Setting]] = {f"k{k}": (f"K = {k}", {"group_size": k}) for k in (2, 4, 5, 6)}
BY_GRADIENT: Final[dict[str, Setting]] = {
    f"gradient-{mode}": (f"group loss {mode}", {"group_gradient": mode})
    for mode in ("weights_raw", "none", "softmax")
}
SETTINGS_TRIED: Final[dict[str, Setting]] = {
    "group": ("full, K = 3, beta 0.1", {}),
    "plain": ("without group and consistency loss", PLAIN),
    "no-consistency": ("without consistency loss", {"consistency": 0.0}),
    "pairs": ("consistency over all pairs", {"consistency_pairs": True}),
    "beta-0.05": ("beta 0.05", {"consistency": 0.05}),
    "beta-0.2": ("beta 0.2", {"consistency": 0.2}),
    **BY_K,
    **BY_GRADIENT,
}
"""By cell. The paper does not say which gradient its group loss has."""
PUBLISHED_SETTINGS: Final = {
    "group": (79.42, 62.01), "plain": (78.45, 48.98), "no-consistency": (77.72, 54.30), "pairs": (77.38, 51.97),
    "beta-0.05": (78.50, 61.36), "beta-0.2": (78.06, 60.86), "k2": (78.10, 61.52), "k4": (79.92, 61.24),
    "k5": (79.11, 60.75), "k6": (78.41, 60.14),
}  # fmt: skip
MAIN: Final[tuple[tuple[str, str | None, tuple[float | None, ...]], ...]] = (
    ("H-SAM (visual)", None, (64.90, 40.36, 18.56, 29.76)),
    ("SAN (visual)", None, (67.77, 40.41, None, None)),
    ("InstaSAM (visual)", None, (74.67, 21.21, None, None)),
    ("MedSAM (visual)", None, (78.43, 47.11, 21.23, 31.35)),
    ("CLIPSeg", "clipseg/plain", (65.53, 47.19, 63.18, 37.90)),
    ("Grounded-SAM2", None, (73.60, 55.81, 72.35, 43.62)),
    ("Seg-Zero (test only)", None, (26.01, 12.75, 22.04, 10.57)),
    ("VisionReasoner (test only)", None, (47.95, 17.90, 45.18, 17.77)),
    ("SAM 3, first row", "sam3/zero-shot", (76.53, 42.63, 68.15, 26.22)),
    ("SAM 3, second row (fine-tuned)", "sam3/plain", (78.45, 48.98, 75.03, 40.89)),
    ("SAM 3 in groups", "sam3/group", (79.42, 62.01, 76.81, 46.86)),
    ("CLIPSeg in groups", "clipseg/group", (None,) * 4),
    ("PathSegmentor, fine-tuned", "base/plain", (None,) * 4),
    ("PathSegmentor in groups", "base/group", (None,) * 4),
    ("our default model, fine-tuned", "mini/plain", (None,) * 4),
    ("our default model in groups", "mini/group", (None,) * 4),
)
"""Row, its cells below a set's folder (None: not run here), T1 and T2 of PanNuke, T1 and T2 of CoNSeP."""
BY_LEVEL: Final = {
    "SAM 3": ("plain", (77.28, 47.20, 78.75, 47.64, 78.64, 48.23)),
    "SAM 3 in groups": ("group", (78.75, 62.54, 78.77, 62.80, 78.89, 61.86)),
}
ACROSS: Final[dict[str, tuple[str | None, tuple[float, ...]]]] = {
    "SAM 2 (visual)": (None, (46.91, 43.10, 42.29, 36.29, 40.77, 35.78)),
    "SAM 3": ("plain", (52.46, 56.07, 57.87, 34.53, 53.22, 64.10)),
    "SAMPO (visual)": (None, (70.16, 79.28, 81.14, 78.45, 83.19, 77.94)),
    "SAM 3 in groups": ("group", (74.61, 79.56, 86.10, 80.50, 84.78, 77.58)),
}
LITTLE: Final[dict[str, Any]] = {"size": "little", "epochs": 1, "fraction": 1.0, "threads": 1}


class PromptGroupsPaper(Paper):
    """Data: ``pannuke`` and ``consep`` as `tissuetalk data prepare` writes them, and any of the sets of ``CROSS``."""

    name: ClassVar[str] = "prompt-groups"
    title: ClassVar[str] = "Prompt-group-aware training (arXiv 2603.06384)"
    hours: ClassVar[str] = (
        "Assumed, not measured: SAM 3 and PathSegmentor 1.2 hours a run (1,330 steps and the test fold), CLIPSeg 0.4, our default "
        "model 0.2. The paper gives no times."
    )
    left_out: ClassVar[tuple[str, ...]] = (
        "H-SAM, SAN, InstaSAM, MedSAM, Grounded-SAM2, Seg-Zero, VisionReasoner, SAM 2 and SAMPO run in their own code: published only.",
        "The paper does not say which sentence its main table asks with; ours is the mean over one unseen sentence of each level.",
    )

    def needs(self, data: Path) -> list[Need]:
        found = [
            Need(
                name,
                _unready(data / name, parts),
                f"`tissuetalk data prepare {title} FOLDER --out DIR/{name}`",
            )
            for (name, title), parts in zip(
                SETS.items(), (("fold1", "fold2", "fold3"), ("train_", "test_")), strict=True
            )
        ]
        weights = data / "pathsegmentor.pt"
        return [
            *found,
            Need("SAM 3", sam3.WEIGHTS.missing(), f"`hf download {sam3.WEIGHTS.hub_id}`, access on request"),
            Need(
                "PathSegmentor",
                None if weights.is_file() else BASE_WEIGHTS.missing(),
                "its checkpoint as pathsegmentor.pt in the data folder with vocab.txt, or TISSUETALK_PATHSEGMENTOR",
            ),
            Need("CLIPSeg", clipseg.WEIGHTS.missing(), f"`hf download {clipseg.WEIGHTS.hub_id}`"),
        ]

    def cells(self, data: Path, *, dry: bool, seeds: Sequence[int]) -> list[GridCell]:
        data = data.resolve()
        cross = [
            {"manifest": str(data / name), "only_all": True}
            for name in CROSS
            if (data / name / "manifest.csv").is_file()
        ]
        found = []
        for seed in seeds:
            for host, hours in HOST_HOURS.items():
                for name in SETS:
                    runs: dict[str, Setting] = {
                        "zero-shot": ("", {"epochs": 0}),
                        **SETTINGS_TRIED,
                    }
                    if name == "consep":
                        runs = {run: runs[run] for run in ("zero-shot", "plain", "group")}
                    for run, (_, changes) in runs.items():
                        values = {
                            "preset": "prompt-groups",
                            "name": f"{host}-{run}",
                            "host": host,
                            "seed": seed,
                        }
                        values |= _sets(data / name, cross if name == "pannuke" else [])
                        values |= (LITTLE if dry else _weights(data, host)) | changes
                        needs = () if dry else tuple(filter(None, (name, WEIGHTS_OF.get(host))))
                        found.append(GridCell(f"{name}/{host}/{run}/seed-{seed}", values, hours, needs))
        return found

    def figures(self, out: Path, seeds: Sequence[int]) -> list[PaperFigure]:
        ours = _GroupScores(out, seeds)
        found = []
        for row, cell, four in MAIN:
            columns = [(name, title, kind) for name, title in SETS.items() for kind in ("T1", "T2")]
            for (name, title, kind), value in zip(columns, four, strict=True):
                reached = ours.of(f"{name}/{cell}", name, kind) if cell else None
                found.append(
                    PaperFigure("All nuclei (T1) and one class (T2)", row, f"{title} {kind}", value, reached)
                )
        for host in HOST_HOURS:
            table = f"What each part is worth on PanNuke, {host}"
            for run, (row, _) in SETTINGS_TRIED.items():
                two = PUBLISHED_SETTINGS.get(run, (None, None)) if host == "sam3" else (None, None)
                for kind, value in zip(("T1", "T2"), two, strict=True):
                    reached = ours.of(f"pannuke/{host}/{run}", "pannuke", kind)
                    found.append(PaperFigure(table, row, kind, value, reached))
        for row, (run, six) in BY_LEVEL.items():
            columns_of_level = [(level, kind) for level in ("low", "medium", "high") for kind in ("T1", "T2")]
            for (level, kind), value in zip(columns_of_level, six, strict=True):
                reached = ours.of(f"pannuke/sam3/{run}", "pannuke", kind, level)
                found.append(
                    PaperFigure("By quality of the sentence, PanNuke", row, f"{level} {kind}", value, reached)
                )
            for kind in ("T1", "T2"):
                reached = ours.of(f"pannuke/sam3/{run}", "pannuke", kind, "all", "spread")
                found.append(
                    PaperFigure("Standard deviation over the sentences of a target", row, kind, None, reached)
                )
        for row, (across, values) in ACROSS.items():
            for (name, title), value in zip(CROSS.items(), values, strict=True):
                reached = ours.of(f"pannuke/sam3/{across}", name, "T1") if across else None
                found.append(PaperFigure("Sets that nothing was trained on, T1", row, title, value, reached))
        return found

    def draw(self, folder: Path) -> None:
        pannuke = [(f"fold{fold}_{number}", "train") for fold in (1, 2, 3) for number in range(2)]
        consep = [("train_1", "test"), ("train_2", "test"), ("train_3", "test"), ("test_1", "test")]
        types = ("breast-nuclei-neoplastic", "breast-nuclei-inflammatory")
        draw_set(folder / "pannuke", pannuke, types, seed=1)
        draw_set(folder / "consep", consep, ("colon-cell-inflammatory", "colon-cell-fibroblast"), seed=2)
        for number, name in enumerate(CROSS):
            draw_set(folder / name, [("0", "test")], types, seed=3 + number)


def _sets(folder: Path, cross: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Train, validation and test: PanNuke's three folds, CoNSeP's 27 and 14 images."""
    one: dict[str, Any] = {"manifest": str(folder)}
    if folder.name == "pannuke":
        folds = [[one | {"files": f"fold{number}_"}] for number in (1, 2, 3)]
        return {"train": folds[0], "validation": folds[1], "test": [*folds[2], *cross]}
    one |= {"tile_px": 256}
    return {"train": [one | {"files": "train_"}], "test": [one | {"files": "test_"}]}


def _weights(data: Path, host: str) -> dict[str, Any]:
    file = data / "pathsegmentor.pt"
    return {"weights": str(file)} if host == "base" and file.is_file() else {}


def _unready(folder: Path, parts: Sequence[str]) -> str | None:
    try:
        names = [record.image.name for record in read_manifest(folder)]
    except TissuetalkError as error:
        return str(error)
    lacking = [part for part in parts if not any(part in name for name in names)]
    return f"no image of {', '.join(lacking)}" if lacking else None


class _GroupScores:
    """Figures of finished cells, mean over seeds."""

    def __init__(self, out: Path, seeds: Sequence[int]) -> None:
        self.out, self.seeds = out, seeds

    def of(self, cell: str, name: str, kind: str, level: str = "all", what: str = "dice") -> float | None:
        key = (name, kind, "", level)
        return mean_of(
            [
                float(row[what])
                for row in rows_of_seeds(self.out, cell, self.seeds)
                if (row["set"], row["kind"], row["class"], row["level"]) == key
            ]
        )
