import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from datagen.client import Service
from datagen.errors import DataError
from datagen.records import SeedTask
from datagen.settings import Settings, read_settings
from datagen.work.folder import differences, pin, pinned_settings, refuse_foreign

SEEDS = [SeedTask("What is gout?", "<noinput>", "Open Q&A", "Medicine", "Nurse", "2")]
SERVICE = Service("http://localhost:1/v1", "m")
SETTINGS = Settings(SERVICE, SERVICE)


def changed(**changes: Any) -> Settings:
    return dataclasses.replace(SETTINGS, **changes)


def test_a_folder_that_asked_something_keeps_its_configuration(tmp_path: Path) -> None:
    pin(tmp_path, SETTINGS, SEEDS, "1", began=False)
    before = (tmp_path / "config.json").read_bytes()
    other = changed(
        similarity=0.5,
        answerer=dataclasses.replace(SERVICE, model="n"),
        task_sampling=dataclasses.replace(SETTINGS.task_sampling, top_p=0.5),
    )
    with pytest.raises(DataError, match="another configuration") as caught:
        pin(tmp_path, other, SEEDS * 2, "2")
    words = str(caught.value)
    for part in (
        "answerer.model: 'm' in the folder, 'n' now",
        "prompts: '1' in the folder, '2' now",
        "seed tasks: '1 tasks",
        "similarity: 0.7 in the folder, 0.5 now",
        "task_sampling.top_p: 1.0 in the folder, 0.5 now",
        "use `derive` with a new folder",
    ):
        assert part in words
    assert words.count(" now") == 5
    assert (tmp_path / "config.json").read_bytes() == before
    assert len(differences(tmp_path, other, SEEDS * 2, "2")) == 5


def test_a_folder_that_asked_nothing_takes_another_configuration(tmp_path: Path) -> None:
    pin(tmp_path, SETTINGS, SEEDS, "1", began=False)
    pin(tmp_path, changed(seed=7), SEEDS, "1", began=False)
    assert pinned_settings(tmp_path)["seed"] == 7
    with pytest.raises(DataError, match="seed: 7 in the folder, 0 now"):
        pin(tmp_path, SETTINGS, SEEDS, "1", began=True)


def test_what_moves_only_the_work_may_change(tmp_path: Path) -> None:
    pin(tmp_path, SETTINGS, SEEDS, "1")
    moved = Service("https://elsewhere.example/v1", "m", "OTHER_KEY", 9.0, 2, 99, 0.5)
    free = changed(
        teacher=moved,
        answerer=moved,
        target=5,
        max_requests=9,
        eager=True,
        budget_usd=3.0,
        prices={"m": {"input": 1, "output": 1}},
    )
    pin(tmp_path, free, SEEDS, "1")
    again = read_settings([("the folder", pinned_settings(tmp_path))])
    assert again == free


def test_settings_that_an_older_version_did_not_know_count_as_their_defaults(tmp_path: Path) -> None:
    pin(tmp_path, SETTINGS, SEEDS, "1")
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    for key in ("similarity", "task_sampling.top_p"):
        del content["fixed"][key]
    path.write_text(json.dumps(content))
    assert differences(tmp_path, SETTINGS, SEEDS, "1") == []
    assert differences(tmp_path, changed(similarity=0.6), SEEDS, "1") == [
        "similarity: 0.7 in the folder, 0.6 now"
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2, "fixed": {}, "settings": {}}', "\x00"])
def test_a_broken_configuration_is_named_and_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(DataError, match="config") as caught:
        pin(tmp_path, SETTINGS, SEEDS, "1")
    assert str(path) in str(caught.value)
    with pytest.raises(DataError, match="config"):
        pinned_settings(tmp_path)
    assert path.read_text() == text


def test_other_people_s_files_are_not_taken_for_a_run(tmp_path: Path) -> None:
    refuse_foreign(tmp_path)
    refuse_foreign(tmp_path / "new")
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(DataError, match="other files") as caught:
        refuse_foreign(tmp_path)
    assert "thesis.tex" in str(caught.value)
    with pytest.raises(DataError, match="is a file"):
        refuse_foreign(tmp_path / "thesis.tex")
    with pytest.raises(DataError, match="not the work folder of a synthesis run"):
        pinned_settings(tmp_path)
