"""Divides the labels between two separators into tasks by the cheapest reading."""

from collections.abc import Sequence

from datagen.replies.marks import FIELDS, HEADERS, OUTPUT, SEPARATOR, Mark

Stretch = tuple[int, int, list[Mark]]
"""Start and end of a piece of text between two separators, and its labels."""


def stretches_of(text: str, marks: Sequence[Mark]) -> list[Stretch]:
    """Return each piece of text between two separators, blank ones left out.

    A separator between a header and its instruction parts nothing.
    """
    stretches: list[Stretch] = []
    start, labels = 0, list[Mark]()
    for mark in [*marks, Mark(SEPARATOR, len(text), len(text))]:
        if mark.kind != SEPARATOR:
            labels.append(mark)
            continue
        if text[start : mark.start].strip():
            if stretches and labels and _goes_on(text, stretches[-1], start, labels):
                first, _, before = stretches.pop()
                stretches.append((first, mark.start, [*before, *labels]))
            else:
                stretches.append((start, mark.start, labels))
        start, labels = mark.end, []
    return stretches


def _goes_on(text: str, before: Stretch, start: int, labels: Sequence[Mark]) -> bool:
    """Say whether a stretch holds a header alone and the next begins with the instruction or input to it."""
    return (
        bool(before[2])
        and {mark.kind for mark in before[2]} <= HEADERS
        and labels[0].kind in ("instruction", "input")
        and labels[0].number is None
        and not text[start : labels[0].start].strip()
        and not {mark.kind for mark in labels} & HEADERS
    )


def divide(marks: list[Mark], cut: bool, given: set[str]) -> list[list[Mark]]:
    """Divide the labels of a stretch into tasks by the cheapest reading (dynamic programme over the cuts).

    ``given`` names fields of the first task that stood before its first label.
    """
    # Where the first task begins with its header, one that begins elsewhere is rather lines of an input.
    headed = bool(given) or marks[0].kind in ("type", "topic")
    best: list[tuple[float, int]] = [(0.0, 0)]
    for stop in range(1, len(marks) + 1):
        unfinished = cut and stop == len(marks)
        best.append(
            min(
                (
                    best[start][0]
                    + _cost(marks[start:stop], set() if start else given, unfinished)
                    + (6 if start and headed and _is_fragment(marks[start:stop]) else 0),
                    start,
                )
                for start in range(max(0, stop - 2 * len(FIELDS) - 2), stop)
            )
        )
    groups: list[list[Mark]] = []
    stop = len(marks)
    while stop:
        start = best[stop][1]
        groups.append(_without_absorbed(marks[start:stop], set() if start else given))
        stop = start
    return groups[::-1]


def _cost(group: Sequence[Mark], given: set[str], unfinished: bool) -> float:
    """Price reading these labels as one task; the weights order the readings and mean nothing by themselves."""
    cost, absorbed, highest = 0.0, 0, -1
    seen = set(given)
    order = (*FIELDS, OUTPUT)
    for place, mark in enumerate(group):
        if mark.kind == OUTPUT:
            continue
        if mark.kind in seen:
            absorbed += 1
            # A complete header stands before it, so it is rather a line of the input.
            in_input = "input" in seen and seen >= HEADERS and mark.number is None and mark.kind != "type"
            cost += 5 if absorbed == 1 else 4 if in_input else 9
            if mark.number is not None and not mark.listed:
                cost += 6 if mark.inline else 20
            if mark.kind == "instruction" and not ("input" in seen and len(seen & HEADERS) >= 3):
                cost += 50
            continue
        if place and mark.number is not None:
            # Fields numbered as a list, "2. Topic:", are one task; any other number begins a new one.
            goes_on = mark.number in (
                order.index(mark.kind) + 1,
                group[0].number,
            )  # or "Task 4 type:", "Task 4 topic:"
            cost += 0.5 if goes_on else 14
        rank = order.index(mark.kind)
        cost += 0.3 * (rank < highest)
        highest = max(highest, rank)
        seen.add(mark.kind)
    cost += len(HEADERS - seen)
    if "input" not in seen:
        cost += 0.2 if unfinished else 1.5
    if "instruction" not in seen:
        cost += 1 if unfinished else 8
    return cost


def _is_fragment(group: Sequence[Mark]) -> bool:
    """Say whether labels are rather lines of an input, "Type: tablet" and "Instructions: one a day", than a task."""
    first = group[0]
    headers = {mark.kind for mark in group} & HEADERS
    return first.number is None and (first.kind not in ("type", "topic") or len(headers) < 2)


def _without_absorbed(group: Sequence[Mark], given: set[str]) -> list[Mark]:
    """Return the first label of each kind, and every "Output:"; other repeats are text."""
    seen = set(given)
    kept: list[Mark] = []
    for mark in group:
        if mark.kind not in seen:
            kept.append(mark)
            seen |= {mark.kind} - {OUTPUT}
    return kept
