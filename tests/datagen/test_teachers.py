"""Two teachers of different kinds: structured output, reasoning models, refusals, keys and models of their own."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_server import WORDS, Scripted, ScriptedServer, text_of
from typer.testing import CliRunner

from alpacare_jax.cli import app
from datagen.client import Sampling, Service
from datagen.decoding import read_yaml_mapping
from datagen.errors import ConfigError, ServiceError
from datagen.ledger import Ledger
from datagen.prompts import render_task
from datagen.records import Instruction, SeedTask, read_objects, read_records, write_records
from datagen.settings import Settings, read_settings
from datagen.synthesize import synthesize

Script = Callable[[dict[str, Any], int], Scripted | str]


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    path = tmp_path / "seeds.jsonl"
    kinds = ("Chat", "Rewriting", "Open Q&A", "Summarization")
    write_records(
        path, [SeedTask(f"Task {kind}?", "<noinput>", kind, "Medicine", "Nurse", "2") for kind in kinds]
    )
    return path


def service(server: ScriptedServer, model: str = "scripted", **more: Any) -> Service:
    return Service(server.base_url, model, timeout_s=5, max_tries=2, first_wait_s=0.02, **more)


def settings_for(server: ScriptedServer, seeds: Path, **changes: Any) -> Settings:
    one = service(server)
    values = {
        "teacher": one,
        "answerer": one,
        "seeds": seeds,
        "target": 8,
        "tasks_per_request": 2,
        "examples": 2,
    }
    return Settings(**values | changes)


def is_task_request(body: dict[str, Any]) -> bool:
    return "point of view" in text_of(body)


def tasks_of(number: int) -> list[SeedTask]:
    """The two tasks of the n-th reply, whatever its form."""
    words = [WORDS[(5 * number + shift) % len(WORDS)] for shift in range(6)]
    return [
        SeedTask(f"Compare {' '.join(words)} briefly.", "<noinput>", "Open Q&A", "Medicine", "Student", "3"),
        SeedTask(
            f"Rank {' '.join(words[::-1])} by risk.", "A man of 60, Hb 13.2.", "Chat", "Care", "Nurse", "4"
        ),
    ]


def as_text(tasks: list[SeedTask]) -> str:
    return "\n###\n".join(render_task(task, number) for number, task in enumerate(tasks, 3))


def as_json(tasks: list[SeedTask]) -> str:
    return json.dumps({"tasks": [{**task.to_dict(), "difficulty": int(task.difficulty)} for task in tasks]})


def teacher_of(write: Callable[[dict[str, Any], list[SeedTask]], Scripted | str]) -> Script:
    """Play a teacher whose n-th different task request is answered with the n-th tasks, in the form of ``write``."""
    asked: list[str] = []

    def script(body: dict[str, Any], tried: int) -> Scripted | str:
        if not is_task_request(body):
            return "Rest and drink."
        if (text := text_of(body)) not in asked:
            asked.append(text)
        return write(body, tasks_of(asked.index(text)))

    return script


def in_the_form_asked_for(body: dict[str, Any], tasks: list[SeedTask]) -> str:
    """Play a service that can be held to a schema."""
    form = body.get("response_format")
    if form is None:
        return as_text(tasks)
    assert form["type"] == "json_schema"
    fields = form["json_schema"]["schema"]["properties"]["tasks"]["items"]["required"]
    assert sorted(fields) == sorted(f.name for f in dataclasses.fields(SeedTask) if f.name != "extra")
    return as_json(tasks)


def test_text_and_json_give_the_same_tasks_and_instructions(tmp_path: Path, seeds: Path) -> None:
    for form in ("text", "json_schema"):
        with ScriptedServer(teacher_of(in_the_form_asked_for)) as server:
            one = dataclasses.replace(service(server), concurrency=1)
            settings = settings_for(server, seeds, teacher=one, task_sampling=Sampling(format=form))
            synthesize(settings, tmp_path / form)
            assert all(
                ("response_format" in body) == (form != "text" and is_task_request(body))
                for body in server.bodies
            )
    names = ("tasks.jsonl", "rejected.jsonl")
    kept = {
        form: [(tmp_path / form / name).read_text() for name in names] for form in ("text", "json_schema")
    }
    assert kept["text"] == kept["json_schema"]
    outputs = [
        [
            (row["instruction"], row["output"])
            for _, row in read_objects(tmp_path / form / "instructions.jsonl")
        ]
        for form in ("text", "json_schema")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == 8


def test_a_json_reply_cut_by_length_keeps_its_complete_tasks(tmp_path: Path, seeds: Path) -> None:
    def write(body: dict[str, Any], tasks: list[SeedTask]) -> Scripted:
        return Scripted(as_json(tasks)[:-60], finish_reason="length")

    with ScriptedServer(teacher_of(write)) as server:
        settings = settings_for(server, seeds, target=3, task_sampling=Sampling(format="json_schema"))
        funnel = synthesize(settings, tmp_path / "work")
    assert funnel.tasks_kept == 3
    assert funnel.tasks_rejected == {"truncated": 3}
    rows = [row for _, row in read_objects(tmp_path / "work" / "tasks.jsonl")]
    assert all(row["instruction"].startswith("Compare") for row in rows)


@pytest.mark.parametrize("form", ["text", "json_schema"])
def test_thoughts_stay_in_the_ledger(tmp_path: Path, seeds: Path, form: str) -> None:
    def write(body: dict[str, Any], tasks: list[SeedTask]) -> str:
        return f"<think>\n1. Type: Chat\nInstruction: No.\n</think>\n{in_the_form_asked_for(body, tasks)}"

    teacher = teacher_of(write)

    def script(body: dict[str, Any], tried: int) -> Scripted | str:
        return teacher(body, tried) if is_task_request(body) else "It may be gout.</think>\n\nRest and drink."

    work = tmp_path / "work"
    with ScriptedServer(script) as server:
        funnel = synthesize(settings_for(server, seeds, task_sampling=Sampling(format=form)), work)
    assert funnel.tasks_rejected == {}
    instructions = read_records(work / "instructions.jsonl", Instruction)
    assert {each.output for each in instructions} == {"Rest and drink."}
    assert not any("No." in each.instruction or "think" in each.instruction for each in instructions)
    with Ledger(work / "ledger.sqlite", read_only=True) as ledger:
        assert all("</think>" in (entry.reply or "") for entry in ledger.entries())


def test_thoughts_that_fill_the_reply_leave_no_task_and_no_answer(tmp_path: Path, seeds: Path) -> None:
    teacher = teacher_of(in_the_form_asked_for)
    answers = iter([Scripted("<think>It may be", finish_reason="length")])

    def script(body: dict[str, Any], tried: int) -> Scripted | str:
        if is_task_request(body) and "Type: Chat" in text_of(body):
            return Scripted("<think>Tasks... ", finish_reason="length")
        return teacher(body, tried) if is_task_request(body) else next(answers, Scripted("Rest."))

    with ScriptedServer(script) as server:
        funnel = synthesize(settings_for(server, seeds), tmp_path / "work")
    assert funnel.tasks_rejected["truncated"] >= 1
    assert sum(funnel.answers_rejected.values()) == 1
    assert funnel.instructions == 7
    cut = [row for _, row in read_objects(tmp_path / "work" / "rejected.jsonl") if "finish_reason" in row]
    assert [(row["finish_reason"], row["text"]) for row in cut] == [("length", "<think>It may be")]


def test_refusals_in_their_own_field_are_counted_as_such(tmp_path: Path, seeds: Path) -> None:
    def refuse() -> Scripted:
        message = {"role": "assistant", "content": None, "refusal": "I'm sorry, I can't help with that."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Scripted(raw=json.dumps({"model": "m", "choices": [choice]}).encode())

    refusals = {"tasks": 1, "answers": 2}
    teacher = teacher_of(in_the_form_asked_for)

    def script(body: dict[str, Any], tried: int) -> Scripted | str:
        stage = "tasks" if is_task_request(body) else "answers"
        if refusals[stage]:
            refusals[stage] -= 1
            return refuse()
        return teacher(body, tried)

    with ScriptedServer(script) as server:
        settings = settings_for(server, seeds, task_sampling=Sampling(format="json_schema"))
        funnel = synthesize(settings, tmp_path / "work")
    assert funnel.tasks_rejected["refusal"] == 1
    assert funnel.answers_rejected == {"refusal": 2}
    assert funnel.instructions == 6


def test_a_model_that_refuses_sampling_fields_and_one_that_wants_them(tmp_path: Path, seeds: Path) -> None:
    """The task writer is a reasoning model that answers HTTP 400 to fields that it does not know."""
    taken = {"model", "messages", "max_completion_tokens", "reasoning_effort", "response_format"}
    teacher = teacher_of(in_the_form_asked_for)

    def strict(body: dict[str, Any], tried: int) -> Scripted | str:
        if unknown := body.keys() - taken:
            return Scripted(f"Unsupported parameter: {sorted(unknown)[0]}", 400)
        return teacher(body, tried)

    with ScriptedServer(strict) as reasoning, ScriptedServer(lambda body, tried: "Rest.") as plain:
        settings = read_settings(
            [
                (
                    "file",
                    {
                        "teacher": {"base_url": reasoning.base_url, "model": "reasoner"},
                        "answerer": {"base_url": plain.base_url, "model": "mini"},
                        "seeds": str(seeds),
                        "target": 4,
                        "tasks_per_request": 2,
                        "task_sampling": {
                            "temperature": None,
                            "top_p": None,
                            "presence_penalty": None,
                            "max_tokens_field": "max_completion_tokens",
                            "extra_body": {"reasoning_effort": "low"},
                            "format": "json_schema",
                        },
                        "answer_sampling": {
                            "extra_body": {"top_k": 40, "chat_template_kwargs": {"thinking": False}}
                        },
                    },
                )
            ]
        )
        funnel = synthesize(settings, tmp_path / "work")
        assert {body["reasoning_effort"] for body in reasoning.bodies} == {"low"}
        assert all(body["chat_template_kwargs"] == {"thinking": False} for body in plain.bodies)
        assert {body["presence_penalty"] for body in plain.bodies} == {1.5}
        assert {(body["model"], body["max_tokens"], body["top_k"]) for body in plain.bodies} == {
            ("mini", 1024, 40)
        }
    assert funnel.instructions == 4
    # The work folder gives the settings back as they were.
    again = read_settings(
        [("folder", json.loads((tmp_path / "work" / "config.json").read_text())["settings"])]
    )
    assert again.task_sampling == settings.task_sampling
    assert again.answer_sampling == settings.answer_sampling


def test_each_service_gets_its_own_key_and_no_other(
    tmp_path: Path, seeds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRITER_KEY", "sk-writer-0123456789")
    monkeypatch.setenv("ANSWER_KEY", "sk-answer-0123456789")
    with (
        ScriptedServer(teacher_of(in_the_form_asked_for)) as writer,
        ScriptedServer(lambda b, t: "Rest.") as other,
    ):
        settings = settings_for(
            writer,
            seeds,
            teacher=service(writer, "big", api_key_env="WRITER_KEY"),
            answerer=service(other, "small", api_key_env="ANSWER_KEY"),
        )
        synthesize(settings, tmp_path / "work")
        assert set(writer.authorizations) == {"Bearer sk-writer-0123456789"}
        assert set(other.authorizations) == {"Bearer sk-answer-0123456789"}
        assert {body["model"] for body in writer.bodies} == {"big"}
        assert {body["model"] for body in other.bodies} == {"small"}
    assert all(b"0123456789" not in path.read_bytes() for path in (tmp_path / "work").iterdir())


def test_a_missing_key_of_the_answers_is_told_before_any_task_is_asked_for(
    tmp_path: Path, seeds: Path
) -> None:
    far = Service("https://nowhere.invalid/v1", "small", api_key_env="ANSWER_KEY")
    with ScriptedServer(teacher_of(in_the_form_asked_for)) as writer:
        whole = settings_for(writer, seeds)
        settings = dataclasses.replace(whole, answerer=far)
        with pytest.raises(ServiceError, match="no key") as caught:
            synthesize(settings, tmp_path / "work")
        assert "`answerer.api_key_env`" in str(caught.value)
        assert writer.count == 0
        assert not (tmp_path / "work").exists()
        # A folder that has all its replies needs no key; one that is to grow does.
        elsewhere = dataclasses.replace(whole, answerer=dataclasses.replace(far, model=whole.answerer.model))
        done = synthesize(whole, tmp_path / "work")
        asked = writer.count
        assert synthesize(elsewhere, tmp_path / "work") == done
        with pytest.raises(ServiceError, match="no key"):
            synthesize(dataclasses.replace(elsewhere, target=2 * whole.target), tmp_path / "work")
        assert writer.count == asked


def test_odd_labels_of_the_seeds_are_said_and_the_run_goes_on(
    tmp_path: Path, seeds: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open(seeds, "a") as file:
        file.write('{"instruction": "Count bones.", "type": "Sumarisation", "difficulty": "9"}\n')
    with ScriptedServer(teacher_of(in_the_form_asked_for)) as server:
        assert synthesize(settings_for(server, seeds), tmp_path / "work").instructions == 8
    assert f"{seeds}:5: type 'Sumarisation' is not known; did you mean 'Summarization'?" in caplog.text
    assert f"{seeds}:5: difficulty '9' is not known; expected 1 to 5" in caplog.text


def test_answers_cannot_be_asked_for_as_json(seeds: Path) -> None:
    one = Service("http://localhost:1/v1", "m")
    with pytest.raises(ConfigError, match="answers are always text"):
        Settings(one, one, answer_sampling=Sampling(format="json_schema"))
    with pytest.raises(ConfigError, match="format: 'json' is not one of text, json_schema"):
        Sampling(format="json")


def test_every_configuration_for_a_provider_is_valid(repository: Path) -> None:
    paths = sorted((repository / "configs" / "synthesize" / "providers").glob("*.yaml"))
    assert len(paths) >= 6
    for path in paths:
        settings = read_settings([(str(path), read_yaml_mapping(path))])
        assert settings.teacher.api_key_env or settings.teacher.is_loopback()


def test_a_service_that_takes_no_schema_says_so_with_a_remedy(tmp_path: Path, seeds: Path) -> None:
    def refuse(body: dict[str, Any], tried: int) -> Scripted | str:
        return Scripted("response_format is not supported", 400) if "response_format" in body else "x"

    with (
        ScriptedServer(refuse) as server,
        pytest.raises(ServiceError, match="not take response_format") as caught,
    ):
        synthesize(
            settings_for(server, seeds, max_requests=20, task_sampling=Sampling(format="json_schema")),
            tmp_path / "work",
        )
    assert "response_format is not supported" in str(caught.value)
    assert "`task_sampling.format`" in str(caught.value)


def test_a_plan_names_odd_labels_and_the_way_of_drawing(seeds: Path, tmp_path: Path) -> None:
    with open(seeds, "a") as file:
        file.write(
            '{"instruction": "Count bones.", "type": "Sumarisation", "topic": "x", "difficulty": "2"}\n'
        )
    flags = [
        "--seeds",
        str(seeds),
        "--base-url",
        "http://127.0.0.1:1/v1",
        "--model",
        "m",
        "--sampling",
        "uniform",
    ]
    run = CliRunner().invoke(app, ["synthesize", "--work", str(tmp_path / "work"), *flags, "--dry-run"])
    assert run.exit_code == 0, run.output
    assert "3 of 5 seed tasks (uniform draws)" in run.output
    assert "seeds.jsonl:5: no view is given" in run.output
    assert "type 'Sumarisation' is not known; did you mean 'Summarization'?" in run.output
    with pytest.raises(ConfigError, match=r"sampling: 'evenly' is not one of .* did you mean even"):
        Settings(Service("http://localhost/v1", "m"), Service("http://localhost/v1", "m"), sampling="evenly")
