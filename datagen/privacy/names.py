"""Patterns for names of persons.

A name counts with a title, a label ("named", "Name:", "Dear"), a degree behind it, an age behind a common given name,
or as a common given name with a surname. What names a disease, a sign, a tool or an institution ("Charles Bonnet
syndrome", "Fred Hutchinson Center") is no person here.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import Literal

from datagen.privacy.pattern import Pattern, Read
from datagen.privacy.reading import (
    DEGREE,
    DOSE,
    GAP,
    INITIALS,
    WORD,
    Name,
    is_given,
    is_owned_name,
    read_last_first,
    read_name,
    read_small_name,
)
from datagen.privacy.spelling import UPPER
from datagen.privacy.words import COUNTRIES, OWNED_NOUNS, STATES, is_condition, is_ordinary, is_owned, one_of

_I = re.IGNORECASE
_Spans = Iterator[tuple[int, int]]
_START = r"(?<![^\W_])(?<!-)"

# In texts of other languages, titles; in English, other words.
_FOREIGN = r"M(?=\.)|Sig(?=\.)|Don|Fru|Pan"
_TITLE = (
    rf"(?:(?P<personal>(?i:Mr|Mrs|Ms|Mx|Dr|Prof|Miss))|{one_of('titles')}|(?P<foreign>{_FOREIGN})|κ(?=\.))"
)
_LISTED = re.compile(
    r"[ \t]*(?:,[ \t]*(?:(?:and|AND|&)[ \t]+)?|(?:and|AND|&|und|y|et|e|\+)[ \t]+|/[ \t]*)"
    r"(?:(?:Dr|Prof|Mr|Mrs|Ms)\b\.?[ \t]*)?"
)
# "Sr. Creatinine 1.2" is serum.
_MEASURED = re.compile(r"[ \t]*(?:[:=-][ \t]*)?\d|[ \t]+levels?\b", _I)
_ABROAD = re.compile(rf"(?<!\w){one_of('abroad')}(?!\w)")
_DETERMINER = re.compile(rf"\b{one_of('determiners')}[ \t]+\Z", _I)
_ABBREVIATED = re.compile(r"\b(?:MR|MS)\b(?!\.)|sclerosis|resonance|mitral", _I)


def _after_title(match: "re.Match[str]") -> _Spans:
    text, personal = match.string, match["personal"]
    name = read_name(text, match.end(), bool(personal))
    if name is None and personal and personal.islower():
        sure = match["dot"] or personal in ("mr", "mrs", "dr")
        name = read_small_name(text, match.end(), given=not sure)
        if _DETERMINER.search(text[max(0, match.start() - 12) : match.start()]):
            return
    if name is None or not _title_counts(match, name):
        return
    # Mr. Lind's rash is his own; Dr. Lind's rash may be the one that he described.
    patient = (personal or "").lower() not in ("", "dr", "prof")
    if (patient and text.startswith("'", name.end)) or not is_owned_name(text, name):
        yield name.start, name.end


def _title_counts(match: "re.Match[str]", name: Name) -> bool:
    """Refuse what only looks like a title: MR angiography, "has MS. Symptoms", 10 ms, M. tuberculosis, Miss Doses."""
    text, start, title = match.string, match.start(), match[0].rstrip(" \t\r\n.")
    capitals = name.words[0].isupper() and len(name.words[0]) > 1
    before = text[max(0, start - 40) : start]
    if match["personal"] and title.islower():
        return not before.rstrip()[-1:].isdigit() and (title != "miss" or bool(match["dot"]))
    if title in ("MR", "MS"):
        heads = not before.rstrip(" \t*_")[-1:].isalnum() and not is_condition(name.words[0])
        disease = _ABBREVIATED.search(text[:start]) or _ABBREVIATED.search(text[match.end() :])
        return bool(match["dot"]) and (capitals or name.is_given or (heads and not disease))
    if title in ("MISS", "DOCTOR", "PROFESSOR"):
        return capitals
    if title in ("Sr", "SR"):
        return not _MEASURED.match(text, name.end)
    if match["foreign"]:
        around = before + text[name.end : name.end + 200]
        return name.is_given or bool(_ABROAD.search(around))
    return True


def _after_plural(match: "re.Match[str]") -> _Spans:
    """Read each of "Kim, Park and Lee"."""
    text = match.string
    name = read_name(text, match.end(), titled=True)
    while name and not is_owned_name(text, name):
        yield name.start, name.end
        listed = _LISTED.match(text, name.end)
        name = read_name(text, listed.end(), titled=True) if listed else None


# Behind a label stand a colon, a dash, a column or markup.
_COLON = (
    r"(?:'s)?[*_]{0,3}[ \t]{0,8}(?:\(s\))?[ \t]{0,8}(?P<colon>[:=|#]|-(?=[ \t])|\t)[*_ \t|]{0,12}"
    r"(?:\r?\n[ \t]{0,8})?[*_]{0,3}"
)
_DONE_BY = rf"(?:(?:electronically|digitally)[ ])?{one_of('signed')}(?:[ ]by)"
_ROLE = rf"{one_of('roles')}(?:[ ](?:physician|surgeon|provider|doctor|md|signature))?"
_DRUG_NEAR = re.compile(rf"\b{one_of('drug_words')}\b", _I)
_FIELD_ENDS = re.compile(
    rf"[ \t]*(?:\Z|\r?\n|[^\w\s'-]|-{{1,2}}[ \t]|\d)|[ \t]{{2,}}|\t|,?[ \t]+{DEGREE}"
    rf"|[ \t]+(?:{UPPER}|[a-z])[\w/# ]{{0,20}}:"
    r"|[ \t]+(?i:DOB|MRN|SSN|age|aged|sex|born|is|was|has|had|presents|presented|reports|reported|denies|states|came"
    r"|arrived|who|seen|and|on|at|male|female|signed|date)\b"
)
_DATA_BEHIND = re.compile(r"[ \t,;(]{1,8}(?:DOB|MRN|SSN|age|\d{2})\b", _I)
_DEGREE_BEHIND = re.compile(rf",?{GAP}{DEGREE}")
_CYRILLIC_INITIALS = re.compile(r"[ ]?[А-ЯЁ]\.[ ]?[А-ЯЁ]\.")


def _is_term(word: str) -> bool:
    """Say whether a word of a field's value is surely no name."""
    return (
        is_ordinary(word)
        or word.lower() in OWNED_NOUNS
        or word.title() in COUNTRIES
        or word.title() in STATES
    )


def _in_field(sort: Literal["name", "role", "patient", "letter"]) -> Read:
    """Return what takes the value of a field if it reads as a name and holds nothing else.

    Behind "Name:" and "Attending:" one word suffices; "Patient:" is as often followed by a state of health; behind
    "To:" and "Re:" stands a name only beyond doubt.
    """

    def read(match: "re.Match[str]") -> _Spans:
        text, at = match.string, match.end()
        name = read_last_first(text, at) or read_name(text, at)
        if name is None and sort in ("name", "role"):
            name = read_small_name(text, at, given=True)
        if name is None or is_owned_name(text, name) or _is_term(name.words[0]):
            return
        written, given = text[name.start : name.end], name.is_given
        if any(map(_is_term, name.words)) and not (given and sort == "name"):
            return
        states = [is_condition(word) for word in name.words]
        shaped = given or not any(states) or ("," in written and not all(states))
        whole = bool(_FIELD_ENDS.match(text, name.end)) and not DOSE.match(text, name.end)
        initials = _CYRILLIC_INITIALS.search(written)
        several = len(name.words) > 1 or written[1] == "." or initials
        if sort == "name":
            near = text[max(0, match.start() - 60) : match.start()] + text[name.end : name.end + 80]
            heads = match["person"] or _heads_a_field(text, match.start("label"))
            takes = heads and (given or (whole and (match["person"] or not _DRUG_NEAR.search(near))))
        elif sort == "role":
            takes = given or (whole and shaped)
        elif sort == "patient":
            known = is_given(name.words[0]) or _DATA_BEHIND.match(text, name.end)
            takes = (several and (given or initials)) or (
                match["colon"] and whole and shaped and (several or known)
            )
        else:
            sure = re.match(INITIALS, written) or _DEGREE_BEHIND.match(text, name.end)
            takes = whole and ((several and given) or sure)
        if takes:
            yield name.start, name.end

    return read


def _heads_a_field(text: str, place: int) -> bool:
    before = text[max(0, place - 40) : place].rstrip(" \t*_#>")
    return not before or before[-1] in "\n.;,|:()[]{}-•\"'/]" or before[-1].isdigit()


def _after_phrase(after: str = "", given: bool = False, small: bool = False) -> Read:
    """Return what takes a name behind a phrase that is followed by one.

    Args:
        after: What must stand behind it, so that it is a name that is meant; then no word of it may be a term.
        given: Whether one of its words must be a common given name.
        small: Whether it may be written in small letters.
    """
    behind = re.compile(after)

    def read(match: "re.Match[str]") -> _Spans:
        text, at = match.string, match.end()
        name = read_name(text, at) or (read_small_name(text, at, given) if small else None)
        if name is None or is_owned_name(text, name) or not behind.match(text, name.end):
            return
        terms = after and any(_is_term(word) or is_condition(word) for word in name.words)
        if name.is_given or not (given or terms):
            yield name.start, name.end

    return read


def _closing(match: "re.Match[str]") -> _Spans:
    """Take the name under a letter; behind thanks it stands on a line of its own."""
    text = match.string
    name = read_name(text, match.end())
    if name is None or is_owned_name(text, name):
        return
    thanks = match[0].lower().startswith(("thank", "best,", "best\n", "cheers"))
    alone = re.match(r"[ \t]*(?:,|\n|\Z)", text[name.end : name.end + 8])
    own_line = "\n" in match[0]
    if (own_line and alone) if thanks else (own_line or match[0].rstrip()[-1:] in ",:"):
        yield name.start, name.end


def _before_degree(match: "re.Match[str]") -> _Spans:
    """Read "L. Petrossian, MD"; one word alone only with a comma, and not as a town in Maryland."""
    text, end, failed, found = match.string, match.start(), 0, None
    for start in reversed(list(_NAME_BEGINS.finditer(text, max(0, end - 100), end))[-8:]):
        name = read_name(text, start.start())
        if name and name.end == end:
            found = name
        elif (failed := failed + 1) > 2:
            break
    if found is None:
        return
    if len(found.words) == 1 and not re.match(rf"{INITIALS}|{UPPER}[ ]", text[found.start : end]):
        before = text[max(0, found.start - 40) : found.start]
        in_town = re.search(r"\b(?:in|from|near|at|of|to|and)[ ]$", before)
        in_line = not before.rstrip(" \t*_")[-1:].isalnum() or before.rstrip().endswith((" by", " with"))
        if text[end] != "," or in_town or not in_line or _is_term(found.words[0]):
            return
    yield found.start, end


_NAME_BEGINS = re.compile(rf"{_START}{UPPER}")
_AGED = re.compile(
    rf"(?:,|{GAP}is|{GAP}was)?{GAP}an?{GAP}(?:\w+[ -]){{0,2}}\d{{1,3}}[ -]?(?:year|month|week|day|yo\b|y/o)"
)


def _with_given_name(match: "re.Match[str]") -> _Spans:
    """Read a common given name with a surname or with an age behind it."""
    text, start = match.string, match.start()
    if not is_given(match[0]) or text[max(0, start - 4) : start].upper().endswith(("ST. ", "ST ")):
        return
    name = read_name(text, start)
    if (
        name is None
        or is_owned_name(text, name, 2)
        or any(w in STATES or is_owned(w) for w in name.words[1:])
    ):
        return
    if len(name.words) > 1 or _AGED.match(text[name.end : name.end + 60]):
        yield name.start, name.end


def _without_colon(match: "re.Match[str]") -> _Spans:
    """Read "NAME SMITH, JOHN", of which one word is a common given name."""
    name = read_last_first(match.string, match.end())
    if name and name.is_given and not any(map(_is_term, name.words)):
        yield name.start, name.end


def _halves(match: "re.Match[str]") -> _Spans:
    """Read "Last: Smith First: John"."""
    if not (_is_term(match["a"]) or _is_term(match["b"])):
        yield from (match.span("a"), match.span("b"))


_HALF = r"(?i:(?:last|first|given|family)(?:[ ]name)?)[ \t]{0,8}[:=|][ \t]{0,8}"
_RELATIVE = one_of("relatives")
_name = partial(Pattern, "NAME")
_label = partial(_name, labelled=True)
NAME_PATTERNS: tuple[Pattern, ...] = (
    _name(rf"{_START}{_TITLE}(?!\w)(?:(?P<dot>\.)(?:[ ]?med\.)?{GAP}?|{GAP})(?=\S)", read=_after_title),
    _name(rf"{_START}{one_of('plural_titles')}\b\.?{GAP}", read=_after_plural),
    _label(
        rf"(?i){_START}(?:(?P<person>{one_of('persons')}(?:'s)?)[ \t/_-]{{1,3}})?"
        rf"(?P<label>{one_of('name_labels')}){_COLON}",
        needs="name|nom|apellido|имя|фамилия|фио|όνομα",
        read=_in_field("name"),
    ),
    _name(
        rf"{_START}(?i:(?:patient(?:'s)?|pt|full)[ ])?(?i:name)[ \t]{{1,8}}",
        needs="name",
        read=_without_colon,
    ),
    _name(
        rf"{_START}{_HALF}(?P<a>{WORD})[ \t]{{0,8}}[,;|/]?[ \t]{{0,8}}(?:\r?\n[ \t]{{0,8}})?"
        rf"{_HALF}(?P<b>{WORD})(?!\w)",
        needs="last|family",
        read=_halves,
    ),
    _label(
        rf"(?i){_START}(?:{_DONE_BY}|{_ROLE}|{one_of('done')}[ ]by|[dt]/b|signed){_COLON}",
        read=_in_field("role"),
    ),
    _label(rf"(?i){_START}{one_of('patients')}(?:{_COLON}|{_ROLE}{GAP}|{GAP})", read=_in_field("patient")),
    _label(rf"(?i){_START}(?:cc|attn|attention|to|from|re|f\.?a\.?o){_COLON}", read=_in_field("letter")),
    _name(
        rf"{_START}(?i:(?:his|her|their|(?:child|son|daughter)'s) name (?:is|was)|named|by the name of|dear"
        rf"|{_DONE_BY}|/e?s/|(?:patient|full|last|first|maiden)(?:'s)? name(?: is)?){GAP}",
        needs="name|by|dear|s/",
        read=_after_phrase(),
    ),
    _name(
        rf"{_START}(?i:(?:my )?name's|my name is){GAP}",
        needs="name's|name is",
        read=_after_phrase(small=True),
    ),
    _name(
        rf"{_START}(?i:I'm|I am|this is){GAP}",
        read=_after_phrase(
            rf",{GAP}(?:an?{GAP})?\d{{1,3}}\b|,?{GAP}(?:calling|here|writing|speaking|from|and I\b|and my\b)",
            small=True,
        ),
    ),
    _name(rf"{_START}(?:Hi|Hello|Hey){GAP}", read=_after_phrase(r"[ \t]*[,!.\n]", given=True)),
    _name(
        rf"\b(?i:my|his|her|their|our|the patient's)[ \t]+{_RELATIVE},?{GAP}",
        read=_after_phrase(r"[,.;)]|[ \t]+[a-z]"),
    ),
    _name(rf"\b(?i:{_RELATIVE}),?[ \t]+\(?", read=_after_phrase(given=True)),
    _name(rf"{_START}(?:RN|LPN|CNA|NP){GAP}", read=_after_phrase(r"[ \t]+[a-z]")),
    _name(rf"(?i:{one_of('closings')})(?:[,:][ \t]*|[ \t]*(?=\n))(?:\r?\n[ \t]*){{0,3}}", read=_closing),
    _name(rf",?{GAP}{DEGREE}(?!\s*\d{{5}})", read=_before_degree),
    _name(rf"{_START}{WORD}(?!\w)", read=_with_given_name),
)
