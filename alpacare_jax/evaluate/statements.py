"""What the sentences of a judge's reply, written in signs, state.

A sentence is cut into clauses. A clause states a verdict in one of four forms: a label behind words that only lead in
("my final verdict: B"), an answer and a relation ("A is much better"), a name and an answer ("the winner is A"), and
the judge's choosing ("I prefer A"). What a sentence asks, supposes, denies or reports is no statement of the judge's;
what it concedes ("although A is better ...") is one of a part. The words are in ``verdict_patterns.yaml``.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from alpacare_jax.evaluate.verdict_patterns import pattern

Choice = Literal["first", "second", "tie", "invalid"]


class Statement(NamedTuple):
    """A choice and its weight: 3 a verdict called so, 2 a plain statement, 1 one of a part."""

    choice: Choice
    weight: int


_MOST_LEADS = 16
_LONGEST = 2000  # characters; what is longer is no sentence


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
    return _labelled(hit) if hit and hit["label"] and pattern("reason").fullmatch(hit["tail"]) else None


def _led_to(text: str) -> Iterator[re.Match[str]]:
    """Match a label behind its lead-in, the longest lead-in first; each word of it is read once."""
    ends = [re.match(r"\W*", text).end()]  # type: ignore[union-attr]  # it always matches
    while len(ends) <= _MOST_LEADS and (hit := pattern("lead").match(text, ends[-1])):
        ends.append(hit.end())
    return filter(None, (pattern("label").match(text, end) for end in reversed(ends)))


def _labelled(hit: re.Match[str]) -> Statement:
    led = re.search(r"\w", hit.string[: hit.start()])
    return Statement(_choice(hit["label"] or "T"), 3 if led or hit["degree"].strip(", ") else 2)


def said(clause: str) -> Statement | None:
    """Read what a clause states; None where it states nothing, or denies or reports what it says.

    Example:
        >>> said("A is clearly better than B"), said("the winner is B")
        (Statement(choice='first', weight=2), Statement(choice='second', weight=3))
        >>> said("A is not better"), said("A claims that A is better")
        (None, None)
    """
    if hit := pattern("order").fullmatch(clause):
        return Statement(
            "tie" if hit["mark"][0] in "=≈~" else _choice(hit["label"], turned=hit["mark"][0] in "<≺≪"), 3
        )
    relations = filter(None, map(_related, pattern("relation").finditer(clause)))
    if found := next(relations, None):
        return found
    for form, weight in (("named", 3), ("chooses", 2)):
        for hit in pattern(form).finditer(clause):
            if not _foreign(hit) and (form == "named" or pattern("the judge").search(clause[: hit.start()])):
                return Statement(_choice(hit["label"]), weight)
    if (hit := pattern("ties").search(clause)) and not _foreign(hit):
        return Statement("tie", 2 if pattern("wholly").match((hit["tail"] or "").strip()) else 1)
    return None


def _related(hit: re.Match[str]) -> Statement | None:
    way, tail, good = hit["way"], hit["tail"], hit["good"]
    if pattern("denied between").search(way) or _foreign(hit):
        return None
    if not hit["wins"] and pattern("no more than").match(tail):
        return None
    linked = pattern("link").fullmatch(way) is not None
    if not (linked or hit["more"] or good in ("better", "superior")):
        return None
    part = not linked or hit["more"] or (hit["bad"] or "").startswith("less")
    if hit["wins"]:
        tail = re.sub(r"^ [AB]\b|^(?! (?:in|at|on)\b).*", "", tail)
    part = part or not pattern("whole").match(tail)
    return Statement(_choice(hit["label"], turned=hit["bad"] is not None), 1 if part else 2)


def _foreign(hit: re.Match[str]) -> bool:
    """Tell whether the clause denies or reports what the form says."""
    before = hit.string[: hit.start()]
    says = pattern("saying").search(before)
    return bool(
        pattern("denied before").search(before)
        or (says and not re.search(r"\b(?:i|we)\b", before[: says.start()]))
    )


def _choice(sign: str, *, turned: bool = False) -> Choice:
    if sign not in ("A", "B"):
        return "tie"
    return "first" if (sign == "A") != turned else "second"


def sentences(line: str) -> Iterator[str]:
    """Cut a line in signs into sentences; each keeps the mark that ends it.

    Example:
        >>> list(sentences("A is safe, e.g. in pregnancy. B is better!"))
        ['A is safe, e.g. in pregnancy.', 'B is better!']
    """
    start = 0
    for hit in pattern("sentence").finditer(line):
        yield line[start : hit.end()].strip()
        start = hit.end()
    if line[start:].strip():
        yield line[start:].strip()


def sole_label(sentence: str) -> str | None:
    """Name the answer, A or B, that a sentence is about; None where it names both or none."""
    labels = set(re.findall(r"\b[AB]\b", sentence))
    return labels.pop() if len(labels) == 1 else None


def concludes(sentence: str) -> bool:
    """Tell whether a sentence sums up what stands before it ("Therefore, ...") or takes it back."""
    return pattern("final").search(sentence) is not None or contrasts(sentence)


def contrasts(sentence: str) -> bool:
    """Tell whether a sentence takes back what stands before it ("However, ...")."""
    return pattern("contrast").match(sentence) is not None


def stated(sentence: str, before: Sequence[str] = ()) -> Statement | None:
    """Read what a sentence states; its choice is "invalid" where it contradicts itself.

    Args:
        sentence: One sentence of :func:`sentences`.
        before: The sentences before it, which "it" may mean, and "yes" and "B is" go on from.

    Example:
        >>> stated("although A is longer, B is better.")
        Statement(choice='second', weight=2)
        >>> stated("therefore, A is better because it is safer, but B is shorter.")
        Statement(choice='first', weight=3)
        >>> stated("A is not better than B."), stated("if brevity mattered, A would be better.")
        (None, None)
        >>> stated("A is better on tone, but B is better on facts.")
        Statement(choice='invalid', weight=1)
        >>> stated("yes.", ["is B better than A?"]), stated("A is not better; B is.")
        (Statement(choice='second', weight=2), Statement(choice='second', weight=2))
    """
    if sentence.endswith("?") or len(sentence) > _LONGEST:
        return None
    last = before[-1] if before else ""
    if last.endswith("?") and re.match(r"yes\b", sentence):
        sentence = last.rstrip("?")
    text = pattern("pronoun").sub(
        lambda hit: sole_label(sentence[: hit.start()]) or sole_label(last) or hit[0], sentence
    )
    text = pattern("filler").sub("", pattern("naming").sub(r"\1 is ", text)).strip(" ,.!")
    alone = label_alone(text)
    found = [alone] if alone else _said_in_clauses(text, before, finished=sentence[-1] in ".!")
    if not found:
        return None
    weight, choices = heaviest(found)
    if pattern("headed").match(text):  # "Tone: A is better" speaks of the tone alone
        weight = 1
    elif pattern("final").search(sentence):
        weight = min(3, weight + 1)
    return Statement(choices.pop() if len(choices) == 1 else "invalid", weight)


def heaviest(found: list[Statement]) -> tuple[int, set[Choice]]:
    """Return the greatest weight among statements, and the choices of that weight.

    Being equal in a part ("equally accurate") is no rival of being better in another.
    """
    weight = max(one.weight for one in found)
    choices = {one.choice for one in found if one.weight == weight}
    return weight, choices - {"tie"} if weight == 1 and len(choices) > 1 else choices


def _said_in_clauses(text: str, before: Sequence[str], *, finished: bool) -> list[Statement]:
    found: list[Statement] = []
    supposed: int | None = None
    cuts = [(0, 0), *(hit.span() for hit in pattern("clause").finditer(text)), (len(text), len(text))]
    for (_, start), (end, _) in itertools.pairwise(cuts):
        clause = text[start:end].strip(" ,.")
        if pattern("supposition").match(clause):
            # "X would be better if ..." and "if ..., X would be better" alike state nothing.
            supposed = start
            found = found if clause.startswith(("if only", "if any", "as ")) else []
        if supposed is not None and not pattern("turn").search(text, supposed, start + 10):
            continue
        if (hit := pattern("goes on").fullmatch(clause)) and finished:
            # "A is not better; B is", "A is better on tone, B on facts"
            relations = pattern("any relation").findall(" ".join([*before, text[:start]]))
            clause = f"{hit['label']} is {relations[-1]}{hit['part'] or ''}" if relations else clause
        one = said(clause) or (label_alone(clause) if re.match("so|thus|hence|therefore", clause) else None)
        if one:
            found.append(Statement(one.choice, 1) if pattern("concession").match(clause) else one)
    return found
