"""The flags that set configuration keys, and how a run's progress is put into words."""

import dataclasses
import doctest
import importlib

import pytest
from typer.testing import CliRunner

from alpacare_jax.cli import app, flags
from datagen.configuration import declared, parse_overrides
from datagen.errors import ConfigError
from datagen.money.projection import Money
from datagen.settings import Settings
from datagen.synthesize import Progress, display
from datagen.synthesize.display import progress_words

VERBS = {
    "synthesize": ("datagen.settings", "Settings"),
    "judge": ("alpacare_jax.evaluate.judge", "JudgeSettings"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_sets_a_key_that_exists(verb: str) -> None:
    module, name = VERBS[verb]
    for flag in getattr(flags, verb.upper()).values():
        for key in flag.keys.split():
            kind = getattr(importlib.import_module(module), name)
            *groups, last = key.split(".")
            for group in groups:
                kind = declared(kind)[group].group
            assert last in declared(kind), key


def test_flags_become_nested_settings() -> None:
    given = {
        "--model": "m",
        "--answer-max-tokens": "9",
        "--concurrency": "3",
        "--top-p": "none",
        "--eager": True,
    }
    given |= {"--budget-usd": "inf", "--privacy": "off", "--evaluation": ["a.jsonl", "b.csv:x,y"]}
    words = [word for name, value in given.items() for word in flags.SYNTHESIZE[name].overrides(value)]
    assert parse_overrides(Settings, words) == {
        "teacher": {"model": "m", "concurrency": 3},
        "answerer": {"concurrency": 3},
        "answer_sampling": {"max_tokens": 9},
        "task_sampling": {"top_p": None},
        "eager": True,
        "budget_usd": None,
        "privacy": "off",
        "evaluation_files": ["a.jsonl", "b.csv:x,y"],
    }


@pytest.mark.parametrize("text", ["odd name #1.jsonl", "2024", "@file", "a: b", "[x].jsonl", "*", "'q'"])
def test_paths_names_and_addresses_are_taken_as_typed(text: str) -> None:
    names = (
        "--seeds",
        "--prices",
        "--model",
        "--answer-model",
        "--base-url",
        "--api-key-env",
        "--privacy-model",
    )
    words = [word for name in names for word in flags.SYNTHESIZE[name].overrides(text)]
    assert parse_overrides(Settings, words) == {
        "seeds": text,
        "prices": text,
        "teacher": {"model": text, "base_url": text, "api_key_env": text},
        "answerer": {"model": text},
        "privacy_model": text,
    }


@pytest.mark.parametrize("verb", VERBS)
def test_help_all_lists_every_key_with_its_default(verb: str) -> None:
    shown = CliRunner().invoke(app, [verb, "--help-all"]).output
    assert "  batch.poll_s=60.0\n      Longest wait between two looks at a batch, in seconds.\n" in shown
    assert "  --batch-poll-s VALUE" in shown
    assert "sampling.max_tokens=" in shown


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--model", "m"], "--base-url sets teacher.base_url"),
        (
            ["--base-url", "http://localhost/v1", "--model", "m", "--top-p", "3"],
            "--top-p sets task_sampling.top_p",
        ),
        (["--base-url", "http://localhost/v1", "--model", "m", "--target", "many"], "--target sets target"),
        (
            ["--base-url", "http://localhost/v1", "--model", "m", "taget=3"],
            "taget: unknown key; did you mean target?",
        ),
        (["--base-url", "http://localhost/v1", "--model", "m", "--seeds", "gs://a/b"], "--seeds sets seeds"),
        (["--base-url", "http://localhost/v1", "--model", ""], "teacher.model is missing"),
        ([], "2 settings are not valid"),
    ],
)
def test_an_error_about_a_key_names_the_flag_that_sets_it(tmp_path, words: list[str], named: str) -> None:
    run = CliRunner().invoke(app, ["synthesize", "--work", str(tmp_path / "work"), *words])
    assert isinstance(run.exception, ConfigError), run.output
    assert named in str(run.exception)
    assert not (tmp_path / "work").exists()


def test_the_examples_are_true() -> None:
    assert doctest.testmod(flags).failed == doctest.testmod(display).failed == 0


def test_progress_says_what_is_spent_as_far_as_it_is_known() -> None:
    spent = Money(0.5, 0.1, 0.5, 0.0, None, None, 0)
    progress = Progress("tasks", 1, 3, 2, 10, tries=4, money=spent)
    assert progress_words(progress, 12.4) == "1 request | 2 rejected | $0.50 | 12 tries/min"
    unknown = dataclasses.replace(spent, spent_usd=0.0, unpriced_tries=4)
    answers = dataclasses.replace(progress, stage="answers", answered=3, money=unknown)
    assert progress_words(answers, None) == ""
