"""What a request wants measured, from its words: the nine measures of the contract, and what goes beyond them."""

from __future__ import annotations

import re

from tissuetalk.prompts.target import Measure

_COUNT = (
    r"\bcounts?\b|\bcounting\b|\bcounted\b|\bhow many\b|\bnumbers? of\b|\benumerate\b|\bnumber per\b|\bquantity of\b|\btotal number\b|\bmany are there\b|"
    r"\bhead ?count\b|\btally\b|\bhow much .{0,20}\b(?:cells|nuclei)\b|#\s?of\b|\bno\.? of\b|\bnumbers (?:in|for|per)\b"
)
_PER_AREA = r"(?:/|\bper\b)\s*(?:\d+(?:\.\d+)?\s*)?(?:sq(?:uare|\.)?\s*)?(?:mm|millimet(?:er|re)s?|um|\u00b5m|micron|microns|hpf|high[- ]power(?:ed)? fields?|field|unit area|area|cm)(?:2|\u00b2|\b)"
_DENSITY = r"\bdensit(?:y|ies)\b|\bconcentrations?\b|\bhow dense\b|\bhow densely\b|\bhow crowded\b|\bhow packed\b|\bcellularity\b"
_FRACTION = (
    r"%|\bper ?cent(?:age)?s?\b|\bpct\b|\bfractions?\b|\bproportions?\b|\bshare of\b|\bhow much of (?:the|this|it)\b|\bwhat part of\b|\bportion of\b.{0,40}\bis\b|"
    r"\bcoverage\b|\bhow much .{0,30}(?:occupied|taken up|covered|consists of)\b|\barea ratio\b"
)
_AREA = (
    r"(?<!any )(?<!this )(?<!that )(?<!in the )(?<!within the )(?<!an )\barea\b(?! (?:of interest|at|around|near|inside|within|between|where|under|in the))|\bmm\s?(?:2|\u00b2)|\bhow (?:big|large) (?:is|are) the (?:tumou?r|necro|region|lesion|area|metasta|carcinoma|infarct)|\bsurface area\b|\bextent of\b|"
    r"\b(?:measure|report|compute|calculate|give|quantify|compare|total|respective|both|their|its|the|mean|tell me|sum of)[^.;]{0,24}\bareas\b(?! (?:of (?:interest|haem|hem|necro)|where|with|that))|\bareas (?:in|of) (?:mm|each|both|all|the)|\bsquare (?:mm|millimet|micro|um)|\bhow much (?:area|space|tissue|tumou?r|necrosis|fat|stroma)\b"
)
_SIZE = (
    r"\bsizes?\b|\bdiameters?\b|\bhow (?:big|large|small|wide|long)\b|\bnuclear areas?\b|\bcell areas?\b|\bareas? of (?:each|every|individual|single)\b|\blengths?\b|\bwidths? of\b|\bmean area\b|\baverage area\b|"
    r"\b(?:is|are) (?:it|this|that|they|these|the [a-z ]{3,30}) (?:very |so |really |too |that )?(?:big|large|small|tiny|huge)\s*\?|\baxis lengths?\b|\bradius\b|\bvolumes?\b|\bperimeters?\b|\bbigger\b|\blarger\b|\bmajor axis\b|\bcaliber\b|\bcalibre\b"
)
_SHAPE = (
    r"\bshapes?\b|\bcircularit(?:y|ies)\b|\broundness\b|\bhow round\b|\belongat(?:ion|ed)\b|\beccentricit(?:y|ies)\b|\bsolidity\b|\birregularit(?:y|ies)\b|\baspect ratios?\b|\bcontour irregular|\bhow irregular\b|"
    r"\bcompactness\b|\bpleomorphism\b|\bmorpholog(?:y|ic|ical)\b|\bconvexity\b|\bhow elongated\b|\bovalness\b|\bform factor\b|\bsmoothness\b"
)
_INTENSITY = (
    r"\bintensit(?:y|ies)\b|\bhow dark(?:ly)?\b|\bdarkness\b|\bhow strongly stained\b|\boptical densit(?:y|ies)\b|\bstaining (?:strength|level|intensity)\b|\bhyperchroma(?:sia|tic)\b|\bhow (?:blue|pink|purple|stained|deeply)\b|"
    r"\bstain strength\b|\bbrightness\b|\bchromatin (?:darkness|density)\b|\bmean (?:od|stain|colou?r)\b|\bcolou?r (?:value|intensity)\b|\bdarker\b|\bhow heavily stained\b"
)
_DISTANCE = r"\bdistances?\b|\bhow far\b|\bhow close\b|\bproximity\b|\bnearest[- ]neighbou?r\b|\bspacing\b|\bhow near\b|\bgap between\b|\baway from the (?:nearest|closest)\b|\bspatial separation\b|\bspread apart\b|\bfar apart\b"
_RATIO = r"\bratios?\b(?<!aspect ratio)(?<!aspect ratios)|\b[a-z]+ ?: ?[a-z]+ (?:ratio|balance)\b|\brelative to\b|\bfor every\b|\bper (?:tumou?r|epithelial|inflammatory|normal|benign|neoplastic) (?:cell|nucleus)\b|\bquotient\b|\bdivided by\b"
_PATTERNS: tuple[tuple[Measure, re.Pattern[str]], ...] = (
    ("count", re.compile(_COUNT)),
    ("density", re.compile(_DENSITY)),
    ("area", re.compile(_AREA)),
    ("area_fraction", re.compile(_FRACTION)),
    ("size", re.compile(_SIZE)),
    ("shape", re.compile(_SHAPE)),
    ("intensity", re.compile(_INTENSITY)),
    ("distance", re.compile(_DISTANCE)),
    ("ratio", re.compile(_RATIO)),
)
_PER = re.compile(_PER_AREA)
_OPTICAL = re.compile(r"\boptical densit|\bchromatin densit|\bstain densit")


def measures_in(text: str, *, single_objects: bool) -> tuple[Measure, ...]:
    """The measures a request names, in the order of the contract.

    single_objects: the request is about things one counts (nuclei, cells), so that "how big" means size, not area.
    """
    low = text.lower()
    found = {name for name, pattern in _PATTERNS if pattern.search(low)}
    if _PER.search(low):
        found |= {"count", "density"}
        found.discard("area")
    if _OPTICAL.search(low):
        found.discard("density")
    if "area_fraction" in found and "ratio" in found and "area ratio" in low:
        found.discard("ratio")
    if "area_fraction" in found:
        found.discard("area")
    if "size" in found and re.search(
        r"\b(?:nuclear|cell|mean|average) areas?\b|areas? of (?:each|every)", low
    ):
        found.discard("area")
    if (
        not single_objects
        and "size" in found
        and re.search(r"\bhow (?:big|large)\b", low)
        and "diameter" not in low
    ):
        found = (found - {"size"}) | {"area"}
    if single_objects and "area" in found and "size" in found:
        found.discard("area")
    order = [name for name, _ in _PATTERNS]
    return tuple(name for name in order if name in found)


_PLACE_PATTERNS: tuple[tuple[str, str], ...] = (
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
_PLACES = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in _PLACE_PATTERNS)


def place_measures_in(text: str) -> tuple[str, ...]:
    """Metric names in a fixed order; none for words that ask for none."""
    return tuple(name for name, pattern in _PLACES if pattern.search(text))
