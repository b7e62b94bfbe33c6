"""Which named objects of a request are wanted, which are to be left out, and which only describe the case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from tissuetalk.prompts.lexicon import Node, branches_of, grow, lexicon, phrases_of, steps_of
from tissuetalk.prompts.organs import organ_hits
from tissuetalk.prompts.reading.mentions import Mention
from tissuetalk.prompts.request.questions import only_asked
from tissuetalk.prompts.request.unclear import NEGATORS, PARTS, PLACES, RELATIVE, is_unclear
from tissuetalk.prompts.words import Words, load_terms, phrase, word_set

Role = Literal["wanted", "unwanted", "unclear", "past", "case"]
RESUMING = word_set("but only just show segment mark however then do i outline count and")
EXCEPTING = word_set("except but besides other")
EXCEPT = word_set("except than from but excluding exclude not")
USELESS = word_set("noise irrelevant unimportant unwanted ignored skipped omitted uninteresting superfluous")
SUFFICING = re.compile(
    r" (?:alone )?(?:(?:will|would|should|may|'ll) (?:do|suffice|be (?:fine|sufficient|plenty))|(?:is|are) (?:enough|sufficient|plenty|fine|all (?:i|we)|what (?:i|we)|ok|okay)|suffices?)\b",
    re.IGNORECASE,
)
"""What is enough is wanted ("no need to do the nuclei, the glands will do")."""
NOT_WANTED = re.compile(
    r"(?:\?\s*no(?: thanks?)?|\s+(?:is|are|does|do)(?: not|n't))(?=\s*(?:[.,;!?\n]|$))", re.IGNORECASE
)
POINTING = word_set(
    "point pick single map find figure work trace seek sort bring spell lay call check try seg segment outline show"
)
RULED_FIELD = re.compile(
    r"\s*(?:[:=(]|->)\s*((?:no(?:t (?:needed|wanted|required|this time))?|skip|ignore|leave(?: out| it)?|omit|off|out|drop|exclude|without|never|hide|remove|x|0)|[\u2717\u2718\u2716\u274c])(?!\w)\s*(?=[.,;!)/\n]|$)",
    re.IGNORECASE,
)
"""A list of structures with an order each: "haemorrhage: skip"."""
LEAVING = word_set("ignore skip forget omit exclude disregard hide drop leave")
RATHER = word_set("rather sooner")
PREFERRING = word_set("pick choose prefer take chosen favor select")
PERMITTING = word_set("may can could might ignore skip leave drop forget omit exclude disregard")
WHOLE = word_set("everything anything all nothing none no nobody")
TUMORS = frozenset({"tumor", "tumor_nuclei", "cis", "liver_metastasis", "adenoma"})


@dataclass(frozen=True, slots=True)
class Part:
    """A named object of a request and what it is there for. `cue` is the span of the word that excluded it.

    understood: a word of leaving out speaks of it, and is denied itself.
    """

    mention: Mention
    role: Role
    cue: tuple[int, int] | None = None
    exclusion: str = ""
    understood: bool = False


@lru_cache(maxsize=16)
def terms_tree(*names: str) -> Node:
    """The phrases of some lists of `request.yaml`, each with the name of its list."""
    tree: Node = {}
    for name in names:
        for text in load_terms("request.yaml")[name]:
            for steps in steps_of("request.yaml", str(text)):
                grow(tree, steps, name)
    return tree


@lru_cache(maxsize=8)
def term_words(name: str) -> frozenset[str]:
    """The single words of a list of `request.yaml`."""
    return frozenset(word for text in load_terms("request.yaml")[name] for word in phrase(str(text))[:1])


@lru_cache(maxsize=8)
def term_phrases(name: str) -> frozenset[tuple[str, ...]]:
    """The phrases of a list of `request.yaml`."""
    return frozenset(phrase(str(text)) for text in load_terms("request.yaml")[name])


def find_terms(words: Words, *names: str) -> list[tuple[int, int, str]]:
    """Phrases of the lists in order: (first token, last token, list)."""
    return phrases_of(terms_tree(*names), words, branches_of("request.yaml"))


def roles_of(words: Words, mentions: Sequence[Mention]) -> list[Part]:
    """One part per mention, in order."""
    inside = {i for m in mentions for i in range(m.first, m.last + 1)}
    behind = find_terms(words, "unwanted_behind")
    inside |= {
        i
        for first, last, _ in behind
        if first - 1 in inside and not any(mark in words.gap(first - 1, first) for mark in PARTS)
        for i in range(first, last + 1)
    }
    before = [cue for cue in find_terms(words, "unwanted_before") if cue[0] not in inside]
    if " + " in words.text:
        before += [
            (m.first - 1, m.first - 1, "unwanted_before")
            for m in mentions[1:]
            if words.gap(m.first - 1, m.first) == " - "
        ]
    before = sorted(before + [(i, i, "unwanted_before") for i in _chosen_over(words)])
    losing = find_terms(words, "losing")
    parts: list[Part] = []
    for number, mention in enumerate(mentions):
        previous = mentions[number - 1] if number else None
        following = mentions[number + 1].first if number + 1 < len(mentions) else len(words)
        own = [cue for cue in behind if cue[0] < following]
        denied = False
        cue = _cue_before(words, mention, previous, before, parts) or _cue_behind(words, mention, own)
        if cue is not None and (
            _denied_loss(words, mention, cue, losing)
            or only_asked(words, mention)
            or _suffices(words, mention, cue)
            or _kept_after_all(words, parts, cue)
        ):
            cue, denied = None, True
        if cue is not None:
            parts.append(Part(mention, "unwanted", cue, " ".join(words.norms(cue[0], cue[1] + 1))))
        elif RELATIVE.search(words.text, 0, words[mention.first].start):
            parts.append(Part(mention, "past"))
        elif _is_case(words, mention, mentions):
            parts.append(Part(mention, "case"))
        else:
            parts.append(Part(mention, "wanted", understood=denied))
    held = {i for part in parts for i in range(part.mention.first, part.mention.last + 1)}
    cued = {i for part in parts if part.cue is not None for i in range(part.cue[0], part.cue[1] + 1)}
    return [
        replace(part, role="unclear")
        if part.role == "wanted"
        and not part.understood
        and not only_asked(words, part.mention)
        and is_unclear(words, part.mention, held, cued)
        else part
        for part in parts
    ]


def _chosen_over(words: Words) -> list[int]:
    """The "than" of "rather glands than stroma", the "over" of "pick glands over stroma"."""
    pairs = {"than": RATHER, "over": PREFERRING, "to": {"prefer"}}
    return [
        i
        for i, word in enumerate(words)
        if word.norm in pairs
        and pairs[word.norm] & set(words.norms(i - 8, i))
        and words[i - 1].norm not in RATHER
    ]


def _kept_after_all(words: Words, parts: Sequence[Part], cue: tuple[int, int]) -> bool:
    """ "you may ignore the stroma, but not the glands": a denial of a permission to leave out."""
    held = parts[-1] if parts else None
    if held is None or held.role != "unwanted" or "not" not in words.norms(cue[0], cue[1] + 1):
        return False
    said = set(words.norms(cue[0] - 1, cue[1] + 1))
    allowed = PERMITTING & set(words.norms(0, held.mention.first))
    return "but" in said and bool(allowed) and cue[0] - held.mention.last <= 4


def _denied_loss(
    words: Words, mention: Mention, cue: tuple[int, int], losing: Sequence[tuple[int, int, str]]
) -> bool:
    """ "make sure no mitosis slips through", "don't skip the glands": under two negations a thing is wanted."""
    if NEGATORS & set(words.norms(cue[0], cue[1] + 1)):
        for first, _, _ in losing:
            excepting = words[first].norm in EXCEPTING
            if cue[1] < first < (mention.first if excepting else mention.last + 5):
                near = words.gap(min(first, mention.last), max(first, mention.last))
                if excepting or not {",", ".", ";"} & set(near):
                    return True
    if EXCEPTING & set(words.norms(cue[0], cue[1] + 1)) and "anything" in words.norms(cue[0] - 2, cue[1] + 1):
        low = max(words.text.rfind(mark, 0, words[cue[0]].start) for mark in ".;!?\n") + 1
        behind = set(words.norms(mention.last + 1, mention.last + 6))
        return bool(behind & USELESS) or bool(
            NEGATORS & {word.norm for word in words[max(0, cue[0] - 8) : cue[0]] if word.start >= low}
        )
    if "not" in words.norms(cue[0], cue[1] + 1) and "nothing" in words.norms(cue[0] - 3, cue[0]):
        return True  # "nothing that is not a gland"
    if words[cue[0]].norm in ("nothing", "none"):
        return bool((LEAVING | {"out"}) & set(words.norms(cue[0] - 3, cue[0])))
    if any(first == cue[0] for first, _, _ in losing):
        before = words.norms(cue[0] - 2, cue[0])
        if LEAVING & set(before):
            return True
        # "leave out nothing of it", "ignore everything except the glands"
        return bool(NEGATORS & set(before)) or bool(WHOLE & set(words.norms(cue[1] + 1, cue[1] + 3)))
    return False


def _suffices(words: Words, mention: Mention, cue: tuple[int, int]) -> bool:
    """ "no need to do the nuclei, the glands will do": behind a comma, what is enough."""
    return cue[1] < mention.first and bool(
        {",", ";"} & set(words.gap(cue[1], mention.first))
        and SUFFICING.match(words.text, words[mention.last].end)
    )


def _cue_before(
    words: Words,
    mention: Mention,
    previous: Mention | None,
    cues: Sequence[tuple[int, int, str]],
    parts: Sequence[Part],
) -> tuple[int, int] | None:
    """An excluding word in front, with nothing between that starts a wish of its own."""
    for first, last, _ in reversed(cues):
        if last >= mention.first:
            continue
        if mention.first - last > 6:
            break
        if _closed_before(words, first, last, previous, mention):
            continue
        resumed = set(words.norms(last + 1, mention.first)) & (RESUMING - {"and"})
        if resumed or _stopped(words, last, mention):
            return None
        if previous is not None and previous.first > last:
            held = parts[-1]
            aside = {"not", "no"} & set(words.norms(first, last + 1)) and "," in words.gap(
                max(first - 1, 0), max(first, 1)
            )
            if aside and "," in words.gap(previous.last, mention.first):
                return None  # "glands, not stroma, and vessels"
            listed = set(words.norms(previous.last + 1, mention.first)) <= word_set("or and nor the any")
            return held.cue if held.role == "unwanted" and listed and held.cue is not None else None
        return None if _is_spatial(words, first, last, previous) else (first, last)
    return None


def _stopped(words: Words, last: int, mention: Mention) -> bool:
    """Whether a sentence ends between a cue and a mention; the full stop of "excl." is none."""
    gap = words.gap(last, mention.first)
    return any(mark in gap for mark in ";.:!\n") and not (words[last].norm in ("excl", "ex") and gap == ". ")


def _closed_before(words: Words, first: int, last: int, previous: Mention | None, mention: Mention) -> bool:
    """ "necrosis isn't needed, fibrosis is": a denial behind one object ends at the comma."""
    return previous is not None and previous.last + 1 == first and "," in words.gap(last, mention.first)


def _is_spatial(words: Words, first: int, last: int, previous: Mention | None) -> bool:
    """ "not in", "except inside": the place is excluded, not the object. "in glands, not in stroma" excludes the object."""
    after = words[last + 1].norm if last + 1 < len(words) else ""
    said = words[last].norm
    if previous is not None and after in words.norms(previous.first - 2, previous.first):
        return False
    if said == "not" and after in PLACES:
        return True
    return after in ("in", "inside", "within", "those") and said in EXCEPT


def _cue_behind(
    words: Words, mention: Mention, cues: Sequence[tuple[int, int, str]]
) -> tuple[int, int] | None:
    for first, last, _ in cues:
        gap = words.gap(mention.last, first) if first > mention.last else "."
        if first > mention.last and first - mention.last <= 3 and not any(mark in gap for mark in PARTS):
            if (
                words[first].norm in ("out", "off", "aside", "away")
                and first == last
                and _points_out(words, mention)
            ):
                continue
            if words[first].norm in ("i", "we") and not _ends_here(words, last):
                continue  # it speaks of what follows
            return first, last
    at = mention.last + 1
    behind = NOT_WANTED.match(words.text, words[mention.last].end)
    if behind is not None:
        return at, at + len(behind.group().split()) - 1
    if words.norms(at, at + 1) == ["no"] and "yes" in words.norms(0, len(words)):  # "glands yes, stroma no"
        return (at, at) if words.text[words[at].end :].lstrip(" ")[:1] in ",;./\n" else None
    ruled = RULED_FIELD.match(words.text, words[mention.last].end)
    if ruled is not None:
        return at, at + len(ruled.group(1).split()) - 1
    return None


def _ends_here(words: Words, last: int) -> bool:
    return last + 1 >= len(words) or any(mark in words.gap(last, last + 1) for mark in PARTS)


def _points_out(words: Words, mention: Mention) -> bool:
    """ "point the glands out", "figure the tumour out": a verb to which "out" belongs; "leave them out" is another."""
    before = set(words.norms(mention.first - 5, mention.first))
    return bool(POINTING & before) and not before & {"leave", "leaving", "keep", "keeping", "cut", "filter"}


def _is_case(words: Words, mention: Mention, mentions: Sequence[Mention]) -> bool:
    """A tumour named only to say what the slide is: "HCC case", "it's an IDC of the breast", "RCC: vessels and blood"."""
    if len(mentions) < 2:
        return False
    if _pointed_at(words, mention):
        return True
    if mention.concept.id not in TUMORS or words.norms(mention.first, mention.last + 1) == ["tumor"]:
        return False
    others = [m for m in mentions if m is not mention]
    after = words[mention.last + 1].norm if mention.last + 1 < len(words) else ""
    before = words.norms(mention.first - 3, mention.first)
    if after in term_words("case_words") or before[-2:] in (
        ["is", "a"],
        ["is", "an"],
        ["it's", "a"],
        ["it's", "an"],
        ["this", "is"],
    ):
        return True
    if "case" in before[-2:]:
        return True
    low, high = _stretch(words, mention)
    if any(low <= m.first <= high for m in others):
        return False
    verbs = term_words("verbs") - {"do", "get", "make", "see"}
    alone = {i for i in range(low, high + 1) if not mention.first <= i <= mention.last}
    alone -= {i for first, last, _, _ in organ_hits(words) for i in range(first, last + 1)}
    left = {words[i].norm for i in alone}
    filler = {"a", "an", "the", "this", "in", "of", "case", "breast", "slide", "with", "my", "from", "h", "e"}
    spare = filler | term_words("case_words") | lexicon().modifiers
    return not left & verbs and left <= spare and _set_apart(words, low, high)


def _pointed_at(words: Words, mention: Mention) -> bool:
    """ "in this breast tumour": where the picture is from."""
    before = words.norms(mention.first - 4, mention.first)
    places = [i for i, norm in enumerate(before) if norm in ("this", "my", "our", "her", "his", "these")]
    if not places or places[-1] == 0 or before[places[-1] - 1] not in ("in", "of", "from", "on"):
        return False
    start = words[mention.first - len(before) + places[-1]].end
    return not any(mark in words.text[start : words[mention.first].start] for mark in PARTS)


def _stretch(words: Words, mention: Mention) -> tuple[int, int]:
    """The tokens around a mention up to the next punctuation, spaced dash or end."""
    low, high = mention.first, mention.last
    while low > 0 and not _parted(words.gap(low - 1, low)):
        low -= 1
    while high + 1 < len(words) and not _parted(words.gap(high, high + 1)):
        high += 1
    return low, high


def _parted(gap: str) -> bool:
    return any(mark in gap for mark in PARTS) or " - " in gap or "\u2014" in gap or "\u2013" in gap


def _set_apart(words: Words, low: int, high: int) -> bool:
    """The case description is a part of its own: the first or the last one, not an item of a list by commas."""
    if low == 0 and high + 1 < len(words):
        return any(mark in words.gap(high, high + 1) for mark in ".:;-\u2014\u2013,")
    ends = high == len(words) - 1 or any(mark in words.gap(high, high + 1) for mark in ".?\n")
    if ends and low > 0:
        gap = words.gap(low - 1, low)
        return any(mark in gap for mark in ".:;-?,\u2014\u2013")
    return False
