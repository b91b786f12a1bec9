"""``alpacare pack``: what it writes, counts and refuses, and that a failure leaves nothing behind."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from alpacare_jax.cli.pack_verb import command
from alpacare_jax.data import pack as packing_verb
from alpacare_jax.data.dataset import PackedDataset
from alpacare_jax.data.examples import encode_example
from alpacare_jax.data.pack import pack
from alpacare_jax.errors import ConfigError, DataError
from alpacare_jax.tokenizer import Tokenizer, load_tokenizer
from datagen.records import Instruction

ROWS = [
    {
        "id": f"q{i}",
        "instruction": f"What lowers blood pressure in case {i}?",
        "output": "Diuretics. " * (i % 7 + 1),
    }
    for i in range(40)
]
ROW_LENGTH = 256


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", ROWS)


def segments(dataset: PackedDataset) -> dict[str, tuple[list[int], list[int]]]:
    """Return tokens and loss mask of every example by its id."""
    found = {}
    for index in range(len(dataset)):
        row = dataset[index]
        for segment, name in enumerate(dataset.example_ids(index), start=1):
            here = row["segment_ids"] == segment
            found[name] = (row["tokens"][here].tolist(), row["loss_mask"][here].tolist())
    return found


@pytest.mark.parametrize("packed", [True, False])
def test_rows_hold_every_record_as_encoded(
    source: Path, tmp_path: Path, chat: Tokenizer, packed: bool
) -> None:
    manifest = pack(
        source, chat, out=tmp_path / "out", seq_len=ROW_LENGTH, template="chat", share_rows=packed, shards=3
    ).manifest
    dataset = PackedDataset.open(tmp_path / "out")
    dataset.verify()
    dataset.check_tokenizer(chat)
    found = segments(dataset)
    assert sorted(found) == sorted(row["id"] for row in ROWS)
    for row in ROWS:
        example = encode_example(Instruction.from_dict(row, where=""), chat, "chat")
        assert found[row["id"]] == (example.tokens.tolist(), example.loss_mask.tolist())
    counts = manifest.statistics
    assert counts.tokens == sum(len(tokens) for tokens, _ in found.values())
    assert counts.supervised_tokens == sum(sum(mask) for _, mask in found.values())
    assert counts.fill == pytest.approx(counts.tokens / (len(dataset) * ROW_LENGTH), abs=1e-6)
    assert (counts.records, counts.examples, counts.left_out, counts.truncated) == (40, 40, 0, 0)
    assert len(dataset) == counts.rows == (counts.rows if packed else 40)
    assert len(manifest.shards) == 3
    assert dataset.manifest == manifest


def test_the_manifest_names_source_tokenizer_and_shards(
    source: Path, tmp_path: Path, chat: Tokenizer
) -> None:
    out = tmp_path / "out"
    pack(source, chat, out=out, seq_len=ROW_LENGTH)
    content = json.loads((out / "manifest.json").read_text())
    assert (content["kind"], content["format_version"], content["template"]) == (
        "alpacare-packed",
        1,
        "alpaca",
    )
    assert content["source"]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert content["tokenizer"]["fingerprint"] == chat.fingerprint
    for shard in content["shards"]:
        assert shard["sha256"] == hashlib.sha256((out / shard["file"]).read_bytes()).hexdigest()
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out"}


def with_configs(folder: Path, target: Path, **files: dict[str, Any]) -> Path:
    """Copy a tokenizer and write configs beside it."""
    shutil.copytree(folder, target)
    for name, content in files.items():
        file = target / f"{name}.json"
        before = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(before | content))
    return target


@pytest.mark.parametrize(
    ("template", "generation", "tokens", "named"),
    [
        ("chat", {"eos_token_id": 0}, {}, "eos_token_id names 0 and not '<|im_end|>' (id 2)"),
        ("alpaca", {"eos_token_id": [0, 1]}, {}, "eos_token_id names 0, 1 and not '<|im_end|>' (id 2)"),
        ("chat", {"eos_token_id": [0, 2]}, {}, None),
        (
            "chat",
            {},
            {"eos_token": "<|endoftext|>"},
            "tokenizer_config.json: eos_token names 0 and not '<|im_end|>'",
        ),
        ("alpaca", {}, {"eos_token": "<|endoftext|>"}, None),
        ("chat", {"eos_token_id": None}, {}, None),
    ],
)
def test_the_end_that_is_taught_is_recorded_and_told_where_the_model_lacks_it(
    source: Path,
    tmp_path: Path,
    chat_folder: Path,
    template: Any,
    generation: Any,
    tokens: Any,
    named: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    files = {"generation_config": generation, "tokenizer_config": tokens}
    model = with_configs(chat_folder, tmp_path / "model", **files)
    app = typer.Typer()
    app.command()(command)
    options = [
        "--tokenizer",
        model,
        "--seq-len",
        ROW_LENGTH,
        "--out",
        tmp_path / "out",
        "--template",
        template,
    ]
    result = CliRunner().invoke(app, list(map(str, [source, *options])))
    assert result.exit_code == 0, result.output
    taught = 0 if (template, tokens) == ("alpaca", {"eos_token": "<|endoftext|>"}) else 2
    manifest = PackedDataset.open(tmp_path / "out").manifest
    assert manifest.end_ids == [taught]
    assert manifest.tokenizer["end_tokens"] == [["<|endoftext|>", "<|im_start|>", "<|im_end|>"][taught]]
    assert (named or "and not") in caplog.text or named is None
    assert ("and not" in caplog.text) == (named is not None)


def test_a_manifest_from_before_ends_were_recorded_is_read(
    source: Path, tmp_path: Path, chat: Tokenizer
) -> None:
    for template, ends in (("alpaca", [2]), ("chat", [])):
        out = tmp_path / template
        pack(source, chat, out=out, seq_len=ROW_LENGTH, template=template)  # type: ignore[arg-type]
        content = json.loads((out / "manifest.json").read_text())
        for key in ("end_ids", "end_tokens", "largest_id"):
            del content["tokenizer"][key]
        (out / "manifest.json").write_text(json.dumps(content))
        manifest = PackedDataset.open(out).manifest
        assert (manifest.end_ids, manifest.largest_id) == (ends, chat.vocab_size - 1)


def test_a_padding_token_without_an_embedding_is_never_in_a_row(
    source: Path, tmp_path: Path, chat_folder: Path, chat: Tokenizer
) -> None:
    size = chat.vocab_size
    added = {"added_tokens_decoder": {str(size): {"content": "[PAD]", "special": True}}, "pad_token": "[PAD]"}
    padded = load_tokenizer(with_configs(chat_folder, tmp_path / "model", tokenizer_config=added))
    assert (padded.pad_id, padded.vocab_size, padded.rows_needed) == (size, size + 1, size)
    assert chat.rows_needed == size
    manifest = pack(source, padded, out=tmp_path / "out", seq_len=ROW_LENGTH).manifest
    dataset = PackedDataset.open(tmp_path / "out")
    largest = max(int(dataset[index]["tokens"].max()) for index in range(len(dataset)))
    assert manifest.largest_id == largest < size
    assert dataset.pad_id < size


def test_the_same_input_gives_the_same_bytes(source: Path, tmp_path: Path, chat: Tokenizer) -> None:
    first = pack(source, chat, out=tmp_path / "a", seq_len=ROW_LENGTH, shards=2).manifest
    second = pack(source, chat, out=tmp_path / "b", seq_len=ROW_LENGTH, shards=2).manifest
    assert first == second


def test_another_process_writes_the_same_shard(tmp_path: Path) -> None:
    program = """if True:
        import hashlib, pathlib, sys
        import numpy as np
        from alpacare_jax.data.dataset_builder import PackedInstructions
        row = {name: np.arange(16, dtype=np.int32) for name in ("tokens", "segment_ids", "positions", "loss_mask")}
        builder = PackedInstructions(rows=[row] * 3, row_length=16, data_dir=sys.argv[1], file_format="array_record")
        builder.download_and_prepare()
        for file in pathlib.Path(builder.data_dir).glob("*array_record*"):
            print("SHA", hashlib.sha256(file.read_bytes()).hexdigest())
    """
    # The order of a protocol buffer's map changes with the process: several, so that one is likely to differ.
    shas = set()
    for number in range(5):
        command = [sys.executable, "-c", program, str(tmp_path / str(number))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        shas.add(done.stdout.split("SHA ")[1].split()[0])
    assert len(shas) == 1


def test_tfds_itself_reads_the_data_set(source: Path, tmp_path: Path, chat: Tokenizer) -> None:
    import tensorflow_datasets as tfds

    pack(source, chat, out=tmp_path / "out", seq_len=ROW_LENGTH, split="valid")
    rows = tfds.builder_from_directory(str(tmp_path / "out")).as_data_source("valid")
    assert rows[0]["tokens"].shape == (ROW_LENGTH,)
    assert rows[0]["tokens"].dtype == np.int32


def test_records_longer_than_a_row(tmp_path: Path, letters: Tokenizer) -> None:
    head = len(encode_example(Instruction(instruction="Say", output="x"), letters)) - 2
    answers = {"fits": "abc", "long": "abcdefgh", "longer": "abcdefghi"}
    rows = [{"id": name, "instruction": "Say", "output": text} for name, text in answers.items()]
    rows.append({"id": "prompt", "instruction": "Say " * 20, "output": "x"})
    source = write(tmp_path / "in.jsonl", rows)

    left = pack(source, letters, out=tmp_path / "left", seq_len=head + 6).manifest
    assert left.left_out_ids == ["long", "longer", "prompt"]
    assert (left.statistics.left_out, left.statistics.prompt_too_long, left.statistics.truncated) == (3, 1, 0)

    cut = pack(source, letters, out=tmp_path / "cut", seq_len=head + 6, truncate=True).manifest
    assert (cut.left_out_ids, cut.truncated_ids) == (["prompt"], ["long", "longer"])
    found = segments(PackedDataset.open(tmp_path / "cut"))
    assert letters.decode(found["long"][0][head:], skip_special_tokens=False) == "abcdef"
    assert found["fits"][0][-1] == 2

    with pytest.raises(DataError, match="no record fits"):
        pack(write(tmp_path / "in.jsonl", rows[1:]), letters, out=tmp_path / "none", seq_len=head + 6)


def test_records_without_id_are_named_after_their_line(tmp_path: Path, chat: Tokenizer) -> None:
    source = tmp_path / "in.jsonl"
    row = {"instruction": "Name one.", "output": "Lisinopril."}
    source.write_text(f"{json.dumps(row)}\n\n{json.dumps(row | {'id': 7})}\n{json.dumps(row)}\n")
    pack(source, chat, out=tmp_path / "out", seq_len=ROW_LENGTH)
    assert sorted(segments(PackedDataset.open(tmp_path / "out"))) == ["7", "line-1", "line-4"]


@pytest.mark.parametrize(
    ("content", "message", "line"),
    [
        ("", "file is empty", None),
        ("[]", "source is empty", None),
        ('{"instruction": "a", "output": "b"}\n{"instruction": ', "not valid JSON", 2),
        ('{"instruction": "a", "output": "b"}\n{"instruction": "a"}', "'output' is missing", 2),
        ('{"instruction": ["a"], "output": "b"}', "must be str", 1),
        ('{"instruction": "a", "output": " "}', "empty output", 1),
    ],
)
def test_bad_input_is_named_with_its_place(
    tmp_path: Path, chat: Tokenizer, content: str, message: str, line: int | None
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        pack(source, chat, out=tmp_path / "out", seq_len=ROW_LENGTH)
    assert str(caught.value.where) == (f"{source}:{line}" if line else str(source))
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl"}


def test_an_earlier_data_set_is_replaced_only_on_request(
    source: Path, tmp_path: Path, chat: Tokenizer
) -> None:
    out = tmp_path / "out"
    before = pack(source, chat, out=out, seq_len=ROW_LENGTH).manifest
    with pytest.raises(DataError, match="exists already"):
        pack(source, chat, out=out, seq_len=64)
    assert PackedDataset.open(out).manifest == before
    pack(source, chat, out=out, seq_len=160, overwrite=True)
    assert PackedDataset.open(out).row_length == 160
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out"}


def test_a_failed_replacement_leaves_the_earlier_data_set(
    source: Path, tmp_path: Path, chat: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    before = pack(source, chat, out=out, seq_len=ROW_LENGTH).manifest

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing_verb, "_write_shards", full)
    with pytest.raises(OSError, match="No space left"):
        pack(source, chat, out=out, seq_len=160, overwrite=True)
    assert PackedDataset.open(out).manifest == before
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out"}


def test_a_full_disk_is_one_message_and_leaves_nothing_behind(
    source: Path, tmp_path: Path, chat_folder: Path
) -> None:
    program = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from alpacare_jax.cli import main
main(sys.argv[1:])
"""
    # Enough rows that their shard is larger than a file may be.
    arguments = ["pack", str(source), "--tokenizer", str(chat_folder), "--seq-len", str(ROW_LENGTH)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--out", str(tmp_path / "out"), "--no-pack"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "no disk space is left for the packed data set" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl"}


def test_overwrite_deletes_nothing_that_pack_did_not_write(
    source: Path, tmp_path: Path, chat: Tokenizer
) -> None:
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter.txt").write_text("years of work")
    with pytest.raises(DataError, match="only replaces a packed data set"):
        pack(source, chat, out=mine, seq_len=ROW_LENGTH, overwrite=True)
    (mine / "manifest.json").write_text('{"kind": "something else"}')
    with pytest.raises(DataError, match="only replaces a packed data set"):
        pack(source, chat, out=mine, seq_len=ROW_LENGTH, overwrite=True)
    assert (mine / "chapter.txt").exists()
    out = tmp_path / "out"
    pack(source, chat, out=out, seq_len=ROW_LENGTH)
    (out / "keep").mkdir()
    (out / "keep" / "chapter.txt").write_text("years of work")
    with pytest.raises(DataError, match="would delete what this command did not write") as caught:
        pack(source, chat, out=out, seq_len=ROW_LENGTH, overwrite=True)
    assert "keep/chapter.txt" in str(caught.value)
    assert (out / "keep" / "chapter.txt").exists()


def test_a_folder_is_refused_and_the_file_in_it_named(tmp_path: Path, chat: Tokenizer) -> None:
    with pytest.raises(DataError, match="not a folder"):
        pack(tmp_path, chat, out=tmp_path / "out", seq_len=ROW_LENGTH)
    (tmp_path / "instructions.jsonl").write_text("{}")
    with pytest.raises(DataError) as caught:
        pack(tmp_path, chat, out=tmp_path / "out", seq_len=ROW_LENGTH)
    assert f"give {tmp_path / 'instructions.jsonl'}" in str(caught.value)


def test_impossible_settings(chat: Tokenizer) -> None:
    for bad in ({"seq_len": 4}, {"template": "vicuna"}, {"split": "a-b"}, {"shards": 0}):
        with pytest.raises(ConfigError):
            pack("missing.jsonl", chat, **({"seq_len": 64} | bad))


def test_incomplete_and_damaged_data_sets_are_refused(source: Path, tmp_path: Path, chat: Tokenizer) -> None:
    with pytest.raises(DataError, match="no such data set"):
        PackedDataset.open(tmp_path / "missing")
    out = tmp_path / "out"
    pack(source, chat, out=out, seq_len=ROW_LENGTH)
    manifest = (out / "manifest.json").read_text()
    (out / "manifest.json").unlink()
    with pytest.raises(DataError, match="incomplete"):
        PackedDataset.open(out)
    (out / "manifest.json").write_text(manifest.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(DataError, match="another format"):
        PackedDataset.open(out)
    (out / "manifest.json").write_text(manifest)
    shard = next(out.glob("*.array_record*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="missing or cut"):
        PackedDataset.open(out)
    shard.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(DataError, match="damaged"):
        PackedDataset.open(out).verify()


def test_a_foreign_tokenizer_is_refused(
    source: Path, tmp_path: Path, chat: Tokenizer, letters: Tokenizer
) -> None:
    pack(source, chat, out=tmp_path / "out", seq_len=ROW_LENGTH)
    with pytest.raises(DataError, match="another tokenizer"):
        PackedDataset.open(tmp_path / "out").check_tokenizer(letters)


def test_the_command_reports_what_it_did(source: Path, tmp_path: Path, chat_folder: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    options = ["--tokenizer", str(chat_folder), "--seq-len", "56", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [str(source), *options, "--template", "chat"], catch_exceptions=False)
    assert result.exit_code == 0
    found = PackedDataset.open(tmp_path / "out").manifest.statistics
    assert found.left_out > 0
    table = dict(line.split("  ", 1) for line in result.stdout.splitlines() if "  " in line)
    assert table["records read"].strip() == "40"
    assert table["left out, too long"].strip().startswith(f"{found.left_out} (q")
    assert table["packing efficiency"].strip().startswith(f"{found.fill:.2%}")
    assert "encoding 40/40" in result.stderr


def test_fields_that_no_example_is_made_from_are_counted_and_named(
    tmp_path: Path, chat_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = {"instruction": "Name a sign of gout.", "output": "A swollen toe.", "id": "1", "topic": "Gout"}
    rows = [row | {"context": "A note.", "licence": "CC0"}, row | {"context": "A note.", "licence": ""}, row]
    source = write(tmp_path / "in.jsonl", rows)
    app = typer.Typer()
    app.command()(command)
    options = ["--tokenizer", str(chat_folder), "--seq-len", "256", "--out", str(tmp_path / "out")]
    CliRunner().invoke(app, [str(source), *options], catch_exceptions=False)
    unused = PackedDataset.open(tmp_path / "out").manifest.source["unused_fields"]
    assert unused == {"context": 2, "licence": 1}
    assert "context (2 records), licence (1 records)" in caplog.text


def test_examples_beyond_the_positions_of_the_model_are_warned_of(
    source: Path, tmp_path: Path, chat_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = shutil.copytree(chat_folder, tmp_path / "model")
    (model / "config.json").write_text('{"max_position_embeddings": 32}')
    app = typer.Typer()
    app.command()(command)
    options = [
        "--tokenizer",
        str(model),
        "--seq-len",
        "56",
        "--out",
        str(tmp_path / "out"),
        "--template",
        "chat",
    ]
    CliRunner().invoke(app, [str(source), *options], catch_exceptions=False)
    assert "go beyond the 32 positions of the model" in caplog.text


@pytest.mark.slow
def test_real_answers_fill_the_rows_in_good_time(
    real_data: Path, tmp_path: Path, llama: Tokenizer, record_property: Any
) -> None:
    import time

    started = time.perf_counter()
    manifest = pack(real_data / "medquad_train.jsonl", llama, out=tmp_path / "out", seq_len=1024).manifest
    seconds = time.perf_counter() - started
    record_property("seconds", seconds)
    counts = manifest.statistics
    assert counts.records == 8000
    assert counts.examples + counts.left_out == 8000
    assert counts.fill >= 0.98
    assert seconds <= 60
    assert os.path.getsize(tmp_path / "out" / "manifest.json") > 0


def test_a_terminal_shows_bars_and_the_table(source: Path, tmp_path: Path, chat_folder: Path) -> None:
    import pty

    leader, follower = pty.openpty()
    words = [str(source), "--tokenizer", str(chat_folder), "--seq-len", "256", "--out", str(tmp_path / "out")]
    code = "import sys, typer; from alpacare_jax.cli.pack_verb import command; typer.run(command)"
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # how a pseudo-terminal says that the other side is gone
        while part := os.read(leader, 4096):
            shown += part
    os.close(leader)
    assert process.wait(60) == 0
    assert b"encoding" in shown
    assert b"records read" in shown
    assert b"Error" not in shown
