import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from marking import slow_but
from scripted_server import Scripted, ScriptedServer, asks_for_tasks, text_of, write_tasks

from datagen.client import Service
from datagen.decoding import read_yaml_mapping
from datagen.errors import ConfigError, DataError, ServiceError
from datagen.ledger import Ledger
from datagen.questions import task_request
from datagen.records import Instruction, SeedTask, read_objects, read_records, write_records
from datagen.settings import Settings, read_settings
from datagen.synthesize import Funnel, status, synthesize

SEEDS = (
    "What is gout?",
    "List signs of sepsis.",
    "Summarise this.",
    "Explain insulin to a child.",
    "Why rest?",
)
FILES = ("instructions.jsonl", "tasks.jsonl", "rejected.jsonl", "funnel.json")


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    path = tmp_path / "seeds.jsonl"
    write_records(path, [SeedTask(text, "<noinput>", "Open Q&A", "Medicine", "Nurse", "2") for text in SEEDS])
    return path


def settings_for(server: ScriptedServer, seeds: Path, **changes: Any) -> Settings:
    service = Service(
        server.base_url,
        "scripted",
        timeout_s=5,
        max_tries=3,
        first_wait_s=0.02,
        concurrency=changes.pop("at_once", 4),
    )
    return Settings(
        **{"teacher": service, "answerer": service, "seeds": seeds, "target": 20, "tasks_per_request": 4}
        | changes
    )


def results(work: Path) -> dict[str, Any]:
    """The result files without what no two runs share: the times of the replies, and the account of the tries."""
    funnel = json.loads((work / "funnel.json").read_text("utf-8"))
    del funnel["money"]
    files = {
        name: re.sub(r'"time": "[^"]*"', '"time": ""', (work / name).read_text("utf-8")) for name in FILES[:3]
    }
    return files | {FILES[3]: funnel}


def shuffled(body: dict[str, Any], tried: int) -> Scripted:
    return Scripted(write_tasks(body), delay_s=random.random() * 0.05)


def faulty(body: dict[str, Any], tried: int) -> Scripted:
    """Some requests fail for good: those that show sepsis first, and those that ask about angina."""
    text = text_of(body)
    first = min(SEEDS, key=lambda seed: text.find(seed) % 10**6)
    fails = first == "List signs of sepsis." if asks_for_tasks(body) else "angina" in text
    return Scripted("not this one", 400) if fails else shuffled(body, tried)


def check_sums(funnel: Funnel, work: Path) -> None:
    rejected = list(read_objects(work / "rejected.jsonl"))
    assert funnel.task_requests == funnel.task_replies + sum(funnel.task_requests_failed.values())
    assert funnel.tasks_found == funnel.tasks_kept + sum(funnel.tasks_rejected.values())
    assert funnel.tasks_kept == funnel.answer_requests == len(list(read_objects(work / "tasks.jsonl")))
    assert funnel.answer_requests == funnel.answer_replies + sum(funnel.answer_requests_failed.values())
    assert funnel.answer_replies == funnel.instructions + sum(funnel.answers_rejected.values())
    assert funnel.instructions == len(list(read_objects(work / "instructions.jsonl")))
    reasons = ("tasks_rejected", "answers_rejected", "answer_requests_failed")
    assert len(rejected) == sum(sum(getattr(funnel, key).values()) for key in reasons)
    assert all(row["reason"] and row["request"] for _, row in rejected)
    assert json.loads((work / "funnel.json").read_text()) == funnel.to_dict()


def test_the_examples_of_a_request_are_a_fixed_function_of_seed_and_number(
    tmp_path: Path, seeds: Path
) -> None:
    tasks = [SeedTask(f"task {number}") for number in range(10)]
    service = Service("http://localhost:1/v1", "m")
    settings = Settings(service, service, seeds)
    assert task_request(settings, tasks, 5) == task_request(settings, tasks, 5)
    assert task_request(settings, tasks, 5) != task_request(settings, tasks, 6)
    other = dataclasses.replace(settings, seed=1)
    assert task_request(settings, tasks, 5).messages != task_request(other, tasks, 5).messages
    assert task_request(settings, tasks, 5).sampling.seed is None
    sent = dataclasses.replace(settings, send_seed=True)
    assert task_request(sent, tasks, 5).sampling.seed != task_request(sent, tasks, 6).sampling.seed


def test_a_run_publishes_answers_joined_with_their_tasks(tmp_path: Path, seeds: Path) -> None:
    work = tmp_path / "work"
    with ScriptedServer(lambda body, tried: write_tasks(body)) as server:
        funnel = synthesize(settings_for(server, seeds), work)
    check_sums(funnel, work)
    instructions = read_records(work / "instructions.jsonl", Instruction)
    assert len(instructions) == funnel.instructions == 20
    assert funnel.target_reached is True
    assert funnel.tasks_rejected["near-duplicate"] >= 3
    for each in instructions:
        given = f"\n\n{each.input}" if each.input else ""
        asked = {"messages": [{"role": "user", "content": each.instruction + given}]}
        assert each.output == write_tasks(asked)
        assert each.input != "<noinput>"
        assert each.source["models"] == {"task": "scripted", "answer": "scripted"}
        assert each.source["requests"]["answer"] == f"answers/{each.id}"
        assert each.source["requests"]["task"].startswith("tasks/0000")
        assert each.source["prompt_version"]
        assert each.source["time"].endswith("+00:00")
    near = next(row for _, row in read_objects(work / "rejected.jsonl") if row["reason"] == "near-duplicate")
    assert near["nearest"] == near["instruction"]
    assert near["rouge_l"] == 1.0


@pytest.mark.parametrize("script", [shuffled, faulty])
def test_concurrency_does_not_change_the_result(tmp_path: Path, seeds: Path, script: Any) -> None:
    with ScriptedServer(script) as server:
        for at_once in (1, 8):
            funnel = synthesize(settings_for(server, seeds, at_once=at_once), tmp_path / str(at_once))
            check_sums(funnel, tmp_path / str(at_once))
        assert server.most_in_flight > 1
    assert results(tmp_path / "1") == results(tmp_path / "8")
    if script is faulty:
        assert sum(funnel.task_requests_failed.values()) > 0
        assert sum(funnel.answer_requests_failed.values()) > 0


def test_few_requests_are_sent_in_vain(tmp_path: Path, seeds: Path) -> None:
    with ScriptedServer(shuffled) as server:
        funnel = synthesize(settings_for(server, seeds, target=3, at_once=8), tmp_path / "work")
        assert funnel.task_requests == 1
        assert server.count == 1 + 3
        eager = synthesize(settings_for(server, seeds, target=3, at_once=8, eager=True), tmp_path / "eager")
        # Every reply that waits for an earlier one lets a further request go out, four times the slots at most.
        assert 4 * 8 + 3 >= server.count - 1 - 3 > 1 + 3
    assert dataclasses.replace(eager, money=funnel.money) == funnel
    assert results(tmp_path / "eager") == results(tmp_path / "work")


def start(
    work: Path, server: ScriptedServer, seeds: Path, *more: str, ignoring: bool = False
) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "alpacare_jax", "synthesize", "--work", str(work), "--seeds", str(seeds)]
    flags = [
        "--base-url",
        server.base_url,
        "--model",
        "scripted",
        "--target",
        "20",
        "--tasks-per-request",
        "4",
    ]
    return subprocess.Popen(
        [*command, *flags, "--concurrency", "3", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignoring else None,
    )


def test_a_run_killed_again_and_again_ends_like_an_unbroken_one(tmp_path: Path, seeds: Path) -> None:
    work = tmp_path / "work"
    with ScriptedServer(lambda body, tried: Scripted(write_tasks(body), delay_s=0.05)) as server:
        synthesize(settings_for(server, seeds), tmp_path / "whole")
        kills, distinct = 0, server.count
        server.bodies.clear()
        for moment in (1, 6, 11, 20):
            process = start(work, server, seeds)
            while process.poll() is None and server.count < moment:
                time.sleep(0.002)
            if process.poll() is None:
                process.kill()
                kills += 1
            process.communicate()
        process = start(work, server, seeds)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        asked_twice = server.count - distinct
    assert kills == 4
    assert asked_twice <= kills * 3
    assert results(work) == results(tmp_path / "whole")
    with Ledger(work / "ledger.sqlite") as ledger:
        assert all(entry.state == "answered" for entry in ledger.entries())


#: More than the requests for tasks, fewer than all: some replies are judged then, and the run cannot have ended.
ASKED_BEFORE_THE_GATE = 9


class Gate:
    """A teacher that answers so many requests, and all others only when it is opened."""

    def __init__(self, open_for: int) -> None:
        self.open = threading.Event()
        self._left = open_for

    def __call__(self, body: dict[str, Any], tried: int) -> Scripted:
        self._left -= 1
        if self._left < 0:
            self.open.wait(240)
        return Scripted(write_tasks(body))


@pytest.mark.parametrize("sent", slow_but([signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]))
def test_an_interruption_says_how_to_go_on(tmp_path: Path, seeds: Path, sent: signal.Signals) -> None:
    work, gate = tmp_path / "work", Gate(open_for=ASKED_BEFORE_THE_GATE)
    with ScriptedServer(gate) as server:
        process = start(work, server, seeds)
        server.wait_for(ASKED_BEFORE_THE_GATE + 1, limit_s=120)
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=120)
        gate.open.set()
        assert process.returncode == 130, stderr
        assert "run the same command again" in stderr
        assert "Traceback" not in stderr
        before = status(work)
        assert before.funnel.task_replies >= 1
        assert not (work / "instructions.jsonl").exists()
        process = start(work, server, seeds)
        stdout, stderr = process.communicate(timeout=240)
        assert process.returncode == 0, stderr
    assert re.search(r"instructions +20\n", stdout)
    assert "tasks 20/20" in stderr


def test_a_job_in_the_background_ends_politely_too(tmp_path: Path, seeds: Path) -> None:
    gate = Gate(open_for=ASKED_BEFORE_THE_GATE)
    with ScriptedServer(gate) as server:
        process = start(tmp_path / "work", server, seeds, ignoring=True)
        server.wait_for(ASKED_BEFORE_THE_GATE + 1, limit_s=120)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=120)
        gate.open.set()
    assert process.returncode == 130, stderr
    assert "run the same command again" in stderr


def test_status_reads_a_live_run(tmp_path: Path, seeds: Path) -> None:
    work, gate = tmp_path / "work", threading.Event()

    def hold_answers(body: dict[str, Any], tried: int) -> str:
        if not asks_for_tasks(body):
            gate.wait(20)
        return write_tasks(body)

    with ScriptedServer(hold_answers) as server:
        process = start(work, server, seeds)
        while server.count < 8 or not (work / "tasks.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.01)
        live = status(work)
        printed = subprocess.run(
            [sys.executable, "-m", "alpacare_jax", "synthesize", "--work", str(work), "--status"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        second = start(work, server, seeds)
        _, refusal = second.communicate(timeout=30)
        gate.set()
        process.communicate(timeout=60)
    assert (live.funnel.tasks_kept, live.funnel.instructions, live.funnel.target_reached) == (20, 0, True)
    assert live.ledger["answers"]["answered"] == 0
    assert live.ledger["answers"]["sent"] >= 1
    assert re.search(r"tasks kept \(target 20\) +20\n", printed)
    assert second.returncode == 2
    assert "another process is writing" in refusal
    assert process.returncode == 0
    assert status(work).funnel.instructions == 20


def test_the_target_can_be_raised_and_nothing_is_asked_twice(tmp_path: Path, seeds: Path) -> None:
    with ScriptedServer(lambda body, tried: write_tasks(body)) as server:
        synthesize(settings_for(server, seeds, target=8, at_once=1), tmp_path / "grown")
        first = read_records(tmp_path / "grown" / "instructions.jsonl", Instruction)
        synthesize(settings_for(server, seeds, target=20, at_once=1), tmp_path / "grown")
        asked = [json.dumps(body) for body in server.bodies]
        assert len(set(asked)) == len(asked)
        synthesize(settings_for(server, seeds, target=20, at_once=1), tmp_path / "whole")
    assert results(tmp_path / "grown") == results(tmp_path / "whole")
    assert read_records(tmp_path / "grown" / "instructions.jsonl", Instruction)[:8] == first


def test_the_same_ledger_gives_the_same_bytes(tmp_path: Path, seeds: Path) -> None:
    with ScriptedServer(shuffled) as server:
        settings = settings_for(server, seeds)
        synthesize(settings, tmp_path / "work")
        before = {name: (tmp_path / "work" / name).read_bytes() for name in FILES}
        count = server.count
        synthesize(settings, tmp_path / "work")
        assert server.count == count
    assert {name: (tmp_path / "work" / name).read_bytes() for name in FILES} == before


def test_failed_requests_are_asked_again_only_on_demand(tmp_path: Path, seeds: Path) -> None:
    ill = True

    def script(body: dict[str, Any], tried: int) -> Scripted | str:
        return faulty(body, tried) if ill else write_tasks(body)

    work = tmp_path / "work"
    with ScriptedServer(script) as server:
        settings = settings_for(server, seeds)
        first = synthesize(settings, work)
        ill, count = False, server.count
        assert synthesize(settings, work) == first
        assert server.count == count
        again = synthesize(settings, work, retry_failed=True)
        assert server.count > count
        synthesize(settings, tmp_path / "healthy")
    assert again.task_requests_failed == again.answer_requests_failed == {}
    assert results(work) == results(tmp_path / "healthy")


def test_another_configuration_is_refused_with_its_differences(tmp_path: Path, seeds: Path) -> None:
    work = tmp_path / "work"
    with ScriptedServer(shuffled) as server:
        settings = settings_for(server, seeds, target=4)
        synthesize(settings, work)
        before = {path.name: path.read_bytes() for path in work.iterdir()}
        other = dataclasses.replace(
            settings, seed=3, answerer=dataclasses.replace(settings.answerer, model="other")
        )
        with pytest.raises(DataError, match="another configuration") as caught:
            synthesize(other, work)
        with open(seeds, "a") as file:
            file.write('{"instruction": "One more seed?"}\n')
        with pytest.raises(DataError, match="another configuration") as changed:
            synthesize(settings, work)
        assert {path.name: path.read_bytes() for path in work.iterdir()} == before
    assert "seed: 0 in the folder, 3 now" in str(caught.value)
    assert "answerer.model: 'scripted' in the folder, 'other' now" in str(caught.value)
    assert "concurrency" not in str(caught.value)
    assert "seed tasks: '5 tasks" in str(changed.value)


def test_the_service_may_move_between_runs(tmp_path: Path, seeds: Path) -> None:
    with ScriptedServer(shuffled) as first:
        synthesize(settings_for(first, seeds, target=4), tmp_path / "work")
    with ScriptedServer(shuffled) as second:
        synthesize(settings_for(second, seeds, target=12, at_once=2), tmp_path / "work")
        assert second.count > 0
    assert len(read_records(tmp_path / "work" / "instructions.jsonl", Instruction)) == 12


def test_a_folder_with_other_things_is_not_touched(tmp_path: Path, seeds: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "instructions.jsonl").write_text("precious\n")
    with ScriptedServer(shuffled) as server:
        with pytest.raises(DataError, match="other files") as caught:
            synthesize(settings_for(server, seeds), work)
        assert server.count == 0
        with pytest.raises(DataError, match="is a file"):
            synthesize(settings_for(server, seeds), work / "instructions.jsonl")
    assert "instructions.jsonl" in str(caught.value)
    assert [path.name for path in work.iterdir()] == ["instructions.jsonl"]
    with pytest.raises(DataError, match="not the work folder"):
        status(work)


def test_a_teacher_that_writes_no_task_is_an_error_with_reasons(tmp_path: Path, seeds: Path) -> None:
    with ScriptedServer(lambda body, tried: "") as server:
        with pytest.raises(DataError, match="no task was kept") as caught:
            synthesize(settings_for(server, seeds, max_requests=4), tmp_path / "work")
        assert server.count == 4
    assert "4 requests" in str(caught.value)
    rows = [row for _, row in read_objects(tmp_path / "work" / "rejected.jsonl")]
    assert [row["reason"] for row in rows] == ["no-task-in-reply"] * 4


def test_cut_and_refused_answers_are_marked_and_not_published(tmp_path: Path, seeds: Path) -> None:
    def script(body: dict[str, Any], tried: int) -> Scripted | str:
        if asks_for_tasks(body):
            return write_tasks(body)
        number = len(str(body["messages"])) % 3
        return [Scripted("It is caused by", finish_reason="length"), Scripted("  "), "A full answer."][number]

    with ScriptedServer(script) as server:
        funnel = synthesize(settings_for(server, seeds), tmp_path / "work")
    check_sums(funnel, tmp_path / "work")
    assert set(funnel.answers_rejected) == {"unfinished", "empty"}
    assert {each.output for each in read_records(tmp_path / "work" / "instructions.jsonl", Instruction)} == {
        "A full answer."
    }


def test_a_stop_in_the_answers_keeps_the_tasks(tmp_path: Path, seeds: Path) -> None:
    healthy = False

    def script(body: dict[str, Any], tried: int) -> Scripted | str:
        is_task = asks_for_tasks(body)
        return write_tasks(body) if is_task or healthy else Scripted("wrong key", 401)

    with ScriptedServer(script) as server:
        settings = settings_for(server, seeds)
        with pytest.raises(ServiceError, match="refused the key"):
            synthesize(settings, tmp_path / "work")
        assert len(list(read_objects(tmp_path / "work" / "tasks.jsonl"))) == 20
        asked = sum(asks_for_tasks(body) for body in server.bodies)
        healthy = True
        assert synthesize(settings, tmp_path / "work").instructions == 20
        assert sum(asks_for_tasks(body) for body in server.bodies) == asked


def test_a_failure_leaves_the_results_of_an_earlier_run_untouched(tmp_path: Path, seeds: Path) -> None:
    work = tmp_path / "work"
    with ScriptedServer(shuffled) as server:
        settings = settings_for(server, seeds, target=8)
        synthesize(settings, work)
    before = results(work)

    def no_answers(body: dict[str, Any], tried: int) -> Scripted | str:
        return write_tasks(body) if asks_for_tasks(body) else Scripted("no", 403)

    with ScriptedServer(no_answers) as server, pytest.raises(ServiceError):
        synthesize(settings_for(server, seeds, target=16), work)
    assert results(work) == before


def test_the_command_ends_with_status_1_below_the_target_and_2_on_errors(tmp_path: Path, seeds: Path) -> None:
    work = tmp_path / "work"
    with ScriptedServer(shuffled) as server:
        process = start(work, server, seeds, "--max-requests", "2")
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "Stopped at 2 task requests with 7 of 20 tasks" in stderr
        more = [
            sys.executable,
            "-m",
            "alpacare_jax",
            "synthesize",
            "--work",
            str(work),
            "--max-requests",
            "40",
        ]
        run = subprocess.run(more, capture_output=True, text=True, check=False, timeout=60)
        assert run.returncode == 0, run.stderr
        assert len(read_records(work / "instructions.jsonl", Instruction)) == 20
        process = start(seeds / "work", server, seeds)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert str(seeds) in stderr
    assert "Traceback" not in stderr
    process = start(tmp_path / "late", server, seeds, "--max-tries", "1")
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "cannot be reached" in stderr


def test_a_key_reaches_the_service_and_no_file(
    tmp_path: Path, seeds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-hidden-0123456789")
    work = tmp_path / "work"
    with ScriptedServer(shuffled) as server:
        process = start(work, server, seeds, "--api-key-env", "TEACHER_KEY")
        output = "".join(process.communicate(timeout=60))
        assert set(server.authorizations) == {"Bearer sk-hidden-0123456789"}
    assert process.returncode == 0
    assert "sk-hidden" not in output
    assert all(b"sk-hidden" not in path.read_bytes() for path in work.iterdir())


def test_bad_settings_are_all_named_with_the_nearest_key() -> None:
    bad = {
        "taget": 3,
        "seed": "x",
        "teacher": {"modle": "m", "concurrency": 1.5},
        "task_sampling": {"stop": "#"},
    }
    with pytest.raises(ConfigError) as caught:
        read_settings([("a.yaml", bad)])
    words = str(caught.value)
    for part in (
        "a.yaml",
        "taget: unknown key; did you mean target?",
        "seed must be a whole number, not 'x'",
        "teacher.modle: unknown key; did you mean teacher.model?",
    ):
        assert part in words
    assert "teacher.concurrency" in words
    assert "task_sampling.stop" in words
    with pytest.raises(ConfigError, match=r"teacher.model is missing"):
        read_settings([("flags", {"teacher": {"base_url": "http://localhost/v1"}})])
    good = {"teacher": {"base_url": "http://localhost/v1", "model": "m"}}
    for name, value in (
        ("temperature", -1),
        ("temperature", float("nan")),
        ("top_p", 1.5),
        ("max_tokens", 0),
    ):
        with pytest.raises(ConfigError, match=f"task_sampling.{name} must be at least"):
            read_settings([("file", good | {"task_sampling": {name: value}})])
    with pytest.raises(ConfigError, match="target must be at least 1"):
        read_settings(
            [("flags", {"teacher": {"base_url": "http://localhost/v1", "model": "m"}, "target": 0})]
        )


def test_flags_lie_over_the_file_and_the_answerer_inherits_from_the_teacher() -> None:
    file = {
        "teacher": {"base_url": "http://a/v1", "model": "big", "timeout_s": 9},
        "answerer": {"model": "small"},
    }
    settings = read_settings([("file", file), ("flags", {"teacher": {"base_url": "http://b/v1"}})])
    assert settings.teacher == Service("http://b/v1", "big", timeout_s=9)
    assert settings.answerer == Service("http://b/v1", "small", timeout_s=9)


def test_the_teacher_s_key_is_not_sent_to_another_host() -> None:
    teacher = {"base_url": "https://api.one.example/v1", "model": "m", "api_key_env": "ONE_KEY"}

    def answerer(**own: str) -> Service:
        return read_settings([("file", {"teacher": teacher, "answerer": own})]).answerer

    assert answerer(model="n").api_key_env == "ONE_KEY"
    assert answerer(base_url="https://api.one.example/v2").api_key_env == "ONE_KEY"
    assert answerer(base_url="https://api.two.example/v1", api_key_env="TWO_KEY").api_key_env == "TWO_KEY"
    assert answerer(base_url="http://localhost:8000/v1").api_key() == "none"
    with pytest.raises(ConfigError, match=r"answerer.api_key_env is missing"):
        answerer(base_url="https://api.two.example/v1")


def test_the_shipped_configurations_are_valid(repository: Path) -> None:
    paths = sorted((repository / "configs" / "synthesize").glob("*.yaml"))
    assert [path.stem for path in paths] == ["medinstruct-52k", "smollm2"]
    published = read_settings([(str(paths[0]), read_yaml_mapping(paths[0]))])
    assert (published.teacher.model, published.answerer.model) == ("gpt-4", "gpt-3.5-turbo")
    assert (published.task_sampling.presence_penalty, published.similarity) == (1.5, 0.7)
    local = read_settings([(str(paths[1]), read_yaml_mapping(paths[1]))])
    assert local.teacher.is_loopback()


def test_clinicians_seeds_are_read_as_they_are(tmp_path: Path, real_data: Path) -> None:
    with ScriptedServer(shuffled) as server:
        funnel = synthesize(settings_for(server, real_data / "med_seed.json"), tmp_path / "work")
        asked = next(text_of(body) for body in server.bodies if asks_for_tasks(body))
    check_sums(funnel, tmp_path / "work")
    assert funnel.instructions == 20
    originals = {seed.instruction for seed in read_records(real_data / "med_seed.json", SeedTask)}
    assert sum(instruction.strip() in asked for instruction in originals) >= 3
    assert os.path.getsize(tmp_path / "work" / "ledger.sqlite") > 0
