"""The picture of each kind of evidence: what a panel shows and what is written on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tissuetalk.models.images import Box, ImageSource
from tissuetalk.tools.answers.explained import Meaning, Observation
from tissuetalk.tools.answers.results import Mask, SegmentResult
from tissuetalk.tools.drawing.drawing import DrawnMask
from tissuetalk.tools.drawing.sheet import Bar, Panel, bars, fitted, framed, heated, marked, row
from tissuetalk.tools.explain import windows
from tissuetalk.tools.explain.counterfactual import Views
from tissuetalk.tools.explain.observations import Observed, summary
from tissuetalk.tools.explain.stability import CheckedMask
from tissuetalk.tools.storage.result_folder import ResultFolder

WIDTH = 1000
MOST_CROPS = 5
SURE, UNSURE = "#2e8b57", "#c0392b"
CALM = "#0a4fd0"
"""Outline under a heat map, whose own colours run from yellow to red."""


class Board:
    """Draws over one result's image; reads pixels at the size they are shown."""

    def __init__(self, folder: ResultFolder, result: SegmentResult, source: ImageSource) -> None:
        self.folder, self.result, self.source = folder, result, source
        self.region = Box.from_sequence(result.image.region)
        self.mpp = result.image.known_mpp
        found = [mask for mask in result.masks if mask.found]
        self.numbers = {mask.mask_id: number for number, mask in enumerate(found, start=1)}

    def _view(self, box: Box, width: int, height: int) -> NDArray[np.uint8]:
        # enlarged at most fourfold: more would only show the pixels
        scale = min(width / box.width, height / box.height, 4.0)
        width, height = max(1, round(box.width * scale)), max(1, round(box.height * scale))
        return self.source.read_region(box, width=width, height=height)

    def _um(self, box: Box, width: int) -> float | None:
        return None if self.mpp is None else self.mpp * box.width / width

    def _drawn(self, mask: Mask, box: Box, pixels: NDArray[np.uint8], *, numbered: bool = False) -> DrawnMask:
        """The mask over the view of a box."""
        labels = windows.layer_of(self.folder, mask).labels.sample(box, pixels.shape[1], pixels.shape[0])
        number = self.numbers[mask.mask_id] if numbered else None
        return DrawnMask(labels, mask.colour, _caption(mask), number)

    def findings(self, about: Sequence[Mask], seen: Sequence[Observed], *, small: bool) -> Image.Image:
        """The region with every mask numbered as in the text, and beside it what the words do not mention."""
        besides = [
            DrawnMask(labels, told.colour or "", f"{_caption(told)}, an observation", told.number)
            for labels, told in ((each.labels, each.answer) for each in seen)
            if labels is not None
        ]
        pixels = self._view(self.region, (WIDTH - 10) // 2 if besides else WIDTH, 480 if small else 760)
        asked = [self._drawn(mask, self.region, pixels, numbered=True) for mask in about if mask.found]
        panels = [self._marked("What the words led to", asked, pixels)]
        if (nothing := summary([each.answer for each in seen])) is not None:
            panels[0] = replace(panels[0], notes=(*panels[0].notes, nothing))
        if besides:
            panels.append(self._marked("Also seen, not mentioned in the words", besides, pixels))
        return row(panels)

    def _marked(self, title: str, masks: Sequence[DrawnMask], pixels: NDArray[np.uint8]) -> Panel:
        picture = marked(pixels, masks, self._um(self.region, pixels.shape[1]))
        keys = tuple((each.colour, f"{each.number}  {each.caption}") for each in masks)
        return Panel(picture, title, keys=keys, notes=() if masks else ("nothing was found",))

    def examples(self, meanings: Sequence[Meaning]) -> Image.Image | None:
        """A crop of each kind at its most typical, outlined and named."""
        shown = [each for each in meanings if each.example_box is not None][:MOST_CROPS]
        if not shown:
            return None
        side = min(300, (WIDTH - 10 * (len(shown) - 1)) // len(shown))
        by_id = {mask.mask_id: mask for mask in self.result.masks}
        panels = []
        for each in shown:
            mask, box = by_id[each.mask_id or ""], Box.from_sequence(each.example_box or [])
            pixels = self._view(box, side, side)
            picture = fitted(marked(pixels, [self._drawn(mask, box, pixels)], None), side, side)
            number = self.numbers[mask.mask_id]
            panels.append(Panel(picture, f"{number}  {each.name}", notes=(each.looks_like,)))
        return row(panels)

    def stability(self, checked: CheckedMask, mask: Mask) -> Image.Image:
        """Where the answers differ, beside how far each wording and each change agrees."""
        answer, window = checked.answer, checked.window
        pixels = self._view(window, 560, 520)
        outline = replace(self._drawn(mask, window, pixels), colour=CALM)
        um_per_px = self._um(window, pixels.shape[1])
        heat = marked(heated(pixels, checked.uncertainty), [outline], um_per_px)
        for letter, place in zip("ABC", answer.unsure, strict=False):
            framed(heat, Box.from_sequence(place.box), window, UNSURE, letter)
        number = self.numbers[mask.mask_id]
        known = answer.reliability is not None
        sure = f"{answer.reliability:.2f} ({answer.level})" if known else "not calibrated"
        where = [f"{letter}: {place.why}" for letter, place in zip("ABC", answer.unsure, strict=False)]
        notes = tuple(where) or ("No place stands out: all answers agree nearly everywhere.",)
        keys = ((CALM, "outline as segmented"), ("#e16000", "yellow to red: only some answers mark it"))
        left = Panel(heat, f"{number}  {answer.name}: where the answer is unsure", notes=notes, keys=keys)
        texts = [(each.sentence, each.dice) for each in answer.wordings]
        short = [(f"{text[:26]}…" if len(text) > 27 else text, value) for text, value in texts]
        rows = [_agreement(f"“{text}”", value) for text, value in short]
        rows += [_agreement(each.kind, each.dice) for each in answer.changes]
        title = f"reliability {sure}; agreement with the mask when it is asked in other words or the picture changes:"
        room, foot = WIDTH - left.picture.width - 10, "(Dice, 1 = same mask)"
        return row([left, bars(title, rows, room, low=0, high=1, foot=foot)])

    def counterfactual(self, views: Views) -> Image.Image:
        """As it is, blurred, painted over; a classifier's scores below."""
        side = (WIDTH - 20) // 3
        mask, number = views.mask, self.numbers[views.mask.mask_id]
        outline = DrawnMask(views.painted.astype(np.int32), mask.colour, "", number)
        before = marked(np.asarray(fitted(Image.fromarray(views.before), side, side)), [outline], None)
        # blurred first, then painted over, as the answers are
        first, second = views.answers
        notes = tuple(f"{each.label}: {each.before:.2f}" for each in first.scores)
        panels = [Panel(before, "as it is", notes=notes)]
        shown = ((first, "blurred", views.blurred), (second, "painted over", views.removed))
        for answer, how, pixels in shown:
            notes = tuple(f"{each.label}: {each.before:.2f} -> {each.after:.2f}" for each in answer.scores)
            picture = fitted(Image.fromarray(pixels), side, side)
            panels.append(Panel(picture, f"{mask.name} {how}", notes=notes))
        return row(panels)


def _agreement(name: str, value: float) -> Bar:
    return Bar(name, value, f"{value:.2f}", SURE if value >= 0.9 else "#d8a200" if value >= 0.75 else UNSURE)


def _caption(found: Mask | Observation) -> str:
    count = "" if found.count is None else f", {found.count} objects"
    return f"{found.name} ({found.area_fraction:.1%}{count})"
