"""From trained weights to what ships: ``python -m benchmarks ship WEIGHTS DATA``; goes on where it stopped.

1. Averages them with other weights, if told (``--blend``); the head for scale and tissue then no longer fits: training ends with its fit. 2. Chooses cuts, calibrates presence and scores held-out images.
3. Fits what reliability is read from. 4. Looks at bad pictures, and at the kinds that are refused. 5. Writes card, scores and pictures.
Everything lies in ``--work`` until ``--install`` puts it into the package: weights, card, reliability and the weights' SHA-256.
Training curves (``NAME-curves.png``) are taken along where they lie beside the weights.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import calibrate, corruptions, refused, report
from benchmarks.calibrate import ScoredMask
from benchmarks.held_out import held_out, of_weights
from benchmarks.model_card import card
from tissuetalk.models.segmentation.pathsegmentor import card as model_card
from tissuetalk.models.segmentation.pathsegmentor.card import MINI_NAME, MINI_WEIGHTS
from tissuetalk.models.segmentation.pathsegmentor.mini import load_mini, save_mini
from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter
from tissuetalk.models.segmentation.pretrained import weights_hash
from tissuetalk.models.training.mini import blend
from tissuetalk.models.writing import write_whole

PARTS = (".safetensors", ".json", ".md", "-failures.jpg")


def once(path: Path, make: Callable[[], Any]) -> Any:
    """What a step found, from its file where it was done before."""
    if not path.is_file():
        write_whole(path, json.dumps(make(), indent=1) + "\n")
    return json.loads(path.read_text(encoding="utf-8"))


def blended(weights: Path, other: Path, share: float, out: Path) -> Path:
    """``share`` of ``weights``, the rest of ``other``; their cuts and curves play no part."""
    network = load_mini(weights)
    blend(network, load_mini(other), 1 - share)
    save_mini(network, out, note={"recipe": f"{share:g} of {weights.stem}, {1 - share:g} of {other.stem}"})
    return out


def prepare(weights: Path, data: Path, work: Path, most: int | None) -> dict[str, Any]:
    """All that is measured of the weights, and the weights with their cuts and curves in ``work``."""
    found = once(
        work / f"{MINI_NAME}.json", lambda: report.report(weights, data, work, name=MINI_NAME, most=most)
    )
    model = MiniSegmenter(work / f"{MINI_NAME}.safetensors")

    def seen() -> list[dict[str, Any]]:
        return [asdict(each) for each in calibrate.observe_all(model, data, most or calibrate.MOST_OF_A_SET)]

    masks = [ScoredMask(**each) for each in once(work / "masks.json", seen)]
    reliability = once(work / "reliability.json", lambda: calibrate.entry_of(model, masks))
    bad = once(
        work / "corruptions.json",
        lambda: corruptions.corrupted(model, reliability["segment"], list(held_out(data, 3))),
    )
    kinds = once(work / "refused.json", lambda: refused.measured(model, data, most or refused.MOST))
    whole: dict[str, Any] = found | {"reliability": reliability, "corruptions": bad, "refused": kinds}
    write_whole(work / f"{MINI_NAME}.json", json.dumps(whole, indent=1) + "\n")
    write_whole(work / f"{MINI_NAME}.md", card(whole, MINI_NAME))
    return whole


def install(work: Path) -> str:
    """Put weights, card, scores, picture, reliability and hash into the package; returns the SHA-256."""
    folder, sha256 = MINI_WEIGHTS.parent, weights_hash(work / f"{MINI_NAME}.safetensors")
    for part in PARTS:
        shutil.copyfile(work / f"{MINI_NAME}{part}", folder / f"{MINI_NAME}{part}")
    calibrate.store(sha256, json.loads((work / "reliability.json").read_text(encoding="utf-8")))
    source = Path(model_card.__file__)
    code, count = re.subn(r'sha256="[0-9a-f]{64}"', f'sha256="{sha256}"', source.read_text(encoding="utf-8"))
    assert count == 1, "one pinned hash in the model's card"
    write_whole(source, code)
    return sha256


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints where things are, and the SHA-256 once installed."""
    parser = of_weights("ship", __doc__)
    parser.add_argument("--blend", type=Path, help="average with these weights")
    parser.add_argument("--share", type=float, default=0.5, help="of WEIGHTS in the average")
    parser.add_argument("--work", type=Path, default=Path("runs/ship"))
    parser.add_argument("--most", type=int, help="images of a set; default: all, and 12 for reliability")
    parser.add_argument("--install", action="store_true", help="put the result into the package")
    told = parser.parse_args(arguments)
    told.work.mkdir(parents=True, exist_ok=True)
    weights = told.weights
    if told.blend is not None:
        weights = blended(weights, told.blend, told.share, told.work / "blended.safetensors")
    prepare(weights, told.data, told.work, told.most)
    print(f"{told.work / MINI_NAME}.md")
    if told.install:
        print(install(told.work))


if __name__ == "__main__":
    main()
