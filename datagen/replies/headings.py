"""Finds the lines that number or head the next task, in any language and markup.

Such a line stands directly before the first label of a task and belongs to neither task. What tells it from the last
line of an input is never its words: it is marked as a heading (``#### 5``), or lines of the same form stand before the
other tasks of the reply with numbers that rise (``Aufgabe 4``, ``Aufgabe 5``), or its number goes on with the list.
"""

import collections
import dataclasses
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence

from datagen.phrases import any_of, compiled, search
from datagen.records import NO_INPUT

_NUMBER_WORDS = any_of("number words").split("|")
_LONGEST_HEADING = 120
_HEADING_LINES = 4
_BULLETS = "-*+•·>([\"'<≥≤~±#"
_DIGITS = "一二三四五六七八九"
_CHINESE = re.compile(
    rf"^([^\W\d]{{0,4}}?)([{_DIGITS}]?十?[{_DIGITS}]|[{_DIGITS}]?十)(?=$|[题題项項个個]|\W)"
)


@dataclasses.dataclass(frozen=True)
class Heading:
    """The form of a line that may head a task.

    ``form`` is what lines of one kind share: their decoration and the words before the number. ``numbers`` are the
    readings of the number ("V" is 5 and 22), ``title`` the words after it.
    """

    text: str
    form: str
    numbers: tuple[int, ...]
    title: str
    named: bool
    hashes: bool
    wrapped: bool

    @property
    def marked(self) -> bool:
        """Whether the line is more than words and a number."""
        return self.hashes or self.wrapped


def read_heading(line: str) -> Heading | None:
    """Return the form of a short line; None for one that is too long, without words or the mark for no input.

    Example:
        >>> read_heading("**Aufgabe 5: Gicht**").title, read_heading("5/12").numbers
        ('Gicht', (5,))
        >>> read_heading("BP 120/80").numbers, read_heading("-----")
        ((), None)
    """
    line = line.strip()
    if not line or len(line) > _LONGEST_HEADING or line == NO_INPUT:
        return None
    # Vowel signs of Indian scripts are no letters to a pattern.
    line = "".join(char for char in line if not unicodedata.category(char).startswith("M"))
    places = [place for place, char in enumerate(line) if char.isalnum()]
    if not places:
        return None
    before, core, after = line[: places[0]], line[places[0] : places[-1] + 1], line[places[-1] + 1 :]
    before, after = before.replace(" ", ""), after.replace(" ", "")
    hashes = "#" in before and before[0] != "-"
    wrapped = len(before) > (before[:1] in "([") and bool(after) and _mirrored(before[-1]) in after
    wrapped = wrapped or (before[:1] == "[" and after[-1:] == "]")
    core = _CHINESE.sub(lambda match: match[1] + str(_chinese(match[2])), core)
    counted = compiled("counted heading").fullmatch(core)
    share = search("out of", core)
    if share and int(share[1]) <= int(share[2]):
        title = "" if counted and "(" not in core else core[: share.start()].strip(" (")
        return Heading(line, f"{before} of {share[2]}{after}", (int(share[1]),), title, True, hashes, wrapped)
    if counted is None or not _is_counter(counted, hashes):
        return Heading(line, f"{before} {after}", (), core, True, hashes, wrapped)
    name = " ".join(re.findall(r"[^\W\d_]+", counted["name"])).lower()
    rest = counted["rest"]
    kind = "n" if counted["number"] else "w" if counted["word"] else "l"
    form = f"{before} {name} {kind} {bool(counted['total'])} {rest.strip()[:1]}{after if not rest else ''}"
    return Heading(line, form, _numbers(counted), rest.strip(" \t.:)-–—|,*_#]/"), bool(name), hashes, wrapped)


def _chinese(number: str) -> int:
    tens, ten, ones = number.rpartition("十")
    return 10 * (_DIGITS.find(tens) + 1 or 1) * bool(ten) + (_DIGITS.find(ones) + 1 if ones else 0)


def _mirrored(char: str) -> str:
    return {"(": ")", "[": "]", "{": "}", "<": ">", "【": "】", "«": "»", "「": "」", "《": "》"}.get(
        char, char
    )


def _is_counter(counted: re.Match[str], hashes: bool) -> bool:
    rest = counted["rest"]
    if counted["total"] and int(counted["total"]) < int(counted["number"]):
        return False
    if counted["letters"] and (rest or counted["name"][-1:].isalpha()):
        # "A. Oral resin" is a choice, "V. Gout" may be a heading.
        numeral = hashes or set(counted["letters"]) <= set("IVX")
        return numeral and bool(re.match(r"[ ]?[.:)]", rest))
    return not rest or hashes or bool(re.match(r"[ ]?[^\w\s%°+/<>=]", rest))


def _numbers(counted: re.Match[str]) -> tuple[int, ...]:
    if counted["number"]:
        return (int(counted["number"]),)
    if counted["word"]:
        return (_NUMBER_WORDS.index(counted["word"].lower()) + 1,)
    letters = counted["letters"].upper()
    readings = (ord(letters) - ord("A") + 1,) if len(letters) == 1 else ()
    return (*readings, roman(letters)) if set(letters) <= set("IVX") else readings


def roman(letters: str) -> int:
    """Return the value of a Roman number below 40.

    Example:
        >>> roman("XIV")
        14
    """
    values = [{"I": 1, "V": 5, "X": 10}[letter] for letter in letters.upper()]
    return sum(-a if a < b else a for a, b in itertools.pairwise([*values, 0]))


def is_bare_number(line: str) -> bool:
    """Say whether a line numbers a task and says nothing else, or has no words at all."""
    heading = read_heading(line)
    if heading is None:
        return not any(map(str.isalnum, line))
    return bool(heading.numbers) and not heading.title


@dataclasses.dataclass(frozen=True)
class Gap:
    """The text between the last label of a task and the first of the next: ``lines`` with their starts.

    The lines go upwards from the label; ``place`` counts the tasks. ``first`` is the text beside the last label,
    ``header`` the short values of the next task, which its heading may repeat.
    """

    place: int
    lines: tuple[tuple[int, str], ...]
    first: str = ""
    last: bool = False
    header: tuple[str, ...] = ()


def find_headings(gaps: Sequence[Gap], first_number: int) -> Iterator[int]:
    """Yield where the lines that head a task begin, for each gap that has any."""
    evidence = _Evidence(gaps, first_number)
    for gap in gaps:
        start = None
        pending = None
        words = 0
        for number, (at, line) in enumerate(gap.lines):
            heading = read_heading(line)
            if heading is None:
                if len(line) > _LONGEST_HEADING or line == NO_INPUT:
                    break
                if compiled("line of symbols").fullmatch(line) and evidence.recurs(line):
                    start = at
                elif compiled("heading rule").fullmatch(line):
                    pending = at
                continue
            words += 1
            above = gap.lines[number + 1][1] if number + 1 < len(gap.lines) else gap.first
            alone = gap.place > 0 and not gap.first and not any(text for _, text in gap.lines[number + 1 :])
            closes = (start is not None or gap.last) and not alone and evidence.closes(gap, heading)
            if words > _HEADING_LINES or not (closes or evidence.heads(gap, heading, above, alone)):
                break
            start, pending = at, None
        if pending is not None and start is not None:
            start = pending
        if start is not None:
            yield start


class _Evidence:
    """What the gaps of a reply say about the forms of its headings."""

    def __init__(self, gaps: Sequence[Gap], first_number: int) -> None:
        self.first_number = first_number
        self.inner = [gap for gap in gaps if gap.place and not gap.last]
        self.led = any(gap.lines for gap in gaps if gap.place == 0)
        self.found: dict[str, dict[int, Heading]] = collections.defaultdict(dict)
        self.words: dict[str, set[int]] = collections.defaultdict(set)
        self.signs = collections.Counter(line for gap in gaps for line in {text for _, text in gap.lines})
        for gap in gaps:
            for _, line in [item for item in gap.lines if item[1].strip()][:_HEADING_LINES]:
                if heading := read_heading(line):
                    self.found[heading.form].setdefault(gap.place, heading)
                    for word in _few_words(heading) if not gap.last else ():
                        self.words[word].add(gap.place)

    def recurs(self, line: str) -> bool:
        """Say whether the same line stands before every task."""
        return self.signs[line] >= max(2, len(self.inner))

    def heads(self, gap: Gap, heading: Heading, above: str, alone: bool) -> bool:
        if heading.hashes and not gap.last and (heading.numbers or self._with_others(gap, heading, above)):
            return True
        if _is_title(heading.text, gap.header):
            return True
        if (
            gap.last
            and (heading.marked or above == "")
            and compiled("end of the tasks").fullmatch(heading.text)
        ):
            return True
        if heading.numbers and not _goes_on_a_list(heading, above):
            if self._rises(gap.place, heading) and (heading.marked or self._covers(heading, above)):
                return True
            if alone and not heading.marked:
                return False
            if not heading.title and self._goes_on(gap.place, heading, apart=above == ""):
                return True
        if gap.last or alone:
            return False
        return any(
            len(places := self.words[word]) > 1
            and len(places) >= len(self.inner) + (self.led and word != heading.text)
            and (heading.marked or 0 in places or (word == heading.text and above == ""))
            for word in _few_words(heading)
        )

    def closes(self, gap: Gap, heading: Heading) -> bool:
        """Say whether the line ends a task, as lines of its form do elsewhere: "<<<END>>>", "✅ Task 4 complete"."""
        if heading.wrapped:
            return len(self.found[heading.form]) > 1
        if heading.numbers:
            return not heading.title and self._rises(gap.place, heading)
        signed = heading.text[0] not in _BULLETS and not heading.text[0].isalnum()
        return signed and any(len(self.words[word]) >= len(self.inner) > 0 for word in _few_words(heading))

    def _with_others(self, gap: Gap, heading: Heading, above: str) -> bool:
        """Say whether headings of the form stand before other tasks, too, or this one apart before the only task."""
        return len(self.found[heading.form]) > 1 or not gap.place or (above == "" and len(self.inner) == 1)

    def _rises(self, place: int, heading: Heading) -> bool:
        for steps in (-1, 1, -2, 2):
            other = self.found[heading.form].get(place + steps)
            for a, b in itertools.product(heading.numbers, other.numbers if other else ()):
                if (b - a) * steps > 0 and abs(b - a) <= abs(steps):
                    return True
        return False

    def _covers(self, heading: Heading, above: str) -> bool:
        """Say whether the form stands before most tasks; one with a title, as items of a list have, before all."""
        places = self.found[heading.form]
        missing = sum(gap.place not in places for gap in self.inner)
        if heading.title:
            return not missing and above == "" and (0 in places or not self.led)
        return 2 * missing <= len(self.inner)

    def _goes_on(self, place: int, heading: Heading, *, apart: bool) -> bool:
        """Say whether the number is the one that the prompt's list comes to; "Day 5" may be a line of an input."""
        if self.first_number + place not in heading.numbers:
            return False
        return heading.marked or (len(self.inner) <= 1 and (apart or not heading.named))


def _is_title(line: str, header: Sequence[str]) -> bool:
    """Say whether a line repeats values of the task below it, with few words beside: "5.0 Gout", "Gout (Nurse)"."""
    rest = line.casefold()
    for value in header:
        rest = rest.replace(value, " ")
    return rest != line.casefold() and len(re.findall(r"[^\W\d]{2,}", rest)) <= 2


def _goes_on_a_list(heading: Heading, above: str) -> bool:
    before = read_heading(above) if heading.title and above else None
    return before is not None and before.form == heading.form and bool(before.title)


def _few_words(heading: Heading) -> list[str]:
    """Return what short headings may share: a word ("Fifth task"), or their decoration if they are marked."""
    if heading.numbers:
        return [heading.form] if not heading.title else []
    words = re.findall(r"[^\W\d_]{2,}", heading.title.lower())
    plain = heading.marked or not re.search(r"^\w[.)]|[.!?。！？।]$", heading.text)
    shared = words if len(words) <= 3 and plain else []
    whole = [heading.form] if heading.wrapped else [heading.text] if heading.text[-1] == ":" else []
    return [*shared, *whole]
