"""Wishes that are not clearly understood: a word of leaving out that belongs to nothing, the disease of a relative."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

from tissuetalk.prompts.reading.mentions import Mention
from tissuetalk.prompts.words import Words, word_set

PARTS = ",;.:!?\n"
NEGATORS = word_set(
    "no not don't never without can't won't mustn't shouldn't cannot didn't doesn't none nor nothing"
)
PLACES = word_set("in inside within part overlapping touching on located lying belonging")
RELATIVE = re.compile(
    r"\b(?:mother|mum|mom|mommy|mummy|father|dad|daddy|sister|brother|aunt|auntie|uncle|grand\w+|gran|granny|nan|nana|nanny|granddad|pop|hubby|spouse|son|daughter|neighbou?r|colleague|boss|grandma|grandpa|cousin|niece|nephew|wife|husband|partner|parents?|friend)\b"
    r"[^.;:?!]{0,40}\b(?:had|died|suffered|lost|passed away|was diagnosed|got)\b[^.;:?!,]{0,60}$",
    re.IGNORECASE,
)
"""Words in front of a disease that a relative had."""
LOOSE = re.compile(
    r"no|not|non|none|never|neither|nor|nothing|without|\w+n['\u2019]t|cannot|except\w*|exclud\w*|omit\w*|skip\w*|ignor\w*|disregard\w*|avoid\w*|discard\w*|"
    r"remov\w*|eras\w*|delet\w*|hid\w*|drop\w*|unwanted|irrelevant|useless|pointless|unneeded|unnecessary|superfluous|unimportant|uninteresting|forget|spare|refrain\w*|abstain\w*|"
    r"dispens\w*|neglect\w*|suppress\w*|save|sans|minus|bar|barring|leave|leaving|enough|needless|unasked|banish\w*|ditch\w*|scrap\w*|dismiss\w*|reject\w*|lose"
)
LOSING = re.compile(
    r"miss\w*|escap\w*|overlook\w*|forg\w+|exception\w*|optional|negotiable|ignor\w*|skip\w*|omit\w*|los[et]\w*|slip\w*|exclud\w*|neglect\w*|drop\w*|disregard\w*|un(?:marked|counted|noticed|detected|seen|segmented|labell?ed|annotated|outlined|drawn|covered|touched|found)|fail\w*|avoid\w*|spar\w+|remov\w*"
)
LOOSE_ENDS = word_set("but and or then only just with so that which if even where")
PREDICATES = word_set(
    "is are can may must should will would has have does do stay stays remain remains go goes belong belongs bore bores"
)
ASKING = word_set(
    "how where which what who whose why whether if that when many much find show outline mark segment count measure tell check see make sure"
)
WELCOME = word_set(
    "wanted needed enough interesting important relevant required essential priority first only all mine focus welcome fine ok target everything goal aim "
    "matter interest needful mandatory key marked outlined segmented counted shown measured included what present in inside within near around at on purple pink blue red dark here there "
    "visible seen big small large round"
)
LOOSE_REACH = 7
"""Words of leaving out, whatever the grammar around them, and how far they are looked for."""


def is_unclear(words: Words, mention: Mention, held: Container[int], cued: Container[int]) -> bool:
    """A wanted thing beside a word of leaving out that belongs to no other thing: what is meant is anybody's guess.

    held: the tokens of named things. cued: those that leave one of them out.
    """
    loose: list[int] = []
    for step, stop in ((-1, -1), (1, len(words))):
        place = mention.first if step < 0 else mention.last
        for at in range(place + step, stop, step)[:LOOSE_REACH]:
            gap = words.gap(min(at, at - step), max(at, at - step))
            if at in held or any(mark in gap for mark in PARTS + "()") or words[at].norm in LOOSE_ENDS:
                break
            if at not in cued and LOOSE.fullmatch(words[at].lower):
                loose.append(at)
    if not loose:
        return _has_strange_predicate(words, mention)
    if _is_two_negations(words, loose):
        return False
    following = words.norms(loose[0] + 1, loose[0] + 2)
    return not (following and following[0] in PLACES | {"only", "just", "matter"})


def _has_strange_predicate(words: Words, mention: Mention) -> bool:
    """ "the stroma is for another day": what is said of a thing, where no word of wishing or of place is known."""
    at = mention.last + 1
    if at >= len(words) or words.gap(at - 1, at) != " " or words[at].norm not in PREDICATES:
        return False
    low = max(words.text.rfind(mark, 0, words[mention.first].start) for mark in PARTS) + 1
    if any(
        word.start >= low and word.norm in ASKING
        for word in words[max(0, mention.first - 10) : mention.first]
    ):
        return False
    rest: list[str] = []
    while at + 1 < len(words) and not any(mark in words.gap(at, at + 1) for mark in PARTS) and len(rest) < 8:
        at += 1
        rest.append(words[at].norm)
    asked = words.text[words[at].end : words[at].end + 2].lstrip().startswith("?")
    return bool(rest) and not asked and not WELCOME & set(rest)


def _is_two_negations(words: Words, loose: Sequence[int]) -> bool:
    """ "can't afford to miss", "does not escape", "without exception"."""
    denied = [at for at in loose if words[at].norm in NEGATORS or words[at].lower.endswith("n't")]
    around = set(words.norms(min(loose), max(loose) + 6)) - {words[at].norm for at in denied}
    return bool(denied) and any(LOSING.fullmatch(norm) for norm in around)
