import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpacare_jax.evaluate.verdicts import outcome, parse_choice

CLEAR = [
    ("Output (a)", "first"),
    ("Output (b)", "second"),
    ("Tie", "tie"),
    ("  output(A).  ", "first"),
    ("**Output (b)**", "second"),
    ('"Tie"', "tie"),
    ("(a)", "first"),
    ("B", "second"),
    ("Output A", "first"),
    ("Answer: Output (b)", "second"),
    ("My verdict is Output (a).", "first"),
    ("It is a tie.", "tie"),
    ("It's a tie", "tie"),
    ("Output (a)\n\nOutput (a) is more complete than Output (b), which omits the dose.", "first"),
    ("Output (b) omits the dose; Output (a) gives it.\n\nOutput (a)", "first"),
    ("Output (a) is longer.\nFinal verdict: Output (b)", "second"),
    ("Weighing it all, my final answer is Tie.", "tie"),
    ("I prefer Output (b).", "second"),
    ("Output (a) is clearly better than Output (b).", "first"),
    ("Overall, Output (b) is the better answer.", "second"),
    ("Output (a) is the correct answer.", "first"),
    ("Both are sound. [[C]]", "tie"),
    ("Final verdict: [[B]]", "second"),
    ("**Final verdict: [[A]]**", "first"),
    ("[[a]]", "first"),
    ("[[A]] it is, so: [[A]]", "first"),
    ("Assistant B is thorough.\n\n[[B]]", "second"),
    ("At first sight [[A]], yet it errs on the dose. Final verdict: [[B]]", "second"),
    ("Output (a)\n[[B]]", "second"),
]
UNCLEAR = [
    "",
    "I cannot judge medical texts.",
    "[[A]] or [[B]]",
    "Final verdict: [[A]]\nFinal verdict: [[B]]",
    "Output (a)\nOutput (b)",
    "Output (a)\n\nOn reflection:\n\nTie",
    "(a) or (b)?",
    "I do not prefer Output (a).",
    "Output (a) is not better than Output (b).",
    "Output (a) is better on tone, but Output (b) is better on facts.",
    "Output (a) is better. Output (b) is better.",
    "Tie the tourniquet above the wound.",
    "Both outputs recommend vitamin B and vitamin A.",
    "A tie between vessels was ligated in Output (a)",
    "Output (a) is correct.",
    "[[D]]",
    "[Output (a)] [Output (b)]",
]


@pytest.mark.parametrize(("raw", "choice"), CLEAR)
def test_a_clear_reply_is_read(raw: str, choice: str) -> None:
    assert parse_choice(raw) == choice


@pytest.mark.parametrize("raw", UNCLEAR)
def test_an_unclear_or_contradictory_reply_is_invalid(raw: str) -> None:
    assert parse_choice(raw) == "invalid"


def test_the_outcome_is_seen_from_the_models_side() -> None:
    assert [outcome(c, "model_first") for c in ("first", "second", "tie", "invalid")] == [
        "win",
        "loss",
        "tie",
        "invalid",
    ]
    assert [outcome(c, "reference_first") for c in ("first", "second", "tie")] == ["loss", "win", "tie"]


PIECES = [
    "Output (a)",
    "Output (b)",
    "Tie",
    "[[A]]",
    "[[B]]",
    "final verdict:",
    "is better",
    "not",
    "\n",
    " ",
    ".",
    "**",
]


@given(st.lists(st.sampled_from([*PIECES, "naïve", "a", "I prefer"]), max_size=12))
def test_no_verdict_names_a_label_that_the_reply_does_not(pieces: list[str]) -> None:
    raw = " ".join(pieces)
    choice = parse_choice(raw)
    named = {"first": ("(a)", "[A]", "a"), "second": ("(b)", "[B]"), "tie": ("Tie",)}
    assert choice == "invalid" or any(mark in raw for mark in named[choice])


@given(st.text(max_size=200))
def test_any_text_gets_some_answer(raw: str) -> None:
    assert parse_choice(raw) in ("first", "second", "tie", "invalid")


@pytest.mark.parametrize(
    "raw",
    [
        "final verdict" + " " * 100_000,
        "[[" + " " * 100_000,
        "final " * 20_000,
        "I prefer " * 20_000,
        "it is a " * 20_000,
    ],
    ids=["spaces", "brackets", "final", "prefer", "ties"],
)
def test_a_runaway_reply_is_read_in_no_time(raw: str) -> None:
    started = time.perf_counter()
    assert parse_choice(raw) == "invalid"
    assert time.perf_counter() - started < 2
