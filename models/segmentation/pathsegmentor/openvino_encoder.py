"""The image encoder and the pixel decoder in 8-bit integers, which OpenVINO computes on a CPU (`tissuetalk[openvino]`).

`python -m benchmarks quantise` makes the graph from the shipped weights. OpenVINO is no safe reader of strangers' files: it gets only
the bytes whose SHA-256 is known here.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.models.reading import content_of
from tissuetalk.models.segmentation.pathsegmentor.card import MINI_NAME, MINI_WEIGHTS
from tissuetalk.models.segmentation.pretrained import device

Encoder = Literal["torch", "openvino"]
VARIABLE: Final = "TISSUETALK_ENCODER"
GRAPH: Final = MINI_WEIGHTS.with_name(f"{MINI_NAME}-int8.xml")
"""What it holds lies beside it, as .bin."""
GRAPH_SHA256: Final = "8b1241474321e38ee46edc61388338567b55863f80b890dc354839c9de6e9b1e"
_MOST_BYTES = 32 * 2**20
_INSTALL = "run `pip install 'tissuetalk[openvino]'`"
_TORCH = f"unset {VARIABLE} to use torch"


def asked_for() -> Encoder:
    """What the operator wants; torch unless told. Raises InvalidArgumentError."""
    said = os.environ.get(VARIABLE, "").strip() or "torch"
    if said not in get_args(Encoder):
        raise InvalidArgumentError(f"{VARIABLE} must be {' or '.join(get_args(Encoder))}.")
    return cast("Encoder", said)


def quiet_openvino() -> ModuleType:
    """The package, which otherwise tells its makers over the network each time that it is imported. Raises ImportError."""
    reports = "openvino_telemetry"
    if reports in sys.modules:
        return import_module("openvino")
    sys.modules[reports] = None  # type: ignore[assignment]  # as if it was not installed: it does without
    try:
        return import_module("openvino")
    finally:
        del sys.modules[reports]


def contents(graph: Path) -> tuple[bytes, bytes, str]:
    """The graph, what it holds, and the SHA-256 over both. Raises OSError, and ValueError for what is far too large."""
    parts = [content_of(file, _MOST_BYTES) for file in (graph, graph.with_suffix(".bin"))]
    return parts[0], parts[1], hashlib.sha256(b"".join(parts)).hexdigest()


class OpenvinoEncoder:
    """Tiles go through one after the other: one already keeps all cores busy that torch would use.

    graph: an OpenVINO model. name: as records call it. often_px: side of the tiles that come most often. For them OpenVINO
    plans ahead, which takes half a second once and then a third off each. Which way a tile goes depends on its size alone.
    """

    def __init__(self, graph: Any, name: str, *, often_px: int) -> None:
        self._openvino, self._graph, self.name = quiet_openvino(), graph, name
        self._often = [1, 3, often_px, often_px]
        self._requests: dict[bool, Any] = {}
        self._one_at_a_time = threading.Lock()

    @classmethod
    def shipped(cls, weights_sha256: str, *, often_px: int) -> OpenvinoEncoder:
        """Made of these weights. Raises ModelUnavailableError."""
        if device().type != "cpu":
            raise ModelUnavailableError(
                f"{VARIABLE}=openvino is for machines without a GPU, and this one has a GPU, which is faster; {_TORCH}."
            )
        try:
            graph, constants, sha256 = contents(GRAPH)
        except (OSError, ValueError) as error:
            raise ModelUnavailableError(
                f"{GRAPH.name}: {error}; reinstall the package, or {_TORCH}."
            ) from error
        if sha256 != GRAPH_SHA256:
            raise ModelUnavailableError(
                f"{GRAPH.name} is not the file that was measured (SHA-256 {sha256[:12]}…, wanted {GRAPH_SHA256[:12]}…), so it is "
                f"not read; reinstall the package, or {_TORCH}."
            )
        if weights_sha256.encode() not in graph:
            raise ModelUnavailableError(
                f"{GRAPH.name} was not made of the weights {weights_sha256[:12]}…; {_TORCH}."
            )
        try:
            read = quiet_openvino().Core().read_model(model=graph, weights=constants)
        except ImportError as error:
            raise ModelUnavailableError(
                f"{VARIABLE}=openvino needs OpenVINO, which is not installed ({error}); {_INSTALL}, or {_TORCH}."
            ) from error
        return cls(read, f"openvino-int8 {sha256[:12]}", often_px=often_px)

    def __call__(self, tiles: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[B, 3, H, W] uint8, H and W multiples of 32: pixel features, and the image encoder's maps, all in half precision."""
        made = [self._encoded(tile[None].numpy()) for tile in tiles]
        pixels, *maps = (each[0] if len(each) == 1 else torch.cat(each) for each in zip(*made, strict=True))
        return pixels, maps

    def _encoded(self, tile: np.ndarray[Any, np.dtype[np.uint8]]) -> list[Tensor]:
        with self._one_at_a_time:
            request = self._request(list(tile.shape) == self._often)
            request.infer([self._openvino.Tensor(np.ascontiguousarray(tile), shared_memory=True)])
            # copies: the next tile is written into the same memory
            return [torch.from_numpy(each.data.copy()) for each in request.output_tensors]

    def _request(self, often: bool) -> Any:
        if often not in self._requests:
            graph = self._graph.clone()
            if often:
                graph.reshape(self._often)
            settings = {
                "INFERENCE_PRECISION_HINT": "f32",  # what is not in integers has the same bits on every machine
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
                "ENABLE_CPU_PINNING": False,  # several processes would sit on the same cores
            }
            compiled = self._openvino.Core().compile_model(graph, "CPU", settings)
            self._requests[often] = compiled.create_infer_request()
        return self._requests[often]
