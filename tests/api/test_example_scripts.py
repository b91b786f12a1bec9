"""The scripts in examples/ run as they stand, on a tiny model and servers on loopback."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import nbclient
import nbformat
import pytest
from scripted_server import ScriptedServer, write_tasks

import alpacare_jax as alpacare


@pytest.fixture
def example(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run a script of examples/ with arguments: what it printed."""
    monkeypatch.setenv("ALPACARE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "none")

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(repository / "examples" / name))
        return capsys.readouterr().out

    return run


def test_the_quick_tour_trains_and_exports(example, repository, tiny, tasks, tmp_path):
    assert len((repository / "examples" / "quick_tour.py").read_text().splitlines()) <= 25
    assert example("quick_tour.py", tiny, tasks, tmp_path / "out").count("\n") >= 2, "two replies"
    assert alpacare.load(tmp_path / "out").logits([[2, 3]]).shape == (1, 2, 264)


@pytest.mark.slow
def test_own_data_becomes_a_better_model(example, tiny, tasks, tmp_path):
    said = example("own_data.py", tiny, tasks, tmp_path / "out", "--steps", 3)
    before, after = (float(word) for word in said.split("perplexity: ")[1].split()[:3:2])
    assert after < before
    assert alpacare.load(tmp_path / "out" / "model").logits([[2, 3]]).shape == (1, 2, 264)


@pytest.mark.slow
def test_the_custom_loop_stops_saves_and_goes_on(example, tiny, tasks, tmp_path):
    options = ("--measure-every", 1, "--steps")
    assert "step 2: held-out loss" in example("custom_loop.py", tiny, tasks, tmp_path / "out", *options, 2)
    assert (tmp_path / "out" / "checkpoints" / "2").exists()


@pytest.mark.slow
def test_two_models_are_judged(example, tiny, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"instruction": f"Name sign {n}."}) + "\n" for n in range(3)))
    with ScriptedServer(lambda *_: "Output (a)") as server:
        judge = ("--judge-url", server.base_url, "--judge-model", "scripted", "--max-tokens", 4)
        arguments = (tiny, tiny, prompts, tmp_path / "out", *judge)
        said = example("judge_two_models.py", *arguments)
        assert server.count == 6, "three pairs in two orders"
        assert example("judge_two_models.py", *arguments).splitlines()[-3:] == said.splitlines()[-3:]
        assert server.count == 6, "nothing is asked twice"
    assert "50.0" in said


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(repository, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("ALPACARE_MODEL", str(tiny))
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    notebook = nbformat.read(repository / "examples" / "walkthrough.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not kept in the repository"
    nbclient.NotebookClient(notebook, timeout=300).execute(cwd=str(tmp_path))
    assert alpacare.load(tmp_path / "fine-tuned").logits([[2, 3]]).shape == (1, 2, 264)


def test_a_provider_becomes_a_dataset_and_is_asked_nothing_twice(example, tmp_path):
    with ScriptedServer(write_tasks) as server:
        service = ("--base-url", server.base_url, "--model", "scripted", "--price", 1, 2, "--target", 12)
        arguments = (tmp_path / "work", tmp_path / "out", *service)
        said = example("own_provider.py", *arguments)
        asked = server.count
        assert example("own_provider.py", *arguments) == said
        assert server.count == asked
    published = (tmp_path / "out" / "README.md").read_text()
    assert "12 accepted tasks" in said
    assert "CC-BY-4.0" in published
