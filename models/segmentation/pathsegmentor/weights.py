"""Weight files: half-precision safetensors with the model's sizes in the header. Nothing in them is ever executed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.pathsegmentor.mini import MiniConfig, MiniPathSegmentor
from tissuetalk.models.segmentation.pathsegmentor.presence import Calibration
from tissuetalk.models.writing import whole_file

FORMAT = "tissuetalk-pathsegmentor-mini-1"


def save_mini(model: MiniPathSegmentor, path: Path, *, note: Mapping[str, str] | None = None) -> None:
    """Write the weights in half precision; the header holds the sizes and ``note``."""
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    header = {"format": FORMAT, "config": json.dumps(asdict(model.config)), **(note or {})}
    header["presence"] = json.dumps(
        {target: asdict(curve) for target, curve in model.presence_calibration.items()}
    )
    header["cuts"] = json.dumps(model.cuts)
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata=header)
        partial.chmod(0o644)  # safetensors makes files that only their owner reads


def load_mini(path: Path) -> MiniPathSegmentor:
    """The model in a weight file, ready to answer.

    Raises ModelUnavailableError when the file is missing, corrupt, or holds another model's weights.
    """
    if not path.is_file():
        raise ModelUnavailableError(
            f"the weight file {path} is missing; reinstall the package or train it from its recipe."
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise ModelUnavailableError(
            f"{path.name} is not a readable safetensors file ({error}); fetch it again or reinstall the package."
        ) from error
    if header.get("format") != FORMAT:
        raise ModelUnavailableError(
            f"{path.name} holds no mini PathSegmentor (format {header.get('format')!r}, wanted {FORMAT!r}); "
            "name a file that `tissuetalk train` wrote."
        )
    try:
        sizes: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in json.loads(header["config"]).items()
        }
        model = MiniPathSegmentor(MiniConfig(**sizes))
        model.presence_calibration = {
            target: Calibration(**curve) for target, curve in json.loads(header.get("presence", "{}")).items()
        }
        model.cuts = {target: float(cut) for target, cut in json.loads(header.get("cuts", "{}")).items()}
        absent, foreign = model.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=False)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelUnavailableError(f"{path.name} does not fit the mini PathSegmentor: {error}") from error
    absent = [name for name in absent if not name.endswith("num_batches_tracked")]
    if absent or foreign:
        raise ModelUnavailableError(
            f"{path.name} does not fit the mini PathSegmentor: missing {absent[:5]}, unexpected {foreign[:5]}; "
            "name a file that `tissuetalk train` wrote with this version."
        )
    return model.eval().in_channels_last()
