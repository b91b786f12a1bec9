"""The forms in which a clause of a judge's reply, written in signs, states a verdict.

There are four: a label behind words that only lead in ("my final verdict: B"), an answer and a relation ("A is much
better"), a name and an answer ("the winner is A"), and the judge's choosing ("I prefer A"). Whatever stands in front
and denies, asks, supposes or reports what is said makes it no statement.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

Choice = Literal["first", "second", "tie", "invalid"]


class Statement(NamedTuple):
    """A choice and its weight: 3 a verdict called so, 2 a plain statement, 1 one of a part."""

    choice: Choice
    weight: int


def joined(text: str) -> str:
    """Join the lines of a pattern that is written over several lines."""
    return re.sub(r"\s*\n\s*", "", text)


def lines(text: str) -> re.Pattern[str]:
    """Compile a pattern that is written over several lines."""
    return re.compile(joined(text))


VERDICT = joined(
    r"""(?:verdict|decision|choice|judge?ment|conclusion|winner|pick|selection|preference|result|ruling|vote|outcome|mine
    |recommendation|determination|evaluation|assessment|(?:(?:mon|ma|le|la|mein|meine|die|das|mi|el|minha|il) )?
    (?:gagnant|r[ée]ponse|r[ée]sultat|urteil|antwort|fazit|ergebnis|veredicto|respuesta|resultado|conclusi[óo]n|ganador|conclus[ãa]o
    |resposta|vencedor|verdetto|risposta|vincitore|ответ|вердикт|вывод|итог|победитель|الإجابة|kết luận
    |\w{0,4}(?:答案|回答|结论|結論|结果|結果|判断|判定|选择|胜者|勝者|선택|결론|승자))(?= ?:))"""
)
BETTER = (
    r"(?:better|best|preferred|superior|winning|stronger|chosen|selected|preferable|favou?rite|favou?red|top)"
)
ANSWER = (
    r"(?:output|answer|response|option|one|reply|choice|candidate|assistant|model|ans|label|pick|advantage)"
)
_IS = r"(?: ?(?:is|was|would be|must be|should be|goes to|has to be|are|:|=|->|=>|→|-|–|—),?)"
_CHOOSE = joined(
    r"""(?:prefer|choose|chose|pick|picked|select|selected|favou?r|go(?:ing)? with|opt for|vote for|voting for
    |side with|lean(?:ing|s)?(?: towards?| to)?|recommend|declare|(?:rule|decide) (?:on|for|in favou?r of)
    |agree (?:that|with)|(?:give|giving|award) (?:it|this(?: one)?) to
    |(?:rate|rank|place|put)(?= [AB] (?:\w+ )?(?:higher|above|over|ahead|better|first)\b))"""
)

# --- A label on its own

SO = joined(
    r"""(?:(?:and|so|thus|hence|therefore|overall|finally|ultimately|accordingly|consequently|definitely|clearly|obviously
    |certainly|probably|easily|surely|honestly|simply|essentially|personally|slightly|without (?:a )?doubt|all in all
    |in (?:conclusion|summary|short|sum|the end|my (?:opinion|view|judge?ment))|to (?:conclude|sum up|summari[sz]e)
    |tl;?dr:?|all things considered|on balance|as a result
    |(?:based on|given|considering|after|in light of|for|with|taking|weighing|having) [^,.:ABTPNO]{1,120}(?=,)
    )(?:\b|(?<=:))[,:]? ?)"""
)
# Any row of these words in front of a label leads in and says nothing else.
_LEAD = lines(
    rf"""(?:{SO}|(?:{VERDICT}|{BETTER}|{ANSWER}|{_CHOOSE}|i|i'd|i'll|i'm|we|my|our|your|the|an?|it|it's|its
    |this|that|is|was|are|be|has|have|to|say|would|will|should|must|goes
    |rank(?:ed)? (?:1|first)|final|correct|short|slight|small|close|call|too|just|barely|correction|no(?=,)
    |(?<=preference )for|(?<=vote )for|in favou?r of|→|->|=>)(?!\w))[\s:=,.-]*"""
)
_MOST_LEADS = 16
_TIE = joined(
    r"""(?:equal(?: quality)?|same|equally good|no (?:winner|preference|difference)|dead even|too close to call
    |(?:N|(?<!\w )T|(?<=\bis )T)(?: equal)?)(?!\w)"""
)
_BY_HOW_MUCH = joined(
    r"""(?:,? (?:is better|it is|by (?:an? |the )?(?:\w+ ){0,2}\w+|\w+ly|hands down|all the way|here
    |for me)(?!\w)){0,3}"""
)
_LABEL = re.compile(
    rf"\W*(?:(?P<label>\b(?:[AB]|tied?|draw|dead heat|toss-?up)\b)|{_TIE})(?P<degree>{_BY_HOW_MUCH})(?P<tail>.*)"
)
_REASON = lines(
    r"""(?: is better)?,? ?\((?![AB]\)).*| [-–—]+ .*|,? because of [^,]*|,? (?:al)?though .*
    |,? (?:because|since|as|for) (?:it|its|they|he|she|the|this|that|these|both|[ABT])\b.*
    |(?::| [-–—]+) (?:because|it|its|this|better|more|the (?:better|best))\b.*|, i(?:'d| would)? (?:say|think)\W*
    |,? (?:without (?:a )?doubt|no question|of course|overall|not [AB]|rather than [AB]|over [AB])\b[^,]*"""
)


def label_alone(line: str) -> Statement | None:
    """Read a line or sentence that is a label and at most a lead-in, such as "final verdict:".

    Example:
        >>> label_alone("so my final verdict is B.")
        Statement(choice='second', weight=3)
        >>> label_alone("A"), label_alone("A:"), label_alone("O")
        (Statement(choice='first', weight=2), None, None)
    """
    if len(line) > 200 or line.endswith((":", "?")):
        return None
    return next((_labelled(hit) for hit in _led_to(line) if not hit["tail"].strip(" .,!;)]}\"'")), None)


def label_first(sentence: str) -> Statement | None:
    """Read a sentence that opens with a label and goes on with the reason.

    Example:
        >>> label_first("B, because it names the dose.")
        Statement(choice='second', weight=2)
        >>> label_first("B, because of its length, misses the point.")
    """
    if sentence.endswith("?"):
        return None
    hit = next(_led_to(sentence), None)
    return _labelled(hit) if hit and hit["label"] and _REASON.fullmatch(hit["tail"]) else None


def _led_to(text: str) -> Iterator[re.Match[str]]:
    """Match a label behind its lead-in, the longest lead-in first; each word of it is read once."""
    ends = [re.match(r"\W*", text).end()]  # type: ignore[union-attr]  # it always matches
    while len(ends) <= _MOST_LEADS and (hit := _LEAD.match(text, ends[-1])):
        ends.append(hit.end())
    return filter(None, (_LABEL.match(text, end) for end in reversed(ends)))


def _labelled(hit: re.Match[str]) -> Statement:
    led = re.search(r"\w", hit.string[: hit.start()])
    return Statement(_choice(hit["label"] or "T"), 3 if led or hit["degree"].strip(", ") else 2)


# --- An answer and a relation

_GOOD = joined(
    r"""(?:better|superior|best|preferable|preferred|stronger|winner|winning|favou?red|chosen|selected|ahead|on top
    |(?:my|right|correct) (?:choice|pick|answer|output|one)|favou?rite)"""
)
_WINS = joined(
    r"""(?:wins?|won|prevails|takes (?:it|this|the win|the edge)|(?:ranks?|comes) first|outperforms|beats|surpasses
    |scores higher|edges out|outshines|has (?:the|a slight) (?:edge|advantage)|gets? (?:my|the) (?:vote|nod|edge|win)
    |comes out ahead|deserves (?:the win|to win|it))"""
)
_FIT = r"(?:helpful|useful|accurate|appropriate|suitable|correct|effective|relevant|satisfactory|aligned|precise)"
_BAD = joined(
    rf"""(?:worse|worst|inferior|weaker|weakest|loser|losing|loses|falls short of [AB]
    |(?:not|\w+n't|nowhere) (?:nearly |quite |near |even )?as (?:good|strong|{_FIT}) as [AB]|less {_FIT})"""
)
_MORE = joined(
    rf"""(?:more (?:closely|precisely|accurately|faithfully|directly|effectively)|comes closer|closer to
    |less (?:bad|harmful|flawed|dangerous|wrong)|(?:more|most) (?:\w+ (?:and|or) )?{_FIT})"""
)
_RELATION = re.compile(
    rf"\b(?P<label>[AB])\b(?P<way> (?:[^ABTPNO]{{0,200}}? )??)"
    rf"(?:(?P<good>{_GOOD})|(?P<wins>{_WINS})|(?P<bad>{_BAD})|(?P<more>{_MORE}))\b(?=(?P<tail>.*))"
)
# What may stand between an answer and a relation that speaks of it as a whole.
_LINK = lines(
    r""" (?:.{0,200} and )?(?:(?:\w+ly|the|an?|my|much|far|still|also|would|should|will|thus|therefore|then
    |overall) )*(?:(?:is|was|'s|are|be|being|seems|appears|looks|remains|stands out|emerges|comes out|ranks|proves
    |feels|makes|deemed|judged|considered) (?:[\w'-]+ ){0,6})?"""
)
_NAMED = lines(
    rf"""(?:(?:\b(?:{BETTER}|more {_FIT}|final|correct) (?:{ANSWER}|{VERDICT})|\b{VERDICT}
    |^(?:{BETTER}|(?:the )?answer|(?:the )?{BETTER} one)|\b{BETTER} (?:of|between) [TPO]
    |\bthe (?:one|output|answer|response) [^ABTPNO]{{0,60}}{BETTER}[^ABTPNO]{{0,60}}?)
    (?: (?:for|of|in|here|between|that)\b[^ABTPNO]{{0,100}}?(?:[TPO] ?)?)?{_IS}{{1,3}}
    (?: (?:\w+ly|therefore|thus|that|to|for|in favou?r of))*
    |\b(?:in favou?r of|(?:win|edge|vote|nod|preference|point|victory) (?:goes )?(?:to|for)))
    [ ](?P<label>[AB]|T|N|a tie|tie\b)(?! (?:is|was|isn't|wasn't|does|doesn't|would|could|can|fails) )"""
)
_CHOOSES = re.compile(rf"\b{_CHOOSE}(?: (?:\w+ly|for|that|it|with))? (?P<label>[AB])\b")
_JUDGE = re.compile(rf"\b(?:i|we|me|us|i'd|i'll|let's|to|must|have)\b|^{SO}*$")
_ORDER = re.compile(r"\W*(?:\w+(?: is|:)? )?\[*(?P<label>[AB]) ?(?P<mark>[=<>≻≫≺≪≈~]{1,3}) ?[AB]\]*\W*")
_TIES = lines(
    r"""\bN (?:is|are|was|can be|could be|stands|wins|seems|appears|really)\b[^ABTPNO]{0,60}?
        \b(?:better|superior|best|preferable|preferred|wins|winner|out|ahead)\b
    |^[^ABTPNO]{0,60}\b(?:it's|is|ends? in|(?:call|declare|rate|judge|consider|score) (?:it|this|them|T)(?: one)?
        (?: as| to be)?)(?: an?| \w+ly| clear| perfect| virtual)*? (?:tied?|draw|dead heat|toss-?up)\b
    |\b[TP]\b(?: [^ABTPNO]{0,80} and)? (?:are|seem|appear|were|perform|rank|remain|deserve|(?:should|would) be)\b
        [^ABTPNO]{0,30}? ?\b(?:equally|equal|tied?|a draw|identical|equivalent|comparable|on (?:a )?par|the same
        |just as good|similarly good|evenly matched|interchangeable|of (?:equal|similar|the same))\b(?P<tail>.*)
    |\b[TP] tie\b|\b(?:call|rate|judge|consider) (?:them|T|this one)(?: \w+ly| about)*(?: equal| even| the same)\b
    |\b[AB] (?:is|are) (?:just |exactly |about )?(?:as good as|equal to|on par with|tied with|equivalent to
        |identical to|no better or worse than) [AB]\b|\b[AB] ties with [AB]\b
    |\b(?:no (?:clear |obvious |real )?winner|equally good|of equal (?:quality|merit)|no preference
        |no (?:meaningful |significant |real |clear )?difference in (?:overall )?quality)\b"""
)
_WHOLLY = re.compile(r"$|\W|(?:good|bad|well|poor|strong|weak|matched|score|(?:in )?quality|in overall)\b")

# --- What makes it no statement

_NEVER = r"\b(?:not|no|never|nor|cannot|hardly|rarely|seldom|might|may|could)\b|n't\b"
_DENIED_BETWEEN = re.compile(rf"{_NEVER}|\b(?:less|than|that|wh\w+|about|anything|fails|refuses)\b|\bonly $")
_DENIED_BEFORE = lines(
    rf"""{_NEVER}|\b(?:without|doubt|disagree|wrong|false|mistaken|unclear|difficult|hard|impossible|rather than
    |unless|initial(?:ly)?|earlier|previous(?:ly)?|majority|at first|(?:i|we) (?:was|were|had)|perhaps|maybe
    |possibly|almost|if|used to|tempt(?:ed|ing)|would have|whether|which|how|nothing|fails? to|try|trying|attempt
    |determine|decide|evaluate|refuse|decline)\b|'s $"""
)
# Of all who say something, the judge alone counts.
_SAYING = lines(
    r"""\b(?:claim|says?|said|state|argue|think|believe|assert|insist|end|contain|include|writ|wrote|mention|suggest
    |instruct|ask|tell|tries|tried|prefer|evaluates?\b|declare|announce|saying|conclude|according|requested|phrase
    |string|inject|plant|quotation|favou?r|recommend|finds?\b|found\b|considers?\b|chose\b)"""
)
# "Better in tone" speaks of a part; "better for the question" and "better in every respect" do not.
_WHOLE = lines(
    r"""\W*$| (?:(?:in|at|on|with respect to|regarding|when it comes to)\b.*\b(?:instructions?|tasks?|questions?
    |requests?|prompt|overall|all|every|most|case|context|comparison|quality|general|query|given|users?|both)
    |output|answer|response|choice|option|one|pick|candidate|fit|match|overall|here|of|than|because|since|as|and
    |for (?:the|this|that)|by|due|with(?! respect)|given|owing|from|out|is (?:that|because)|when(?! it comes)
    |assistant|model|reply|completion|verdict|thanks)\b"""
)
# "Better than nothing", "better only in length", "A preferred B", and what was cut before it said in what.
_NO_MORE_THAN = re.compile(
    r" (?:[ABTPNO]\b|than (?![ABTP]\b|the other|its)|only\b|(?:at|in|for|than|on|with|when|because|as)$)"
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
            "tie" if hit["mark"][0] in "=≈~" else _choice(hit["label"], turned=hit["mark"][0] in "<≺≪"), 3
        )
    relations = filter(None, map(_related, _RELATION.finditer(clause)))
    if found := next(relations, None):
        return found
    for form, weight in ((_NAMED, 3), (_CHOOSES, 2)):
        for hit in form.finditer(clause):
            if not _foreign(hit) and (form is not _CHOOSES or _JUDGE.search(clause[: hit.start()])):
                return Statement(_choice(hit["label"]), weight)
    if (hit := _TIES.search(clause)) and not _foreign(hit):
        return Statement("tie", 2 if _WHOLLY.match((hit["tail"] or "").strip()) else 1)
    return None


def _related(hit: re.Match[str]) -> Statement | None:
    way, tail, good = hit["way"], hit["tail"], hit["good"]
    if _DENIED_BETWEEN.search(way) or _foreign(hit) or (not hit["wins"] and _NO_MORE_THAN.match(tail)):
        return None
    linked = _LINK.fullmatch(way) is not None
    if not (linked or hit["more"] or good in ("better", "superior")):
        return None
    part = not linked or hit["more"] or (hit["bad"] or "").startswith("less")
    if hit["wins"]:
        tail = re.sub(r"^ [AB]\b|^(?! (?:in|at|on)\b).*", "", tail)
    part = part or not _WHOLE.match(tail)
    return Statement(_choice(hit["label"], turned=hit["bad"] is not None), 1 if part else 2)


def _foreign(hit: re.Match[str]) -> bool:
    """Tell whether the clause denies or reports what the form says."""
    before = hit.string[: hit.start()]
    says = _SAYING.search(before)
    return bool(
        _DENIED_BEFORE.search(before) or (says and not re.search(r"\b(?:i|we)\b", before[: says.start()]))
    )


def _choice(sign: str, *, turned: bool = False) -> Choice:
    if sign not in ("A", "B"):
        return "tie"
    return "first" if (sign == "A") != turned else "second"
