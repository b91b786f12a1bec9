import json

import jax
import numpy as np
import pytest
import typer
from safetensors import safe_open
from safetensors.numpy import load_file
from tiny_llama import TINY
from typer.testing import CliRunner

import alpacare_jax as alpacare
from alpacare_jax import checkpoint, convert, load, sharding
from alpacare_jax.cli import export_verb, import_verb
from alpacare_jax.convert.folders import parse_size
from alpacare_jax.errors import CheckpointError, ConfigError, ConversionError, DataError

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>\r\n{{ m['content'] }}\u00e9{% endfor %}\n\n"
GENERATION = '{"eos_token_id": [2, 3],\n   "temperature": 0.6, "top_p": 0.9}'


def run(verb, *arguments):
    app = typer.Typer()
    app.command()(verb.command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_hugging_face_to_orbax_and_back_changes_no_bit(make_folder, tmp_path, dtype):
    folder = make_folder(dtype=dtype)
    (folder / "chat_template.jinja").write_bytes(TEMPLATE.encode())
    (folder / "generation_config.json").write_text(GENERATION)
    (folder / "tokenizer_config.json").write_text('{"eos_token":   "</s>"}')
    (folder / "LICENSE.txt").write_text("terms")
    run(import_verb, folder, "--out", tmp_path / "ckpt")
    run(export_verb, tmp_path / "ckpt", "--out", tmp_path / "out")
    before, after = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "out"))
    assert list(before) == list(after)
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype, name
        assert after[name].tobytes() == tensor.tobytes(), name
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes(), file.name
    with safe_open(tmp_path / "out" / "model.safetensors", "np") as weights:
        assert weights.metadata() == {"format": "pt"}


def test_only_the_dtype_changes_in_the_config_when_only_the_dtype_changes(make_folder, tmp_path):
    folder = make_folder()
    run(import_verb, folder, "--out", tmp_path / "ckpt", "--dtype", "bfloat16")
    run(export_verb, tmp_path / "ckpt", "--out", tmp_path / "out", "--dtype", "bfloat16")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == TINY | {"torch_dtype": "bfloat16"}
    assert list(written) == list(TINY)
    # the source had no generation config: the ends of an answer come from its config
    made = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert made["eos_token_id"] == [2, 3]


def test_weights_are_split_over_files_of_the_size_asked_for(make_folder, tmp_path):
    folder = make_folder()
    run(import_verb, folder, "--out", tmp_path / "ckpt")
    run(export_verb, tmp_path / "ckpt", "--out", tmp_path / "out", "--max-shard-size", "6KB")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert set(index["weight_map"].values()) == set(files)
    sizes = [sum(t.nbytes for t in load_file(tmp_path / "out" / file).values()) for file in files]
    assert max(sizes) <= 6000
    assert sum(sizes) == index["metadata"]["total_size"]
    again = checkpoint.flatten(load(tmp_path / "out").params)
    first = checkpoint.flatten(load(folder).params)
    assert all(np.array_equal(again[name], first[name]) for name in first)


@pytest.mark.parametrize("text", ["5 GB", "5gb", "5000000000", "5000MB"])
def test_sizes_are_read(text):
    assert parse_size(text) == 5_000_000_000


@pytest.mark.parametrize("text", ["", "5TB", "-1GB", "0", "five"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(ConfigError):
        parse_size(text)


def test_a_model_spread_over_a_mesh_is_exported_the_same(make_folder, tmp_path):
    folder = make_folder()
    mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=4, tensor=2))
    loaded = load(folder, mesh=mesh)
    convert.export(loaded.params, loaded.config, folder, tmp_path / "out")
    before, after = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "out"))
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_an_existing_output_is_left_alone(make_folder, tmp_path):
    folder = make_folder()
    ckpt, out = tmp_path / "ckpt", tmp_path / "out"
    run(import_verb, folder, "--out", ckpt)
    for verb, source, target in ((import_verb, folder, ckpt), (export_verb, ckpt, out)):
        target.mkdir(exist_ok=True)
        (target / "mine.txt").write_text("precious")
        with pytest.raises(DataError, match="exists and is not empty"):
            run(verb, source, "--out", target)
        assert (target / "mine.txt").read_text() == "precious"
    with pytest.raises(DataError, match="not something this command wrote"):
        run(export_verb, ckpt, "--out", out, "--overwrite")
    run(export_verb, ckpt, "--out", tmp_path / "export")
    for verb, source, target in ((import_verb, folder, ckpt), (export_verb, ckpt, tmp_path / "export")):
        (target / "keep").mkdir()
        (target / "keep" / "notes.txt").write_text("precious")
        with pytest.raises(DataError, match="would delete what this command did not write") as caught:
            run(verb, source, "--out", target, "--overwrite")
        assert "keep/notes.txt" in str(caught.value)
        assert (target / "keep" / "notes.txt").read_text() == "precious"
    (ckpt / "mine.txt").unlink()
    (ckpt / "keep" / "notes.txt").unlink()
    (ckpt / "keep").rmdir()
    run(import_verb, folder, "--out", ckpt, "--overwrite")


def test_a_failed_import_leaves_no_trace_and_keeps_what_was_there(make_folder, tmp_path):
    folder, broken = make_folder(), make_folder({"num_hidden_layers": 3}, name="broken")
    file = broken / "model.safetensors"
    file.write_bytes((folder / "model.safetensors").read_bytes())
    run(import_verb, folder, "--out", tmp_path / "ckpt")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConversionError, match=r"missing: model.layers.2"):
        run(import_verb, broken, "--out", tmp_path / "ckpt", "--overwrite")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_value_too_large_for_float16_is_named(make_folder, tmp_path):
    folder = make_folder()
    loaded = load(folder)
    params = loaded.params | {"norm": {"scale": loaded.params["norm"]["scale"] + 70_000}}
    with pytest.raises(ConversionError, match=r"model\.norm\.weight"):
        convert.export(params, loaded.config, folder, tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


def test_a_model_folder_opens_on_a_mesh_and_in_another_dtype(make_folder, tmp_path):
    folder = make_folder()
    run(import_verb, folder, "--out", tmp_path / "ckpt")
    mesh = sharding.make_mesh(sharding.MeshConfig(data=1, fsdp=4, tensor=2))
    loaded = load(tmp_path / "ckpt", mesh=mesh, dtype="bfloat16")
    first = checkpoint.flatten(load(folder).params)
    for name, leaf in checkpoint.flatten(loaded.params).items():
        assert leaf.dtype == "bfloat16"
        assert np.array_equal(np.asarray(leaf), np.asarray(first[name].astype("bfloat16"))), name
    assert loaded.params["embed"].sharding.spec == jax.sharding.PartitionSpec("tensor", "fsdp")
    assert loaded.name == "ckpt"
    assert loaded.origin["reference"] == str(folder)


def test_a_step_of_a_model_folder_makes_no_sense(make_folder, tmp_path):
    run(import_verb, make_folder(), "--out", tmp_path / "ckpt")
    with pytest.raises(CheckpointError, match="no steps"):
        run(export_verb, tmp_path / "ckpt", "--out", tmp_path / "out", "--step", "5")
    with pytest.raises(CheckpointError, match="neither a model nor a run"):
        run(export_verb, tmp_path, "--out", tmp_path / "out")


def test_a_config_without_its_model_type_is_completed_so_that_transformers_opens_it(make_folder, tmp_path):
    folder = make_folder()
    (folder / "config.json").write_text(json.dumps({k: v for k, v in TINY.items() if k != "model_type"}))
    run(import_verb, folder, "--out", tmp_path / "ckpt")
    run(export_verb, tmp_path / "ckpt", "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == TINY


@pytest.mark.parametrize(
    ("generation", "config", "written"),
    [
        ({"eos_token_id": 2, "temperature": 0.6}, {}, {"eos_token_id": [2, 7], "temperature": 0.6}),
        ({"eos_token_id": [2, 3]}, {}, {"eos_token_id": [2, 3, 7]}),
        ({"eos_token_id": [7, 2]}, {}, {"eos_token_id": [7, 2]}),
        ({"eos_token_id": None, "top_p": 0.9}, {}, {"eos_token_id": 7, "top_p": 0.9}),
        ({"_from_model_config": True, "eos_token_id": 2}, {}, {"eos_token_id": [2, 7]}),
        (None, {"bos_token_id": 1, "eos_token_id": 2}, {"bos_token_id": 1, "eos_token_id": [2, 7]}),
        (None, {}, {"eos_token_id": 7}),
        (None, None, {"eos_token_id": 7}),
    ],
)
def test_an_end_token_is_added_and_nothing_lost(tmp_path, generation, config, written):
    for name, content in (("generation_config.json", generation), ("config.json", config)):
        if content is not None:
            (tmp_path / name).write_text(json.dumps(content))
    for _ in range(2):
        convert.add_end_tokens(tmp_path, [7])
        assert json.loads((tmp_path / "generation_config.json").read_text()) == written


def test_an_import_tells_of_a_turn_end_that_the_configs_lack(make_folder, tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    folder = make_folder({"eos_token_id": 0})
    rust = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    PreTrainedTokenizerFast(
        tokenizer_object=rust, eos_token="<|im_end|>", chat_template=template
    ).save_pretrained(folder)
    said = run(import_verb, folder, "--out", tmp_path / "a")
    assert "eos_token_id names 0 and not '<|im_end|>' (id 2)" in said
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    assert "and not" not in run(import_verb, folder, "--out", tmp_path / "b")
    (folder / "tokenizer.json").write_text("{")
    said = run(import_verb, folder, "--out", tmp_path / "c")
    assert str(tmp_path / "c" / "hf" / "tokenizer.json") in said


def test_an_export_reads_every_leaf_once_and_fills_files_of_any_size_with_the_same_bytes(
    make_folder, tmp_path
):
    folder = make_folder(dtype="bfloat16")
    source = tmp_path / "a model, imported"
    run(import_verb, folder, "--out", source)
    used: list[str] = []

    class Leaf:
        def __init__(self, name, stored):
            self.name, self.stored, self.dtype = name, stored, stored.dtype

        def __array__(self, dtype=None, copy=None):
            used.append(self.name)
            return np.asarray(self.stored)

    opened = checkpoint.flatten(checkpoint.open_params(source))
    config = checkpoint.read_description(source)["config"]
    leaves = checkpoint.unflatten({name: Leaf(name, leaf) for name, leaf in opened.items()})
    convert.export(leaves, config, source / "hf", tmp_path / "out", dtype="bfloat16", max_shard_bytes=900)
    assert sorted(used) == sorted(opened)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 5
    before, written = load_file(folder / "model.safetensors"), {}
    for file in (tmp_path / "out").glob("*.safetensors"):
        written |= load_file(file)
    assert {name: tensor.tobytes() for name, tensor in written.items()} == {
        name: tensor.tobytes() for name, tensor in before.items()
    }


def test_from_python_a_model_is_imported_and_exported_as_by_the_commands(make_folder, tmp_path, capsys):
    folder = make_folder()
    made = alpacare.import_model(folder, tmp_path / "ckpt")
    assert (made.folder, made.dtype, made.note) == (tmp_path / "ckpt", "float32", None)
    written = alpacare.export_model(tmp_path / "ckpt", tmp_path / "out", max_shard_size=6000, progress=False)
    assert written.parameters == made.parameters
    assert written.files == len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    assert "writing files" not in capsys.readouterr().err
    with pytest.raises(DataError, match="exists"):
        alpacare.import_model(folder, tmp_path / "ckpt")
    with pytest.raises(ConfigError, match="no adapters"):
        alpacare.export_adapters(tmp_path / "ckpt", tmp_path / "peft")
