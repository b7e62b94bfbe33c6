"""Which words led to which mask, or why there is none."""

from __future__ import annotations

from tissuetalk.tools.answers.explained import Evidence
from tissuetalk.tools.answers.results import Mask, NotSegmented, SegmentResult
from tissuetalk.tools.explain.request import ExplainRequest


def evidence(result: SegmentResult, request: ExplainRequest) -> list[Evidence]:
    """Numbered as in the picture's legend; what has no mask follows without a number, unless masks were named."""
    about = request.masks(result)
    shown = [mask for mask in result.masks if mask.found]
    found = [_found(number, mask) for number, mask in enumerate(shown, start=1) if mask in about]
    missed = [_found(None, mask) for mask in result.masks if not mask.found and mask in about]
    left_out = [_left_out(item) for item in result.not_segmented] if request.everything else []
    return found + missed + left_out


def _found(number: int | None, mask: Mask) -> Evidence:
    read_as = mask.label or "words without a label"
    return Evidence(
        number=number,
        words=mask.evidence,
        assertion=mask.assertion,
        name=mask.name,
        mask_id=mask.mask_id,
        statement=f"“{mask.evidence}” was read as {read_as}; {mask.provenance.model} was asked for “{mask.prompt}”: "
        f"{mask.verdict}",
    )


def _left_out(item: NotSegmented) -> Evidence:
    known = f"; nearest that is known: {', '.join(item.nearest)}" if item.nearest else ""
    assertion = item.code if item.code in ("absent", "historical") else "present"
    return Evidence.model_validate(
        {
            "number": None,
            "words": item.evidence,
            "assertion": assertion,
            "name": item.free_form or item.label or item.evidence,
            "mask_id": None,
            "statement": f"“{item.evidence}” has no mask ({item.code}): {item.reason}{known}",
        }
    )
