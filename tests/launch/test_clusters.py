"""What gcloud and sbatch are told, recorded by programs of those names that stand in for them on PATH."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALPACARE = [sys.executable, "-m", "alpacare_jax"]
WORDS = ["doctor", "--folder", "my runs/a b.yaml", "name='x y'", "$HOME"]

RECORDER = """#!{python}
import json, os, sys
text = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps({{"arguments": sys.argv[1:], "stdin": text}}) + "\\n")
sys.exit(int(os.environ.get("STATUS", "0")))
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH with programs that record how they were called; returns the record's path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("gcloud", "sbatch", "srun"):
        program = folder / name
        program.write_text(RECORDER.format(python=sys.executable))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record.jsonl"))
    return tmp_path / "record.jsonl"


def calls(record: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


VM = ["--name", "pod", "--zone", "us-central2-b", "--project", "clinic"]


def test_the_tpu_script_runs_the_verb_on_all_workers(tools: Path) -> None:
    done = run(str(ROOT / "launch/tpu_vm.sh"), *VM, "--", *WORDS)
    assert done.returncode == 0, done.stderr
    (call,) = calls(tools)
    *start, remote = call["arguments"]
    assert start == [
        *["compute", "tpus", "tpu-vm", "ssh", "pod"],
        *["--zone=us-central2-b", "--project=clinic", "--worker=all"],
    ]
    # What a worker's shell makes of the command: the words arrive as they were given, nothing expanded.
    assert shlex.split(remote.removeprefix("--command=")) == [
        *["cd", "alpacare-jax", "&&", "ALPACARE_DISTRIBUTED=1", ".venv/bin/alpacare"],
        *WORDS,
    ]


def test_the_command_and_the_tpu_script_say_the_same(tools: Path) -> None:
    run(str(ROOT / "launch/tpu_vm.sh"), *VM, "--", *WORDS)
    printed = run(*ALPACARE, "launch", "tpu-vm", *VM, "--", *WORDS)
    assert printed.returncode == 0, printed.stderr
    (script,) = calls(tools)
    program, *arguments = shlex.split(printed.stdout)
    assert program == "gcloud"
    assert arguments[:-1] == script["arguments"][:-1]
    assert shlex.split(arguments[-1]) == shlex.split(script["arguments"][-1])


def test_submitting_runs_what_was_printed_and_passes_its_status_on(tools: Path) -> None:
    printed = run(*ALPACARE, "launch", "tpu-vm", *VM, "--", *WORDS)
    assert calls(tools) == []
    submitted = run(*ALPACARE, "launch", "tpu-vm", *VM, "--submit", "--", *WORDS, STATUS="3")
    assert submitted.returncode == 3
    (call,) = calls(tools)
    assert ["gcloud", *call["arguments"]] == shlex.split(printed.stdout)


def test_setting_a_tpu_up_copies_the_commit_and_installs_it(tools: Path) -> None:
    done = run(str(ROOT / "launch/tpu_vm.sh"), *VM, "--setup")
    assert done.returncode == 0, done.stderr
    copy, install = (call["arguments"] for call in calls(tools))
    assert copy[3] == "scp"
    assert copy[5] == "pod:alpacare-jax.tar.gz"
    assert install[3] == "ssh"
    assert ".[tpu]" in install[-1]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--name", "pod", "--", "doctor"], "--zone"),
        (["--name", "pod", "--zone", "z"], "name a verb"),
        (["--nmae", "pod"], "unknown argument: --nmae"),
        (["--name"], "needs a value"),
    ],
)
def test_the_tpu_script_refuses_what_it_cannot_run(tools: Path, arguments: list[str], word: str) -> None:
    done = run(str(ROOT / "launch/tpu_vm.sh"), *arguments)
    assert done.returncode == 2
    assert word in done.stderr
    assert calls(tools) == []


def test_the_slurm_script_runs_the_verb_through_srun(tools: Path, tmp_path: Path) -> None:
    done = run(
        str(ROOT / "launch/slurm.sh"), *WORDS, SLURM_JOB_ID="1", SLURM_SUBMIT_DIR=str(tmp_path), ALPACARE=""
    )
    assert done.returncode == 0, done.stderr
    (call,) = calls(tools)
    assert call["arguments"] == ["--kill-on-bad-exit=1", "--label", "alpacare", *WORDS]


def test_the_rendered_slurm_job_runs_and_asks_for_what_was_asked(tools: Path, tmp_path: Path) -> None:
    options = ["--nodes", "2", "--gpus-per-node", "4", "--partition", "gpu", "--time-limit", "01:00:00"]
    printed = run(*ALPACARE, "launch", "slurm", *options, "--", *WORDS)
    assert printed.returncode == 0, printed.stderr
    asked = [
        line.removeprefix("#SBATCH ") for line in printed.stdout.splitlines() if line.startswith("#SBATCH")
    ]
    assert set(asked) == {
        *["--job-name=alpacare", "--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=4"],
        *["--partition=gpu", "--time=01:00:00", "--exclusive"],
    }
    script = tmp_path / "job.sh"
    script.write_text(printed.stdout)
    # SC2016 asks whether a quoted $HOME was meant; here it was, the words are to arrive as they were given.
    checked = run(str(Path(sys.executable).parent / "shellcheck"), "--exclude=SC2016", str(script))
    assert checked.returncode == 0, checked.stdout
    assert run("bash", str(script)).returncode == 0
    submitted = run(*ALPACARE, "launch", "slurm", *options, "--submit", "--", *WORDS)
    assert submitted.returncode == 0
    stepped, batched = calls(tools)
    assert stepped["arguments"] == ["--kill-on-bad-exit=1", "--label", "alpacare", *WORDS]
    assert batched == {"arguments": [], "stdin": printed.stdout}


def test_the_shipped_slurm_script_asks_for_what_the_command_asks_by_default(tools: Path) -> None:
    printed = run(*ALPACARE, "launch", "slurm", "--", "doctor").stdout
    shipped = (ROOT / "launch/slurm.sh").read_text()
    assert {line for line in shipped.splitlines() if line.startswith("#SBATCH")} == {
        line for line in printed.splitlines() if line.startswith("#SBATCH")
    }


def test_the_slurm_script_refuses_to_run_outside_a_job(tools: Path) -> None:
    done = run(str(ROOT / "launch/slurm.sh"), "doctor", SLURM_JOB_ID="")
    assert done.returncode == 2
    assert "sbatch" in done.stderr
    assert calls(tools) == []


@pytest.mark.parametrize("script", ["tpu_vm.sh", "slurm.sh", "local.sh"])
def test_every_script_explains_itself(script: str) -> None:
    done = run(str(ROOT / "launch" / script), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage:")
    assert done.stderr == ""


def test_a_missing_cluster_program_is_named(tmp_path: Path) -> None:
    done = run(*ALPACARE, "launch", "slurm", "--submit", "--", "doctor", PATH=str(tmp_path))
    assert done.returncode == 2
    assert "sbatch is not installed" in done.stderr


def test_a_mistyped_verb_is_named_before_anything_starts(tools: Path) -> None:
    done = run(*ALPACARE, "launch", "slurm", "--submit", "--", "doctr")
    assert done.returncode == 2
    assert "did you mean doctor?" in done.stderr
    assert calls(tools) == []
