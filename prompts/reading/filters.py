"""Mentions of a report that name nothing to outline: margins, extents, stages, immunostains, bare words."""

from __future__ import annotations

from collections.abc import Sequence

from tissuetalk.prompts.lexicon import lexicon
from tissuetalk.prompts.reading.mentions import Mention
from tissuetalk.prompts.reading.segments import Segment, has_phrase, phrases
from tissuetalk.prompts.target import Assertion
from tissuetalk.prompts.words import Words, load_terms, word_set

TUMORS = word_set("tumor tumor_nuclei dcis lcis cis dysplasia pin cin liver_metastasis adenoma")
LESIONS = TUMORS | {"lvi"}
EXTENTS = word_set("smooth_muscle fat perirenal_fat stroma fibrosis skin_adnexa nerve vessel lymphatic")
WALLS = frozenset({"muscularis", "myometrium", "detrusor", "muscular"})
ABNORMAL = word_set("malignant anastomosing irregular fused abnormal complex cancerization")
MARKER_WORDS = word_set(
    "stain immunostain immunohistochemistry immunoperoxidase marker antibody antigen actin myosin "
    "receptor cd34 positive"
)


def keep(
    words: Words,
    mention: Mention,
    said: Assertion,
    part: Segment,
    heading: Segment | None,
    tumors: Sequence[Mention],
    region: str | None,
) -> bool:
    """Whether a mention of a report on the organ `region` counts as a finding; `tumors` are those of its part."""
    concept = mention.concept
    low = heading.first if heading is not None else part.first
    if not concept.report or (concept.layer and said != "absent"):
        return False
    if _bare(words, mention, said):
        return False
    if concept.id in TUMORS and _elsewhere(words, mention, said, part, low):
        return False
    if concept.id == "tumor" and _describes_tumor(words, mention, part):
        return False
    if concept.id in EXTENTS and said != "absent" and _is_extent(words, mention, part, tumors):
        return False
    if concept.layer:
        return False
    if concept.id == "smooth_muscle" and words[mention.first].norm in WALLS:
        return said == "absent" and not has_phrase(words, low, part.last, "invading")
    if concept.weak and _of_another_organ(words, mention, region):
        return False
    if concept.weak:
        return _is_normal(words, mention, part, tumors)
    return not _is_marker(words, mention)


def _bare(words: Words, mention: Mention, said: Assertion) -> bool:
    name = tuple(words.norms(mention.core_first, mention.last + 1))
    if name in phrases("not_in_report"):
        return True
    return name in phrases("only_denied") and said != "absent"


def is_small_print(words: Words, mention: Mention) -> bool:
    """ "pin" is not PIN: an abbreviation counts in capitals only."""
    name = tuple(words.norms(mention.core_first, mention.last + 1))
    return name in phrases("abbreviations") and words.text[words[mention.last].start].islower()


def _of_another_organ(words: Words, mention: Mention, region: str | None) -> bool:
    """Endometrium in a report on the ovary, the adrenal gland in one on the kidney."""
    names = words.norms(mention.first - 1, mention.last + 1)
    if mention.concept.id == "gland" and any((name,) in phrases("organ_glands") for name in names):
        return True
    owners: dict[str, str] = load_terms("cues.yaml")["own_epithelium"]
    owner = next((owners[name] for name in names[-2:] if name in owners), None)
    return owner is not None and region is not None and owner != region


def _elsewhere(words: Words, mention: Mention, said: Assertion, part: Segment, low: int) -> bool:
    """Statements on a margin never count; a node without tumour says nothing of the specimen itself."""
    if has_phrase(words, low, part.last, "margin"):
        first, last = words.item(mention.first, mention.last)
        near = words.norms(max(low, first, mention.first - 8), min(part.last, last, mention.last + 8) + 1)
        if {"margin", "inked"} & set(near) or (said != "present" and (first, last) == (low, part.last)):
            return said != "present" or not _has_own_statement(words, mention, part)
    return said == "absent" and has_phrase(words, low, part.last, "node")


def _has_own_statement(words: Words, mention: Mention, part: Segment) -> bool:
    """ "Invasive carcinoma is 1 mm from the margin": the tumour is the subject, so it is there."""
    return mention.first <= part.first + 3


def _describes_tumor(words: Words, mention: Mention, part: Segment) -> bool:
    """ "tumour size", "tumour site": the word only opens a field."""
    if mention.last + 1 > part.last or "," in words.gap(mention.last, mention.last + 1):
        return False
    return words[mention.last + 1].norm in lexicon().not_after_head


def _is_extent(words: Words, mention: Mention, part: Segment, tumors: Sequence[Mention]) -> bool:
    """Fat, muscle and the like that only say how far a tumour grows."""
    before = words[max(part.first, mention.first - 7) : mention.first]
    if any((word.norm,) in phrases("invading") for word in before):
        return True
    if mention.concept.id in ("vessel", "lymphatic"):
        if words[mention.last].norm in ("artery", "vein", "arteriole"):
            return True
        grows = ("tumor", "tumor_nuclei", "lvi")
        return mention.concept.id == "vessel" and any(tumor.concept.id in grows for tumor in tumors)
    return False


def _is_normal(words: Words, mention: Mention, part: Segment, tumors: Sequence[Mention]) -> bool:
    """A gland or an epithelium counts when called normal, or when nothing near it is a tumour."""
    if called_normal(words, mention, part):
        return True
    near = _near(words, mention, part)
    if any(other.concept.id in TUMORS and other.first < mention.first for other in tumors):
        return False
    return not near & ABNORMAL


def _near(words: Words, mention: Mention, part: Segment) -> set[str]:
    return set(words.norms(max(part.first, mention.first - 5), min(part.last, mention.last + 6) + 1))


def called_normal(words: Words, mention: Mention, part: Segment) -> bool:
    """Whether a word such as "benign" or "unremarkable" stands near an object."""
    return has_phrase(words, max(part.first, mention.first - 5), min(part.last, mention.last + 6), "normal")


def _is_marker(words: Words, mention: Mention) -> bool:
    """ "smooth muscle actin", "keratin-positive": the name of a stain."""
    if mention.last + 1 >= len(words):
        return False
    after = words[mention.last + 1].norm
    return after in MARKER_WORDS - {"positive"} or (
        mention.concept.id == "keratin" and after in ("positive", "were", "stain")
    )
