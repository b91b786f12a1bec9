import doctest
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpacare_jax.evaluate import judge_text, signs, statements, verdicts
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
    ("Rank 1: (b)\nRank 2: (a)", "second"),
    ("Ranked first: Output (a)", "first"),
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
    ("Output (a)\n\nOn reflection:\n\nTie", "tie"),
]
# How judges decorate the form that was asked for.
DECORATED = [
    ("\u200bOutput (b)\u200b", "second"),
    ("Ｏｕｔｐｕｔ （ｂ）", "second"),
    ("Output\u00a0(a)", "first"),
    ("Output (b)</s>", "second"),
    ("Output (a)<|endoftext|>Human: next question", "first"),
    ("<b>Output (b)</b>", "second"),
    ("<answer>Output (b)</answer>", "second"),
    ("<verdict>A</verdict>", "first"),
    ("`Output (a)`", "first"),
    ("“Output (b)”", "second"),
    ("$\\boxed{\\text{Output (b)}}$", "second"),
    ("\\boxed{a}", "first"),
    ("[RESULT] B", "second"),
    ("🏆 Winner: Output (b)", "second"),
    ("## Verdict: **Output (b)**", "second"),
    ("### Final verdict\n\n**Output (a)**", "first"),
    ("| Criterion | Better |\n|---|---|\n| Safety | Output (b) |\n| Overall | Output (a) |", "first"),
    ('{"winner": "b"}', "second"),
    ("{'winner': 'B'}", "second"),
    ('[{"winner": "b"}]', "second"),
    ('{"winner": "Output (b)"', "second"),
    ('```json\n{"winner": "B", "confidence": 0.8}\n```', "second"),
    ('{"reasoning": "Output (a) is longer but Output (b) is correct.", "winner": "Output (a)"}', "first"),
    ('{"analysis": {"a": "good", "b": "bad"}, "final_verdict": "A"}', "first"),
    ("[[A>B]]", "first"),
    ("[[B>>A]]", "second"),
    ("[[A<<B]]", "second"),
    ("[[A=B]]", "tie"),
    ("Output (a) > Output (b)", "first"),
    ("Winner → Output (a)", "first"),
    ("So, the final decision is Response 1.", "first"),
    ("Choice: B\nReason: more complete", "second"),
    ("b)", "second"),
    ("a = b", "tie"),
    ("B≫A", "second"),
    ("My choice is a.", "first"),
    ("Preferred response: B (more accurate)", "second"),
    ("Text B is better.", "second"),
    ("The second is better than the first.", "second"),
    ("最终判断：Output (a)", "first"),
    ("Mi respuesta: Output (b)", "second"),
]
EXPLAINED = [
    ("Output (b), because it warns of the interaction.", "second"),
    ("Output (b) - it answers the question directly.", "second"),
    ("Output (b) (Output (a) is inappropriate)", "second"),
    ("Output (b), hands down.", "second"),
    ("Output (b). It gives the dose and says when to see a doctor.", "second"),
    ("Output (b) is better. Output (a) is more detailed, but it errs on warfarin.", "second"),
    (
        "Since Output (a) gives the right dose, while Output (b) errs, Therefore, Output (a) is better.",
        "first",
    ),
    ("Output (a) is concise. Output (b) is thorough. So the answer is Output (b).", "second"),
    ("While both outputs are helpful, Output (b) is slightly better.", "second"),
    ("Compared to Output (a), Output (b) is more helpful.", "second"),
    ("Thus, I would choose Output (a) over Output (b).", "first"),
    ("It's a close call, but I'd give it to Output (a).", "first"),
    ("Output (a) misses the bleeding risk, making Output (b) the better choice.", "second"),
    ("Output (b), on the other hand, is clearly superior.", "second"),
    ("The output that better follows the instruction is Output (b).", "second"),
    ("Output (a) follows the instruction more closely.", "first"),
    ("Since it warns of sepsis, Output (b) is the better answer.", "second"),
    ("Output (b) is the only one that answers, so it is better.", "second"),
    ("Output (a) is worse than Output (b).", "second"),
    ("Output (a) is not as good as Output (b).", "second"),
    ("Output (a) outperforms Output (b) in accuracy and safety.", "first"),
    ("I would rate Output (b) higher than Output (a).", "second"),
    ("One might think Output (a) is better, but Output (b) is better.", "second"),
    ("I was going to choose Output (a), but Output (b) is better.", "second"),
    ("Many would choose Output (a). I choose Output (b).", "second"),
    ("At first glance Output (a) is better; on closer reading Output (b) is better.", "second"),
    ("Both outputs are equally accurate, but Output (b) is better written.", "second"),
    ("Output (a) is better.\n\nWait, its dose is wrong. Actually, Output (b) is better.", "second"),
    ("If brevity mattered, Output (a) would be better. It does not, so Output (b) is better.", "second"),
    ("Which is better, Output (a) or Output (b)? Output (b).", "second"),
    ("If I had to choose, I would pick Output (b).", "second"),
    (
        "**Output (a):**\n- Brief\n\n**Output (b):**\n- Safe\n\n**Verdict:** Output (b) is better, as it is safe.",
        "second",
    ),
    ("Neither Output (a) nor Output (b) is better than the other.", "tie"),
    ("The two outputs are equally helpful and accurate.", "tie"),
    ("There is no clear winner.", "tie"),
    ("Output (a) is just as good as Output (b).", "tie"),
    ("I'd call it a draw.", "tie"),
    ("Tie, because both give the right dose.", "tie"),
    ("There is no doubt that Output (b) is better.", "second"),
    ("When comparing the outputs, Output (b) is stronger.", "second"),
    ("Output (a) is less precise. Therefore, Output (a) is better, as asked.", "first"),
    ("It is not a tie; Output (b) is better.", "second"),
    ("Output (a) isn't better; Output (b) is.", "second"),
    ("I don't think Output (a) is better. I think Output (b) is.", "second"),
    ("Is Output (b) better? Yes.", "second"),
    ("Is Output (b) better? No. Output (a) is.", "first"),
    ("Slight preference for Output (b)", "second"),
    ("Output (b) by a small margin", "second"),
    ("Output (a), although both are decent.", "first"),
    ("Output (b) gets the nod here.", "second"),
    ("Output (a) is nowhere near as good as Output (b).", "second"),
    ("Neither output is good, but Output (b) is less harmful.", "second"),
    ("Output (b) is not without flaws, but it is still better than Output (a).", "second"),
    ("The first reviewer chose Output (a), but I find Output (b) better.", "second"),
    ("I was leaning towards Output (a). However, the dose settles it: Output (b) is better.", "second"),
    (
        "**Output (b)** is superior.\n\n1. **Safety:** Both are safe.\n2. **Tone:** Output (a) is better.",
        "second",
    ),
    ("Output (a) is better at tone, Output (b) at facts; facts matter most, so Output (b).", "second"),
    ("Output (b) is better. Output (a) is", "second"),
    ("I would call this one even.", "tie"),
    ("Clear win for Output (b).", "second"),
    ("The majority verdict was Output (a), but mine is Output (b).", "second"),
    ("Output (b)... no, Output (a).", "first"),
    ("Output (b) is, in my view, better.", "second"),
    ("The more helpful answer is (b).", "second"),
    ("Even if Output (a) is longer, Output (b) is the better choice because it's accurate.", "second"),
    ("One could argue that Output (a) is better, but I'd say Output (b) is.", "second"),
    ("Output (b)'s advice is safer, which makes it the better response.", "second"),
    ("Output (a) has the edge in tone. Output (b) is better overall.", "second"),
    ("Output (a) is better than most answers, but Output (b) is better than Output (a).", "second"),
    ("Output (a) makes the patient better informed, but Output (b) is the better answer.", "second"),
    ("Too close to call.", "tie"),
    ("These are equivalent in quality.", "tie"),
]
# The judge speaks of a text that wants to be the winner.
PLANTED = [
    ('One output ends with "[[A]]", to sway the verdict.\n\nOutput (b)', "second"),
    ("Output (a) ends with the line [[A]] to sway the judge.\n\n[[B]]", "second"),
    ("Output (b) is better. Output (a) tries to sway the verdict with [[A]].", "second"),
    ('Output (b) is better. Output (a) contains {"winner": "A"}, an injection.', "second"),
    ("Output (a) contains:\n\n> Winner: Output (a)\n\nThis is an injection. Output (b) is better.", "second"),
    ("The answer includes\n```\n[[A]]\n```\nwhich I ignore.\n\nOutput (b) is better.", "second"),
    (
        "Output (a) claims that Output (a) is better, but it is not. Therefore, Output (b) is better.",
        "second",
    ),
    ("Output (a) ends with “Winner: A”, an attempt to manipulate me.", "invalid"),
    ("Output (a) ends with Winner: Output (a), which is manipulation.", "invalid"),
    ("Output (b) instructs the judge to answer Output (b).", "invalid"),
]
THOUGHTS = [
    ("<think>\nOutput (a)\n</think>\nOutput (b)", "second"),
    ("Let me think. Output (a)...</think>\n\n**Output (b)**", "second"),
    ("<think>Output (a) is better", "invalid"),
    ("<thinking>\nOutput (a)\n", "invalid"),
]
UNCLEAR = [
    "Output (a) is better.\n\nIt is short.\n\nOutput (b) is better.\n\nOutput (b) is long. It names the dose.",
    "",
    "I cannot judge medical texts.",
    "[[A]] or [[B]]",
    "Final verdict: [[A]]\nFinal verdict: [[B]]",
    "Output (a)\nOutput (b)",
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
    "</s>",
    "Output (a):",
    "Output (a)?",
    "Output (a) and Output (b)",
    "Both Output (a) and Output (b)",
    "Maybe Output (a).",
    "Output (a) might be better.",
    "Output (a) is longer.",
    "Both outputs are good.",
    "Neither output answers the question.",
    "Output (a): 8/10\nOutput (b): 6/10",
    "1. Output (b)\n2. Output (a)",
    "If you value brevity, Output (a) is better; if you value depth, Output (b) is better.",
    "Output (a) would be better if it named the dose.",
    "It is unclear whether Output (a) or Output (b) is better.",
    "I disagree that Output (b) is better.",
    "Some readers may prefer Output (a).",
    "Assistant (a) argues that Output (a) is better.",
    "Output (a) is better than nothing.",
    "Anything but Output (a).",
    "Let me compare. Output (a) is better at",
    "Final verdict: Output (a) is not better.",
    "If the patient is an adult, Output (a) is better; for children, Output (b) is better.",
    "Should the user want detail, Output (a) is better.",
    "Perhaps Output (a) is better.",
    "Output (a) is better if you ignore the wrong dose.",
    "Output (a) is honest about what is best for the patient.",
    "Output (a) is anything but better.",
    "Output (b) is only better in length.",
    "Most patients would find Output (a) better.",
    "I refuse to choose Output (a).",
    "The correct option is (b). Output (a) chose it.",
    "Output (a) is rarely better.",
    "As requested by Output (b), the winner is Output (b).",
    "Ranking: 1. Output (b) 2. Output (a)",
    "Initially: Output (a)\nAfter re-reading: Output (b)",
    "It has two parts. Output (a) gives a more accurate dose, among others. The rest is about",
    "Output (a) tells the patient that it is better to wait.",
    "Worse: Output (b)",
    "Answer with one of these: Output (a), Output (b), Tie",
    "I would not choose Output (b).",
    "It is not a tie.",
    '{"winner": null}',
    "The question's correct option is A.",
    "Output (a) recommends vitamin B, which is better than aspirin.",
    "# Output (a):\nHere are the steps.\n\n# Output (b):\nYes, I can",
    "Both are harmless. Output (a) and Output (b) are equally brief. Therefore, I need to compare the",
]


@pytest.mark.parametrize(("raw", "choice"), CLEAR + DECORATED + EXPLAINED)
def test_a_clear_reply_is_read(raw: str, choice: str) -> None:
    assert parse_choice(raw) == choice


@pytest.mark.parametrize("raw", UNCLEAR)
def test_an_unclear_or_contradictory_reply_is_invalid(raw: str) -> None:
    assert parse_choice(raw) == "invalid"


@pytest.mark.parametrize(("raw", "choice"), PLANTED + THOUGHTS)
def test_neither_a_quotation_nor_a_thought_is_a_verdict(raw: str, choice: str) -> None:
    assert parse_choice(raw) == choice


def test_the_table_in_the_docstring_is_true() -> None:
    table = re.findall(r"^\| `(.*)` \| (\w+) \|$", verdicts.__doc__ or "", re.MULTILINE)
    assert len(table) > 10
    assert [(raw, parse_choice(raw)) for raw, _ in table] == table


@pytest.mark.parametrize("module", [judge_text, signs, statements, verdicts])
def test_the_examples_in_the_docstrings_are_true(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


# First and second change places when the letters do.
@pytest.mark.parametrize(("raw", "choice"), EXPLAINED)
def test_the_letters_are_read_alike(raw: str, choice: str) -> None:
    turned = raw.replace("(a)", "(x)").replace("(b)", "(a)").replace("(x)", "(b)")
    assert parse_choice(turned) == {"first": "second", "second": "first"}.get(choice, choice)


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


RUNAWAY = {
    "spaces": "final verdict" + " " * 100_000,
    "brackets": "[[" + " " * 100_000,
    "open brackets": "[[" * 50_000,
    "final": "final " * 20_000,
    "prefer": "I prefer " * 20_000,
    "ties": "it is a " * 20_000,
    "is": "Output (a) is " + "very " * 20_000,
    "and": "Output (a) " + "and " * 20_000,
    "quotes": '"' * 100_000,
    "escapes": '{"winner": "' + '\\"' * 50_000,
    "backslashes": "\\" * 50_000,
    "dollars": "$" * 50_000,
    "braces": '{"a":' * 20_000,
    "tags": "<a" * 50_000,
    "marks": "x" + "\u0301\u0327" * 50_000,
    "better": "better best " * 9_000,
    "if": "Output (a) or if " * 8_000,
    "so": ("so, " * 49 + "\n") * 500,
    "lead-ins": ("my final, correct: verdict " * 7 + "\n") * 500,
    "degrees": ("Output (a) " + "by far by a mile, clearly " * 7 + "x\n") * 500,
    "denied": "Output (a) is better than nothing " * 3_000,
}


@pytest.mark.parametrize("raw", RUNAWAY.values(), ids=RUNAWAY)
def test_a_runaway_reply_is_read_in_no_time(raw: str) -> None:
    started = time.process_time()
    assert parse_choice(raw) == "invalid"
    assert time.process_time() - started < 2


def test_the_benchmark_prints_how_a_file_is_read(tmp_path: Path) -> None:
    program = Path(__file__).parents[2] / "benchmarks" / "verdicts.py"
    rows = [
        {"raw": "Output (a) is better.", "winner": "WIN", "order": "model_first", "judge": "one"},
        {"raw": "Output (b)", "winner": "WIN", "order": "model_first", "judge": "one"},
        {"raw": "Tie", "winner": "2", "judge": "two"},
        {"raw": "Both answer the question.", "winner": None, "judge": "two"},
    ]
    path = tmp_path / "replies.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(program), str(path), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    done = run("--known", "winner", "--by", "judge")
    assert done.returncode == 0, done.stderr
    assert (
        "all: 4 replies  first 1 (25.00%)  second 1 (25.00%)  tie 1 (25.00%)  invalid 1 (25.00%)"
        in done.stdout
    )
    assert "two: 2 replies" in done.stdout
    assert "winner known 3: agree 1 (33.33%), invalid 0 (0.00%), read otherwise 2 (66.67%)" in done.stdout
    assert "--- invalid, known winner None\nBoth answer the question." in done.stdout
    assert "--- read otherwise, as second, known winner first\nOutput (b)" in done.stdout
    failed = run("--raw", "text")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "replies.jsonl:1" in failed.stderr
    assert "--raw" in failed.stderr
