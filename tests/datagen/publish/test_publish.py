"""Publishing: what a finished work folder becomes, read back by the readers that others use."""

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripted_server import ScriptedServer, write_tasks
from typer.testing import CliRunner

from datagen.client import Service
from datagen.errors import ConfigError, DataError
from datagen.ledger import Ledger
from datagen.publish import in_validation, publish
from datagen.publish.dataset_builder import key_of, plan_chunks, read_chunk
from datagen.records import Instruction, SeedTask, read_objects, read_records, write_objects, write_records
from datagen.settings import Settings
from datagen.synthesize import synthesize

KEY = "sk-a-key-that-must-not-travel"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder as a finished run leaves it."""
    folder = tmp_path_factory.mktemp("finished")
    seeds = folder / "seeds.jsonl"
    texts = ("What is gout?", "List signs of sepsis.", "Summarise this.", "Why rest?")
    write_records(seeds, [SeedTask(text, "", "Open Q&A", "Medicine", "Nurse", "2") for text in texts])
    with ScriptedServer(lambda body, tried: write_tasks(body)) as server:
        service = Service(server.base_url, "scripted", timeout_s=5)
        synthesize(Settings(service, service, seeds, target=30, tasks_per_request=4), folder / "work")
    return folder / "work"


@pytest.fixture
def work(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished work folder, to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "work"))


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def front_matter(folder: Path) -> dict[str, Any]:
    text = (folder / "README.md").read_text("utf-8")
    assert text.startswith("---\n")
    front: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return front


def test_the_rows_are_read_back_as_json_lines_and_as_a_tfds_data_set(finished: Path, tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    out = tmp_path / "out"
    manifest = publish(finished, out, shards=3)
    rows = read_records(out / "instructions.jsonl", Instruction)
    assert rows == read_records(finished / "instructions.jsonl", Instruction)
    assert manifest["rows"] == {"train": len(rows)} == {"train": 30}
    source = tfds.builder_from_directory(str(out / "tfds")).as_data_source("train")
    assert len(source) == 30
    for number in (29, 0, 17):  # at random, across shards, in the order of the file
        found, row = source[number], rows[number]
        for name in ("id", "instruction", "input", "output", "type", "topic", "view", "difficulty"):
            assert found[name].decode() == getattr(row, name)
        assert json.loads(found["source"]) == row.source
    assert len(list((out / "tfds").glob("*.array_record-*"))) == 3
    assert "tensorflow" not in sys.modules


def test_the_manifest_names_every_other_file(finished: Path, tmp_path: Path) -> None:
    manifest = publish(finished, tmp_path / "out")
    files = content(tmp_path / "out")
    assert json.loads(files.pop("manifest.json")) == manifest
    assert manifest["files"] == [
        {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    ]


def test_another_process_in_another_place_at_another_time_writes_the_same_bytes(
    finished: Path, tmp_path: Path
) -> None:
    publish(finished, tmp_path / "here", license="cc-by-4.0", validation_share=0.2)
    elsewhere = Path(shutil.copytree(finished, tmp_path / "moved" / "elsewhere"))
    program = (
        "import sys, pathlib; from datagen.publish import *;"
        "publish(*map(pathlib.Path, sys.argv[1:]), license='cc-by-4.0', validation_share=0.2)"
    )
    # The order of a protocol buffer's map changes with the process: two, so that one is likely to differ.
    for number in range(2):
        out = tmp_path / f"there-{number}"
        subprocess.run(
            [sys.executable, "-c", program, str(elsewhere), str(out)],
            check=True,
            env={"PATH": "", "TZ": "Pacific/Auckland", "HOME": str(tmp_path), "PYTHONHASHSEED": str(number)},
        )
        assert content(out) == content(tmp_path / "here")
    everything = b"".join(content(tmp_path / "here").values())
    assert str(tmp_path).encode() not in everything
    assert b"127.0.0.1" not in everything


def test_the_card_states_what_is_known_and_no_licence_that_nobody_named(
    finished: Path, tmp_path: Path
) -> None:
    publish(finished, tmp_path / "without")
    assert "license" not in front_matter(tmp_path / "without")
    assert "Not stated." in (tmp_path / "without" / "README.md").read_text()
    publish(finished, tmp_path / "with", license="cc-by-nc-4.0", name="A *wild* | name")
    card, front = (tmp_path / "with" / "README.md").read_text(), front_matter(tmp_path / "with")
    assert (front["license"], front["pretty_name"]) == ("cc-by-nc-4.0", "A *wild* | name")
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "instructions.jsonl"}]
    publish(finished, tmp_path / "other", license="Our own: terms")
    other = front_matter(tmp_path / "other")
    assert (other["license"], other["license_name"]) == ("other", "Our own: terms")
    assert r"# A \*wild\* \| name" in card
    assert "not medical advice" in card
    funnel = json.loads((finished / "funnel.json").read_text())
    assert f"| tasks rejected: `near-duplicate` | {funnel['tasks_rejected']['near-duplicate']} |" in card
    with Ledger(finished / "ledger.sqlite", read_only=True) as ledger:
        entries = list(ledger.entries())
    assert f"First request {min(entry.created_at for entry in entries)}" in card
    assert "| answering them | `scripted` | `scripted` | 30 |" in card
    assert "pieces found in the replies" in card
    assert "Not checked" in card


def test_the_provenance_adds_up_what_the_ledger_knows_of_cost(work: Path, tmp_path: Path) -> None:
    with Ledger(work / "ledger.sqlite") as ledger:
        ledger.execute("UPDATE requests SET cost_usd = 0.25 WHERE stage = 'answers'")
    publish(work, tmp_path / "out")
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    stages = provenance["requests"]["stages"]
    assert stages["answers"]["cost_usd"] == 7.5
    assert stages["tasks"]["cost_usd"] is None
    assert stages["answers"]["models"] == {"scripted": 30}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| 7.50 |" in card
    assert "not recorded" in card


def test_the_card_says_what_was_checked_without_what_was_found(work: Path, tmp_path: Path) -> None:
    (work / "privacy.jsonl").write_text(
        '{"id": "t1", "action": "masked", "kind": "NAME", "field": "input", "start": 1, "end": 4}\n' * 3
    )
    report = {
        "ngram": 13,
        "rouge_l": 0.7,
        "files": [{"file": "/home/somebody/medqa.jsonl", "items": 1273, "tasks_rejected": 2}],
        "overlaps": [{"id": "t1", "overlap_text": "a question of the test"}],
    }
    (work / "contamination.json").write_text(json.dumps(report))
    publish(work, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| `NAME` | masked | 3 |" in card
    assert "| `medqa.jsonl` | 1,273 | 2 |" in card
    everything = b"".join(content(tmp_path / "out").values())
    assert b"somebody" not in everything
    assert b"a question of the test" not in everything


def test_the_cells_of_the_card_are_words_and_the_seeds_keep_their_licence(work: Path, tmp_path: Path) -> None:
    file = {
        "file": "medqa.jsonl",
        "sha256": "0123456789ab" + "c" * 52,
        "fields": ["question", "options"],
        "items": 1273,
        "tasks_rejected": 5,
        "answers_rejected": 0,
        "by_kind": {"ngram": 4, "whole-text": 1},
    }
    (work / "contamination.json").write_text(json.dumps({"ngram": 13, "rouge_l": 0.7, "files": [file]}))
    config = json.loads((work / "config.json").read_text())
    config["fixed"]["task_sampling.extra_body"] = {"top_k": 5, "think": False}
    (work / "config.json").write_text(json.dumps(config))
    for license in (None, "cc-by-4.0"):
        publish(work, tmp_path / "out", license=license, overwrite=True)
        card = (tmp_path / "out" / "README.md").read_text()
        row = "| `0123456789ab` | `question`, `options` | 1,273 | 5 | 0 | tokens in a row 4, whole text 1 |"
        assert f"| `medqa.jsonl` {row}" in card
        assert "| task_sampling.extra_body | `top_k`: `5`, `think`: no |" in card
        assert "13 tokens in a row, ROUGE-L above 0.7, or a short question as the whole text" in card
        assert not [
            line for line in card.splitlines() if line.startswith("|") and ("{" in line or "null" in line)
        ]
        assert "(30)" not in card  # one model answered all
        tasks, digest = config["fixed"]["seed tasks"].split(", ")
        assert f"({tasks}, SHA-256 of their content `{digest}`...)" in card
        assert "their own licence applies" in card


@pytest.mark.parametrize(
    ("language", "front", "words"),
    [
        ("en", ["en"], "in English"),
        ("de", ["de"], "in German"),
        ("any", None, "in whatever language the models wrote"),
    ],
)
def test_the_card_names_the_language_of_the_run(
    work: Path, tmp_path: Path, language: str, front: list[str] | None, words: str
) -> None:
    config = json.loads((work / "config.json").read_text())
    config["fixed"]["language"] = language
    (work / "config.json").write_text(json.dumps(config))
    publish(work, tmp_path / "out")
    assert front_matter(tmp_path / "out").get("language") == front
    assert words in (tmp_path / "out" / "README.md").read_text()


def test_a_full_disk_is_one_message_and_leaves_nothing_behind(finished: Path, tmp_path: Path) -> None:
    program = (
        "import resource, sys, pathlib; from datagen.publish import *;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000));"
        "publish(*map(pathlib.Path, sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, str(finished), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "no disk space is left for the data set" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_row_stays_on_its_side_when_the_data_set_grows(work: Path, tmp_path: Path) -> None:
    counts = publish(work, tmp_path / "out", validation_share=0.3)["rows"]
    sides = [
        read_records(tmp_path / "out" / name, Instruction)
        for name in ("instructions.jsonl", "validation.jsonl")
    ]
    assert list(map(len, sides)) == list(counts.values())
    assert counts["validation"] > 2
    assert all(in_validation(str(row.id), 0.3) == (side == 1) for side in (0, 1) for row in sides[side])
    files = front_matter(tmp_path / "out")["configs"][0]["data_files"]
    assert [each["split"] for each in files] == ["train", "validation"]


def spoil(work: Path, how: str) -> None:
    if how == "unfinished":
        (work / "funnel.json").unlink()
    elif how == "broken funnel":
        (work / "funnel.json").write_text("{")
    elif how == "broken settings":
        (work / "config.json").write_text("{")
    elif how == "no run":
        (work / "config.json").unlink()
    elif how == "broken line":
        with (work / "instructions.jsonl").open("a") as file:
            file.write('{"instruction": "List')
    elif how == "nothing":
        (work / "funnel.json").write_text(json.dumps({"instructions": 0}))
    else:
        rows = [row for _, row in read_objects(work / "instructions.jsonl")]
        rows = {"row lost": rows[:-1], "row twice": rows + rows[:1], "no id": [{**rows[0], "id": ""}]}[how]
        write_objects(work / "instructions.jsonl", rows)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("unfinished", "the run is not finished"),
        ("broken funnel", "funnel.json is not valid JSON"),
        ("broken settings", "config.json is not valid JSON"),
        ("no run", "not the work folder"),
        ("nothing", "produced no instructions"),
        ("broken line", "not valid JSON"),
        ("row lost", "disagree"),
        ("row twice", "same id"),
        ("no id", "has no id"),
    ],
)
def test_a_work_folder_that_cannot_be_published_is_refused_and_nothing_is_left(
    work: Path, tmp_path: Path, how: str, words: str
) -> None:
    spoil(work, how)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=words):
        publish(work, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_a_run_writes_to_is_refused(work: Path, tmp_path: Path) -> None:
    with (
        Ledger(work / "ledger.sqlite"),
        pytest.raises(DataError, match="a run is writing to this work folder"),
    ):
        publish(work, tmp_path / "out")
    with (work / "ledger.sqlite.lock").open("rb") as other:  # another reader is no obstacle
        fcntl.flock(other, fcntl.LOCK_SH)
        publish(work, tmp_path / "out")


def test_only_a_published_data_set_is_replaced_and_only_when_told(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(finished, out)
    with pytest.raises(DataError, match="exists already"):
        publish(finished, out)
    publish(finished, out, license="mit", overwrite=True)
    assert front_matter(out)["license"] == "mit"
    (out / "manifest.json").write_text(json.dumps({"kind": "alpacare-packed"}))
    with pytest.raises(DataError, match="only replaces a published dataset"):
        publish(finished, out, overwrite=True)
    assert front_matter(out)["license"] == "mit"


def test_overwrite_deletes_no_file_that_the_manifest_does_not_list(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(finished, out)
    (out / "keep").mkdir()
    for mine in (out / "keep" / "thesis.txt", out / "tfds" / "notes.txt"):
        mine.write_text("years of work")
        with pytest.raises(DataError, match="would delete what this command did not write") as caught:
            publish(finished, out, license="mit", overwrite=True)
        assert mine.relative_to(out).as_posix() in str(caught.value)
        assert mine.read_text() == "years of work"
        mine.unlink()
    (out / "link").symlink_to(finished)
    with pytest.raises(DataError, match="would delete"):
        publish(finished, out, overwrite=True)
    (out / "link").unlink()
    with pytest.raises(DataError, match="would delete"):  # an empty folder is somebody's, too
        publish(finished, out, overwrite=True)
    (out / "keep").rmdir()
    (out / "manifest.json").unlink()
    with pytest.raises(DataError, match="only replaces a published dataset"):
        publish(finished, out, overwrite=True)


def test_a_file_put_there_while_the_data_set_is_written_is_kept(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write = tmp_path / "out", sys.modules["datagen.publish"]._write_tfds
    publish(finished, out)

    def slow(*arguments: Any) -> None:
        (out / "mine.txt").write_text("put here meanwhile")
        write(*arguments)

    monkeypatch.setattr(sys.modules["datagen.publish"], "_write_tfds", slow)
    with pytest.raises(DataError, match="would delete"):
        publish(finished, out, license="mit", overwrite=True)
    assert (out / "mine.txt").read_text() == "put here meanwhile"
    assert "license" not in front_matter(out)


@pytest.mark.parametrize("inside", [".", "published", "a/../published/deep"])
def test_a_data_set_does_not_go_into_the_work_folder(work: Path, inside: str) -> None:
    before = content(work)
    with pytest.raises(DataError, match="inside the work folder"):
        publish(work, work / inside)
    assert content(work) == before


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    for changes in ({"validation_share": 1.0}, {"shards": 0}, {"beam_options": ("--x",)}):
        with pytest.raises(ConfigError, match=next(iter(changes))):
            publish(tmp_path / "work", tmp_path / "out", **changes)


def test_chunks_cover_a_file_once_whatever_their_size(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_records(path, [Instruction("é" * (number * 7 % 50), "x", id=str(number)) for number in range(100)])
    for size in (1, 100, 10**6):
        chunks = plan_chunks(path, chunk_bytes=size, shards=7)
        rows = [row for chunk in chunks for row in read_chunk(chunk)]
        assert [row["id"] for _, row in rows] == [str(number) for number in range(100)]
        assert [key for key, _ in rows] == [key_of(number, 100, 7) for number in range(100)]
    assert plan_chunks(path, shards=500)[0].shards == 100


def test_unknown_fields_travel_and_half_a_surrogate_pair_is_refused_with_its_line(
    work: Path, tmp_path: Path
) -> None:
    import tensorflow_datasets as tfds

    rows = [row for _, row in read_objects(work / "instructions.jsonl")]
    rows[3] |= {"extra_field": {"a": 1}}
    write_objects(work / "instructions.jsonl", rows)
    publish(work, tmp_path / "out")
    source = tfds.builder_from_directory(str(tmp_path / "out" / "tfds")).as_data_source("train")
    assert json.loads(source[3]["extra"]) == {"extra_field": {"a": 1}}
    rows[3]["output"] = "broken \ud83d end"
    (work / "instructions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="not valid JSON") as error:
        publish(work, tmp_path / "other")
    assert str(error.value.where).endswith("instructions.jsonl:4")


def test_the_verb_publishes_and_reminds_of_the_licence(finished: Path, tmp_path: Path) -> None:
    from alpacare_jax.cli import app

    result = CliRunner().invoke(app, ["publish", str(finished), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "30 rows" in result.output
    assert "no licence" in result.output
    assert (tmp_path / "out" / "manifest.json").exists()
    result = CliRunner().invoke(
        app, ["publish", str(finished), "--out", str(tmp_path / "other"), "--license", " "]
    )
    assert "no licence" in result.output
    assert "Not stated." in (tmp_path / "other" / "README.md").read_text()


def test_no_key_reaches_what_is_published(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = finished.parent / "seeds.jsonl"
    monkeypatch.setenv("SECRET_OF_TEST", KEY)
    with ScriptedServer(lambda body, tried: write_tasks(body)) as server:
        service = Service(server.base_url, "scripted", api_key_env="SECRET_OF_TEST", timeout_s=5)
        synthesize(Settings(service, service, seeds, target=5, tasks_per_request=4), tmp_path / "work")
        assert KEY in server.authorizations[0]
    publish(tmp_path / "work", tmp_path / "out")
    assert not any(KEY.encode() in data for data in content(tmp_path / "out").values())
