"""The quickstart's own parts: what it skips, what it notes, what it refuses. Its stages are tested as verbs."""

import json
import shlex

import pytest

from alpacare_jax.cli import verbs
from alpacare_jax.errors import DataError, ServiceError, UserError
from alpacare_jax.quickstart.path import (
    QuickstartConfig,
    check_folder,
    clean,
    count_instructions,
    read_stages,
    split,
)
from alpacare_jax.quickstart.stages import Journal, Stage, run_stage, serving


@pytest.fixture
def said():
    return []


def doctor(done, *arguments):
    return Stage("look at the machine", ["doctor", *arguments], done)


def test_a_stage_that_is_done_is_not_run_again(tmp_path, said):
    done = tmp_path / "done"
    done.touch()
    journal = Journal.open(tmp_path / "stages.json")
    run_stage(doctor(done, "--no-such-option"), journal, said.append)
    assert "done before" in said[-1]
    assert journal.seconds == {}


def test_a_stage_that_fails_names_its_command_and_is_not_noted(tmp_path, said):
    journal = Journal.open(tmp_path / "stages.json")
    with pytest.raises(UserError, match="failed") as caught:
        run_stage(doctor(tmp_path / "done", "--no-such-option"), journal, said.append)
    assert "alpacare doctor --no-such-option" in str(caught.value)
    assert "exit status 2" in str(caught.value)
    assert not (tmp_path / "stages.json").exists()


def test_a_stage_that_leaves_nothing_behind_has_failed_whatever_it_says(tmp_path, said):
    with pytest.raises(UserError, match="failed"):
        run_stage(doctor(tmp_path / "never"), Journal.open(tmp_path / "stages.json"), said.append)


def test_the_journal_keeps_commands_and_adds_up_times_between_tries(tmp_path):
    Journal.open(tmp_path / "stages.json").note("pack", "alpacare pack a", 2.0)
    Journal.open(tmp_path / "stages.json").note("pack", "alpacare pack b", 3.0)
    journal = Journal.open(tmp_path / "stages.json")
    assert journal.seconds == {"pack": 5.0}
    assert journal.commands == {"pack": "alpacare pack b"}
    (tmp_path / "stages.json").write_text("{torn")
    assert Journal.open(tmp_path / "stages.json").seconds == {}


def test_a_server_that_does_not_start_says_why(tmp_path):
    with (
        pytest.raises(ServiceError, match="did not start") as caught,
        serving(tmp_path / "no-model", "m", 1, tmp_path / "serve.log"),
    ):
        pytest.fail("there is no model to serve")
    assert "no-model" in str(caught.value)


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    for action in (lambda: check_folder(tmp_path, QuickstartConfig()), lambda: clean(tmp_path)):
        with pytest.raises(DataError):
            action()
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_quickstart_of_other_sizes_is_not_mixed_with_the_first(tmp_path):
    folder = tmp_path / "quickstart"
    check_folder(folder, QuickstartConfig(train=24))
    check_folder(folder, QuickstartConfig(train=24))
    with pytest.raises(DataError, match="other settings"):
        check_folder(folder, QuickstartConfig(train=12))
    clean(folder)
    assert not folder.exists()


def write_instructions(folder, count):
    (folder / "synthesis").mkdir()
    rows = [
        {"id": str(n), "instruction": f"Task {n}", "input": "", "output": f"Answer {n}"} for n in range(count)
    ]
    (folder / "synthesis" / "instructions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_last_instructions_are_held_out_and_no_other(tmp_path, said):
    write_instructions(tmp_path, 8)
    assert count_instructions(tmp_path / "synthesis") == 8
    split(tmp_path, QuickstartConfig(train=5, held_out=2), said.append)
    ids = {
        name: [json.loads(line)["id"] for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "held_out")
    }
    assert ids == {"train": ["0", "1", "2", "3", "4", "5"], "held_out": ["6", "7"]}


def test_too_few_instructions_are_refused(tmp_path, said):
    write_instructions(tmp_path, 3)
    with pytest.raises(DataError, match="too few"):
        split(tmp_path, QuickstartConfig(train=5, held_out=2), said.append)


def test_every_stage_is_a_command_that_exists(tmp_path):
    from typer.testing import CliRunner

    app = verbs.build_app()
    for stage in read_stages(tmp_path, QuickstartConfig(), tmp_path / "model.gguf"):
        verb, *arguments = stage.arguments
        shown = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "300"}).output
        options = [argument for argument in arguments if argument.startswith("--")]
        assert options
        assert all(option in shown for option in options), (verb, options)


def test_a_folder_with_a_space_stays_one_word(tmp_path):
    folder = tmp_path / "my quickstart"
    for stage in read_stages(folder, QuickstartConfig(), tmp_path / "model.gguf"):
        assert shlex.split(stage.command)[-len(stage.arguments) :] == stage.arguments
        assert any(str(folder) in word for word in stage.arguments)


def test_the_stages_run_on_as_many_devices_as_their_meshes_have(tmp_path):
    assert "alpacare" in doctor(tmp_path).command
    devices = {stage.title: stage.devices for stage in read_stages(tmp_path, QuickstartConfig(), tmp_path)}
    assert devices["fine-tune on a mesh of 4 simulated devices"] == 4
