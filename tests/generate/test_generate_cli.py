"""The verbs ``generate`` and ``serve`` as a user runs them: processes, messages and exit states."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

Alpacare = Callable[..., "subprocess.CompletedProcess[str]"]
ALPACARE = [sys.executable, "-m", "alpacare_jax"]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"id": i, "instruction": f"Say {i}."}) + "\n" for i in range(5)))
    return path


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [*ALPACARE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_generate_writes_responses_on_a_mesh(
    tiny_folder: Path, prompts: Path, tmp_path: Path, alpacare: Alpacare
) -> None:
    out = tmp_path / "responses.jsonl"
    arguments = ["generate", "--model", tiny_folder, "--prompts", prompts, "--out", out, "--max-tokens", 6]
    done = run(*arguments, "--mesh", "fsdp=4,tensor=2", "--template", "chat")
    assert done.returncode == 0, done.stderr
    assert "5 responses" in done.stdout
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == list("01234")
    again = alpacare(*arguments)
    assert again.returncode == 2
    assert "the output exists" in again.stderr
    assert "--overwrite" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.parametrize("option", ["--template=vicuna", "--mesh=rows=2", "--dtype=int8", "--top-p=0"])
def test_a_wrong_argument_of_the_library_is_named_by_its_option(
    prompts: Path, tmp_path: Path, alpacare: Alpacare, option: str
) -> None:
    done = alpacare("generate", "--model=none", "--prompts", prompts, "--out", tmp_path / "out.jsonl", option)
    assert done.returncode == 2
    assert f"where:    {option.partition('=')[0]}\n" in done.stderr


@pytest.fixture(scope="module")
def served(tiny_folder: Path) -> Iterator[tuple["subprocess.Popen[str]", int, str]]:
    command = [*ALPACARE, "serve", "--model", str(tiny_folder), "--port", "0", "--slots", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    yield process, int(line.split("127.0.0.1:")[1].split("/")[0]), line
    process.kill()
    process.wait()


def test_serve_says_when_it_is_ready_and_ends_when_told(
    served: tuple["subprocess.Popen[str]", int, str], tiny_folder: Path, alpacare: Alpacare
) -> None:
    process, port, line = served
    assert line.startswith("ready: http://127.0.0.1:")
    assert "model tiny" in line
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    reply = client.completions.create(model="tiny", prompt="Hello", max_tokens=3, temperature=0)
    assert reply.usage is not None
    assert 1 <= reply.usage.completion_tokens <= 3
    taken = alpacare("serve", "--model", tiny_folder, "--port", port)
    assert taken.returncode == 2
    assert f"port {port} is in use" in taken.stderr
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_model_that_is_not_there_is_named(tmp_path: Path, prompts: Path, alpacare: Alpacare) -> None:
    arguments = ["--prompts", prompts, "--out", tmp_path / "out.jsonl"]
    done = alpacare("generate", "--model", tmp_path / "none", *arguments)
    assert done.returncode == 2
    assert str(tmp_path / "none") in done.stderr
    assert "Traceback" not in done.stderr
