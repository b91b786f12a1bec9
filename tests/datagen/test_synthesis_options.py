import dataclasses
import doctest
import inspect
import typing

from alpacare_jax.cli import synthesis_options, synthesis_progress
from alpacare_jax.cli.synthesis_options import SETTINGS, to_settings
from alpacare_jax.cli.synthesis_progress import progress_words
from alpacare_jax.cli.synthesize_verb import command
from datagen.money.projection import Money
from datagen.settings import Settings
from datagen.synthesize import Progress

ACTIONS = {
    "context",
    "work",
    "config",
    "dry_run",
    "status",
    "as_json",
    "retry_failed",
    "derive",
    "no_wait",
    "cancel_batches",
}


def test_every_option_sets_a_setting_that_exists() -> None:
    options = set(inspect.signature(command).parameters) - ACTIONS
    assert options == set(SETTINGS)
    for names in SETTINGS.values():
        for name in names:
            kind: type = Settings
            *groups, last = name.split(".")
            for group in groups:
                kind = typing.get_type_hints(kind)[group]
            assert last in {field.name for field in dataclasses.fields(kind)}, name


def test_options_become_nested_settings() -> None:
    options = {"model": "m", "answer_max_tokens": 9, "concurrency": 3, "eager": None, "work": "x"}
    assert to_settings(options | {"evaluation_files": [], "budget_usd": 2.0}) == {
        "teacher": {"model": "m", "concurrency": 3},
        "answerer": {"concurrency": 3},
        "answer_sampling": {"max_tokens": 9},
        "budget_usd": 2.0,
    }
    assert to_settings({"evaluation_files": ()}) == {}
    assert to_settings({"budget_usd": float("inf")}) == {"budget_usd": None}


def test_the_examples_are_true() -> None:
    assert doctest.testmod(synthesis_options).failed == doctest.testmod(synthesis_progress).failed == 0


def test_progress_says_what_is_spent_as_far_as_it_is_known() -> None:
    spent = Money(0.5, 0.1, 0.5, 0.0, None, None, 0)
    progress = Progress("tasks", 1, 3, 2, 10, tries=4, money=spent)
    assert progress_words(progress, 12.4) == "1 request | 2 rejected | $0.50 | 12 tries/min"
    unknown = dataclasses.replace(spent, spent_usd=0.0, unpriced_tries=4)
    answers = dataclasses.replace(progress, stage="answers", answered=3, money=unknown)
    assert progress_words(answers, None) == ""
