"""Reading a judge's reply: which of the two answers it chose, and what that means for the model.

The rules, in order:

1. Thoughts are removed. What is left is brought into plain lines: control tokens, invisible characters, Markdown
   and HTML go, objects and tags become ``name: value`` lines, and what the reply only quotes is masked
   (:mod:`alpacare_jax.evaluate.judge_text`).
2. A last line that is the form asked for, alone or behind a lead-in ("Final verdict: Output (b)"), decides, whatever
   stands before it. Lines of that kind in a row that disagree are a list and make the reply invalid.
3. Otherwise each sentence states the first, the second, a tie or nothing
   (:mod:`alpacare_jax.evaluate.statements`). The weightiest statement decides, and of several the last: a verdict
   called so, in the first or last sentence, or drawn as a conclusion weighs more than a plain "Output (b) is better",
   and this more than a statement about a part ("better in tone"). Only a conclusion, the last sentence or one that
   takes back ("However, ...") may differ from a statement of the same weight before it. Where others differ, or one
   sentence, the parts, or a statement behind the verdict contradict it, the reply is invalid.
4. A reply that states nothing is invalid. Nothing is guessed.

| reply | reading |
|---|---|
| `Output (b)</s>` | second |
| `**Final verdict: [[A]]**` | first |
| `{"winner": "b", "reason": "Output (a) omits the dose."}` | second |
| `Output (b), because it names the dose.` | second |
| `Output (a) ends with "[[A]]", an attempt to sway the verdict. Output (b) is better.` | second |
| `Although Output (a) is longer, Output (b) is slightly better.` | second |
| `Output (a) is better because it names the dose, but Output (b) is shorter.` | first |
| `Neither output is better.` | tie |
| `Both outputs are equally good.` | tie |
| `Both outputs are good.` | invalid |
| `Output (a) is not better than Output (b).` | invalid |
| `If brevity mattered, Output (a) would be better.` | invalid |
| `Output (a) is better on tone, but Output (b) is better on facts.` | invalid |
| `Output (a) is better. Output (b) is better.` | invalid |
| `<think>Output (a) is better` | invalid |
"""

import itertools
from typing import Literal

from alpacare_jax.evaluate.judge_text import own_lines
from alpacare_jax.evaluate.signs import signs
from alpacare_jax.evaluate.statements import (
    Choice,
    Statement,
    concludes,
    contrasts,
    heaviest,
    label_alone,
    label_first,
    sentences,
    stated,
)

Outcome = Literal["win", "tie", "loss", "invalid"]

MODEL_FIRST = "model_first"
REFERENCE_FIRST = "reference_first"
ORDERS = (MODEL_FIRST, REFERENCE_FIRST)


def parse_choice(raw: str) -> Choice:
    """Read which answer a judge's reply chose, by the rules at the head of this module.

    Args:
        raw: The judge's whole reply.

    Returns:
        "first" for Output (a) or [[A]], "second" for Output (b) or [[B]], "tie", or "invalid" where the reply
        states no verdict or contradicts itself.

    Example:
        >>> parse_choice("Output (a)"), parse_choice("Both are sound. [[C]]"), parse_choice("(a) or (b)?")
        ('first', 'tie', 'invalid')
        >>> parse_choice("At first sight [[A]], but it errs on the dose. Final verdict: [[B]]")
        'second'
    """
    lines = own_lines(raw)
    last = list(itertools.takewhile(bool, (label_alone(signs(line)) for line in reversed(lines))))
    if last:
        return _agreed({one.choice for one in last if one and last[0] and one.weight >= last[0].weight})
    return _decided(_statements([signs(line) for line in lines]))


def outcome(choice: Choice, order: str) -> Outcome:
    """Turn a choice between first and second answer into the model's outcome.

    Args:
        choice: What :func:`parse_choice` returned.
        order: "model_first" or "reference_first": whose answer stood first.

    Example:
        >>> outcome("first", "model_first"), outcome("first", "reference_first")
        ('win', 'loss')
    """
    if choice in ("tie", "invalid"):
        return choice  # type: ignore[return-value]
    return "win" if (choice == "first") == (order == MODEL_FIRST) else "loss"


def _statements(lines: list[str]) -> list[tuple[int, int, Statement]]:
    """List what is stated: the sentence's number, that of the first it must agree with, and its statement.

    The first and the last sentence weigh more.
    """
    alone = [label_alone(line) for line in lines]
    # Lines that name first one and then the other answer are headings.
    headings = len({one.choice for one in alone if one and one.weight < 3}) > 1
    parts = [
        (part, one)
        for line, one in zip(lines, alone, strict=True)
        for part in ([line] if one else sentences(line))
    ]
    found: list[tuple[int, int, Statement]] = []
    for number, (part, one) in enumerate(parts):
        edge = number in (0, len(parts) - 1)
        label = one or label_alone(part) or (label_first(part) if edge else None)
        said = label or stated(part, [before for before, _ in parts[max(0, number - 2) : number]])
        if (
            said is None
            or (one and one.weight < 3 and headings)
            or (not edge and said == Statement("tie", 1))
        ):
            continue
        # A conclusion may turn round what stands far before it; another statement, and one right behind, may not.
        closes = number == len(parts) - 1 or concludes(part)
        near = number if contrasts(part) else number - 1 if closes else 0
        found.append((number, near, Statement(said.choice, 3) if edge and said.weight == 2 else said))
    # A part alone is no verdict in the midst of a reply.
    return found if any(one.weight > 1 or number in (0, len(parts) - 1) for number, _, one in found) else []


def _decided(found: list[tuple[int, int, Statement]]) -> Choice:
    if not found:
        return "invalid"
    weight, choices = heaviest([one for _, _, one in found])
    if weight == 1:
        return _agreed(choices)
    strongest = [entry for entry in found if entry[2].weight == weight]
    number, near, last = strongest[-1]
    before = [one.choice for place, _, one in strongest if place >= near]
    # What is stated behind the verdict may explain it, not turn it round.
    behind = [one.choice for place, _, one in found if place > number and one.weight > 1]
    return _agreed({last.choice, *before, *behind})


def _agreed(choices: set[Choice]) -> Choice:
    return next(iter(choices)) if len(choices) == 1 else "invalid"
