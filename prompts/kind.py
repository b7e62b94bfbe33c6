"""What sort of text it is: a report that states, a request that asks, or an open question."""

from __future__ import annotations

import re
from typing import Literal

from tissuetalk.prompts.organs import NAME_WEIGHT, organ_hits
from tissuetalk.prompts.words import tokens, unscan

Kind = Literal["report", "request", "exploratory"]

STATING = re.compile(
    r"\b(?:identified|(?:is|are|was|were|be|been) (?:(?:not|now|never|also|again) )?(?:seen|found|noted|present|absent|observed|lined|composed|involved|free|excluded|ruled out|confirmed|demonstrated|detected|evident|suspected|missing|lacking|regarded|considered unlikely)|conclusion|impression|not (?:seen|found|detected|observed|demonstrated|evident)|fail(?:s|ed)? to (?:show|reveal|disclose|demonstrate|identify|detect|find|yield)|present|absent|noted|"
    r"shows?|showed|demonstrates?|reveals?|consistent with|compatible with|negative for|positive for|diagnosis|specimen|microscop\w+|"
    r"gross description|history|no evidence|unremarkable|gleason|involving|biops(?:y|ies)(?=[^.?]{0,40}:)|(?:resection|excision|ectomy)(?=\s*[:.])|features?|"
    r"favou?rs?|lack(?:s|ing)?|negative|positive|none(?=\W*(?:$|[.;,]))|sections? (?:show|of)|cannot be|suggestive|suspicious for|contains?|margins?|addendum|synoptic|"
    r"histologic|infiltrating|previously|received|submitted|no \w+ \w* ?(?:is|are|seen|present)|there (?:is|are)|neither|free of|questionable|nil|"
    r"no (?:hyperplasia|atypia|metastas\w+|malignancy|tumou?r|carcinoma|dysplasia|necrosis|granulomas?|melanoma|residual|definite|invasive|gland|lymphovascular|perineural|vascular)|"
    r"differential|devoid of|invoice|statement of account|remit|\w{4,}itis|report to follow|patient is|cannot exclude|uninvolved|scattered|focal(?:ly)?)\b"
)
STATED_SURELY = re.compile(
    r"^\W*(?:possibl[ey]|probabl[ey]|likely|suspicious|suspected|suspicion|cannot|consistent with|compatible with|h/?o|hx|s/p|status post|known|history of|r/o)\b|"
    r"\b(?:capsule|serosa|pleura|muscularis|margins?) (?:is |are )?(?:intact|free|clear|uninvolved|not involved|negative|involved)\b|\b(?:s/p|h/o|c/w|ddx?)\b|"
    r"(?<!stay )(?<!steer )(?<!keep )(?<!staying )(?<!keeping )\bclear of\b|\b(?:pn[01]|[lv][01]|mf-?[0-3]|y?p[tn][0-4x])\b|\bnowhere(?=\s*[.;,])|\bfree from\b|-free\b|\b(?:likewise|similarly|equally) (?:missing|absent|lacking|not)\b|\bin vain\b|^\W*cannot (?:rule out|exclude)\b|\bno longer (?:present|seen|visible|found|there|detect\w+|demonstra\w+|identifi\w+|evident|recogni\w+)\b|"
    r"\w gone(?=\s*(?:[.;,]|$))|: ?(?:none|neither|all|both) of (?:these|those|them)\b|\bin the absence of\b|\bwithout (?:any )?(?:evidence|sign|trace)s? of\b|\bthere (?:being|having been)\b|\b0 ?(?:/|per) ?(?:\d|mm|hpf|high)|\b(?:hpf|high.power fields?)\b|"
    r"\b(?:neg|pos)\b|\w ?[-\u2013+](?=\s*[,;])[^?]{1,40}\w ?[-\u2013+](?=\s*(?:[,;.]|$))|\bspeaks? (?:for|against)\b|\bargu(?:es?|ing) (?:for|against)\b|"
    r"^\W*quer(?:y|ied)\b|^\W*\? ?\w|\b(?:patient|mother|father|sister|brother|aunt|uncle|cousin|grand\w+|son|daughter)(?:'s \w+)? (?:had|has|died|suffered)\b|"
    r"\b(?:earlier|previous|prior|former|last|first|old) (?:\w+ )?(?:biops\w+|specimen|excision|resection|core|cytology|sample)|\b(?:possibility|suspicion|likelihood|absence|lack) of\b|\bwhat (?:may|might|could) be\b|\bsuspicious,|\b(?:should|must) be (?:considered\W*$|excluded\W*$|ruled out)|\b(?:hardly|scarcely|barely) any\b|^\W*of (?:\w+ ){1,4}there (?:is|are|was)\b|"
    r"(?:^|[.;]\s*)(?:[a-h]|\d): [^?]{1,200}?[.;\n]\s*(?:[a-h]|\d): |\bhas not (?:occurred|developed|happened|taken)\b|\bhave not (?:occurred|developed|happened|taken)\b|\btoday's\b|\bnot (?:been )?(?:raised|increased|expanded|elevated|recogni[sz]ed|established)\b|"
    r"(?:^|[.;/|]\s*)[\w -]{3,40}: ?(?:no|yes|none|absent|present|neg\w*|pos\w*|nil|not \w+)\b(?=\s*(?:[,;./|]|$))[^?]{1,60}: ?(?:no|yes|none|absent|present|neg\w*|pos\w*|nil|not \w+)\b(?=\s*(?:[,;./|]|$))",
    re.IGNORECASE,
)
"""Wordings of reports that no request has."""
PREDICATE = re.compile(
    r"(?<!that )(?<!which )(?<!who )(?<!what )(?<!there )\b(?:is|are|was|were|has|have|had)(?:n['\u2019]t)?\b(?! (?:what|all|my|me|needed|wanted))"
)
PERSONS = re.compile(
    r"\b(?:i|i'm|me|my|mine|we|us|our|you|your|want\w*|need\w*|wish\w*|interest\w*|matter\w*|important|relevant|target\w*|request\w*|required|unwanted|"
    r"ignored|skipped|omitted|left|out|off|excluded|irrelevant|unimportant|pointless|superfluous|redundant|enough|finished|done|marked|outlined|segmented|in the way|mask\w*|beside|concern|use|noise|welcome|asked|secondary|distract\w*|wait|goal|aim|task|optional|mandatory|essential|negotiable|missed|lost|forgotten)\b"
)
"""Words of somebody who asks; without them a sentence with a verb of being states."""
ANSWERED = re.compile(
    r"\?(?=\s*(?:no|none|nil|yes|absent|present|negative|positive|not (?:seen|found|present|identified))\b\s*(?:[.:,;]|$))",
    re.IGNORECASE,
)
"""A question that the text answers itself ("Dysplasia? No: ...")."""
HEADING = re.compile(
    r"(?:^|[.\n])\s{0,3}(?:\(?[A-Z0-9]{1,2}[.):]{1,2}\s{0,2})?[A-Z][A-Za-z'/ ,()-]{2,60}:(?!\d)"
)
IMPERATIVE = (
    r"segment|segmant|segmnt|outline|mark|highlight|count|measure|show|find|delineate|trace|mask|merge|combine|compare|tell|give|pick|colou?r|separate|"
    r"calculate|compute|quantify|select|label|detect|locate|list|annotate|contour|exclude|identify|extract|draw|map|isolate|join|unite|"
    r"circle|point out|do not|don't|leave|skip|ignore|omit|drop|keep|forget|disregard|include|never|be careful|be sure|without missing|explain|teach|walk|describe|get|help|estimate|determine|visuali[sz]e"
)
ORDERING = re.compile(rf"(?:^|[.!?,;:\n]\s*)(?:please |just |only |then )?(?:{IMPERATIVE})\b", re.IGNORECASE)
"""A sentence or a part of one that begins with a verb of asking."""
WISH = re.compile(
    rf"(?:^|[.!?:;,\u2013\n-]\s{{0,3}})(?:please |pls |plz |just |only |then |now |and |ok |hi |hello )?(?:{IMPERATIVE})\b|\b(?:please(?! (?:correlate|note\b|refer\b|see (?:note|comment|below|above)))|pls|plz|i need|i want|i'd like|we need|"
    r"can you|could you|would you|can i|may i|how (?:many|far|much|big|large|dark|dense|close|round)|show me|tell me|give me|let me|make sure|ensure|must be|should not be|must not be|why not|should be (?:missed|overlooked)|important that|i(?:'m| am)? wonder(?:ing)?|wonder(?:ing)? (?:if|whether)|like to know|not sure (?:whether|if|what|where)|no (?:idea|clue)|i (?:don't|do not) (?:know|understand)|never (?:seen|heard of) an?|must not|mustn't|may be (?:forgotten|missed)|you (?:can|may|should|must)|stay away|hide|spare me|no thanks|isn't needed|what i (?:want|need)|i don't want|i do not want|to segment|not needed|not required)\b|: ?(?:on|off|skip|ignore|hide)(?=\s*(?:[.,;]|$))|\?(?=\s|$)",
    re.IGNORECASE,
)
SPECIMEN = re.compile(
    r"^\W*(?:\(?[A-Z0-9]{1,2}[.):]\s*)?[\w /&-]{3,40},? (?:biops(?:y|ies)|excision|resection|curettings?|polypectomy|\w+ectomy)\b\s*[.:,(-]",
    re.IGNORECASE,
)
"""A text that opens with the name of a specimen ("Colon, biopsy.") states."""
HINT = re.compile(
    r"\b(?:ratio|percent\w*|density|per mm|masks?|overlap|minus|union|only|vs|areas?|diameter|pixels?|box|roi|clicked|proportion|fraction|count|"
    r"outside|excluding|distance|intensity|size|shape|circularity|not the|where|what|which|select\w*|find|slide|image)\b|%|\(\d+\s?,\s?\d+\)"
)
QUESTION = re.compile(
    r"\?(?=\s|$)|^\W*(?:hi\W+|hello\W+|hey\W+|so\W+|ok\W+|and\W+)?(?:what|where|which|who|why|how come|is|are|was|has|have|does|do you|can you see|could this|am i|tell me about|"
    r"explain|teach|help me understand|i know nothing|i don't understand|walk me|describe|show me (?:everything|where|what)|give me an overview|list the different|guide me|point out)\b",
    re.IGNORECASE,
)
ASKED_ABOUT = re.compile(
    r"^\W*(?:so\W+|and\W+)?(?:is|was|does|should|can|could|do|am) (?:it|this|that|i|we|you)\b[^.;:!?]{0,120}\?|"
    r"^\W*(?:(?:my|the|our|your|his|her|a) )?\w+ (?:says|said|tells me|told me|claims|claimed|thinks|thought|believes|insists|states)\b"
)
""" "Is it good that no mitosis was found?": a question that quotes a report."""
ORDER = re.compile(
    r"\([^()]{0,200}\b(?:software|ai|assistant|system|model|llm|algorithm|computer|chatbot)\b[^()]{0,40}:[^()]{0,400}\)|"
    r"\[[^\]]{0,600}\]|\"[^\"]{0,600}\"|\u201c[^\u201d]{0,600}\u201d|system message[^.]{0,300}\.|(?:ignore|disregard) (?:all |the |any )?(?:of )?(?:the )?(?:previous|prior|above)[^.]{0,300}\.",
    re.IGNORECASE,
)
PRECISE = re.compile(
    r"\d+\s*,\s*\d+|\bmasks?\b|\bsegment|\bcount\b|\bper mm|\bhow (?:many|far)\b|\bratio\b|\bpercent|\bdiameter\b|\bbox\b",
    re.IGNORECASE,
)
LONG_WORDS = 55
LONG_CHARACTERS = 4_000
SHORT_WORDS = 12


def kind_of(text: str) -> Kind:
    """Decide by what the words do: stating and headings against wishes and question marks."""
    if len(text) > LONG_CHARACTERS:
        return "report"
    plain = ANSWERED.sub(":", ORDER.sub(" ", unscan(text)))
    low = plain.lower()
    length = len(low.split())
    stated, wished, hinted = (len(pattern.findall(low)) for pattern in (STATING, WISH, HINT))
    wished += 2 * bool(ASKED_ABOUT.match(low))
    stated += 3 * bool(SPECIMEN.match(low) and not ORDERING.search(low))
    stated += _opens_with_an_organ(plain) + 2 * len(STATED_SURELY.findall(low))
    stated += 2 * len(ANSWERED.findall(text))
    stated += not wished and not PERSONS.search(low) and bool(PREDICATE.search(low))
    headings = len(HEADING.findall(plain))
    stated += headings if stated or headings > 1 else 0
    if WISH.match(low) and length <= SHORT_WORDS * 2:
        return "exploratory" if QUESTION.search(plain) and not PRECISE.search(plain) else "request"
    if length > LONG_WORDS * 3 or (length > LONG_WORDS and stated + 1 >= wished):
        return "report"
    if wished:
        is_report = stated >= wished + 2
    elif hinted:
        is_report = stated > hinted
    else:
        sentences = len(re.findall(r"[.;](?:\s|$)", plain))
        is_report = stated > 0 or length > SHORT_WORDS * 2 or (sentences > 1 and length > SHORT_WORDS)
    if is_report:
        return "report"
    return "exploratory" if QUESTION.search(plain) and not PRECISE.search(plain) else "request"


def _opens_with_an_organ(text: str) -> bool:
    """ "Breast: invasive ductal carcinoma": a short heading that names an organ, and nothing that asks."""
    head, colon, rest = text.partition(":")
    if not colon or len(head.split()) > 4 or "." not in rest:
        return False
    return any(weight == NAME_WEIGHT for *_, weight in organ_hits(tokens(head)))
