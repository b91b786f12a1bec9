import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_server import MODEL, ScriptedServer, asks_for_tasks, write_tasks

from datagen.client import Service
from datagen.errors import DataError
from datagen.ledger import Ledger
from datagen.settings import Settings
from datagen.synthesize import synthesize
from datagen.work.derive import Derived, derive

FILES = ("instructions.jsonl", "tasks.jsonl", "rejected.jsonl")


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(lambda body, tried: write_tasks(body)) as running:
        yield running


@pytest.fixture
def settings(server: ScriptedServer) -> Settings:
    service = Service(server.base_url, MODEL, first_wait_s=0.02, concurrency=1)
    return Settings(service, service, target=12, tasks_per_request=4)


def rows(work: Path, name: str) -> list[Any]:
    """The rows of a result file without the times of the replies."""
    found = [json.loads(line) for line in (work / name).read_text("utf-8").splitlines()]
    for row in found:
        row.get("source", {}).pop("time", None)
    return found


def contents(work: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(work.iterdir()) if ".sqlite-" not in path.name}


def test_another_filter_keeps_every_task_that_was_paid_for(
    tmp_path: Path, server: ScriptedServer, settings: Settings
) -> None:
    synthesize(settings, tmp_path / "old")
    before = contents(tmp_path / "old")
    stricter = dataclasses.replace(settings, similarity=0.4)
    asked = server.count
    synthesize(stricter, tmp_path / "whole")
    needed = server.count - asked
    taken = derive(tmp_path / "old", tmp_path / "new", stricter)
    assert taken.tasks == taken.of_tasks > 0
    assert 0 < taken.answers <= taken.of_answers == 12
    asked = server.count
    synthesize(stricter, tmp_path / "new")
    fresh = server.bodies[asked:]
    assert len(fresh) == needed - taken.tasks - taken.answers
    with Ledger(tmp_path / "old" / "ledger.sqlite", read_only=True) as old:
        known = {entry.request for entry in old.entries("tasks")}
    assert not known & {json.dumps(body, ensure_ascii=False) for body in fresh}
    for name in FILES:
        assert rows(tmp_path / "new", name) == rows(tmp_path / "whole", name)
    assert contents(tmp_path / "old") == before
    assert json.loads((tmp_path / "new" / "config.json").read_text())["forked_from"] == str(tmp_path / "old")


def test_another_answerer_keeps_the_tasks_and_none_of_the_answers(
    tmp_path: Path, server: ScriptedServer, settings: Settings
) -> None:
    synthesize(settings, tmp_path / "old")
    other = dataclasses.replace(settings, answerer=dataclasses.replace(settings.answerer, model="another"))
    taken = derive(tmp_path / "old", tmp_path / "new", other)
    assert taken == Derived(taken.of_tasks, taken.of_tasks, 0, 12)
    asked = server.count
    synthesize(other, tmp_path / "new")
    assert not any(asks_for_tasks(body) for body in server.bodies[asked:])


def test_other_prompts_keep_nothing(tmp_path: Path, settings: Settings) -> None:
    synthesize(settings, tmp_path / "old")
    other = dataclasses.replace(settings, seed=1)
    taken = derive(tmp_path / "old", tmp_path / "new", other)
    assert (taken.tasks, taken.answers) == (0, 0)
    # Nothing was asked yet, so the new folder may still be derived another way.
    assert derive(tmp_path / "old", tmp_path / "new", settings).answers == 12


def test_deriving_starts_a_folder_of_its_own(tmp_path: Path, settings: Settings) -> None:
    synthesize(settings, tmp_path / "old")
    derive(tmp_path / "old", tmp_path / "new", settings)
    before = contents(tmp_path / "new")
    with pytest.raises(DataError, match="already contains a run") as caught:
        derive(tmp_path / "old", tmp_path / "new", settings)
    assert f"resume {tmp_path / 'new'}" in str(caught.value)
    assert contents(tmp_path / "new") == before
    with pytest.raises(DataError, match="from itself"):
        derive(tmp_path / "old", tmp_path / "old" / ".." / "old", settings)
    with pytest.raises(DataError, match="no ledger yet"):
        derive(tmp_path / "nowhere", tmp_path / "other", settings)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("precious")
    with pytest.raises(DataError, match="other files"):
        derive(tmp_path / "old", tmp_path / "notes", settings)
