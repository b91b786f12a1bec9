"""Patterns for names of persons.

A name counts with a title, a label ("named", "Name:", "Dear"), a degree behind it, an age behind a common given name,
or as a common given name with a surname. What names a disease, a sign, a tool or an institution ("Charles Bonnet
syndrome", "Fred Hutchinson Center") is no person here.
"""

import re
from collections.abc import Iterator

from datagen.privacy.pattern import Pattern, Read, pattern
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
)
from datagen.privacy.spelling import LETTER, UPPER
from datagen.privacy.words import COUNTRIES, OWNED_NOUNS, STATES, is_ordinary, is_owned

_I = re.IGNORECASE
_Spans = Iterator[tuple[int, int]]

_TITLE = (
    r"(?P<title>(?i:Mr|Mrs|Ms|Mx|Dr|Prof|Miss)|Professor|PROFESSOR|Doctor|DOCTOR|Sir|Madam|Nurse|Rev|Father|Sister"
    r"|Brother|Aunt|Uncle|Sgt|Capt|Judge|Pastor|Rabbi|Imam|Dame|Hon|Sr|Sra|Srta|SR|SRA|Dra|Señora?|Señorita|Herrn?|Frau"
    r"|Mme|Mlle|Monsieur|Madame|Signora?|Dott|Dottor|Mevr|Mevrouw|Shri|Smt|M(?=\.)|г-н|г-жа|[Дд]-р|[Дд]октор"
    r"|[Гг]осподин|[Гг]оспожа|[Пп]рофессор|κ|κα|[Κκ]ος|[Δδ]ρ)"
)
_PLURAL = r"(?:Drs|DRS|Doctors|Docteurs|Dres|Profs|Professors|Messrs|Mmes|Sres|Herren)"
_PERSONAL = {"mr", "mrs", "ms", "mx", "dr", "prof", "professor"}
_PATIENTS = {"mr", "mrs", "ms", "mx", "miss"}
_START = r"(?<![^\W_])(?<!-)"
_LISTED = re.compile(
    r"[ \t]*(?:,[ \t]*(?:(?:and|AND|&)[ \t]+)?|(?:and|AND|&|und|y|et|e|\+)[ \t]+|/[ \t]*)"
    r"(?:(?:Dr|Prof|Mr|Mrs|Ms)\b\.?[ \t]*)?"
)
# "Sr. Creatinine 1.2" is serum.
_MEASURED = re.compile(r"[ \t]*(?:[:=-][ \t]*)?\d|[ \t]+levels?\b", _I)
_FRENCH = re.compile(r"\b(?:le|la|les|est|une|des|dans|pour|avec|et|du|au|sa|son|vous)\b")


def _after_title(match: "re.Match[str]") -> _Spans:
    text, title = match.string, match["title"]
    name = read_name(text, match.end(), title.lower() in _PERSONAL)
    if name is None or not _title_counts(match, title, name):
        return
    # Mr. Lind's rash is his own; Dr. Lind's rash may be the one that he described.
    possessed = title.lower() in _PATIENTS and text.startswith("'", name.end)
    if possessed or not is_owned_name(text, name):
        yield name.start, name.end


def _title_counts(match: "re.Match[str]", title: str, name: Name) -> bool:
    """Refuse what only looks like a title: MR angiography, "has MS. Symptoms", 10 ms, M. tuberculosis, Miss Doses."""
    text, start, dotted = match.string, match.start("title"), match.string[match.end("title")] == "."
    capitals = name.words[0].isupper() and len(name.words[0]) > 1
    if title in ("MR", "MS"):
        heads = not text[max(0, start - 12) : start].rstrip(" \t*_")[-1:].isalnum() or name.is_given
        return dotted and (capitals or heads)
    if title in ("MISS", "DOCTOR", "PROFESSOR"):
        return capitals
    if title in ("Sr", "SR"):
        return not _MEASURED.match(text, name.end)
    if title == "M":
        around = text[max(0, start - 200) : name.end + 200]
        return len(set(_FRENCH.findall(around))) > 1
    if title in ("ms", "mr", "miss") or title in ("κ",):
        return dotted or (title != "miss" and not text[max(0, start - 4) : start].rstrip()[-1:].isdigit())
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
_PERSON = (
    r"(?:patient|pt|client|person|full|first|last|middle|given|family|maiden|preferred|legal|birth|surname|mother|father"
    r"|parent|spouse|guardian|doctor|physician|provider|nurse|clinician|surgeon|contact|attending|resident|caregiver"
    r"|child|baby|infant|user|member|subscriber|subject|insured|referring|nombre|nom)"
)
_DONE_BY = (
    r"(?:(?:electronically|digitally)[ ])?(?:dictated|transcribed|signed|co-?signed|e-?signed|typed|attested"
    r"|authenticated)(?:[ ](?:and[ ])?(?:signed|dictated|verified|by))?[ ]by"
)
_ALSO_BY = (
    r"(?:reviewed|verified|reported|interpreted|prepared|written|ordered|referred|requested|performed|read|approved"
    r"|entered|documented|recorded|assessed|examined|seen|evaluated|operated|authored)[ ]by|[dt]/b"
)
_ROLE = (
    r"(?:attending|surgeon|physician|pcp|gp|an(?:a)?esthetist|an(?:a)?esthesiologist|radiologist|pathologist|cardiologist"
    r"|consultant|resident|fellow|hospitalist|psychiatrist|therapist|clinician|provider|guardian|next[ ]of[ ]kin|nok"
    r"|emergency[ ]contact|author|witness|interpreter|caregiver|case[ ]manager|arzt|médico|médecin|medico|врач)"
    r"(?:[ ](?:physician|surgeon|provider|doctor|md|signature))?"
)
_DRUG_NEAR = re.compile(
    r"\b(?:dose|dosage|class|indication|manufacturer|route|strength|tablets?|capsules?|generic|brand|frequency"
    r"|active ingredient|organism|gene|protein|chromosome|species)\b",
    _I,
)
_FIELD_ENDS = re.compile(
    rf"[ \t]*(?:\Z|\r?\n|[^\w\s'-]|-{{1,2}}[ \t]|\d)|[ \t]{{2,}}|\t|,?[ \t]+{DEGREE}"
    rf"|[ \t]+(?:{UPPER}|[a-z])[\w/# ]{{0,20}}:"
    r"|[ \t]+(?i:DOB|MRN|SSN|age|aged|sex|born|is|was|has|had|presents|presented|reports|reported|denies|states|came"
    r"|arrived|who|seen|and|on|at|male|female|signed|date)\b"
)
_CONDITION = re.compile(
    r"(?:[^m]ed|ing|ive|ous|ic|al|ent|ant|able|ible|less|ful|ly|ish|ese|tion|sion|ment|ness|ity|ance|ence|ism|ure|ory|ary"
    r"|oid|ated|ics)$",
    _I,
)


_WHO = re.compile(r"[ \t,;(]{1,8}(?:DOB|MRN|SSN|age|\d{2})\b", _I)


def _read_field(text: str, at: int) -> Name | None:
    return read_last_first(text, at) or read_name(text, at)


def _is_term(word: str) -> bool:
    """Say whether a word of a field's value is surely no name."""
    small, title = word.lower(), word.title()
    return is_ordinary(word) or small in OWNED_NOUNS or title in COUNTRIES or title in STATES


def _is_whole(text: str, name: Name) -> bool:
    """Say whether a field holds the name alone, so that it is no phrase in which every word has a capital."""
    return bool(_FIELD_ENDS.match(text, name.end)) and not DOSE.match(text, name.end)


def _behind_name_label(match: "re.Match[str]") -> _Spans:
    """Take what stands behind "Patient name:" and, at the head of a field, "Name:", unless it is a drug's."""
    text = match.string
    name = _read_field(text, match.end())
    if name is None or _is_term(name.words[0]) or is_owned_name(text, name):
        return
    if any(map(_is_term, name.words)) and not name.is_given:
        return
    if not match["person"] and not _heads_a_field(text, match.start("label")):
        return
    near = text[max(0, match.start() - 60) : match.start()] + text[name.end : name.end + 80]
    if name.is_given or (_is_whole(text, name) and (match["person"] or not _DRUG_NEAR.search(near))):
        yield name.start, name.end


def _heads_a_field(text: str, place: int) -> bool:
    before = text[max(0, place - 40) : place].rstrip(" \t*_#>")
    return not before or before[-1] in "\n.;,|:()[]{}-•\"'/"


def _behind_role(match: "re.Match[str]") -> _Spans:
    """Take a name behind "Attending:"; one word alone only if the field holds nothing else."""
    text = match.string
    name = _read_field(text, match.end())
    if name is None or any(map(_is_term, name.words)) or is_owned_name(text, name):
        return
    if (
        not name.is_given
        and any(map(_CONDITION.search, name.words))
        and "," not in text[name.start : name.end]
    ):
        return
    if name.is_given or _is_whole(text, name):
        yield name.start, name.end


def _behind_patient(match: "re.Match[str]") -> _Spans:
    """Take a name behind "Patient:", where a state of health stands as often; without a colon only a given one."""
    text = match.string
    name = _read_field(text, match.end())
    if name is None or any(map(_is_term, name.words)) or is_owned_name(text, name):
        return
    conditions = [bool(_CONDITION.search(word)) for word in name.words]
    shaped = not any(conditions) or ("," in text[name.start : name.end] and not all(conditions))
    several = len(name.words) > 1 or text[name.start + 1 : name.start + 2] == "."
    known = several and name.is_given
    alone = is_given(name.words[0]) or re.match(
        r"[ \t,;(]+(?:DOB|MRN|SSN|age|\d{2})\b", text[name.end : name.end + 20], _I
    )
    if known or (match["colon"] and (several or alone) and shaped and _is_whole(text, name)):
        yield name.start, name.end


def _reader(titled: bool = False, given: bool = False) -> Read:
    """Return what takes any name behind a phrase that is followed by one."""

    def read(match: "re.Match[str]") -> _Spans:
        name = read_name(match.string, match.end(), titled)
        if name and not is_owned_name(match.string, name) and (not given or name.is_given):
            yield name.start, name.end

    return read


_SMALL = r"(?P<v>[a-z]{2,}(?:[ ][a-z]{2,})?)(?=[ \t]*(?:[,.;!\n]|$|and\b|from\b|\(?\d))"
"""A name in small letters, as in chats."""


def _is_small_name(match: "re.Match[str]") -> bool:
    first, *others = match["v"].split()
    if first in ("the", "not", "a", "an") or is_ordinary(first) or any(map(is_ordinary, others)):
        return False
    return is_given(first.title()) or not _CONDITION.search(first)


def _call(match: "re.Match[str]") -> _Spans:
    """Read "I'm Kwame, 45" and "This is Ana Lind calling"."""
    text = match.string
    name = read_name(text, match.end())
    if name is None or any(map(_is_term, name.words)) or is_owned_name(text, name):
        return
    after = text[name.end : name.end + 60]
    aged = re.match(rf",{GAP}(?:an?{GAP})?\d{{1,3}}\b", after)
    calls = re.match(rf",?{GAP}(?:calling|here|writing|speaking|from|and I\b|and my\b)", after)
    if (
        aged
        or (calls and (name.is_given or not any(map(_CONDITION.search, name.words))))
        or (name.is_given and len(name.words) > 1)
    ):
        yield name.start, name.end


def _addressed(match: "re.Match[str]") -> _Spans:
    """Take a name behind "cc:" or "To:" if it is one beyond doubt."""
    text = match.string
    name = _read_field(text, match.end())
    if name is None or any(map(_is_term, name.words)) or not _is_whole(text, name):
        return
    initials = re.match(INITIALS, text[name.start : name.end])
    degree = re.match(rf",?{GAP}{DEGREE}", text[name.end : name.end + 20])
    if (len(name.words) > 1 and name.is_given) or initials or degree:
        yield name.start, name.end


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


def _relative(match: "re.Match[str]") -> _Spans:
    text = match.string
    name = read_name(text, match.end())
    if (
        name
        and re.match(r",|[ \t]+[a-z]|\.|;|\)", text[name.end : name.end + 3])
        and not is_owned_name(text, name)
    ):
        yield name.start, name.end


def _before_degree(match: "re.Match[str]") -> _Spans:
    """Read "L. Petrossian, MD"; one word alone only with a comma, and not as a town in Maryland."""
    text = match.string
    name = read_name(text, match.start())
    if name is None or not re.match(rf",?{GAP}{DEGREE}(?!\s*\d{{5}})", text[name.end : name.end + 40]):
        return
    alone = len(name.words) == 1 and not re.match(rf"{INITIALS}|{UPPER}[ ]", text[name.start : name.end])
    in_town = re.search(r"\b(?:in|from|near|at|of|to|and)[ ]$", text[max(0, name.start - 6) : name.start])
    in_line = not text[: name.start].rstrip(" \t*_")[-1:].isalnum() or text[: name.start].rstrip().endswith(
        (" by", " with")
    )
    if alone and (text[name.end] != "," or in_town or not in_line or any(map(_is_term, name.words))):
        return
    yield name.start, name.end


_AGED = re.compile(
    rf"(?:,|{GAP}is|{GAP}was)?{GAP}an?{GAP}(?:\w+[ -]){{0,2}}\d{{1,3}}[ -]?(?:year|month|week|day|yo\b|y/o)"
)


def _with_given_name(match: "re.Match[str]") -> _Spans:
    """Read a common given name with a surname or with an age behind it."""
    text, start = match.string, match.start()
    if not is_given(match[0].partition("-")[0]) or text[max(0, start - 4) : start].upper().endswith(
        ("ST. ", "ST ")
    ):
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


NAME_PATTERNS: tuple[Pattern, ...] = (
    pattern(
        "NAME",
        rf"{_START}{_TITLE}(?!\w)(?:\.(?:[ ]?med\.)?{GAP}?|{GAP})(?=\S)",
        read=_after_title,
    ),
    pattern(
        "NAME",
        rf"{_START}{_PLURAL}\b\.?{GAP}",
        needs="drs|doct|dres|prof|messrs|mmes|sres|herren",
        read=_after_plural,
    ),
    pattern(
        "NAME",
        rf"{_START}(?:(?P<person>{_PERSON}(?:'s)?)[ \t/_-]{{1,3}})?"
        r"(?P<label>names?|nombre|nom|nachname|vorname|surname|nome"
        rf"|apellidos?|forename|имя|фамилия|фио|όνομα){_COLON}",
        needs="name|nom|apellido|имя|фамилия|фио|όνομα",
        flags=_I,
        read=_behind_name_label,
    ),
    pattern(
        "NAME",
        rf"{_START}(?i:my name(?: is|'s)|(?:his|her|their|(?:child|son|daughter)'s) name (?:is|was)|named"
        rf"|by the name of|signed by|(?:patient|full|last|first|maiden)(?:'s)? name(?: is)?|dear){GAP}",
        needs="name|signed|dear",
        read=_reader(titled=False),
    ),
    pattern("NAME", rf"\b(?i:my name is|my name's)[ \t]+{_SMALL}", _is_small_name, "my name"),
    pattern("NAME", rf"{_START}(?:{_DONE_BY}|{_ROLE}|{_ALSO_BY}){_COLON}", flags=_I, read=_behind_role),
    pattern("NAME", rf"{_START}(?:{_DONE_BY}|/e?s/){GAP}", needs=" by|s/", flags=_I, read=_reader()),
    pattern(
        "NAME",
        rf"{_START}(?i:cc|attn|attention|to|from|re|f\.?a\.?o){_COLON}",
        needs="cc|att|to|from|re|fao",
        read=_addressed,
    ),
    pattern(
        "NAME",
        rf"{_START}(?i:patient|pt|client|paciente|paziente|пациент(?:ка)?|больн(?:ой|ая)|ασθενής|subject)"
        rf"(?:{_COLON}|(?i:{_ROLE}){GAP}|{GAP})",
        flags=_I,
        read=_behind_patient,
    ),
    pattern(
        "NAME",
        r"(?i:regards|sincerely|faithfully|truly|best wishes|signed|yours|cordially|respectfully|cheers|"
        r"thanks|thank you|best)(?:[,:][ \t]*|[ \t]*(?=\n))(?:\r?\n[ \t]*){0,3}",
        needs="regards|sincerely|faithfully|truly|wishes|signed|yours|cordially|respectfully|cheers|thank|best",
        read=_closing,
    ),
    pattern(
        "NAME",
        r"\b(?i:my|his|her|their|our|the patient's)[ \t]+(?:husband|wife|partner|son|daughter|brother|sister|mother"
        rf"|father|friend|neighbou?r|cousin|aunt|uncle|boss|grand(?:mother|father|son|daughter)),?{GAP}",
        read=_relative,
    ),
    pattern("NAME", rf"{_START}(?:I'm|I am|[Tt]his is){GAP}", needs="i'm|i am|this is", read=_call),
    pattern(
        "NAME",
        r"\b(?i:husband|wife|partner|spouse|son|daughter|brother|sister|mother|father|friend|neighbou?r)[ \t]+\(",
        needs="(",
        read=_reader(given=True),
    ),
    pattern(
        "NAME",
        rf"{_START}(?!(?:{LETTER}|['-]){{80}})(?={UPPER})(?:{INITIALS}|{WORD}(?=,?{GAP}{UPPER}))",
        read=_before_degree,
    ),
    pattern("NAME", rf"{_START}{WORD}(?!\w)", read=_with_given_name),
)
