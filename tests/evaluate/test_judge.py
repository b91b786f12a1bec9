import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Scripted, ScriptedServer
from typer.testing import CliRunner

from alpacare_jax.cli import app
from alpacare_jax.evaluate.answers import Answers, as_answers, read_references
from alpacare_jax.evaluate.judge import judge_messages, plan_comparisons
from alpacare_jax.evaluate.scores import score_verdicts
from datagen.errors import DataError, UserError
from datagen.records import Response, Verdict, read_records, write_objects

IDS = ("3", "1", "2")


def response_rows(model: str, ids: tuple[str, ...] = IDS, **fields: Any) -> list[dict[str, Any]]:
    return [
        {"id": i, "instruction": f"Question {i}?", "response": f"{model} on {i}", "model": model} | fields
        for i in ids
    ]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_objects(tmp_path / "ours.jsonl", response_rows("ours"))
    write_objects(tmp_path / "ref.jsonl", response_rows("gpt-4", tuple(reversed(IDS))))
    write_objects(
        tmp_path / "table.jsonl",
        [
            {"id": int(i), "instruction": f"Question {i}?", "gpt-4-answer": f"g {i}", "claude-2": f"c c {i}"}
            for i in ("1", "2", "3", "4")
        ],
    )
    return tmp_path


def arguments(files: Path, server: ScriptedServer, *more: object, references: str = "ref.jsonl") -> list[str]:
    chosen = {
        "--responses": files / "ours.jsonl",
        "--references": files / references,
        "--base-url": server.base_url,
        "--model": "scripted-judge",
        "--work": files / "work",
        "--out": files / "v.jsonl",
    }
    return [str(part) for pair in chosen.items() for part in pair] + [str(part) for part in more]


def run(*args: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["judge", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.output


def prefers_ours(body: dict[str, Any], _: int) -> str:
    question = body["messages"][-1]["content"]
    return "Output (a)" if question.index("ours on") < question.index("gpt-4 on") else "Output (b)"


def test_each_pair_is_shown_in_both_orders_at_temperature_zero_and_joined_by_id(files: Path) -> None:
    with ScriptedServer(prefers_ours) as server:
        printed = run(*arguments(files, server))
    verdicts = read_records(files / "v.jsonl", Verdict)
    assert [(v.id, v.order) for v in verdicts] == [
        (i, o) for i in IDS for o in ("model_first", "reference_first")
    ]
    assert {(v.verdict, v.model, v.reference, v.judge) for v in verdicts} == {
        ("win", "ours", "gpt-4", "scripted-judge")
    }
    assert {body["temperature"] for body in server.bodies} == {0.0}
    for body in server.bodies:
        question = body["messages"][-1]["content"]
        shown = {i for i in IDS if f"Question {i}?" in question}
        assert (
            {i for i in IDS if f"ours on {i}" in question}
            == {i for i in IDS if f"gpt-4 on {i}" in question}
            == shown
        )
        assert len(shown) == 1
    assert "6 win, 0 tie, 0 loss, 0 invalid" in printed
    assert score_verdicts(verdicts).scores[0].alpacare.percent == 100.0


def test_a_judge_that_follows_the_place_scores_half(files: Path) -> None:
    with ScriptedServer(lambda body, tried: "Output (a)") as server:
        run(*arguments(files, server))
    score = score_verdicts(read_records(files / "v.jsonl", Verdict)).scores[0]
    assert (score.alpacare.percent, score.consistency.percent) == (50.0, 0.0)


def test_several_reference_columns_and_their_lengths(files: Path) -> None:
    with ScriptedServer(lambda body, tried: "Tie") as server:
        printed = run(
            *arguments(files, server, "--reference-fields", "gpt-4-answer,claude-2", references="table.jsonl")
        )
    scores = {s.reference: s for s in score_verdicts(read_records(files / "v.jsonl", Verdict)).scores}
    assert list(scores) == ["gpt-4", "claude-2", "mean"]
    assert [scores[name].reference_words for name in ("gpt-4", "claude-2")] == [2.0, 3.0]
    assert scores["gpt-4"].model_words == 3.0
    assert "1 answers of claude-2 have no response" in printed


def test_medinstruct_test_can_be_the_references(real_data: Path) -> None:
    fields = ["gpt-4-answer", "gpt-3.5-turbo-answer", "text-davinci-003-answer", "claude-2"]
    sets = read_references([real_data / "medinstruct_test.jsonl"], fields)
    assert [s.name for s in sets] == ["gpt-4", "gpt-3.5-turbo", "text-davinci-003", "claude-2"]
    assert {len(s.texts) for s in sets} == {216}
    responses = [Response(id=i, instruction=text, response="x") for i, text in sets[0].instructions.items()]
    assert len(plan_comparisons(responses, as_answers(responses, "r.jsonl"), sets).comparisons) == 1728


def test_unreadable_replies_and_failures_are_counted_never_dropped(files: Path) -> None:
    def script(body: dict[str, Any], _: int) -> Scripted | str:
        question = body["messages"][-1]["content"]
        if "Question 1?" in question:
            return Scripted("too long a prompt", status=400)
        return "Hard to say." if "Question 2?" in question else "Tie"

    with ScriptedServer(script) as server:
        printed = run(*arguments(files, server), status=1)
    verdicts = read_records(files / "v.jsonl", Verdict)
    assert [v.verdict for v in verdicts] == ["tie", "tie", "invalid", "invalid", "invalid", "invalid"]
    assert [("error" in v.extra, v.raw) for v in verdicts[2:]] == [(True, "")] * 2 + [
        (False, "Hard to say.")
    ] * 2
    assert "2 requests failed" in printed
    assert "2 replies have no clear verdict" in printed
    score = score_verdicts(verdicts).scores[0]
    assert (score.items, score.complete, score.invalid, score.missing) == (3, 1, 4, 0)
    with ScriptedServer(lambda body, tried: "Tie") as server:
        run(*arguments(files, server, "--retry-failed", "--overwrite"))
        assert server.count == 2
    assert [v.verdict for v in read_records(files / "v.jsonl", Verdict)].count("tie") == 4


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_stopped_run_resumes_and_never_asks_again(files: Path, sent: signal.Signals, status: int) -> None:
    def slow(body: dict[str, Any], _: int) -> Scripted:
        return Scripted("Output (a)", delay_s=0 if server.count <= 4 else 30)

    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with ScriptedServer(slow) as server:
        args = arguments(files, server, "--concurrency", "1")
        with subprocess.Popen(
            [sys.executable, "-m", "alpacare_jax", "judge", *args], env=environment
        ) as process:
            server.wait_for(5)
            process.send_signal(sent)
            assert process.wait() == status
        asked = list(server.texts())
    assert not (files / "v.jsonl").exists()
    with ScriptedServer(prefers_ours) as server:
        run(*arguments(files, server))
        assert set(server.texts()).isdisjoint(asked[:4])
        assert server.count == 2
    verdicts = read_records(files / "v.jsonl", Verdict)
    assert [v.raw for v in verdicts[:4]] == ["Output (a)"] * 4
    assert len(verdicts) == 6


def test_another_judge_in_the_same_work_folder_is_refused(files: Path) -> None:
    with ScriptedServer(prefers_ours) as server:
        run(*arguments(files, server))
        args = arguments(files, server, "--overwrite")
        args[args.index("--model") + 1] = "another"
        with pytest.raises(DataError, match="another configuration"):
            run(*args)


def test_an_existing_verdict_file_is_left_alone(files: Path) -> None:
    (files / "v.jsonl").write_text("precious\n")
    with ScriptedServer(prefers_ours) as server:
        with pytest.raises(DataError, match="exists already"):
            run(*arguments(files, server))
        assert server.count == 0
    assert (files / "v.jsonl").read_text() == "precious\n"


@pytest.mark.parametrize(
    ("ours", "reference", "message"),
    [
        (response_rows("m", ("1", "2")), response_rows("r", ("1",)), "1 of 2 responses lack"),
        (response_rows("m", ("1",)), response_rows("r", ("2",)), "1 of 1 responses lack"),
        (response_rows("m", ("1", "1")), response_rows("r", ("1",)), "duplicate ids"),
        (response_rows("m", ("1",)), response_rows("r", ("1", "1")), "duplicate ids"),
        (
            response_rows("m", ("1",)),
            response_rows("r", ("1",), instruction="Else?"),
            "two different instructions",
        ),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, ours: list[dict[str, Any]], reference: list[dict[str, Any]], message: str
) -> None:
    write_objects(tmp_path / "ours.jsonl", ours)
    write_objects(tmp_path / "ref.jsonl", reference)
    with ScriptedServer(prefers_ours) as server:
        with pytest.raises(UserError, match=message):
            run(*arguments(tmp_path, server))
        assert server.count == 0


def test_missing_references_can_be_allowed_and_are_counted(files: Path) -> None:
    write_objects(files / "ref.jsonl", response_rows("gpt-4", ("1",)))
    with ScriptedServer(prefers_ours) as server:
        printed = run(*arguments(files, server, "--allow-missing"))
    assert "2 responses have no answer of gpt-4 and are left out" in printed
    assert len(read_records(files / "v.jsonl", Verdict)) == 2


def test_a_reference_field_that_is_not_there_is_named(files: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_references([files / "table.jsonl"], ["gpt-5-answer"])
    assert "table.jsonl:1" in str(caught.value)
    assert "gpt-5-answer" in str(caught.value)


def test_two_sets_of_the_same_name_are_refused(files: Path) -> None:
    with pytest.raises(DataError, match="same name"):
        read_references([files / "ref.jsonl", files / "ref.jsonl"])


def test_a_text_that_looks_like_a_placeholder_is_shown_as_it_is() -> None:
    content = judge_messages("{second} {first}?", "{instruction}", "first {second} {0}", "second {first}")[1][
        "content"
    ]
    for text in ("{second} {first}?", "{instruction}", "first {second} {0}", "second {first}"):
        assert content.count(text) == 1
    assert "# Input" not in judge_messages("Ask.", "<noinput>", "x", "y")[1]["content"]


def test_a_model_without_a_name_is_named_after_its_file() -> None:
    rows = [Response(id="1", instruction="Ask.", response="x")]
    assert as_answers(rows, "runs/alpha.jsonl") == Answers(
        "alpha", {"1": "x"}, {"1": "Ask."}, "runs/alpha.jsonl"
    )


def test_verdict_records_survive_the_round_trip(files: Path) -> None:
    with ScriptedServer(prefers_ours) as server:
        run(*arguments(files, server))
    row = json.loads((files / "v.jsonl").read_text().splitlines()[0])
    assert row["model_words"] == 3
    assert row["verdict"] == "win"
