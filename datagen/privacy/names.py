"""Patterns for names of persons.

A name counts with a title, a label ("named", "Name:", "Dear"), a degree behind it, an age behind a common given name,
or as a common given name with a surname. What names a disease, a sign, a tool or an institution ("Charles Bonnet
syndrome", "Fred Hutchinson Center") is no person here.
"""

import re
from collections.abc import Callable, Iterator
from typing import Literal

from datagen.privacy.reading import (
    Name,
    is_given,
    is_owned_name,
    read_last_first,
    read_name,
    read_small_name,
)
from datagen.privacy.words import (
    COUNTRIES,
    OWNED_NOUNS,
    STATES,
    compiled,
    is_condition,
    is_ordinary,
    is_owned,
    search,
)

_Match = re.Match[str]
_Spans = Iterator[tuple[int, int]]
_Read = Callable[[_Match], _Spans]


def _after_title(match: _Match) -> _Spans:
    text, personal = match.string, match["personal"]
    name = read_name(text, match.end(), bool(personal))
    if name is None and personal and personal.islower():
        sure = match["dot"] or personal in ("mr", "mrs", "dr")
        name = read_small_name(text, match.end(), given=not sure)
        if search("determiner before", text[max(0, match.start() - 12) : match.start()]):
            return
    if name is None or not _title_counts(match, name):
        return
    # Mr. Lind's rash is his own; Dr. Lind's rash may be the one that he described.
    patient = (personal or "").lower() not in ("", "dr", "prof")
    if (patient and text.startswith("'", name.end)) or not is_owned_name(text, name):
        yield name.start, name.end


def _title_counts(match: _Match, name: Name) -> bool:
    """Refuse what only looks like a title: MR angiography, "has MS. Symptoms", 10 ms, M. tuberculosis, Miss Doses."""
    text, start, title = match.string, match.start(), match[0].rstrip(" \t\r\n.")
    capitals = name.words[0].isupper() and len(name.words[0]) > 1
    before = text[max(0, start - 40) : start]
    if match["personal"] and title.islower():
        return not before.rstrip()[-1:].isdigit() and (title != "miss" or bool(match["dot"]))
    if title in ("MR", "MS"):
        heads = not before.rstrip(" \t*_")[-1:].isalnum() and not is_condition(name.words[0])
        disease = search("abbreviation", text[:start]) or search("abbreviation", text[match.end() :])
        return bool(match["dot"]) and (capitals or name.is_given or (heads and not disease))
    if title in ("MISS", "DOCTOR", "PROFESSOR"):
        return capitals
    if title in ("Sr", "SR"):
        return not compiled("measured").match(text, name.end)
    if match["foreign"]:
        around = before + text[name.end : name.end + 200]
        return name.is_given or bool(search("foreign text", around))
    return True


def _after_plural(match: _Match) -> _Spans:
    """Read each of "Kim, Park and Lee"."""
    text = match.string
    name = read_name(text, match.end(), titled=True)
    while name and not is_owned_name(text, name):
        yield name.start, name.end
        listed = compiled("listed with").match(text, name.end)
        name = read_name(text, listed.end(), titled=True) if listed else None


def _is_term(word: str) -> bool:
    """Say whether a word of a field's value is surely no name."""
    return (
        is_ordinary(word)
        or word.lower() in OWNED_NOUNS
        or word.title() in COUNTRIES
        or word.title() in STATES
    )


def _in_field(sort: Literal["name", "role", "patient", "letter"]) -> _Read:
    """Return what takes the value of a field if it reads as a name and holds nothing else.

    Behind "Name:" and "Attending:" one word suffices; "Patient:" is as often followed by a state of health; behind
    "To:" and "Re:" stands a name only beyond doubt.
    """

    def read(match: _Match) -> _Spans:
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
        whole = bool(compiled("field ends").match(text, name.end)) and not compiled("dose").match(
            text, name.end
        )
        initials = search("cyrillic initials", written)
        several = len(name.words) > 1 or written[1] == "." or initials
        if sort == "name":
            near = text[max(0, match.start() - 60) : match.start()] + text[name.end : name.end + 80]
            heads = match["person"] or _heads_a_field(text, match.start("label"))
            takes = heads and (given or (whole and (match["person"] or not search("drug near", near))))
        elif sort == "role":
            takes = given or (whole and shaped)
        elif sort == "patient":
            known = is_given(name.words[0]) or compiled("data behind").match(text, name.end)
            takes = (several and (given or initials)) or (
                match["colon"] and whole and shaped and (several or known)
            )
        else:
            sure = compiled("initials").match(written) or compiled("degree behind").match(text, name.end)
            takes = whole and ((several and given) or sure)
        if takes:
            yield name.start, name.end

    return read


def _heads_a_field(text: str, place: int) -> bool:
    before = text[max(0, place - 40) : place].rstrip(" \t*_#>")
    return not before or before[-1] in "\n.;,|:()[]{}-•\"'/]" or before[-1].isdigit()


def _after_phrase(after: str = "", given: bool = False, small: bool = False) -> _Read:
    """Return what takes a name behind a phrase that is followed by one.

    Args:
        after: Names the pattern of what must stand behind it; then no word of it may be a term.
        given: Whether one of its words must be a common given name.
        small: Whether it may be written in small letters.
    """

    behind = compiled(after) if after else None

    def read(match: _Match) -> _Spans:
        text, at = match.string, match.end()
        name = read_name(text, at) or (read_small_name(text, at, given) if small else None)
        if name is None or is_owned_name(text, name) or (behind and not behind.match(text, name.end)):
            return
        terms = after and any(_is_term(word) or is_condition(word) for word in name.words)
        if name.is_given or not (given or terms):
            yield name.start, name.end

    return read


def _closing(match: _Match) -> _Spans:
    """Take the name under a letter; behind thanks it stands on a line of its own."""
    text = match.string
    name = read_name(text, match.end())
    if name is None or is_owned_name(text, name):
        return
    thanks = match[0].lower().startswith(("thank", "best,", "best\n", "cheers"))
    alone = compiled("alone in its line").match(text[name.end : name.end + 8])
    own_line = "\n" in match[0]
    if (own_line and alone) if thanks else (own_line or match[0].rstrip()[-1:] in ",:"):
        yield name.start, name.end


def _before_degree(match: _Match) -> _Spans:
    """Read "L. Petrossian, MD"; one word alone only with a comma, and not as a town in Maryland."""
    text, end, failed, found = match.string, match.start(), 0, None
    for start in reversed(list(compiled("name begins").finditer(text, max(0, end - 100), end))[-8:]):
        name = read_name(text, start.start())
        if name and name.end == end:
            found = name
        elif (failed := failed + 1) > 2:
            break
    if found is None:
        return
    if len(found.words) == 1 and not compiled("abbreviated first name").match(text[found.start : end]):
        before = text[max(0, found.start - 40) : found.start]
        in_town = search("in a town", before)
        in_line = not before.rstrip(" \t*_")[-1:].isalnum() or before.rstrip().endswith((" by", " with"))
        if text[end] != "," or in_town or not in_line or _is_term(found.words[0]):
            return
    yield found.start, end


def _with_given_name(match: _Match) -> _Spans:
    """Read a common given name with a surname or with an age behind it."""
    text, start = match.string, match.start()
    if not is_given(match[0]) or text[max(0, start - 4) : start].upper().endswith(("ST. ", "ST ")):
        return
    name = read_name(text, start)
    if name is None or is_owned_name(text, name, 2):
        return
    if any(word in STATES or is_owned(word) for word in name.words[1:]):
        return
    if len(name.words) > 1 or compiled("aged").match(text[name.end : name.end + 60]):
        yield name.start, name.end


def _without_colon(match: _Match) -> _Spans:
    """Read "NAME SMITH, JOHN", of which one word is a common given name."""
    name = read_last_first(match.string, match.end())
    if name and name.is_given and not any(map(_is_term, name.words)):
        yield name.start, name.end


def _halves(match: _Match) -> _Spans:
    """Read "Last: Smith First: John"."""
    if not (_is_term(match["a"]) or _is_term(match["b"])):
        yield from (match.span("a"), match.span("b"))


READERS: dict[str, _Read] = {
    "after title": _after_title,
    "after plural": _after_plural,
    "before degree": _before_degree,
    "before verb": _after_phrase("verb behind"),
    "closing": _closing,
    "given name": _after_phrase(given=True),
    "greeting": _after_phrase("end of a greeting", given=True),
    "halves": _halves,
    "introduction": _after_phrase(small=True),
    "letter field": _in_field("letter"),
    "name field": _in_field("name"),
    "patient field": _in_field("patient"),
    "phrase": _after_phrase(),
    "relative": _after_phrase("clause behind"),
    "role field": _in_field("role"),
    "speaker": _after_phrase("what a speaker says", small=True),
    "with given name": _with_given_name,
    "without colon": _without_colon,
}
