"""The forms in which a clause of a judge's reply, written in signs, states a verdict."""

import re
from typing import Literal, NamedTuple

Choice = Literal["first", "second", "tie", "invalid"]


class Statement(NamedTuple):
    """A choice and its weight: 3 a verdict called so, 2 a plain statement, 1 one of a part."""

    choice: Choice
    weight: int


def joined(text: str) -> str:
    """Join the lines of a pattern that is written with an alternative a line."""
    return re.sub(r"\s*\n\s*", "", text)


VERDICT = joined(
    r"""(?:verdict|decision|choice|judge?ment|conclusion|winner|pick|selection|preference|result|ruling|vote
    |recommendation|outcome|determination|evaluation|assessment)"""
)
BETTER = (
    r"(?:better|best|preferred|superior|winning|stronger|chosen|selected|preferable|favou?rite|favou?red|top)"
)
ANSWER = (
    r"(?:output|answer|response|option|one|reply|choice|candidate|assistant|model|ans|label|pick|advantage)"
)
IS = r"(?: ?(?:is|was|would be|must be|should be|goes to|has to be|are|:|=|->|=>|→|-|–|—),?)"
SO = joined(
    r"""(?:(?:and|so|thus|hence|therefore|overall|finally|ultimately|accordingly|consequently
    |definitely|clearly|obviously|certainly|probably|easily|surely|without (?:a )?doubt
    |in (?:conclusion|summary|short|sum|the end|my opinion|my view)|to (?:conclude|sum up|summari[sz]e)
    |tl;?dr:?|all in all|all things considered|on balance|as a result
    |(?:based on|given|considering|after|in light of|for|with|taking|weighing|having) [^,.:ABTPNO]{1,120}(?=,)
    )(?:\b|(?<=:))[,:]? ?)"""
)

# --- A label on its own

_CHOOSING = r"(?:i(?:'d| would| will|'ll)? (?:say|choose|pick|select|prefer|go with|vote for)(?: that)?:? )?"
_CALLED = joined(
    rf"""(?:(?:the |my |our |your )?(?:(?:final|overall|correct|{BETTER}) ){{0,3}}
    (?:(?:{VERDICT}|{ANSWER}|final|overall|{BETTER})(?: (?:is|was))?{IS}{{1,3}} ?)+)?"""
)
_LEAD = rf"(?P<lead>{SO}{{0,3}}{_CHOOSING}{_CALLED}(?:that )?(?:the )?(?:it is |it's |its )?)"
_TIE = (
    r"(?:a |an )?(?:tied?|draw|dead heat|toss-?up|equal|[NT]|[NT] equal|equally good|no winner|no preference)"
)
_LABEL_ALONE = re.compile(rf"\W*{_LEAD}(?:(?P<label>[AB])|{_TIE})(?P<better> is better)?\W*")
_LABEL_FIRST = re.compile(
    rf"\W*{_LEAD}(?:(?P<label>[AB])|(?:a )?(?:tie|draw))"
    + joined(
        r"""(?:(?: is better)?,? ?\((?![AB]\)).*
        |,? (?:because|since|as|for) (?:it|its|they|he|she|the|this|that|these|both|[ABT])\b.*
        |,? because of [^,]*
        |(?::| [-–—]+) (?:because|it|its|this|better|more|the (?:better|best))\b.*
        | [-–—]+ .*
        |,? (?:hands down|by far|clearly|definitely|easily|without (?:a )?doubt|no question|of course|overall
            |not [AB]|rather than [AB]|over [AB])\b[^,]*)"""
    )
)


def label_alone(line: str) -> Statement | None:
    """Read a line or sentence that is a label and at most a lead-in, such as "final verdict:".

    Example:
        >>> label_alone("so my final verdict is B.")
        Statement(choice='second', weight=3)
        >>> label_alone("A"), label_alone("A:"), label_alone("O")
        (Statement(choice='first', weight=2), None, None)
    """
    hit = _LABEL_ALONE.fullmatch(line) if len(line) < 200 and not line.endswith((":", "?")) else None
    return Statement(_choice(hit["label"] or "T"), 3 if hit["lead"] or hit["better"] else 2) if hit else None


def label_first(sentence: str) -> Statement | None:
    """Read a sentence that opens with a label and goes on with the reason.

    Example:
        >>> label_first("B, because it names the dose.")
        Statement(choice='second', weight=2)
        >>> label_first("B, because of its length, misses the point.")
    """
    hit = None if sentence.endswith("?") else _LABEL_FIRST.fullmatch(sentence)
    return Statement(_choice(hit["label"] or "T"), 3 if hit["lead"] else 2) if hit else None


# --- The forms of a clause

_ADVERB = joined(
    r"""(?: (?:\w+ly|much|far|still|also|an?|the|my|our|by|bit|little|somewhat|quite|rather|even|just|then|very|so
    |to be|as|being|considered|deemed|judged|regarded|wide|slight|clear|margin|here|be|more|most|of|would|should|will
    |thus|therefore|indeed|overall))"""
)
_COPULA = joined(
    r"""(?:is|was|'s|are|be|being|seems|appears|looks|remains|stands out|emerges|comes out|ranks|proves|feels
    |considered|deemed|judged|makes)"""
)
_GOOD = joined(
    r"""(?:better|superior|best|preferable|preferred|stronger|winner|winning|favou?red|chosen|selected|ahead|on top
    |my choice|my pick|right (?:choice|pick)|correct (?:choice|answer|output|one)|favou?rite)"""
)
_FIT = joined(
    r"""(?:helpful|useful|accurate|appropriate|suitable|preferable|fitting|correct|effective|relevant|satisfactory
    |aligned|in line|precise)"""
)
_BAD = rf"(?:worse|worst|inferior|weaker|loser|losing|loses|less {_FIT})"
_SUBJECT = r"\b(?P<label>[AB])\b(?: [^ABTPNO]{0,200}? and)?"
_IS_BETTER = re.compile(
    rf"{_SUBJECT}(?P<way>{_ADVERB}{{0,2}} {_COPULA}(?: [^ABTPNO]{{1,80}} and)?{_ADVERB}{{0,6}}(?: not)?)"
    rf" (?:{_GOOD}|(?P<bad>{_BAD}))\b(?P<tail>.*)"
)
_WINS = re.compile(
    rf"{_SUBJECT}(?P<way>(?: \w+ly| would| should| just| also){{0,2}}) "
    + joined(
        r"""(?:wins?|won|prevails|takes (?:it|this|the win|the edge)|(?:ranks?|comes) first
        |outperforms|beats|surpasses|edges out|outshines
        |has (?:the|a slight) (?:edge|advantage)|gets? my vote|comes out (?:on top|ahead)|(?P<bad>loses)
        |deserves (?:the win|to win|it))\b(?P<tail>.*)"""
    )
)
_FITS = re.compile(
    rf"{_SUBJECT}(?P<way>[^ABTPNO]{{0,120}}?) (?:"
    r"(?:better|more closely|more precisely|more accurately|more faithfully|more directly|more effectively|closer to"
    rf"|superior)\b|(?:more|most) (?:\w+ (?:and|or) )?{_FIT})(?P<bad>\b\B)?(?P<tail>.*)"
)
_NOT_AS_GOOD = re.compile(
    r"\b(?P<label>[AB]) (?:is|was) not (?:nearly |quite )?as (?:good|helpful|accurate|strong) as [AB]\b"
)
_BETTER_IS = re.compile(
    joined(
        rf"""(?:\b(?:{BETTER}|final|correct) (?:{ANSWER}|{VERDICT})|\b{VERDICT}
        |^(?:{BETTER}|(?:the )?answer|(?:the )?{BETTER} one)|\b{BETTER} (?:of|between) [TPO]
        |\bthe (?:one|output|answer|response) [^ABTPNO]{{0,60}}{BETTER}[^ABTPNO]{{0,60}}?)
        (?: (?:for|of|in|here|between|that)\b[^ABTPNO]{{0,100}}?(?:[TPO] ?)?)?{IS}{{1,3}}
        (?: (?:clearly|therefore|definitely|thus|that|to|for|in favou?r of))*"""
        r""" (?P<label>[AB]|T|N|a tie|tie\b)(?! (?:is|was|isn't|wasn't|does|doesn't|would|could|can|fails) )"""
    )
)
_PREFERS = re.compile(
    joined(
        r"""\b(?:prefer|choose|chose|pick|picked|select|selected|favou?r|go with|opt for|vote for|voting for
        |lean(?:ing)? towards?|leans? to|side with|recommend|declare|rule (?:for|in favou?r of)|in favou?r of
        |decide (?:on|for|in favou?r of)|(?:win|edge|vote|nod|preference|point|victory) (?:goes )?to
        |(?:give|giving|award) (?:it|this(?: one)?) to|agree (?:that|with)
        |(?:rate|rank|place|put)(?= [AB] (?:\w+ )?(?:higher|above|over|ahead|better|first)\b))
        (?: (?:\w+ly|for|that|it|with))? (?P<label>[AB])\b"""
    )
)
_ORDER = re.compile(
    r"\W*(?:\w+ ?:? )?\[*(?P<label>[AB]) ?(?P<mark>>{1,3}|≻|≫|<{1,3}|≺|={1,2}|≈|~) ?[AB]\]*\W*"
)
_TIES = re.compile(
    joined(
        r"""\bN (?:is|are|was|can be|could be|stands|wins|seems|appears|really)\b[^ABTPNO]{0,60}?
            \b(?:better|superior|best|preferable|preferred|wins|winner|out|ahead)\b
        |^[^ABTPNO]{0,60}\b(?:it is|it's|is|this is|ends? in|result is
            |(?:call|declare|rate|judge|consider|score) (?:it|this|them)(?: as| to be)?)
            (?: an?)?(?: clear| complete| perfect| virtual)? (?:tied?|draw|dead heat|toss-?up)\b
        |\b[TP]\b(?: [^ABTPNO]{0,80}? and)? (?:are|is|seem|appear|were|perform|do|rank|remain|should be|would be)\b
            [^ABTPNO]{0,30}? ?\b(?:equally|equal|tied?|a draw|identical|equivalent|comparable|on par|on a par|the same
            |just as good|similarly good|evenly matched|interchangeable|of (?:equal|similar|the same))\b(?P<tail>.*)
        |\b[TP] tie\b
        |\b[AB] (?:is|are) (?:just |exactly |about )?(?:as good as|equal to|on par with|tied with|equivalent to
            |identical to|no better or worse than) [AB]\b
        |\b(?:no (?:clear |obvious |real )?winner|equally good|of equal (?:quality|merit)|no preference
            |no (?:meaningful |significant |real |clear )?difference in (?:overall )?quality)\b"""
    )
)
_EQUAL_ON_THE_WHOLE = re.compile(
    r"^$|\W|(?:good|bad|well|poor|strong|weak|matched|quality|(?:in )?quality|in overall)\b"
)

_NEVER = r"\b(?:not|no|never|nor|cannot|can't|hardly|might|may|could)\b|n't\b"
_DENIED_BETWEEN = re.compile(rf"{_NEVER}|\b(?:less|than|that|which)\b")
_DENIED_BEFORE = re.compile(
    joined(
        rf"""{_NEVER}|\b(?:without|doubt|disagree|wrong|false|mistaken|unclear|difficult|hard|impossible|rather than
        |(?:was|were) going to|initially|at first|tempted|almost|used to|would have
        |whether|which|how|if|unless|nothing|fails? to|trying|tries|try|attempts?|instructs?|asks?|asked|determine
        |decide|evaluate)\b"""
    )
)
_REPORTED = re.compile(
    joined(
        r"""\b(?:[ABTP]|it|assistants?|one|some|many|most|someone|others?|people|patients?|users?
            |readers?|experts?|author|evaluators?|text|line|he
            |she|they|who|which|that)(?:'s)?(?: \w+){0,2}? (?:claims?|says?|said|states?|stated|argues?|argued|thinks?
            |believes?|asserts?|insists?|ends?|contains?|includes?|writes?|wrote|mentions?|suggests?|might|may|could
            |instructs?|asks?|tells?|tries|would|prefers?|evaluates?|declares?|announces?|reads?)\b
        |\b(?:claims?|says|saying|arguing|claiming|stating|argues|according to|the (?:phrase|string)|injected
            |planted)\b"""
    )
)
_PART = re.compile(r"^ (?:in|at|on|with respect to|regarding|when it comes to)\b")
_WHOLE = re.compile(
    joined(
        r"""\b(?:instructions?|tasks?|questions?|requests?|prompt|overall|all|every|most|case|context|comparison|quality
        |general|query|given|users?|both)\b"""
    )
)
_NO_PART = re.compile(
    joined(
        r"""^\W*$|^ (?:output|answer|response|choice|option|one|pick|candidate|fit|match|overall|here|of
        |than|because|since|as|and|for (?:the|this|that)|by|due|with|given
        |owing|from|out|is that|is because|when|assistant|model|reply|completion|verdict|thanks)\b"""
    )
)
# "Better than nothing", "better only in length", and what was cut before it said in what.
_NO_MORE_THAN = re.compile(
    r" (?:than (?![ABTP]\b|the other|its)|only\b|(?:at|in|for|than|on|with|when|because|as)$)"
)


def said(clause: str) -> Statement | None:
    """Read what a clause states; None where it states nothing, or denies or reports what it says.

    Example:
        >>> said("A is clearly better than B"), said("the winner is B")
        (Statement(choice='first', weight=2), Statement(choice='second', weight=3))
        >>> said("A is not better"), said("A claims that A is better")
        (None, None)
    """
    if hit := _ORDER.fullmatch(clause):
        return Statement(
            "tie" if hit["mark"][0] in "=≈~" else _choice(hit["label"], turned=hit["mark"][0] in "<≺"), 3
        )
    if hit := _NOT_AS_GOOD.search(clause):
        return None if _foreign(hit) else Statement(_choice(hit["label"], turned=True), 2)
    for form, weight in ((_IS_BETTER, 2), (_WINS, 2), (_FITS, 1)):
        for hit in form.finditer(clause):
            if _DENIED_BETWEEN.search(hit["way"]) or _NO_MORE_THAN.match(hit["tail"]) or _foreign(hit):
                continue
            bad, tail = hit["bad"] or "", hit["tail"]
            part = form is _IS_BETTER and not (_WHOLE if _PART.match(tail) else _NO_PART).search(tail)
            return Statement(
                _choice(hit["label"], turned=bad != ""), 1 if part or bad.startswith("less") else weight
            )
    for form, weight in ((_BETTER_IS, 3), (_PREFERS, 2)):
        for hit in form.finditer(clause):
            if not _foreign(hit):
                return Statement(_choice(hit["label"]), weight)
    if (hit := _TIES.search(clause)) and not _foreign(hit):
        return Statement("tie", 2 if _EQUAL_ON_THE_WHOLE.match((hit["tail"] or "").strip()) else 1)
    return None


def _foreign(hit: re.Match[str]) -> bool:
    """Tell whether the clause denies or reports what the form says."""
    before = hit.string[: hit.start()]
    return bool(_DENIED_BEFORE.search(before) or _REPORTED.search(before))


def _choice(sign: str, *, turned: bool = False) -> Choice:
    if sign not in ("A", "B"):
        return "tie"
    return "first" if (sign == "A") != turned else "second"
