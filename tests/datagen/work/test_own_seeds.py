"""A work folder keeps its seed tasks: it is reported on, resumed and derived after their file moved or changed."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import ScriptedServer, write_tasks
from typer.testing import CliRunner

from alpacare_jax.cli import app
from datagen.records import SeedTask, write_records
from datagen.seeds import load_seeds
from datagen.statistics import collect
from datagen.work.folder import SEEDS, fingerprint, keep_copy

TEXTS = ("What is gout?", "List signs of sepsis.", "Explain insulin to a child.", "Why rest?")


def write_seeds(path: Path, *more: str) -> Path:
    tasks = [SeedTask(text, "<noinput>", "Open Q&A", "Medicine", "Nurse", "2") for text in (*TEXTS, *more)]
    write_records(path, tasks)
    return path


def alpacare(verb: str, *arguments: object) -> Result:
    return CliRunner().invoke(app, [verb, *map(str, arguments)])


def words(result: Result) -> str:
    return result.output + str(result.exception)


class Scene:
    """A finished run of eight tasks, and its seed file."""

    def __init__(self, folder: Path, server: ScriptedServer) -> None:
        self.folder, self.work, self.seeds = folder, folder / "work", write_seeds(folder / "mine.jsonl")
        self.service = ("--base-url", server.base_url, "--model", "scripted", "--tasks-per-request", 4)
        begun = self.run("--seeds", self.seeds, *self.service, "--target", 8)
        assert begun.exit_code == 0, words(begun)

    def run(self, *arguments: object, work: Path | None = None) -> Result:
        return alpacare("synthesize", "--work", work or self.work, *arguments)

    def forget_progress(self) -> None:
        """Leave what a killed run leaves: no results, so that figures are counted from replies and seeds."""
        for name in ("funnel.json", "instructions.jsonl", "tasks.jsonl", "rejected.jsonl"):
            (self.work / name).unlink()


@pytest.fixture
def scene(tmp_path: Path) -> Any:
    with ScriptedServer(lambda body, tried: write_tasks(body)) as server:
        yield Scene(tmp_path, server)


def test_a_folder_holds_the_tasks_that_it_was_made_of(scene: Scene) -> None:
    assert load_seeds(scene.work / SEEDS) == load_seeds(scene.seeds)


def test_after_the_original_is_gone_a_run_is_reported_on_resumed_and_forked(scene: Scene) -> None:
    scene.seeds.unlink()
    moved = scene.folder / "moved"
    scene.work.rename(moved)
    scene.work = moved
    more = scene.run("--target", 16)
    assert more.exit_code == 0, words(more)
    assert f"going on with the folder's own copy, {moved / SEEDS}" in words(more)
    derived = scene.run("--fork", scene.folder / "derived", "--similarity", 0.5)
    assert derived.exit_code == 0, words(derived)
    assert load_seeds(scene.folder / "derived" / SEEDS) == load_seeds(moved / SEEDS)
    scene.forget_progress()
    assert scene.run("--status").exit_code == 0
    page = alpacare("report", moved, "--out", scene.folder / "report.html")
    assert page.exit_code == 0, words(page)


def test_a_run_named_with_its_config_goes_on_without_the_original(scene: Scene) -> None:
    config = scene.folder / "run.yaml"
    config.write_text(json.dumps({"seeds": "mine.jsonl", "tasks_per_request": 4, "target": 12}))
    scene.seeds.unlink()
    more = scene.run("--config", config, *scene.service)
    assert more.exit_code == 0, words(more)
    elsewhere = scene.run("--config", config, *scene.service, work=scene.folder / "new")
    assert "the file does not exist" in words(elsewhere)
    asked_for = scene.run("--seeds", scene.seeds)
    assert asked_for.exit_code != 0


def test_an_original_that_changed_is_named_and_the_copy_goes_on(scene: Scene) -> None:
    write_seeds(scene.seeds, "One more seed?")
    refused = scene.run("--target", 12)
    assert "seed tasks: '4 tasks, " in words(refused)
    assert "'5 tasks, " in words(refused)
    assert f"--seeds {scene.work / SEEDS}" in words(refused)
    assert len(load_seeds(scene.work / SEEDS)) == 4
    assert scene.run("--seeds", scene.work / SEEDS, "--target", 12).exit_code == 0


def test_figures_look_back_with_the_copy_whatever_became_of_the_original(scene: Scene) -> None:
    scene.forget_progress()
    before = collect(scene.work).funnel
    assert before.tasks_kept == 8
    write_seeds(scene.seeds, "Explain gout and its usual treatment briefly.")
    assert collect(scene.work).funnel == before


def test_a_copy_that_was_changed_is_named_and_written_anew_from_the_original(scene: Scene) -> None:
    write_seeds(scene.work / SEEDS, "Slipped in?")
    assert "copy of its seed tasks was changed" in words(scene.run("--status"))
    assert scene.run("--target", 8).exit_code == 0
    assert load_seeds(scene.work / SEEDS) == load_seeds(scene.seeds)
    write_seeds(scene.work / SEEDS, "Slipped in?")
    scene.seeds.unlink()
    assert "copy of its seed tasks was changed" in words(scene.run("--target", 12))


def test_a_folder_of_an_older_version_gets_its_copy_when_it_is_run_again(scene: Scene) -> None:
    (scene.work / SEEDS).unlink()
    assert scene.run("--status").exit_code == 0
    assert scene.run("--target", 12).exit_code == 0
    assert load_seeds(scene.work / SEEDS) == load_seeds(scene.seeds)
    (scene.work / SEEDS).unlink()
    scene.seeds.unlink()
    assert "the file does not exist" in words(scene.run("--target", 12))


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=5))
def test_a_copy_has_the_fingerprint_of_what_was_read(tmp_path_factory: Any, texts: list[str]) -> None:
    work = tmp_path_factory.mktemp("work")
    seeds = [SeedTask(f"Task {number}: {text}", text) for number, text in enumerate(texts)]
    keep_copy(work, seeds)
    assert fingerprint(load_seeds(work / SEEDS)) == fingerprint(seeds)
