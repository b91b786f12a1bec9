"""The command as a whole: light to start, every option explained, one message for a user's error."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer.main
from typer.testing import CliRunner

from alpacare_jax.cli import app, explain_os_error, main
from alpacare_jax.cli.verbs import VERBS

GROUP = typer.main.get_command(app)


def alpacare(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "alpacare_jax", *arguments], capture_output=True, text=True, check=False
    )


def commands(group: object = GROUP, prefix: str = "") -> dict[str, click.Command]:
    """Flatten the command's tree: ``{"launch local": ..., "score": ...}``."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            found |= commands(command, f"{prefix}{name} ")
        else:
            found[prefix + name] = command
    return found


def test_every_verb_of_the_table_is_there_and_no_other() -> None:
    assert set(GROUP.commands) == set(VERBS)  # type: ignore[attr-defined]
    assert len(VERBS) == len(set(VERBS))
    modules = {path.stem for path in (Path(__file__).parents[1] / "alpacare_jax/cli").glob("*_verb.py")}
    assert modules == {f"{verb}_verb" for verb in VERBS}


def test_starting_loads_nothing_heavy() -> None:
    code = "import sys\nfrom alpacare_jax import cli\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"jax", "flax", "numpy", "transformers", "tensorflow_datasets", "openai", "orbax", "grain"}
    assert heavy & set(done.stdout.split()) == set()


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_option_says_what_it_means(name: str) -> None:
    command = commands()[name]
    assert command.help, "a verb starts its docstring with what it does"
    for parameter in command.params:
        text = getattr(parameter, "help", None)
        assert text, f"{name}: {parameter.name} has no help"
        assert text.rstrip()[-1] in ".)", f"{name}: the help of {parameter.name} is no sentence: {text}"


@pytest.mark.parametrize("name", sorted(commands()))
def test_help_fits_on_a_screen_and_help_all_lists_every_option(name: str) -> None:
    shown = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "80"})
    assert shown.exit_code == 0, shown.output
    assert "Usage:" in shown.output
    assert len(shown.output.splitlines()) <= 50 or name in ("judge", "synthesize")
    hidden = [option.opts[0] for option in commands()[name].params if getattr(option, "hidden", False)]
    assert not any(f"{option} " in shown.output for option in hidden)
    assert not hidden or "--help-all" in shown.output
    everything = CliRunner().invoke(app, [*name.split(), "--help-all"]).output
    assert not hidden or all(f"{option} " in everything or f"{option}\n" in everything for option in hidden)


def test_a_users_error_is_one_message_and_exit_status_2(tmp_path: Path) -> None:
    done = alpacare("doctor", "--folder", str(tmp_path / "missing"))
    assert done.returncode == 2
    assert done.stdout == ""
    what, where, remedy = done.stderr.splitlines()
    assert what == "alpacare: there is no such folder"
    assert where.endswith(str(tmp_path / "missing"))
    assert remedy.strip().startswith("remedy:")


def test_debug_shows_the_traceback_as_well(tmp_path: Path) -> None:
    done = alpacare("doctor", "--folder", str(tmp_path / "missing"), "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "alpacare: there is no such folder" in done.stderr


def test_debug_after_two_dashes_is_the_launched_verbs(tmp_path: Path) -> None:
    verb = ["--", "doctor", "--folder", str(tmp_path / "missing")]
    done = alpacare("launch", "local", "--processes", "1", *verb, "--debug")
    assert done.returncode == 2
    assert "[0] Traceback" in done.stdout
    assert "[0] alpacare: there is no such folder" in done.stdout


def test_an_unknown_option_or_verb_is_exit_status_2() -> None:
    for arguments in (["doctor", "--foldr", "."], ["doctr"]):
        done = alpacare(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_a_full_disk_is_explained() -> None:
    message = explain_os_error(OSError(28, "No space left on device", "run/metrics.jsonl"))
    assert "No space left on device" in message
    assert "run/metrics.jsonl" in message
    assert "free some disk space" in message


@pytest.mark.parametrize("scheme", ["gs", "s3", "hf", "http", "GS", "abfss", "memory"])
@pytest.mark.parametrize(
    "words",
    [
        "import model --out AT",
        "import AT --out model",
        "export AT --out model",
        "export run --out AT",
        "pack AT --tokenizer t --seq-len 8 --out o",
        "generate --model m --prompts p --out AT",
        "report AT",
        "train --config AT",
        "report run --packed p --packed AT",
    ],
)
def test_an_address_is_never_taken_for_a_local_path(words, scheme, tmp_path, monkeypatch, capsys) -> None:
    """A folder `gs:` would be made here, by each host on its own disk."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([word.replace("AT", f"{scheme}://bucket/a b") for word in words.split()])
    assert ended.value.code == 2
    assert f"{scheme}://bucket/a b" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
