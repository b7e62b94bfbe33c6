"""What sort of text it is: a report that states, a request that asks, or an open question."""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["report", "request", "exploratory"]

STATING = re.compile(
    r"\b(?:identified|is seen|are seen|not seen|present|absent|noted|shows?|demonstrates?|reveals?|consistent with|compatible with|negative for|"
    r"positive for|diagnosis|specimen|microscop\w+|gross description|history|no evidence|unremarkable|biops(?:y|ies)(?=[^.?]{0,40}:)|(?:resection|excision)(?=\s*:)|features?|favou?rs?|lack(?:s|ing)?|"
    r"excision\.|resection\.|sections show|sections of|cannot be excluded|suggestive|suspicious|is found|are found|contains?|margins?|invasion|addendum|"
    r"synoptic|histologic|infiltrating|previously|received|submitted|no (?:malignancy|tumou?r|carcinoma|dysplasia|necrosis|granulomas?|melanoma|residual|definite|invasive|gland)|"
    r"differential|invoice|statement of account|remit|dermatitis|gastritis|colitis)\b"
)
ASKING = re.compile(
    r"\b(?:please|pls|plz|segment\w*|segmant|outline|delineate|highlight|annotate|count|measure|i need|i want|i'd like|can you|could you|would you|show me|"
    r"how many|how far|how much|how big|how large|mask|merge|combine|compare|tell me|give me|find|mark|pick out|trace|colou?r|ratio|percent\w*|%|density|per mm|"
    r"point out|teach me|explain|separate|overlap|only|minus|union|where|what|which|calculate|compute|quantify|select|clicked|box|vs|report its|want|label|detect|locate|"
    r"(?<!to )(?<!cannot )exclude|excluding|proportion|fraction|do not|don't|area|size|diameter|not needed|not required|pixel|list|overview|show)\b|\?"
)
QUESTION = re.compile(
    r"\?|^\W*(?:hi\W+|hello\W+|hey\W+|so\W+|ok\W+|and\W+)?(?:what|where|which|who|why|how come|is|are|was|has|have|does|do you|can you see|could this|am i|tell me about|explain|teach|"
    r"help me understand|i know nothing|i don't understand|walk me|describe|show me everything|give me an overview|list the different|guide me|point out)\b",
    re.IGNORECASE,
)
HEADING = re.compile(r"(?:^|[.\n])\s*(?:\(?[A-Z0-9]{1,2}[.):]+\s*)?[A-Z][A-Za-z/ ,()-]{2,60}:(?!\d)")
ORDER = re.compile(
    r"\[[^\]]*\]|\"[^\"]*\"|system message[^.]*\.|ignore (?:all |the |any )?(?:previous|prior|above)[^.]*\.",
    re.IGNORECASE,
)
PRECISE = re.compile(
    r"\d+\s*,\s*\d+|\bmask\b|\bsegment|\bcount\b|\bper mm|\bhow (?:many|far)\b|\bratio\b|\bpercent|\bdiameter\b|\bbox\b",
    re.IGNORECASE,
)
LONG_WORDS = 55


def kind_of(text: str) -> Kind:
    """Decide by what the words do: stating and headings against asking and question marks."""
    plain = ORDER.sub(" ", text)
    low = plain.lower()
    length = len(low.split())
    stated = len(STATING.findall(low))
    headings = len(HEADING.findall(plain))
    stated += headings if stated or headings > 1 else 0
    asked = len(ASKING.findall(low))
    if length > LONG_WORDS and stated + 1 >= asked:
        return "report"
    if stated >= 2 and stated > asked:
        return "report"
    if stated == 1 and asked == 0:
        return "report"
    if length > LONG_WORDS * 3:
        return "report"
    return "exploratory" if QUESTION.search(plain) and not PRECISE.search(plain) else "request"
