"""Whether an answer declines what it was asked, in nine languages, by how declining is worded.

Only the first sentences are read, where people and models decline. What tells is a speaker (I, we) who can't, won't or
may not do one of the things that assistants do: help, answer, provide, write. An apology alone is none, nor is what the
user or somebody else can't do, nor a date that does not suit. Quoted speech is left out.
"""

import re

from pegbox.data.quality.declining_abroad import chinese, european, japanese, korean, may_be_european

_HEAD = 400  # characters that are read
_SENTENCES = 3
_LONG = 200  # characters of help after a "but", from which the answer is one after all
_QUOTED = re.compile(r"“[^”]{0,400}”|\"[^\"]{0,400}\"|「[^」]{0,400}」|『[^』]{0,400}』|«[^»]{0,400}»|„[^“]{0,400}“")
_END = re.compile(r"[.!?]+(?=\s|$)|[。！？]+|\n+")
_LETTER = re.compile(r"(?:dear|subject|betreff|translation|英訳|和訳)\b[^\n]{0,60}(?:\n|:|：)", re.IGNORECASE)

# --- English ---------------------------------------------------------------------------------------------------


def _any(*words: str) -> str:
    return f"(?:{'|'.join(words)})"


_DO = _any(
    r"help(?! (?:but|it\b|noticing|feeling|wondering|thinking))", "assist", "aid", "support", "answer", "respond",
    "reply",
    "provide", "give", "offer", "share", "disclose", "reveal", "discuss", "talk", "speak(?! for all)", "comment",
    "comply",
    "fulfil", "satisfy", "honou?r", "do (?:that|this|so|what)", "create", "write", "generate", "produce", "draft",
    "compose",
    "engage", "participate", "take (?:part|sides?|a|any)", "be (?:part|involved|of|helping)", "condone", "encourage",
    "promote", "endorse", "facilitate", "advi[sc]e", "recommend(?![^.]{0,60} enough)", "suggest", "express", "form",
    "continue", "proceed", "complete (?:this|that|your)", "tell(?! you how (?:much|happy|glad|sorry|grateful))",
    "say (?:that|anything|more|such|something)", "show", "explain", "teach", "instruct", "describe", "access", "browse",
    "search", "look up", "diagnose", "prescribe", "predict", "speculate", "judge", "pretend", "act", "role-?play",
    "impersonate", "imitate", "translate", "summari[sz]e", "perform", "execute", "place",
    "make (?:that|this|jokes?|fun|any|medical|such)", "(?:process|handle) (?:this|that|your) request", "let you",
    "allow",
    r"(?:open|view|read|see|hear|play|watch) (?:\w+ ){0,3}(?:attachments?|links?|files?|images?|pictures?"
    r"|photos?|videos?|audio)",
    "go (?:into|along|there)", "get into", "entertain", "touch", "contribute", "accommodate", "work on",
)  # fmt: skip
_HABIT = _any(  # what "I don't …" declines
    "help", "assist", "answer", "give", "provide", "offer", "write", "create", "generate", "discuss", "comment",
    "share",
    "disclose", "reveal", "engage", "participate", "speculate", "take sides", "make (?!a difference|sense)",
    r"have (?:any |an? )?(?:personal |political )?(?:opinions?|beliefs|views|feelings|preferences)\b",
)  # fmt: skip
_BE = "(?:'m|am|'re|are)"
_DONT = "(?:don't|do not)"
_NOT = _any(
    "can't", "cannot", "can not", "won't", "will not", "shouldn't", "should not", "couldn't possibly",
    "(?:'m|am)n't able to",
    rf"{_BE}(?: \w+)? not (?:able|allowed|permitted|authori[sz]ed|designed|programmed|supposed|going|willing"
    "|equipped|here"
    "|trained|meant|qualified|in a position) to",
    rf"{_BE}(?: \w+)? unable to",
    rf"{_DONT} (?:think|believe|feel) (?:that )?(?:i|we) (?:can|should|could|'m able to|am able to)",
    rf"{_DONT} (?:want|wish) to", "have no (?:ability|way|permission|right) to",
    rf"{_DONT} have (?:the |any )?(?:ability|permission|capability|capacity|means|authority|right) to",
    "(?:'m|am) not sure (?:that |if |whether )?i (?:can|want to|should|could|'m able to|am able to)",
    rf"{_DONT} know (?:if|whether) i (?:can|should|could)", "(?:'d|would) (?:rather not|prefer not to)",
    "prefer not to",
    "refuse to",
)  # fmt: skip
_ADVERB = (
    r"(?: (?:\w+ly|in any way|actually|just|be able to|ever|also|either|in (?:good|clear) \w+|and (?:will not|won't)))*"
)
_LEAD = (
    r"(?:^|[,;:–—-] ?|[.!?…]+ +| (?=(?:and|but|so) ))(?:"
    + _any(
        "but", "and", "so", "while", "although", "though", "however", "unfortunately", "sadly", "regrettably",
        "therefore",
        "that", "then", "no", "which means", "sorry", "(?:my )?apologies", "i apologi[sz]e", "i regret", "actually",
        "honestly", "well", "hmm+", "oh", "ah", "hi", "hello", "as stated", "nope", "yeah", "look", "please",
        "(?:i'm|i am|we're|we are) (?:so |very |really |truly )?(?:afraid|sorry)", "please (?:note|understand|know)",
    )
    + "[,!]?(?: that| to say)? +){0,4}"
)  # fmt: skip
_MUST = _any(
    "must",
    "have to",
    "need to",
    "(?:'ll| will|'m going to| am going to) have to",
    "(?:'m|am) going to",
    "(?:would|'d) like to",
    "will",
    "shall",
)
# After an apology nearly anything that "I" can't do is declined, but for what was tried.
_TRIED = _any(
    "find", "locate", "see", "hear", "understand", "get", "reach", "believe", "wait", "recall", "imagine", "agree",
    "think", "keep you",
    "make it", "come", "attend", "quite", "stop", "confirm", "verify", "reproduce", "be", "blame", "say",
    "do (?!any|that|this)",
)  # fmt: skip
_SORRY = r"(?:sorry|afraid|unfortunately|regrettably|apologi[sz]e|apologies)\b[^.!?“\"]{0,40}?\b"
_WONT = rf"(?:can't|cannot|can not|won't|will not|{_BE} (?:unable|not able) to)"
_ENGLISH = re.compile(
    rf"{_SORRY}(?:i|we) ?{_WONT} (?!{_TRIED}\b)\w+|"
    + _LEAD
    + _any(
        r"(?:i|we)(?: have|'ve) been (?:instructed|told|asked|trained|programmed) not to\b",
        rf"(?:i|we) {_DONT} have (?:the |any )?(?:ability|permission|capability|authority) to\b",
        r"[^.!?]{0,60}\b(?:that|which) (?:i|we) (?:can't|cannot|won't|am unable to|am not able to) " + _DO,
        rf"(?:i|we)(?: (?:\w+ly|just|also|still))? ?{_NOT}{_ADVERB} {_DO}",
        rf"(?:i|we) {_DONT}{_ADVERB} {_HABIT}",
        "(?:i'm |i am )(?:really |very |so )?(?:afraid|sorry)[, ]+(?:but )?(?:i |we )?(?:can't|cannot"
        "|won't)(?= ?[.!,;]|$)",
        "so (?:i|we) (?:can't|cannot|won't|will not)(?= ?[.!]|$)",
        rf"(?:i|we) ?{_MUST}(?: \w+ly)? (?:decline|refuse|pass on|refrain|abstain|say no)\b",
        r"(?:i|we)(?: \w+ly)? (?:decline|refuse) to\b",
        rf"(?:i|we) ?{_BE}(?: \w+)? (?:not comfortable|uncomfortable|not programmed for|not at liberty)",
        rf"(?:i|we) (?:{_DONT}|wouldn't|would not)(?: \w+)? feel comfortable",
        rf"(?:i|we) ?(?:{_BE}|can)?(?: \w+)? only (?:(?:able|here|designed|allowed|trained|meant) to )?"
        r"(?:help|assist|answer|discuss|respond|talk|support)\b",
        r"(?:that|this|it)(?:'s| is|isn't)(?:n't)?(?: really)?(?: not)? (?:something|a topic|a question"
        r"|one) (?:that )?(?:i|we)"
        " ?(?:can't|cannot|won't|'m not|'m unable|am not|am unable|'d rather not)",
        r"[^.!?]{0,60}\b(?:is not|isn't|not) (?:something|a topic|a question) (?:that )?(?:i|we) ?"
        r"(?:'m|'d|can|could|am|are|would|will|do|want)\b",
        r"(?:it |that |this |[^.!?,]{3,60} )(?:would be|is|'s|would not be|wouldn't be|is not|isn't) (?:\w+ )?"
        r"(?:in|un|il|ir|im)?(?:appropriate|ethical|right|legal|responsible|possible|wrong) for (?:me|us)\b",
        "(?:this|that|your|the) (?:topic|subject|request|question|matter)? ?(?:is |'s )?(?:off.limits"
        "|out of (?:scope|bounds))",
        r"no can do\b",
    )
)  # fmt: skip
# Said after an apology, without the "I".
_BARE = re.compile(
    rf"^(?:sorry|apologies|unfortunately|nope?|afraid)[ ,.!–—-]*(?:but )?(?:can't|cannot|won't|unable to"
    rf"|not able to) {_DO}"
)
_AGAINST = re.compile(
    r"(?:my|our) (?:programming|guidelines?|polic(?:y|ies)|rules|makers?|creators?)[^.!?]{0,30}(?:n't|\bnot"
    r"|prevent|forbid|prohibit)"
    r"|outside (?:of )?(?:the |my |our )?(?:scope|area|field) of (?:this|my|our|what)"
    r"|(?:violat|against|conflicts? with|contrary to|outside|beyond)\w*(?: of)?(?: what (?:i|we) can|(?: my"
    r"| our)(?: \w+){0,2} "
    r"(?:guideline|polic|programming|principle|value|rule|terms|scope|capabilit|purpose|ethic|expertise|abilit"
    r"|remit))"
)
_MACHINE = re.compile(
    r"(?:as an?|i'm(?: just| only)? an?|i am(?: just| only)? an?)(?: \w+){0,2} (?:ai|language model|assistant"
    r"|chatbot|bot|machine)\b(?! \w+er\b)"
    r"[^.!?]{0,80}(?:n't|\bnot\b|cannot|unable|no (?:personal|access))"
)
_SPEAKER = re.compile(r"\b(?:i|we)\b")
# Said, and then done after all.
_TURN = re.compile(
    r"\b(?:but|however|that said|still|instead|although)\b[,;]? (?:in |it |the |you can|here|generally"
    r"|typically|i can (?:tell|say|share"
    r"|explain|give|show)|most|there (?:is|are)|as |on )|\bhere(?:'s| is| are) (?:an? |some |the |how|what|my )"
)
_VAGUE = re.compile(
    r"[^.!?]{0,60}\b(?:exact|precise|specific|definite|certain|estimate|guarantee)\w*\b[^.!?]{0,60}\b(?:but"
    r"|however)\b"
)


# One of these stands in every text that the patterns find, which is quick to see.
_EN_SIGN = (
    "n't", "not", "impossible", "unable", "only", "declin", "refus", "off", "out of", "pass on", "refrain", "abstain",
    "uncomfortable", "have no ", "say no", "no can", "inappropriate", "wrong for", "unethical", "rather", "no ",
)  # fmt: skip
_EN_AGAINST = (
    "violat", "against", "conflict", "contrary", "outside", "beyond", "programming", "polic", "guideline", "rules",
)  # fmt: skip


def _english(head: str) -> bool:
    if any(sign in head for sign in _EN_SIGN):
        found = _ENGLISH.search(head) or _BARE.match(head)
        if found:
            aside = found[0].lstrip(" ,;:.!?–—-").startswith(("while", "although", "though"))
            return not _VAGUE.match(head, found.end()) and not (aside and len(head) - found.end() > _LONG)
        if _MACHINE.search(head):
            return True
    return (
        any(sign in head for sign in _EN_AGAINST) and _AGAINST.search(head) is not None and bool(_SPEAKER.search(head))
    )


_KANA = re.compile("[ぁ-ヺ]")
_HANGUL = re.compile("[가-힣]")
_HAN = re.compile("[一-鿿]")


def declines(text: str) -> bool:
    """Whether an answer declines what it was asked for."""
    head = text[:_HEAD].strip()
    if len(head) < 4 or _LETTER.match(head):
        return False
    if not head.isascii():
        head = head.replace("’", "'").replace("‘", "'")
        if _by_script(head):
            return True
    return " " in head and _in_latin(head.lower(), len(text))


def _by_script(head: str) -> bool:
    """Japanese has kana; Chinese and Korean have none."""
    if _KANA.search(head):
        return japanese(_first(head))
    if _HANGUL.search(head):
        return korean(_first(head))
    return _HAN.search(head) is not None and chinese(_first(head))


def _in_latin(head: str, length: int) -> bool:
    """`length` is that of the whole text, of which `head` is the beginning, in lower case."""
    if any(sign in head for sign in _EN_SIGN) or any(sign in head for sign in _EN_AGAINST):
        if _english(_first(head)):
            turn = _TURN.search(head)
            return turn is None or length - turn.start() < _LONG
    elif not may_be_european(head):
        return False
    return european(_first(head))


def _first(head: str) -> str:
    """The first sentences, without what they quote."""
    bare = head[1:-1] if head[0] in '“"「' and head[-1] in '”"」' else head
    if any(mark in bare for mark in '"“「『«„'):
        bare = _QUOTED.sub("…", bare)
    for n, end in enumerate(_END.finditer(bare), 1):
        if n == _SENTENCES:
            return bare[: end.start()]
    return bare
