"""Publishing through Apache Beam. It needs the 'beam' extra, which holds other packages back: `make test-beam`."""

import json
import sys
from pathlib import Path

import pytest
from scripted_server import ScriptedServer, write_tasks

from datagen.client import Service
from datagen.errors import ConfigError
from datagen.publish import dataset_builder, publish
from datagen.records import SeedTask, write_records
from datagen.settings import Settings
from datagen.synthesize import synthesize


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder as a finished run leaves it."""
    folder = tmp_path_factory.mktemp("finished")
    seeds = folder / "seeds.jsonl"
    texts = ("What is gout?", "List signs of sepsis.", "Explain asthma.", "Why rest?", "Define fever.")
    write_records(seeds, [SeedTask(text, "", "Open Q&A", "Medicine", "Nurse", "2") for text in texts])
    with ScriptedServer(lambda body, tried: write_tasks(body)) as server:
        service = Service(server.base_url, "scripted", timeout_s=5)
        synthesize(Settings(service, service, seeds, target=60, tasks_per_request=4), folder / "work")
    return folder / "work"


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("shards", [1, 7])
@pytest.mark.parametrize("mode", ["in_memory", "multi_processing"])
def test_beam_writes_the_bytes_that_one_process_writes(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int, mode: str
) -> None:
    monkeypatch.setattr(dataset_builder, "CHUNK_BYTES", 5000)  # several chunks for the workers to share
    for name, changes in {
        "plain": {},
        "beam": {
            "beam_runner": "DirectRunner",
            "beam_options": ("--direct_num_workers=2", f"--direct_running_mode={mode}"),
        },
    }.items():
        publish(finished, tmp_path / name, shards=shards, validation_share=0.2, **changes)
    assert content(tmp_path / "plain") == content(tmp_path / "beam")
    assert sum(json.loads(content(tmp_path / "beam")["manifest.json"])["rows"].values()) == 60
    assert "tensorflow" not in sys.modules


def test_a_runner_that_does_not_exist_is_named(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such Beam runner"):
        publish(finished, tmp_path / "out", beam_runner="DirctRunner")
    assert list(tmp_path.iterdir()) == []
