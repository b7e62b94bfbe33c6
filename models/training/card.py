"""Write a weight file's model card from its scores: ``python -m tissuetalk.models.training.card METRICS.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tissuetalk.models.data.example import TARGET_MPP

NOTES = {
    "ebhi-seg-glands": "colorectal biopsies, six diagnoses",
    "dsb2018-histology": "purple-stained fields, scale unknown",
    "tnbc-nuclei": "breast carcinoma, two patients",
    "nuinsseg-oesophagus": "dark fields, touching nuclei merged",
    "puma-melanoma-sample": "right quarter of the one training field",
    "brecahad-typed-nuclei": "one case, scored only where annotated",
    "bcss-breast-tumour": "right 30 % of the two training fields",
    "camelyon-node-tumour": "fields of the one training slide",
    "ocdc-oral-tumour": "two fields of the one training case",
    "glomeruli-pas": "one block, PAS, mostly cut at the border",
    "glas": "never trained on, research-only set",
    "kumar-multiorgan": "never trained on, research-only set",
}

HEAD = """# {name}

Text-prompted segmentation of H&E (and PAS for glomeruli). Research use only; not for diagnosis.

**What it is.** PathSegmentor's diagram at 9.6 million parameters (`models/pathsegmentor/mini.py`): a convolutional encoder
and pixel decoder that never see the prompt, sentence vectors of the frozen all-MiniLM-L6-v2 (Apache-2.0, a dependency), and
queries that the sentence writes and that are multiplied with the pixel features. It also returns a core-distance map, from
which touching objects are parted, the probability that the target is there at all, and for a whole picture its likely scale
and whether it is stained tissue.

**Licence.** Apache-2.0. **Training images**: EBHI-Seg, TNBC, NuInsSeg, BreCaHAD (with masks that LiteMedSAM drew in its
boxes, else ellipses), OCDC, AIDPATH glomeruli, CRC-VAL-HE-7K and BreakHis patches (CC-BY-4.0), osteosarcoma patches
(CC-BY-3.0), DSB 2018, PUMA, BCSS, CAMELYON (CC0-1.0); photographs that scikit-image ships as counter-examples. Never: LC25000,
GlaS, Kumar, WSSS4LUAD. The split is stored in `models/data/holdout.yaml`.

**Recipes.** `models/recipes/mini_first.yaml` (stopped after 3,128 steps, its mix changed once on the way, at about step 1,600), then
`models/recipes/mini.yaml`; together about 70 minutes on two CPU cores.

## Targets

| target | read at µm/px | comes back as |
| --- | --- | --- |
"""

LIMITS = """
## Limits

- Every tumour score rests on one or two cases, and the held-out fields share the case with training. Precision is lower than
  recall: stroma inside tumour is often painted too. Organ words do not restrict it; other organs are refused.
- `glomerulus` was learned from twelve PAS fields of one biopsy block.
- Typed nuclei were learned from two cases with partial labels and one melanoma field. They are nearer to a
  demonstration than to a measurement; read their rows above before using them.
- Pale, blurred or very large nuclei are missed or cut; in fat and pale stroma too much is painted.
- The scale guess (`assume_mpp`) is a guess: give the scale if you know it.
- Nothing was measured on frozen sections, cytology, immunohistochemistry, or on other scanners than those of the sets above.
"""


def card(metrics: dict[str, Any], name: str) -> str:
    """The card as Markdown."""
    lines = [HEAD.format(name=name).rstrip()]
    lines += [
        f"| {target} | {mpp:g} | {'region' if target == 'tumour' else 'objects'} |"
        for target, mpp in TARGET_MPP.items()
    ]
    lines += [
        "",
        "## Held-out scores",
        "",
        f"Means over images with bootstrap 95 % intervals; PQ at IoU 0.5. Made by `{metrics['command']}`.",
        "",
        "| set / target | images | Dice | 95 % | precision | recall | PQ | what |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, row in metrics["held_out"].items():
        low, high = row["dice_95"]
        quality = "" if row["pq"] is None else f"{row['pq']:.2f}"
        lines.append(
            f"| {key} | {row['images']} | {row['dice']:.3f} | {low:.2f} to {high:.2f} | {row['precision']:.2f} | "
            f"{row['recall']:.2f} | {quality} | {NOTES.get(key.partition('/')[0], '')} |"
        )
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
    presence = metrics["presence"]
    lines += [
        "",
        "## Presence",
        "",
        (
            f"Calibrated on {presence['pairs']} held-out pairs of image and target (two parameters, the same pairs). Of the pairs "
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
    return "\n".join(lines) + "\n" + LIMITS


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.with_suffix(".md").write_text(
        card(json.loads(path.read_text(encoding="utf-8")), path.stem), encoding="utf-8"
    )
