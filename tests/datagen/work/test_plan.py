import dataclasses
from pathlib import Path

import pytest
from scripted_server import MODEL, ScriptedServer, write_tasks
from typer.testing import CliRunner

from alpacare_jax.cli import app
from datagen.client import Service
from datagen.errors import ConfigError
from datagen.ledger import Ledger, StageSpending
from datagen.money.projection import Money
from datagen.settings import Settings
from datagen.synthesize import Progress, status, synthesize
from datagen.work.plan import plan

REMOTE = Service("https://api.example.org/v1", "gpt-4", api_key_env="NO_SUCH_KEY")


def test_a_plan_sends_nothing_writes_nothing_and_needs_no_key(tmp_path: Path) -> None:
    settings = Settings(REMOTE, dataclasses.replace(REMOTE, model="gpt-4o-mini"), target=1000, budget_usd=5.0)
    made = plan(settings, tmp_path / "work")
    assert list(tmp_path.iterdir()) == []
    assert made.task_sample.id == "000000"
    assert made.estimate.tasks.requests == 105
    assert made.estimate.answers.requests == 1000
    assert made.estimate.worst_tasks.requests == settings.request_limit()
    expected, worst = made.estimate.expected_usd, made.estimate.worst_usd
    assert expected is not None
    assert worst is not None
    assert 1 < expected < worst
    assert made.estimate.tasks.usd == pytest.approx(
        (made.estimate.tasks.prompt_tokens * 30 + made.estimate.tasks.completion_tokens * 60) / 1e6
    )
    with pytest.raises(ConfigError, match="a budget needs the price"):
        plan(dataclasses.replace(settings, answerer=dataclasses.replace(REMOTE, model="new")), tmp_path)


def test_the_command_prints_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-hidden-0123456789")
    prices = tmp_path / "prices.yaml"
    prices.write_text("mine: {input: 2, output: 8}\n")
    work = tmp_path / "work"
    flags = ["--base-url", "https://api.example.org/v1", "--model", "gpt-4", "--answer-model", "mine"]
    flags += [
        "--api-key-env",
        "TEACHER_KEY",
        "--prices",
        str(prices),
        "--budget-usd",
        "2",
        "--target",
        "5000",
    ]
    run = CliRunner().invoke(app, ["synthesize", "--work", str(work), *flags, "--dry-run"])
    assert run.exit_code == 0, run.output
    for part in (
        "gpt-4 at https://api.example.org/v1",
        "key from TEACHER_KEY (set)",
        "$30.00 in, $60.00 out per million tokens (list price: OpenAI",
        "$2.00 in, $8.00 out per million tokens (your price)",
        "budget      $2.00",
        "(new)",
        "first task request",
        "[user] Write medical tasks 4 to 15",
        "The budget of $2.00 is expected to end the run at about",
    ):
        assert part in run.output
    assert "sk-hidden" not in run.output
    assert not work.exists()


def test_no_run_costs_more_than_the_worst_case(tmp_path: Path) -> None:
    with ScriptedServer(lambda body, tried: write_tasks(body)) as server:
        service = Service(server.base_url, MODEL)
        prices = {MODEL: {"input": 1, "output": 1}}
        settings = Settings(service, service, target=20, tasks_per_request=4, prices=prices)
        made = plan(settings, tmp_path / "work")
        synthesize(settings, tmp_path / "work")
    with Ledger(tmp_path / "work" / "ledger.sqlite") as ledger:
        counts = ledger.counts()
    worst = made.estimate
    assert made.estimate.worst_usd is not None
    assert worst.worst_tasks.requests >= counts["tasks"]["tries"]
    assert worst.worst_answers.requests == counts["answers"]["tries"] == 20
    assert worst.worst_tasks.prompt_tokens >= counts["tasks"]["prompt_tokens"]
    assert worst.worst_answers.completion_tokens >= counts["answers"]["completion_tokens"]


def test_the_projection_follows_what_a_task_and_an_answer_cost_so_far() -> None:
    spending = {
        "tasks": StageSpending(2.0, 0.5, 9.0, 0, 10),
        "answers": StageSpending(1.0, 0.0, 9.0, 2, 10),
    }
    so_far = {"kept": 25, "requests": 5, "answered": 10, "target": 100}
    spent = Money.project(spending, **so_far, budget_usd=20.0)
    assert (spent.spent_usd, spent.unknown_usd, spent.tasks_usd, spent.answers_usd) == (3.5, 0.5, 2.5, 1.0)
    # A request costs $0.20 and brings five tasks; five of the ten that are paid wait to be judged.
    assert spent.projected_usd == pytest.approx(3.5 + 0.2 / 5 * 75 + 0.1 * 90)
    assert (spent.budget_usd, spent.unpriced_tries) == (20.0, 2)
    done = {"kept": 100, "requests": 20, "answered": 100, "target": 100}
    assert Money.project(spending, **done).projected_usd == 3.5
    assert Money.project({}, kept=0, requests=0, answered=0, target=100).projected_usd is None
    assert Money.project(spending, **so_far, foreseen=False).projected_usd is None


def test_what_a_derived_folder_took_over_says_nothing_of_what_its_answers_will_cost() -> None:
    taken = {"kept": 40, "requests": 10, "answered": 30, "target": 40}
    assert Money.project({}, **taken).projected_usd is None
    assert Money.project({}, **taken, answer_usd=0.25).projected_usd == 2.5
    unknown = {"answers": StageSpending(unknown_usd=8.0)}
    assert Money.project(unknown, **taken, answer_usd=0.25).projected_usd == 10.5


def test_a_status_of_a_folder_without_notes_judges_anew(tmp_path: Path) -> None:
    with ScriptedServer(lambda body, tried: write_tasks(body)) as server:
        service = Service(server.base_url, MODEL)
        settings = Settings(service, service, target=20, tasks_per_request=4)
        funnel = synthesize(settings, tmp_path)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.execute("DELETE FROM notes")
    again = status(tmp_path).funnel
    for key in ("tasks_kept", "tasks_rejected", "instructions", "answer_replies", "target_reached"):
        assert getattr(again, key) == getattr(funnel, key)


def test_no_projection_is_made_until_earlier_replies_are_judged_anew(tmp_path: Path) -> None:
    with ScriptedServer(lambda body, tried: write_tasks(body)) as server:
        service = Service(server.base_url, MODEL, concurrency=1)
        prices = {MODEL: {"input": 1, "output": 1}}
        settings = Settings(service, service, target=20, tasks_per_request=4, prices=prices)
        before = synthesize(settings, tmp_path).task_requests
        steps: list[Progress] = []
        synthesize(dataclasses.replace(settings, target=40), tmp_path, watch=steps.append)
    tasks = [step for step in steps if step.stage == "tasks"]
    known = {step.requests: step.money.projected_usd for step in tasks if step.money is not None}
    assert before > 2
    assert all((usd is None) == (requests < before) for requests, usd in known.items())
    last = steps[-1].money
    assert last is not None
    assert last.projected_usd == pytest.approx(last.spent_usd)
    assert all(usd == pytest.approx(last.spent_usd, rel=0.3) for usd in known.values() if usd)
