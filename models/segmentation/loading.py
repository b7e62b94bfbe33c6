"""Reading published weights without running anything from them, and pictures the way those models want them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmenter import RGB

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def from_folder(kind: Any, folder: Path, name: str, **options: Any) -> Any:
    """``kind.from_pretrained`` of a local folder: safetensors only, no remote code, no network.

    Raises ModelUnavailableError when the files are missing, damaged or of another model.
    """
    try:
        loaded, report = kind.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelUnavailableError(
            f"{name}: cannot load {folder} ({_first_line(error)}); {_AGAIN}"
        ) from error
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise ModelUnavailableError(
            f"{name}: {folder} lacks {len(missing)} weights, among them {missing[0]}; {_AGAIN}"
        )
    return loaded.eval()


def tokenizer_from(folder: Path, name: str) -> Any:
    """The tokenizer saved beside the weights. Raises ModelUnavailableError when there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailableError(
            f"{name}: {folder} has no usable tokenizer ({_first_line(error)}); {_AGAIN}"
        ) from error


_AGAIN = "download the model again or give another folder"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def weights_hash(source: Path) -> str:
    """SHA-256 over the weight files of a folder in order of name, or of one file."""
    digest = hashlib.sha256()
    for file in sorted(source.glob("*.safetensors")) if source.is_dir() else [source]:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resized(image: RGB, width: int, height: int) -> NDArray[np.uint8]:
    """Bilinear enlargement, area average when shrinking."""
    shrinks = width < image.shape[1] or height < image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)


def normalised(image: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """[1, 3, H, W] float32 from [H, W, 3] bytes: (value / 255 - mean) / std."""
    middle, spread = np.asarray(mean, dtype=np.float32), np.asarray(std, dtype=np.float32)
    scaled = (image.astype(np.float32) / 255.0 - middle) / spread
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))[None].to(device())


def min_max(image: NDArray[np.uint8]) -> torch.Tensor:
    """[1, 3, H, W] float32, the darkest value of the image 0 and the brightest 1."""
    low, high = int(image.min()), int(image.max())
    scaled = (image.astype(np.float32) - low) / max(high - low, 1)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))[None].to(device())


def to_size(logits: torch.Tensor, height: int, width: int) -> NDArray[np.float32]:
    """Bring [N, h, w] logits to [N, height, width] float32."""
    grown = torch.nn.functional.interpolate(
        logits[:, None].float(), size=(height, width), mode="bilinear", align_corners=False
    )
    return np.asarray(grown[:, 0].cpu().numpy(), dtype=np.float32)
