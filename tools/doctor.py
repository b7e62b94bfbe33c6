"""doctor: what works on this machine, what is missing, and what to do about it; and whether a workspace is whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from tissuetalk.models import worker
from tissuetalk.models.errors import TissuetalkError
from tissuetalk.models.images import confinement
from tissuetalk.models.registry import DEFAULT_MODEL, MODELS
from tissuetalk.tools.answers.results import Closed
from tissuetalk.tools.storage import verify
from tissuetalk.tools.storage.state import State
from tissuetalk.tools.storage.verify_state import check_state, repair_state

PARTS = {
    "pillow": "PIL",
    "tifffile": "tifffile",
    "imagecodecs": "imagecodecs",
    "openslide-python": "openslide",
    "opencv-python-headless": "cv2",
    "scikit-image": "skimage",
    "torch": "torch",
    "transformers": "transformers",
    "mcp": "mcp",
}


class Checked(Closed):
    """One thing that was looked at. ``broken`` needs the operator; ``missing`` only limits what can be done."""

    part: str
    state: Literal["works", "missing", "broken"]
    what: str


def model_list() -> list[dict[str, Any]]:
    """One entry per model: its card, whether it is the default, and what is missing where it cannot be used."""
    return [
        {
            **asdict(entry.card),
            "metrics": dict(entry.card.metrics),
            "default": name == DEFAULT_MODEL,
            "missing": entry.why_not(),
        }
        for name, entry in MODELS.items()
    ]


def examine() -> list[Checked]:
    """Libraries, accelerator, models, the language engine's endpoint, and a folder to write to."""
    url = os.environ.get("TISSUETALK_LLM_URL")
    return [
        *(_library(name, module) for name, module in PARTS.items()),
        _decoder(),
        _accelerator(),
        _encoder(),
        *(_model(name) for name in MODELS),
        Checked(part="language model", state="works", what=f"set to {url}; not contacted")
        if url
        else Checked(
            part="language model",
            state="missing",
            what="not set (TISSUETALK_LLM_URL); words are read by rules",
        ),
        _disk(),
    ]


def examine_workspace(folder: Path) -> list[Checked]:
    """Every part of a workspace. Raises InvalidArgumentError where there is none."""
    return _told(verify.check(folder))


def examine_state(state: State, folder: Path) -> list[Checked]:
    """Every part of what several servers share, of every tenant. folder: with the files, where no bucket has them."""
    return _told(check_state(state, folder))


def repair_state_of(state: State, folder: Path) -> list[Checked]:
    """Index what several servers share anew and set aside what is damaged. Raises BusyError while one runs on it."""
    return [Checked(part="repair", state="works", what=done) for done in repair_state(state, folder)]


def _told(parts: Sequence[verify.WorkspacePart]) -> list[Checked]:
    checked = []
    for part in parts:
        what = part.what
        if part.problems:
            what = "; ".join(part.problems)
        elif part.waits:
            what += f"; the next start clears up {len(part.waits)}: {', '.join(part.waits[:3])}"
        checked.append(Checked(part=part.name, state="broken" if part.problems else "works", what=what))
    return checked


def repair_workspace(folder: Path) -> list[Checked]:
    """Index a workspace anew and set aside what is damaged. Raises BusyError while a server runs on it."""
    return [Checked(part="repair", state="works", what=done) for done in verify.repair(folder)]


def _library(name: str, module: str) -> Checked:
    try:
        import_module(module)
        return Checked(part=name, state="works", what=version(name))
    except (ImportError, OSError, PackageNotFoundError) as error:
        return Checked(part=name, state="broken", what=f"{error}; install tissuetalk again with pip")


def _decoder() -> Checked:
    part = "image decoder"
    if not worker.SUPPORTED:
        what = "images are decoded in this process: this system cannot hand open files to another"
        return Checked(part=part, state="missing", what=what)
    try:
        worker.WORKER.ask({"do": "peak"})
    except worker.DecoderDiedError:
        what = "its process does not start; run tissuetalk from a shell to see why, or install it again"
        return Checked(part=part, state="broken", what=what)
    closed, open_ = confinement.locks(), confinement.missing()
    what = f"a process for every image: {'; '.join(closed)}"
    if not open_:
        return Checked(part=part, state="works", what=what)
    return Checked(part=part, state="missing", what=f"{what}; not on this system: {'; '.join(open_)}")


def _accelerator() -> Checked:
    try:
        import torch
    except ImportError:
        return Checked(part="GPU", state="missing", what="torch is not installed")
    if torch.cuda.is_available():
        return Checked(part="GPU", state="works", what=torch.cuda.get_device_name(0))
    return Checked(part="GPU", state="missing", what=f"none; models run on {os.cpu_count()} CPU cores")


def _encoder() -> Checked:
    """What computes the default model's features."""
    part = "encoder"
    try:
        from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter, halves_are_fast
        from tissuetalk.models.segmentation.pretrained import device

        if encoder := MiniSegmenter().encoder:
            return Checked(part=part, state="works", what=encoder)
        if device().type != "cpu" or halves_are_fast():
            return Checked(part=part, state="works", what="torch")
    except (ImportError, TissuetalkError) as error:
        return Checked(part=part, state="broken", what=str(error))
    faster = "pip install 'tissuetalk[openvino]' and TISSUETALK_ENCODER=openvino make it several times faster"
    return Checked(part=part, state="missing", what=f"torch; this processor has no bfloat16: {faster}")


def _model(name: str) -> Checked:
    if (missing := MODELS[name].why_not()) is None:
        return Checked(part=f"model {name}", state="works", what=MODELS[name].card.summary)
    return Checked(part=f"model {name}", state="broken" if name == DEFAULT_MODEL else "missing", what=missing)


def _disk() -> Checked:
    part = "temporary files"
    try:
        tempfile.TemporaryFile().close()
    except OSError as error:
        return Checked(part=part, state="broken", what=f"{error}; set TMPDIR to a writable folder")
    return Checked(part=part, state="works", what=tempfile.gettempdir())
