"""Time and memory of the shipped model: ``python benchmarks/pathsegmentor_mini.py`` (two cores are assumed)."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import numpy as np
import torch

from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter
from tissuetalk.models.segmenter import Context, Prompt
from tissuetalk.models.training.ablation import ask
from tissuetalk.prompts.names import prompt_of

WORDS = (
    "nuclei",
    "cell nuclei",
    "tumor nuclei",
    "mitoses",
    "all nuclei",
    "cancer cell nuclei",
    "non-tumour nuclei",
)


def seconds(work: Callable[[], object]) -> float:
    """Best of three."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def picture(side: int) -> np.ndarray:
    """Pink noise with purple discs, so that there are objects to split."""
    rng = np.random.default_rng(0)
    image = rng.normal((230, 190, 215), 8, (side, side, 3))
    rows, columns = np.mgrid[:side, :side]
    for x, y in rng.integers(0, side, (side * side // 2500, 2)):
        image[(columns - x) ** 2 + (rows - y) ** 2 < 130] = (95, 60, 140)
    return np.clip(image, 0, 255).astype(np.uint8)


def answer(model: MiniSegmenter, features: object, prompts: list[Prompt]) -> None:
    nothing = Context({})
    for decoded, prompt in zip(model.decode(features, prompts), prompts, strict=True):  # type: ignore[arg-type]  # opaque
        model.finish(decoded, prompt, nothing)


def main() -> None:
    torch.set_num_threads(2)
    model, image = MiniSegmenter(), picture(1024)
    context = model.prepare(image)
    one, ten = [ask("nuclei")], [prompt_of(None, words, words) for words in (*WORDS, *WORDS[:3])]
    features = model.encode(image, context)
    answer(model, features, ten)
    prepare = seconds(lambda: model.prepare(image))
    encode = seconds(lambda: model.encode(image, context))
    decode = seconds(lambda: answer(model, features, one))
    decode_ten = seconds(lambda: answer(model, features, ten))
    print(f"look at the whole picture once   {prepare:.3f} s")
    print(f"encode 1024 x 1024               {encode:.3f} s")
    print(f"one more prompt, with objects    {decode:.3f} s")
    print(
        f"ten prompts over one             {(prepare + encode + decode_ten) / (prepare + encode + decode):.2f}"
    )
    print(f"follow-up over first             {decode / (prepare + encode + decode):.2f}")
    print(
        f"peak memory                      {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
    )


if __name__ == "__main__":
    main()
