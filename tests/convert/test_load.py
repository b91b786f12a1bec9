import json
import os
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_llama import TINY, random_tensors

from alpacare_jax import checkpoint, load, sharding
from alpacare_jax.convert.sources import open_safetensors
from alpacare_jax.errors import ConversionError, ShardingError, UserError


def tensors_without(*names, **more):
    return {k: v for k, v in random_tensors(TINY).items() if k not in names} | more


def message(folder) -> str:
    with pytest.raises(ConversionError) as caught:
        load(folder)
    return str(caught.value)


def test_every_way_not_to_fit_is_named_at_once(make_folder):
    tensors = tensors_without("model.layers.1.mlp.up_proj.weight", "lm_head.weight")
    tensors["model.norm.weight"] = np.ones(15, np.float32)
    tensors["model.layers.0.self_attn.q_proj.bias"] = np.ones(16, np.float32)
    tensors["model.layers.2.input_layernorm.weight"] = np.ones(16, np.float32)
    tensors["model.layers.0.mlp.router.weight"] = np.ones((4, 16), np.float32)
    said = message(make_folder(tensors=tensors))
    for line in (
        "missing: model.layers.1.mlp.up_proj.weight",
        "missing: lm_head.weight",
        "wrong shape: model.norm.weight is [15], expected [16]",
        "unexpected: model.layers.0.self_attn.q_proj.bias, but the config has attention_bias false",
        "unexpected: model.layers.2.input_layernorm.weight, but the config has 2 layers",
        "unmapped: model.layers.0.mlp.router.weight [4, 16] is not a tensor of LLaMA",
        "6 tensor(s)",
        "hidden_size 16",  # the keys of the config that the shapes come from
    ):
        assert line in said
    assert "duplicate" not in said


def test_a_tensor_in_two_shards_is_a_duplicate_and_a_lost_shard_is_named(make_folder):
    folder = make_folder()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = list(tensors)
    save_file({n: tensors[n] for n in names[:12]}, folder / "a.safetensors")
    save_file({n: tensors[n] for n in names[11:]}, folder / "b.safetensors")
    weight_map = dict.fromkeys(names[:12], "a.safetensors") | dict.fromkeys(names[12:], "b.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    said = message(folder)
    assert f"duplicate: {names[11]} is in a.safetensors and in b.safetensors" in said
    assert "missing" not in said
    (folder / "b.safetensors").unlink()
    assert "missing file: b.safetensors" in message(folder)
    index.write_text("{")
    assert "not valid JSON" in message(folder)


def test_sharded_files_give_the_same_parameters(make_folder):
    folder = make_folder()
    whole = checkpoint.flatten(load(folder).params)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for i, name in enumerate(tensors):
        weight_map[name] = f"model-{i % 3}.safetensors"
    for file in set(weight_map.values()):
        save_file({n: t for n, t in tensors.items() if weight_map[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    parts = checkpoint.flatten(load(folder).params)
    assert all(np.array_equal(parts[name], whole[name]) for name in whole)


def test_parameters_go_straight_onto_a_mesh(make_folder):
    folder = make_folder()
    mesh = sharding.make_mesh(sharding.MeshConfig(data=2, fsdp=2, tensor=2))
    alone = checkpoint.flatten(load(folder).params)
    placed = checkpoint.flatten(load(folder, mesh=mesh).params)
    for name, leaf in placed.items():
        assert np.array_equal(leaf, alone[name])
    query = placed["layers.attention.query"]
    assert query.sharding.spec == jax.sharding.PartitionSpec(None, "fsdp", "tensor", None)
    assert query.addressable_shards[0].data.shape == (2, 8, 2, 4)


def test_a_mesh_that_does_not_divide_the_heads_gets_the_same_weights(make_folder):
    mesh, folder = sharding.make_mesh(sharding.MeshConfig(fsdp=2, tensor=4)), make_folder()
    found, expected = load(folder, mesh=mesh).params, load(folder).params
    key = found["layers"]["attention"]["key"]
    assert key.addressable_shards[0].data.shape == (2, 2, 2, 4)  # its width over all eight
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(expected))


def test_a_mesh_with_more_devices_than_heads_is_refused(make_folder):
    mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=1, tensor=8))
    with pytest.raises(ShardingError, match=r"4 heads over tensor \(8\)"):
        load(make_folder(), mesh=mesh)


def test_frequencies_and_a_second_copy_of_tied_embeddings_are_harmless(make_folder):
    tensors = random_tensors(TINY)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    load(make_folder({"tie_word_embeddings": True}, tensors))
    tensors["lm_head.weight"][0, 0] += 1
    said = message(make_folder({"tie_word_embeddings": True}, tensors, name="untied"))
    assert "unexpected: lm_head.weight differs from model.embed_tokens.weight" in said


ROTARY_BUFFERS = (
    "model.rotary_emb.inv_freq",
    "model.rotary_emb.original_inv_freq",
    "model.layers.0.self_attn.rotary_emb.inv_freq",
    "model.layers.1.self_attn.rotary_emb.cos_cached",
    "layers.0.attention.rope.sin",
    "rope.freqs",
    "model.freqs_cis",
    "inv_freq",
)


def test_tables_of_the_rotary_embedding_are_passed_over_by_any_name(make_folder):
    buffers = {name: np.ones(2, np.float32) for name in ROTARY_BUFFERS}
    load(make_folder(tensors=random_tensors(TINY) | buffers))
    strangers = {
        name: np.ones(2, np.float32) for name in ("model.layers.0.self_attn.q_norm.weight", "model.prope")
    }
    said = message(make_folder(tensors=random_tensors(TINY) | strangers, name="strange"))
    assert all(f"unmapped: {name}" in said for name in strangers)


@pytest.mark.parametrize("whole", [True, False])
def test_an_adapter_is_named_beside_weights_and_alone(make_folder, tmp_path, whole):
    folder = make_folder() if whole else tmp_path / "adapter"
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "base_model_name_or_path": "org/base"}'
    )
    said = message(folder)
    assert "PEFT adapter" in said
    assert "org/base" in said
    assert ("beside the weights" in said) == whole


def test_more_layers_than_tensors_are_refused_at_once(make_folder):
    said = message(make_folder({"num_hidden_layers": 9_999}, random_tensors(TINY)))
    assert "9,999 layers" in said


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_keep_every_bit(make_folder, dtype):
    folder = make_folder(dtype=dtype)
    loaded = load(folder)
    assert loaded.params["embed"].dtype == ("bfloat16" if dtype == "bfloat16" else "float32")
    stored = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    assert np.array_equal(np.asarray(loaded.params["embed"], np.float32), stored.astype(np.float32))


def test_a_file_cut_short_is_named(make_folder):
    folder = make_folder()
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    said = message(folder)
    assert str(file) in said
    assert "cut short" in said


def test_torch_pickles_are_refused_with_a_way_out(make_folder):
    folder = make_folder()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    said = message(folder)
    assert "pickle" in said
    assert "save_pretrained" in said


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"model_type": "mistral"}, "architecture is not supported"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "longrope"),
    ],
)
def test_a_config_of_something_else_is_refused(make_folder, changes, part):
    tensors = random_tensors(TINY)
    assert part in message(make_folder(changes, tensors))


def test_quantised_tensors_are_refused(make_folder):
    tensors = random_tensors(TINY) | {"model.layers.0.mlp.up_proj.qweight": np.ones(3, np.int32)}
    assert "I32" in message(make_folder(tensors=tensors))


def test_names_that_lead_nowhere_say_what_to_do(tmp_path):
    for reference, part in (
        (tmp_path / "nothing" / "here", "there is no such model"),
        ("some-org/some-model", "hf download some-org/some-model --local-dir DIR"),
    ):
        with pytest.raises(UserError) as caught:
            load(reference)
        assert part in str(caught.value)
    (tmp_path / "notes.txt").write_text("x")
    assert "not a model" in message(tmp_path / "notes.txt")
    (tmp_path / "adapter_model.safetensors").write_text("x")
    assert re.search(r"no config.json[^$]*adapter_model.safetensors", message(tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        "../w.safetensors",
        "../model/w.safetensors",
        "sub/w.safetensors",
        "./w.safetensors",
        "..\\w.safetensors",
        "/etc/passwd",
        "..",
        ".",
        "",
        "w\0.safetensors",
        None,
        7,
        ["w.safetensors"],
    ],
)
def test_an_index_names_files_of_its_own_folder_alone(tmp_path, name):
    """A name that leads elsewhere is never opened, whatever stands there."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "w.safetensors").write_bytes(b"")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    with pytest.raises(ConversionError, match="not in its folder") as caught:
        open_safetensors(folder)
    said = str(caught.value)
    assert f"{index}: lm_head.weight" in said
    assert json.dumps(name) in said


@pytest.mark.parametrize("indexed", [False, True], ids=["one file", "shards"])
def test_weights_may_be_links_and_must_be_files(tmp_path, indexed):
    """Whoever keeps weights elsewhere links them, as the hub's cache does; a name in an index may not lead there."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    os.mkfifo(folder / "fifo")
    save_file({"lm_head.weight": np.zeros((2, 2), np.float32)}, tmp_path / "elsewhere")
    (folder / "linked").symlink_to("../elsewhere")
    shard = folder / ("a.safetensors" if indexed else "model.safetensors")
    if indexed:
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"lm_head.weight": shard.name}}))
    for target, said in (
        ("../elsewhere", None),
        ("linked", None),
        (str(tmp_path / "elsewhere"), None),
        ("sub", "not a file"),
        ("fifo", "not a file"),
    ):
        shard.unlink(missing_ok=True)
        shard.symlink_to(target)
        if said is None:
            assert list(open_safetensors(folder).tensors) == ["lm_head.weight"]
        else:
            with pytest.raises(ConversionError, match=said):
                open_safetensors(folder)
    shard.unlink()
    shard.symlink_to(shard.name)
    assert "missing" in " ".join(open_safetensors(folder).problems) if indexed else not shard.exists()


def test_links_within_a_folder_and_within_the_cache_of_the_hub_are_followed(tmp_path, caplog):
    """The hub's snapshots are made of links to blobs; links that leave a model's folder are left out and told of."""
    cache = tmp_path / "models--org--model"
    folder, blobs = cache / "snapshots" / "abc", cache / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    save_file({"lm_head.weight": np.zeros((2, 2), np.float32)}, blobs / "1")
    (blobs / "2").write_text("{}")
    (tmp_path / "private").write_text("nobody else's")
    (folder / "a.safetensors").symlink_to("../../blobs/1")
    (folder / "config.json").symlink_to("../../blobs/2")
    (folder / "LICENSE").write_text("free")
    (folder / "LICENSE.txt").symlink_to("LICENSE")
    (folder / "NOTICE").symlink_to(tmp_path / "private")
    (folder / "USE_POLICY.md").symlink_to("../../../private")
    (folder / "additional_chat_templates").symlink_to(tmp_path / "templates")
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "x.jinja").write_text("nobody else's")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "a.safetensors"}}))
    mine = tmp_path / "mine"
    mine.symlink_to(folder)
    for source in (folder, mine):
        assert list(open_safetensors(source).tensors) == ["lm_head.weight"]
        checkpoint.copy_config_files(source, tmp_path / "copy")
        assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [
            "LICENSE",
            "LICENSE.txt",
            "config.json",
        ]
    for name in ("NOTICE", "USE_POLICY.md", "x.jinja"):
        assert f"{name}: it is a link that leads out" in caplog.text
