"""Adapters as PEFT's folder: names and numbers, and the same logits in transformers."""

import json
import shutil

import jax
import numpy as np
import pytest
from marking import slow_but

from alpacare_jax import checkpoint, load, sharding
from alpacare_jax.adapters import AdapterConfig, Partition
from alpacare_jax.convert.adapted import public_base
from alpacare_jax.convert.peft_folder import export_peft
from alpacare_jax.errors import ConfigError
from alpacare_jax.model import Architecture, LlamaConfig

TOKENS = np.arange(24, dtype=np.int32).reshape(2, 12) * 2 % 48


def trained_adapters(folder, adapter):
    """Adapters away from their start, and the logits of base and adapters."""
    mesh = sharding.single_device_mesh()
    loaded = load(folder, dtype="float32", precision="highest")
    partition = Partition(Architecture(loaded.config), adapter)
    trained, frozen = partition.split(loaded.params, 0, mesh)
    keys = jax.random.split(jax.random.key(1), len(jax.tree.leaves(trained)))
    leaves, tree = jax.tree.flatten(trained)
    moved = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    trained = jax.tree.unflatten(tree, moved)
    logits = jax.jit(lambda a, b: partition.architecture.model(partition.join(a, b))(TOKENS))(trained, frozen)
    return trained, loaded.config, np.asarray(logits)


def test_names_and_shapes_are_those_of_peft(make_folder, tmp_path):
    from safetensors.numpy import load_file

    adapter = AdapterConfig(kind="dora", rank=3, targets=("query", "out", "down"))
    trained, config, _ = trained_adapters(make_folder(), adapter)
    export_peft(trained, adapter, config, tmp_path / "peft", base="org/base")
    tensors = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    module = "base_model.model.model.layers.1."
    shapes = {name.removeprefix(module): array.shape for name, array in tensors.items() if module in name}
    assert shapes == {
        "self_attn.q_proj.lora_A.weight": (3, 16),
        "self_attn.q_proj.lora_B.weight": (16, 3),
        "self_attn.q_proj.lora_magnitude_vector": (16,),
        "self_attn.o_proj.lora_A.weight": (3, 16),
        "self_attn.o_proj.lora_B.weight": (16, 3),
        "self_attn.o_proj.lora_magnitude_vector": (16,),
        "mlp.down_proj.lora_A.weight": (3, 24),
        "mlp.down_proj.lora_B.weight": (16, 3),
        "mlp.down_proj.lora_magnitude_vector": (16,),
    }
    settings = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "org/base"
    assert settings["target_modules"] == ["q_proj", "o_proj", "down_proj"]
    assert (settings["use_dora"], settings["use_rslora"]) == (True, False)


def test_adapters_that_hold_a_part_of_the_base_are_refused_where_the_base_has_it_too(tmp_path):
    adapter = AdapterConfig(kind="lora", rank=3, base="nf4", start="residual")
    with pytest.raises(ConfigError) as caught:
        export_peft({}, adapter, LlamaConfig(), tmp_path / "peft", base="org/base")
    for part in (
        "peft",
        "adapter.start: residual, on a base in nf4",
        "adapter.start: zero",
        "leave out --peft",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "peft").exists()


@pytest.mark.torch
@pytest.mark.parametrize("kind", slow_but(["dora"], ["lora", "rslora", "dora"]))
def test_peft_loads_the_folder_and_gives_the_same_logits(make_folder, tmp_path, kind):
    peft, torch, transformers = (pytest.importorskip(name) for name in ("peft", "torch", "transformers"))
    # Small weights: the random ones of the other tests make logits in the hundreds.
    from tiny_llama import TINY, random_tensors

    tensors = {name: 0.1 * tensor for name, tensor in random_tensors(TINY).items()}
    folder = make_folder(tensors=tensors)
    adapter = AdapterConfig(kind=kind, rank=3, alpha=4.0)
    trained, config, expected = trained_adapters(folder, adapter)
    export_peft(trained, adapter, config, tmp_path / "peft", base=str(folder))
    base = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    with torch.no_grad():
        found = model(torch.tensor(TOKENS)).logits.numpy()
        plain = model.unload()(torch.tensor(TOKENS)).logits.numpy()
    assert np.abs(found - plain).max() > 100 * np.abs(found - expected).max(), "the adapters do something"
    assert np.abs(found - expected).max() <= 1e-5


def test_the_base_is_named_as_transformers_loads_it(make_folder, tmp_path, monkeypatch):
    """A model folder of ours is named by what it was imported from; where that is no folder of theirs, nothing is."""
    folder = make_folder()
    ours = tmp_path / "ours"

    def imported(reference, kind="hf"):
        shutil.rmtree(ours, ignore_errors=True)
        ours.mkdir()
        source = {"reference": str(reference), "format": kind}
        checkpoint.write_description(ours, "model", LlamaConfig(), {"source": source})
        return str(ours)

    assert public_base(str(folder)) == str(folder)
    assert public_base("org/model") == "org/model"
    assert public_base(imported(folder)) == str(folder)
    assert public_base(imported("org/model")) == "org/model"
    monkeypatch.chdir(folder.parent)
    assert public_base(imported(folder.name)) == str(folder), "as earlier versions wrote it"
    assert public_base(imported(folder / "model.gguf", "gguf")) is None
    assert public_base(imported(tmp_path / "gone")) is None
    assert public_base(imported("seed", "random")) is None
    assert public_base(None) is None
