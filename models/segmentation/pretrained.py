"""Models before and while they are loaded: the registry's entry, where weights lie, how they are read without running
anything from them, and pictures the way those models want them.

Models import this file to be listed, so the deep-learning library is imported only where it is used. Nothing here or in the
loaders ever downloads: weights are put in place by the operator, from the Hugging Face cache, a local folder or file, or a package.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.reading import require_tensors_at
from tissuetalk.models.segmenter import RGB, Capability, ModelCard, Prompt, Repertoire

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Weights(ABC):
    """Where weights lie: at the place a caller names, else where the environment variable says, else at the usual place.

    model: what messages call it. variable: the environment variable; empty when there is none.
    """

    model: str
    variable: str = ""

    def find(self, source: str | Path | None = None) -> Path:
        """The file or folder. Raises ModelUnavailableError saying what to do."""
        named = str(source or os.environ.get(self.variable, ""))
        return self.at(Path(named).expanduser()) if named else self.usual()

    def missing(self) -> str | None:
        """None when the weights are here, else what is missing and what to do about it."""
        try:
            self.find()
        except ModelUnavailableError as error:
            return str(error)
        return None

    @abstractmethod
    def at(self, place: Path) -> Path:
        """The weights at a place somebody named. Raises ModelUnavailableError."""

    @abstractmethod
    def usual(self) -> Path:
        """The weights where they are without being told. Raises ModelUnavailableError."""


@dataclass(frozen=True)
class HubWeights(Weights):
    """A repository in the local Hugging Face cache, or a folder saved with ``save_pretrained``.

    revision: the commit that ``model add`` fetches; empty where nobody here has looked at one.
    """

    hub_id: str = ""
    licence: str = ""
    revision: str = ""

    def usual(self) -> Path:
        return self.at(Path(self.hub_id))

    def at(self, place: Path) -> Path:
        wanted = place.as_posix()
        if not place.is_dir() and (wanted.count("/") != 1 or wanted.startswith((".", "/"))):
            raise ModelUnavailableError(
                f"{self.model}: there is no folder {wanted}; set {self.variable} to a folder or a hub id"
            )
        folder = place if place.is_dir() else _cached_snapshot(wanted)
        if folder is None:
            raise ModelUnavailableError(
                f"{self.model}: the weights of {wanted} are not on this machine ({self.licence}); run "
                f"`hf download {wanted}`, or set {self.variable} to a folder that holds them"
            )
        # Only safetensors are read: other weight formats can run code when opened.
        needed = {"config.json": "config.json", "a .safetensors file": "*.safetensors"}
        lacking = [what for what, pattern in needed.items() if not any(folder.glob(pattern))]
        if lacking:
            raise ModelUnavailableError(
                f"{self.model}: {folder} lacks {' and '.join(lacking)}; give a folder saved with save_pretrained"
            )
        return folder


@dataclass(frozen=True)
class PackageWeights(Weights):
    """A file that an installed Python package carries.

    package: its import name. file: path or pattern inside it. bring: how to get it. sha256: of the file we tried.
    """

    package: str = ""
    file: str = ""
    bring: str = ""
    sha256: str = ""

    def carried(self) -> Path | None:
        """The file in the package, which is not imported: it may need a deep-learning library, or not even import here."""
        spec = find_spec(self.package)
        folders = (spec.submodule_search_locations or []) if spec else []
        return next((file for folder in folders for file in sorted(Path(folder).glob(self.file))), None)

    def require(self, file: Path, sha256: str) -> None:
        """Raises ModelUnavailableError when this is the package's file and not the one we know.

        A package is somebody else's and may change; a file an operator names is the operator's choice.
        """
        own = self.carried() if self.sha256 and sha256 != self.sha256 else None
        if own is not None and own.samefile(file):
            raise ModelUnavailableError(
                f"{self.model}: {file.name} of {self.package} is not the file that was tried (SHA-256 {sha256[:12]}…, "
                f"wanted {self.sha256[:12]}…), so it is not used; {self.bring}"
            )

    def usual(self) -> Path:
        if (file := self.carried()) is not None:
            return file
        name = Path(self.file).name
        other = f", or set {self.variable} to the file {name}" if self.variable else ""
        raise ModelUnavailableError(f"{self.model}: the weights are not on this machine; {self.bring}{other}")

    def at(self, place: Path) -> Path:
        if not place.is_file():
            name = Path(self.file).name
            raise ModelUnavailableError(
                f"{self.model}: there is no file {place}; set {self.variable or 'the path'} to {name}"
            )
        return place


@dataclass(frozen=True)
class TrainedFolder(Weights):
    """A folder that `tissuetalk train` wrote.

    file: what it must hold. preset: of the recipes that write it.
    """

    file: str = ""
    preset: str = ""

    def usual(self) -> Path:
        raise ModelUnavailableError(
            f"no trained network is named: run `tissuetalk train` on a recipe with preset: {self.preset}, then set "
            f"{self.variable} to its folder"
        )

    def at(self, place: Path) -> Path:
        if not (place / self.file).is_file():
            raise ModelUnavailableError(
                f"{place} holds no {self.file}; set {self.variable} to a folder that `tissuetalk train` wrote"
            )
        return place


def _cached_snapshot(hub_id: str) -> Path | None:
    """The folder the cache keeps for a repository: the one its main branch points at, else the last by name."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    main = repository / "refs" / "main"
    if main.is_file():
        snapshot = repository / "snapshots" / main.read_text(encoding="utf-8").strip()
        return snapshot if snapshot.is_dir() else None
    # A copied cache may have lost its refs.
    snapshots = sorted(repository.glob("snapshots/*"))
    return snapshots[-1] if snapshots else None


@dataclass(frozen=True)
class AnyWords:
    """The repertoire of a model that never refuses words.

    mpp: µm per pixel at which tiles are wanted. objects: whether separate objects come back. nameless: answers without
    any words, too, because a place says what is meant.
    """

    card: ModelCard
    mpp: float
    objects: bool
    nameless: bool = False

    def capability(self, prompt: Prompt) -> Capability | None:
        words = prompt.words.strip()
        return Capability(words, self.mpp, self.objects) if words or self.nameless else None

    def nearest(self, prompt: Prompt, limit: int = 3) -> list[str]:
        return []


@dataclass(frozen=True)
class Entry:
    """A model by name, as the registry lists it.

    load: ``module:function`` that returns a ready Segmenter, imported only when asked for. weights: where they lie, None
    for a model that has none or brings its own. repertoire: made on demand; None when only the loaded model can tell.
    """

    card: ModelCard
    load: str
    weights: Weights | None = None
    repertoire: Callable[[], Repertoire] | None = None

    def why_not(self) -> str | None:
        """What is missing here and what to do about it, or None when the model is usable."""
        return None if self.weights is None else self.weights.missing()


P = ParamSpec("P")
R = TypeVar("R")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_AGAIN = "download the model again or give another folder"


def from_hub(kind: str, weights: Weights, source: str | Path | None = None) -> tuple[Any, Path]:
    """The class ``kind`` of transformers with its weights, and the folder they lie in. Raises ModelUnavailableError."""
    folder = weights.find(source)
    import transformers

    return from_folder(getattr(transformers, kind), folder, weights.model), folder


def from_folder(kind: Any, folder: Path, name: str, **options: Any) -> Any:
    """``kind.from_pretrained`` of a local folder: safetensors only, no remote code, no network.

    Raises ModelUnavailableError when the files are missing, damaged or of another model.
    """
    from safetensors import SafetensorError

    try:
        require_tensors_at(*folder.glob("*.safetensors"))
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


def word_ids(tokenizer: Any, words: str, longest: int) -> dict[str, Any]:
    """Ids and attention mask [1, L] of one phrase, cut to ``longest`` tokens."""
    tokens = tokenizer(words, truncation=True, max_length=longest, return_tensors="pt").to(device())
    return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}


def token_table(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of token ids as one table [B, L] filled up with 0, and [B, L] bool, True where it is filled up."""
    import torch

    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(ids.shape[1]) >= lengths[:, None]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors or torch file, unwrapped and without the ``module.`` of parallel training.

    Nothing in the file is executed. Raises ModelUnavailableError when it is missing, corrupt, or holds more than tensors.
    """
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ModelUnavailableError(f"there is no weight file {path}; give a .safetensors, .pt or .pth file.")
    try:
        if path.suffix == ".safetensors":
            require_tensors_at(path)
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise ModelUnavailableError(
            f"{path.name} cannot be read as plain weights ({_first_line(error)}); fetch it again, or convert it to "
            "safetensors on a machine you trust."
        ) from error
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict):
        raise ModelUnavailableError(f"{path.name} is not a table of weights; give a state dictionary.")
    return {
        key.removeprefix("module."): value for key, value in state.items() if isinstance(value, torch.Tensor)
    }


def fill(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    name: str,
    advice: str,
    *,
    needed: Callable[[str], bool] = lambda key: True,
) -> None:
    """Copy weights into a network: all that are ``needed``, all of the right shape, none that has no place.

    name: of the model, and advice: what to give instead, for the message. Raises ModelUnavailableError.
    """
    own = network.state_dict()
    # Counters of batch norms are not in every published file, and answer nothing.
    missing = [
        key for key in own if key not in weights and needed(key) and not key.endswith("num_batches_tracked")
    ]
    wrong = [key for key, value in weights.items() if key not in own or own[key].shape != value.shape]
    if missing or wrong:
        raise ModelUnavailableError(
            f"{name}: the weights do not fit: {len(missing)} are missing and {len(wrong)} differ, among them "
            f"{(missing + wrong)[0]}; {advice}"
        )
    network.load_state_dict(dict(weights), strict=False)


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


def without_gradients(method: Callable[P, R]) -> Callable[P, R]:
    """``torch.inference_mode`` for files that must not import torch when they are listed."""

    @wraps(method)
    def answered(*args: P.args, **kwargs: P.kwargs) -> R:
        import torch

        with torch.inference_mode():
            return method(*args, **kwargs)

    return answered


def device() -> torch.device:
    """The GPU where there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resized(image: RGB, width: int, height: int) -> NDArray[np.uint8]:
    """[height, width, 3]: bilinear enlargement, area average when shrinking."""
    import cv2

    # Skipping pixels while shrinking would alias chromatin into moiré.
    shrinks = width < image.shape[1] or height < image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)


def normalised(
    image: NDArray[np.uint8], mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """[1, 3, H, W] float32 from [H, W, 3] bytes: (value / 255 - mean) / std."""
    middle, spread = np.asarray(mean, dtype=np.float32), np.asarray(std, dtype=np.float32)
    return _channels_first((image.astype(np.float32) / 255.0 - middle) / spread)


def min_max(image: NDArray[np.uint8]) -> Tensor:
    """[1, 3, H, W] float32, the darkest value of the image 0 and the brightest 1."""
    low, high = int(image.min()), int(image.max())
    return _channels_first((image.astype(np.float32) - low) / np.float32(max(high - low, 1)))


def _channels_first(image: NDArray[np.float32]) -> Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device())


def to_size(logits: Tensor, height: int, width: int) -> NDArray[np.float32]:
    """Bring [N, h, w] logits to [N, height, width] float32."""
    from torch.nn import functional

    grown = functional.interpolate(
        logits[:, None].float(), size=(height, width), mode="bilinear", align_corners=False
    )
    return np.asarray(grown[:, 0].cpu().numpy(), dtype=np.float32)
