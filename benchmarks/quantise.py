"""The shipped network in 8-bit integers for OpenVINO: ``python -m benchmarks quantise [--data DATA]``, once after new weights.

Needs ``pip install 'tissuetalk[quantise]'``. Ranges are taken on training images at the scale of each target they are annotated for: the few that
ship, or with ``--data`` some of every set. It writes two files beside the weights and prints the SHA-256 that the package must know.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.held_out import COARSE, spread_over
from tissuetalk.models.datasets.sources import SOURCES, folder_of, load
from tissuetalk.models.segmentation.pathsegmentor.card import MINI_WEIGHTS, TARGET_MPP
from tissuetalk.models.segmentation.pathsegmentor.mini import MiniPathSegmentor, load_mini, normalise
from tissuetalk.models.segmentation.pathsegmentor.openvino_encoder import GRAPH, contents, quiet_openvino
from tissuetalk.models.segmentation.pathsegmentor.segmenter import padded
from tissuetalk.models.segmentation.pretrained import weights_hash
from tissuetalk.models.training.ablation import shown_at

SAMPLES = Path(__file__).parents[1] / "models" / "datasets" / "samples"
OF_A_SET = 3
MOST_PX = 640
"""A larger image is looked at in its middle."""


class Exported(nn.Module):
    """What becomes the graph: from pixels to the pixel features and the image encoder's maps, in half precision."""

    def __init__(self, network: MiniPathSegmentor) -> None:
        super().__init__()
        self.network = network

    def forward(self, tiles: Tensor) -> tuple[Tensor, ...]:
        maps = self.network.image_encoder(normalise(tiles))
        return tuple(each.half() for each in (self.network.pixel_decoder(maps), *maps))


def seen(data: Path) -> Iterator[NDArray[Any]]:
    """[1, 3, H, W] uint8: images that were trained on, at each scale they are read at."""
    for dataset in SOURCES:
        if dataset in COARSE or not folder_of(data, dataset).is_dir():
            continue
        trained_on = [each for each in load(data, dataset) if not each.held_out]
        for example in spread_over(trained_on, OF_A_SET):
            for mpp in sorted({TARGET_MPP[target] for target in example.targets}):
                image = shown_at(example, mpp)
                top, left = (max(0, (side - MOST_PX) // 2) for side in image.shape[:2])
                yield padded(image[top : top + MOST_PX, left : left + MOST_PX]).numpy()


def converted(weights: Path) -> Any:
    """The graph of the weights, not quantised."""
    openvino = quiet_openvino()
    network, example = Exported(load_mini(weights)).eval(), torch.zeros((1, 3, 256, 256), dtype=torch.uint8)
    with torch.no_grad():
        sides = ([1, 3, -1, -1], openvino.Type.u8)
        return openvino.convert_model(network, example_input=example, input=[sides])


def quantise(weights: Path, pictures: Sequence[NDArray[Any]], graph: Path) -> None:
    """Write ``graph`` (.xml) and what it holds (.bin)."""
    openvino = quiet_openvino()
    os.environ["NNCF_CI"] = "1"  # its way to be told that it reports nothing
    import nncf

    # weights in 7 bits: with 8, processors without VNNI overflow where two products are added
    careful = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
    small = nncf.quantize(
        converted(weights),
        nncf.Dataset(list(pictures)),
        subset_size=len(pictures),
        advanced_parameters=careful,
    )
    small.set_rt_info(weights_hash(weights), ["tissuetalk", "weights_sha256"])
    openvino.save_model(small, graph, compress_to_fp16=False)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks quantise", description=__doc__)
    parser.add_argument("--data", type=Path, default=SAMPLES, help="folder with the data sets")
    parser.add_argument("--out", type=Path, default=GRAPH, help="the .xml to write; the .bin lies beside it")
    told = parser.parse_args(argv)
    pictures = list(seen(told.data))
    quantise(MINI_WEIGHTS, pictures, told.out)
    print(f"{told.out} from {len(pictures)} pictures; GRAPH_SHA256 = {contents(told.out)[2]!r}")


if __name__ == "__main__":
    main()
