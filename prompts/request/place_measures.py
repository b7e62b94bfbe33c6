"""What a request wants measured of a whole slide or of how objects lie to each other, from its words.

These come on top of the nine measures of ``measures_in`` and never change them: nothing that reads language is scored on
them. Names are those of the metrics.
"""

from __future__ import annotations

import re

_PATTERNS: tuple[tuple[str, str], ...] = (
    (
        "hotspot",
        (
            r"\bhot[- ]?spots?\b|\bmitotic (?:counts?|ind(?:ex|ices)|rate|activity|density)\b|\bdensest\b|\bhottest\b|"
            r"\b(?:2|two) ?(?:mm2|mm²|mm\^2|square mm|square millimet\w+)|\b(?:10|ten) (?:hpf|high[- ]power)"
        ),
    ),
    (
        "tissue",
        r"\b(?:per|of) (?:(?:the|all|total) )?tissue\b|\btissue area\b|\bper mm\s?(?:2|²) of tissue\b",
    ),
    (
        "density_in",
        (
            r"\btils?\b|\btumou?r[- ]infiltrating\b|\binfiltrat(?:e|es|ing|ion)\b|"
            r"\b(?:density|densities)\b.{0,60}\b(?:in|within|inside)\b.{0,20}\b(?:tumou?r|stroma|epitheli\w+|glands?)\b"
        ),
    ),
    (
        "distance_to",
        r"\bdistances?\b.{0,80}\b(?:to|from|between)\b|\bhow (?:far|close|near)\b.{0,80}\b(?:to|from)\b|\bproximity\b.{0,60}\bto\b",
    ),
    (
        "tumour_stroma",
        r"\btumou?r[-\u2013/: ]+(?:to[- ])?strom(?:a|al)\b(?! cells)|\bstroma[-\u2013/: ]+(?:to[- ])?tumou?r\b|\btsr\b",
    ),
    ("heatmap", r"\bheat[- ]?maps?\b|\bdensity maps?\b"),
    (
        "histogram",
        r"\bhistograms?\b|\bdistributions? of (?:\w+ ){0,3}(?:sizes?|areas?|distances?)\b|\b(?:size|area|distance) distributions?\b",
    ),
)
_COMPILED = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in _PATTERNS)


def place_measures_in(text: str) -> tuple[str, ...]:
    """Metric names in a fixed order; none for words that ask for none."""
    return tuple(name for name, pattern in _COMPILED if pattern.search(text))
