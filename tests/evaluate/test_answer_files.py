"""Answer files as other projects publish them, and how they are joined without ids."""

import json
from pathlib import Path
from typing import Any

import pytest

from alpacare_jax.evaluate.answers import as_answers, read_references, read_responses
from alpacare_jax.evaluate.judge import plan_comparisons
from datagen.errors import DataError

FIXED = "If you are a doctor, answer."
RESPONSES = [
    {
        "id": "0",
        "instruction": "Name a loop diuretic.",
        "input": "",
        "raw_output": "...",
        "response": "Furosemide.",
    },
    {
        "id": "1",
        "instruction": FIXED,
        "input": "I cough\nat night.",
        "raw_output": "...",
        "response": "See a doctor.",
    },
]
REFERENCES = [
    {"instruction": "", "input": " I cough at night. ", "output": "It may be reflux."},
    {"instruction": "Name a  loop diuretic.", "input": "<noinput>", "output": "Torasemide."},
    {"instruction": "Name an antidote.", "input": "", "output": "Naloxone."},
]


def write(path: Path, rows: list[dict[str, Any]], *, listed: bool = False) -> Path:
    path.write_text(json.dumps(rows) if listed else "".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_files_without_ids_are_joined_by_instruction_and_input(tmp_path: Path) -> None:
    responses = read_responses(write(tmp_path / "seed_0.json", RESPONSES, listed=True))
    (references,) = read_references([write(tmp_path / "gpt-4.jsonl", REFERENCES)], (), responses)
    own = as_answers(responses, "seed_0.json", "AlpaCare-7B")
    plan = plan_comparisons(responses, own, [references])
    pairs = [(each.response.response, each.reference_text) for each in plan.comparisons[::2]]
    assert pairs == [("Furosemide.", "Torasemide."), ("See a doctor.", "It may be reflux.")]
    assert (plan.model, plan.without_response) == ("AlpaCare-7B", {"gpt-4": 1})


def test_responses_without_ids_are_joined_by_question_though_the_references_have_ids(tmp_path: Path) -> None:
    own = [{key: row[key] for key in row if key != "id"} for row in RESPONSES]
    responses = read_responses(write(tmp_path / "own.jsonl", own))
    rows = [
        {**row, "id": str(number)} for number, row in enumerate(REFERENCES)
    ]  # the numbers of other questions
    (references,) = read_references([write(tmp_path / "ref.jsonl", rows)], (), responses)
    assert [references.texts[each.id] for each in responses] == ["Torasemide.", "It may be reflux."]


def test_two_answers_to_one_question_without_ids_are_named(tmp_path: Path) -> None:
    rows = [*REFERENCES, REFERENCES[1] | {"output": "Bumetanide."}]
    responses = read_responses(write(tmp_path / "own.json", RESPONSES))
    with pytest.raises(DataError, match="answer the same question differently") as error:
        read_references([write(tmp_path / "ref.jsonl", rows)], (), responses)
    assert ":2" in str(error.value.where)
    assert ":4" in str(error.value.where)
    same = [*REFERENCES, REFERENCES[1]]
    (references,) = read_references([write(tmp_path / "ref.jsonl", same)], (), responses)
    assert references.texts["0"] == "Torasemide."


def test_a_question_without_reference_is_named_as_missing(tmp_path: Path) -> None:
    responses = read_responses(write(tmp_path / "own.json", RESPONSES))
    (references,) = read_references([write(tmp_path / "ref.jsonl", REFERENCES[1:])], (), responses)
    with pytest.raises(DataError, match="1 of 2 responses lack an answer"):
        plan_comparisons(responses, as_answers(responses, "own.json"), [references])


@pytest.mark.parametrize(("ours", "theirs", "count"), [
    ("alpacare_7b_medinstruct_seed_0.json", "gpt-4_medsi_output.jsonl", 216),
    ("alpacare_7b_icliniq_seed_0_first100.json", "gpt-4_icliniq_output_first100.jsonl", 100),
])  # fmt: skip
def test_the_published_answers_are_joined_whole(real_data: Path, ours: str, theirs: str, count: int) -> None:
    responses = read_responses(real_data / ours)
    sets = read_references([real_data / theirs], (), responses)
    plan = plan_comparisons(responses, as_answers(responses, ours), sets)
    assert len(plan.comparisons) == 2 * count
    assert plan.without_response == {sets[0].name: 0}


ONE = RESPONSES[:1]
ASKED = {"instruction": "Name a loop diuretic.", "output": "Torasemide."}
OTHER_TASK = {
    "id": "2",
    "instruction": "Translate.",
    "input": RESPONSES[1]["input"],
    "response": "Ich huste.",
}


@pytest.mark.parametrize(
    ("ours", "theirs", "joined"),
    [
        (ONE, [ASKED], ["Torasemide."]),  # a missing input
        (ONE, [ASKED | {"input": None, "id": None}], ["Torasemide."]),
        ([ONE[0] | {"input": None}], [ASKED | {"input": "< NoInput >."}], ["Torasemide."]),
        (ONE, [ASKED | {"id": "q-17"}], ["Torasemide."]),  # ids that only one file has
        (ONE, [ASKED | {"instruction": "Name a\u00a0loop diu\u00adretic.\u200b"}], ["Torasemide."]),
        (ONE, [ASKED, ASKED | {"source": "a second crawl"}], ["Torasemide."]),
        ([ONE[0] | {"id": 7}], [ASKED | {"id": "7"}], ["Torasemide."]),
        ([*ONE, ONE[0] | {"id": "1", "response": "Bumetanide."}], [ASKED], ["Torasemide."] * 2),
        (
            [RESPONSES[1], OTHER_TASK],
            [REFERENCES[0], {**OTHER_TASK, "id": None, "output": "Ich huste."}],
            ["It may be reflux.", "Ich huste."],
        ),
        # Nobody knows to which of two tasks the answer belongs.
        ([RESPONSES[1], OTHER_TASK], [REFERENCES[0]], "2 of 2 responses lack"),
        # Equal ids, but another input behind an instruction that all rows share.
        ([RESPONSES[1]], [RESPONSES[1] | {"input": "I am dizzy."}], "two different instructions"),
        (ONE, [{"id": "x", "output": "a"}, {"id": "y", "output": "b"}], "1 of 1 responses lack"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("listed", [True, False])
def test_odd_files_are_joined_or_refused(
    tmp_path: Path,
    ours: list[dict[str, Any]],
    theirs: list[dict[str, Any]],
    joined: list[str] | str,
    listed: bool,
) -> None:
    responses = read_responses(write(tmp_path / "own.json", ours, listed=listed))
    path = write(tmp_path / "ref.json", theirs, listed=not listed)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))

    def texts() -> list[str]:
        sets = read_references([path], (), responses)
        return [
            each.reference_text
            for each in plan_comparisons(responses, as_answers(responses, path), sets).comparisons
        ]

    if isinstance(joined, str):
        with pytest.raises(DataError, match=joined):
            texts()
    else:
        assert texts()[::2] == joined
