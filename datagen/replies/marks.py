"""Finds labels (``Type:``) and separators (``###``) in a teacher's reply, however they are decorated."""

import bisect
import collections
import dataclasses
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence

from rapidfuzz.distance import OSA

from datagen.phrases import compiled
from datagen.records import NO_INPUT
from datagen.replies.headings import Gap, find_headings, roman

FIELDS = ("type", "topic", "view", "difficulty", "instruction", "input")
HEADERS = frozenset(FIELDS[:4])
OUTPUT = "output"
SEPARATOR = "separator"
_ORDER = (*FIELDS, OUTPUT)


@dataclasses.dataclass(frozen=True)
class Mark:
    """A label or a separator at ``start:end`` of the reply.

    ``number`` is the item's number where one stands; ``inline`` says that other text precedes it in its line,
    ``listed`` that its number only goes on with a list ("1. Site: colon", "2. Type: ...").
    """

    kind: str
    start: int
    end: int
    number: int | None = None
    inline: bool = False
    listed: bool = False


# One character for one, so that places stay: wide forms, circled numbers, letters of mathematics, invisible and
# emoji-forming characters.
_FOLD = str.maketrans(
    dict(zip("：﹕︰．、）（＃＝【】–—", ":::..)(#=[]--", strict=True))
    | {chr(0x2460 + n): str((n + 1) % 10) for n in range(20)}
    | {chr(n): unicodedata.normalize("NFKC", chr(n)) for n in range(0x1D400, 0x1D800)}
    | dict.fromkeys(map(chr, range(0x2000, 0x200B)), " ")
    | dict.fromkeys("\xa0\u202f\u205f\u3000\u200b\u200c\u200d\u2060\ufeff\ufe0f\u20e3", " ")
)


def name_of_field(word: str) -> str | None:
    """Return the field that a word names, or None.

    Example:
        >>> name_of_field("Point of view"), name_of_field("taskType"), name_of_field("tube")
        ('view', 'type', None)
    """
    match = compiled("any field").fullmatch(
        compiled("joined words").sub(" ", compiled("in brackets").sub("", word.strip()))
    )
    return _kind(match) if match else None


def find_marks(text: str, *, first_number: int = 1, cut: bool = False) -> list[Mark]:
    """Return labels and separators in the order of the text, none overlapping another."""
    folded = text.translate(_FOLD)
    marks = [*_labels(folded)]
    marks += _unasked(folded, _in_order(folded, marks))
    labels = _in_order(folded, marks)
    marks += _separators(folded, marks)
    marks += (Mark(SEPARATOR, at, at) for at in find_headings(list(_gaps(folded, labels, cut)), first_number))
    return _in_order(folded, marks)


def _in_order(text: str, marks: Sequence[Mark]) -> list[Mark]:
    return _without_overlaps(text, sorted(marks, key=lambda mark: (mark.start, -mark.end)))


def _first_labels(labels: Sequence[Mark]) -> list[int]:
    """Return the places of the labels that begin a task: there the order of the fields begins anew.

    A line of an input ("Topic: none") begins otherwise than the first task, and no instruction follows it.
    """
    starts = [
        place
        for place, label in enumerate(labels)
        if not label.inline
        and (not place or _ORDER.index(label.kind) <= _ORDER.index(labels[place - 1].kind))
    ]
    return [
        start
        for start, stop in itertools.pairwise([*starts, len(labels)])
        if labels[start].kind == labels[0].kind or any(x.kind == "instruction" for x in labels[start:stop])
    ]


def _gaps(text: str, labels: Sequence[Mark], cut: bool) -> Iterator[Gap]:
    """Yield the lines above each label that begins a task, and those below the last label."""
    labels = [label for label in labels if label.kind != SEPARATOR]
    starts = _first_labels(labels)
    for place, at in enumerate(starts):
        gap = _gap(text, labels[at - 1].end if at else 0, labels[at].start, place)
        yield dataclasses.replace(gap, header=_header(text, labels[at : at + len(HEADERS) + 1]))
    if labels and not cut:
        yield dataclasses.replace(_gap(text, labels[-1].end, len(text), len(starts)), last=True)


def _header(text: str, labels: Sequence[Mark]) -> tuple[str, ...]:
    """Return the values of type and topic that stand on the lines of these labels, the longest first."""
    values = (
        text[label.end : min(after.start, label.end + 60)].strip(" \t*_|;,\n").casefold()
        for label, after in itertools.pairwise(labels)
        if label.kind in ("type", "topic")
    )
    return tuple(
        sorted((value for value in values if len(value) > 3 and "\n" not in value), key=len, reverse=True)
    )


def _gap(text: str, start: int, end: int, place: int) -> Gap:
    """Read the last lines of a value from below; without the line of its label."""
    lines: list[tuple[int, str]] = []
    stop = end
    for _ in range(16):
        line = _line_start(text, stop - 1) if stop else 0
        if line < start or stop <= start:
            break
        lines.append((line, text[line:stop].strip()))
        stop = line
    return Gap(place, tuple(lines), text[start:stop].strip())


def _labels(text: str) -> Iterator[Mark]:
    for form in ("line label", "header within a line"):
        yield from map(_mark, compiled(form).finditer(text))
    for match in compiled("label within a line").finditer(text):
        if match["fence"]:
            yield Mark(SEPARATOR, *match.span("fence"))
        yield dataclasses.replace(_mark(match), start=max(match.start(), match.end("fence")))
    # Such forms occur in plain text too; they are labels where a reply writes most of its labels so.
    forms = collections.defaultdict(list)
    for match in compiled("form label").finditer(text):
        forms[bool(match["letter"]), frozenset(match["after"]) - set(" *_")].append(match)
    for (_, behind), found in forms.items():
        kinds = {_kind(match) for match in found}
        if "instruction" in kinds and len(kinds) >= (3 if behind else len(FIELDS)):
            yield from map(_mark, found)
    yield from _labels_by_place(text)
    for match in compiled("long label").finditer(text):
        word = match.group("word").lower()
        for kind in ("difficulty", "instruction"):
            if word != kind and OSA.distance(word, kind, score_cutoff=1) <= 1:
                yield _mark(match, kind)


def _labels_by_place(text: str) -> Iterator[Mark]:
    """Read labels in a language that is not known: six of them that come again in each task, in the prompt's order."""
    found = list(compiled("label of any name").finditer(text))
    words = [" ".join(match["word"].lower().split()) for match in found]
    runs = collections.Counter(zip(*(words[place:] for place in range(len(FIELDS))), strict=False))
    run, count = next(iter(runs.most_common(1)), ((), 0))
    kinds = dict(zip(run, FIELDS, strict=False))
    if count < 2 or len(kinds) < len(FIELDS):
        return
    known = {word: name_of_field(word) for word in run}
    if all(known[word] in (None, kinds[word]) for word in run):
        for word, match in zip(words, found, strict=True):
            if word in kinds and known[word] is None:
                yield _mark(match, kinds[word])


def _unasked(text: str, labels: Sequence[Mark]) -> Iterator[Mark]:
    """Read labels of fields that nobody asked for: a word behind the input of every task, even where it is empty."""
    labels = [label for label in labels if label.kind != SEPARATOR]
    starts = _first_labels(labels)[1:]
    ends = [*(labels[start].start for start in starts), len(text)]
    tails = [(labels[n - 1].end, end) for n, end in zip([*starts, len(labels)], ends, strict=True) if labels]
    markup = {_markup(text[label.start : label.end]) for label in labels if label.kind == "input"}
    found = collections.defaultdict(list)
    for match in compiled("label of any name").finditer(text):
        place = bisect.bisect(tails, (match.start("word"), 0)) - 1
        if place >= 0 and match.start() < tails[place][1]:
            found[match["word"].lower()].append((place, match))
    for word, matches in found.items():
        if len(tails) > 1 and [place for place, _ in matches] == list(range(len(tails))):
            empty = any(NO_INPUT in text[tails[place][0] : match.start()] for place, match in matches)
            marked = {_markup(match.group()) for _, match in matches} == markup != {""}
            if empty or marked or compiled("unasked fields").fullmatch(word):
                yield from (Mark(OUTPUT, match.start(), match.end()) for _, match in matches)


def _markup(label: str) -> str:
    return "".join(char for char in label if char in "*_#`")


def _mark(match: re.Match[str], kind: str = "") -> Mark:
    return Mark(kind or _kind(match), match.start(), match.end(), _number(match))


def _kind(match: re.Match[str]) -> str:
    groups = match.groupdict()
    return next(kind for kind in _ORDER if groups.get(kind))


def _number(match: re.Match[str]) -> int | None:
    groups = match.groupdict()
    if letters := groups.get("roman"):
        return roman(letters)
    return int(groups["number"]) if groups["number"] else None


def _separators(text: str, labels: Sequence[Mark]) -> Iterator[Mark]:
    starts = {label.start for label in labels}

    def label_follows(at: int) -> bool:
        """Say whether the next words are a label."""
        blank = compiled("blank space").match(text, at)
        after = blank.end() if blank else at
        return after in starts or _line_start(text, after) in starts

    for match in compiled("hashes").finditer(text):
        yield Mark(SEPARATOR, match.start(), match.end())
    forms = set()
    last = max(starts, default=0)
    for match in itertools.chain(
        compiled("rule").finditer(text), compiled("line of end marks").finditer(text)
    ):
        parts = label_follows(match.end())
        # Text below the last rule between tasks does not belong to the last task.
        if parts or not text[match.end() :].strip() or (match.start() > last and match.group() in forms):
            yield Mark(SEPARATOR, match.start(), match.end())
        if parts:
            forms.add(match.group())
    for match in compiled("turn of a chat").finditer(text):
        # The turns of a chat that a base model goes on with: "User: Write task 5." and "Assistant: 5. Type: ..."
        if label_follows(match.end()) or match.end() in starts:
            yield Mark(SEPARATOR, match.start(), match.start())
            yield Mark(SEPARATOR, match.start("said"), match.end("said"))


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _without_overlaps(text: str, marks: Sequence[Mark]) -> list[Mark]:
    """Drop marks that lie in another one, inline labels that go on no line of labels, and a patient's "Output:"."""
    kept: list[Mark] = []
    for mark in marks:
        if kept and mark.start < kept[-1].end:
            continue
        before = text[kept[-1].end : mark.start] if kept else text[: mark.start]
        line = _line_start(text, mark.start)
        inline = mark.kind != SEPARATOR and text[line : mark.start].strip(" \t#") != ""
        if inline and mark.number is None and not (kept and _follows_on_line(text, kept[-1], mark, line)):
            continue
        volume = mark.kind == OUTPUT and (
            compiled("volume of a fluid").match(text, mark.end) or "intake" in before.lower()
        )
        if volume or (mark.kind == OUTPUT and kept and kept[-1].kind == OUTPUT):
            continue
        listed = mark.number is not None and re.search(
            rf"^\s*{mark.number - 1}[ \t]*[.)].*\s*\Z", before, re.M
        )
        kept.append(dataclasses.replace(mark, inline=inline, listed=bool(listed)))
    return kept


def _follows_on_line(text: str, before: Mark, mark: Mark, line: int) -> bool:
    """Say whether a label stands in the same line after a label that comes before it in the field order."""
    if before.end <= line or before.kind == SEPARATOR:
        return False
    if text[mark.start].islower() and not {before.kind, mark.kind} <= HEADERS:
        return False
    return _ORDER.index(before.kind) < _ORDER.index(mark.kind)


def holds_task(value: str) -> bool:
    """Say whether a value has lines that are labels of another task; "Type:" and "Instructions:" may be a drug's."""
    found = list(compiled("line label").finditer(value.translate(_FOLD)))
    kinds = {_kind(match) for match in found}
    numbered = any(_kind(match) == "type" and _number(match) for match in found)
    return "instruction" in kinds and (len(kinds) > 2 or "input" in kinds or numbered)
