"""evaluate: the same core as segment, scored against annotated images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tissuetalk.models import registry
from tissuetalk.tools.evaluate.asking import Asking
from tissuetalk.tools.evaluate.boxes import BoxProbe, load_box_model
from tissuetalk.tools.evaluate.evaluate import Probe, Summary, evaluate
from tissuetalk.tools.evaluate.pictures import PictureProbe
from tissuetalk.tools.evaluate.rewording import WordingProbe


def evaluate_manifest(
    manifest: Path,
    out: Path,
    *,
    model: str | None,
    words: str | None,
    wordings: int = 0,
    box_models: Sequence[str] = (),
    pictures: int = 0,
    progress: Callable[[float, str], None] = lambda done, what: None,
) -> Summary:
    """Score a model on a manifest; the words go through the rules engine as they would in segment.

    wordings: further sentences of each quality level to ask (prompt_groups.md, section 7); 0 asks none.
    box_models: models to prompt with boxes from the annotation for comparison.
    pictures: how many of the worst and of the best answers to draw.
    """
    asking = Asking(registry.load(model))
    probes: list[Probe] = []
    if wordings:
        probes.append(WordingProbe(asking, each_level=wordings))
    if box_models:
        probes.append(BoxProbe({name: load_box_model(name) for name in box_models}))
    if pictures:
        probes.append(PictureProbe(pictures))
    return evaluate(
        manifest,
        out,
        model=asking.model.card.name,
        words=words,
        segment_image=asking.segment_image,
        label_of=asking.label_of,
        probes=probes,
        progress=progress,
    )
