"""The same tokens on every mesh."""

import dataclasses

import jax
import numpy as np
import pytest
from marking import slow_but

from alpacare_jax import sharding
from alpacare_jax.errors import ShardingError
from alpacare_jax.generate import Engine, Generation, SamplingParams
from alpacare_jax.model import Architecture, Params
from alpacare_jax.tokenizer import Tokenizer

LENGTHS = [3, 16, 17, 30, 5]


def generate(engine: Engine) -> list[list[int]]:
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 300, length).tolist() for length in LENGTHS]
    greedy = [Generation(prompt, SamplingParams(max_tokens=12, ignore_eos=True)) for prompt in prompts]
    warm = SamplingParams(
        max_tokens=12, temperature=0.9, top_p=0.8, seed=4, presence_penalty=1.0, ignore_eos=True
    )
    asked = [*greedy, Generation(prompts[0], warm)]
    for generation in asked:
        engine.submit(generation)
    engine.run()
    return [generation.tokens for generation in asked]


@pytest.fixture(scope="module")
def alone(architecture: Architecture, params: Params, tokenizer: Tokenizer) -> list[list[int]]:
    """What one device generates."""
    return generate(Engine(architecture, params, tokenizer, slots=3))


@pytest.mark.parametrize(
    "shape",
    slow_but(
        [{"data": 2, "fsdp": 2, "tensor": 2}],
        [{"fsdp": 4, "tensor": 2}, {"data": 2, "fsdp": 2, "tensor": 2}],
    ),
)
def test_a_mesh_gives_the_tokens_of_one_device(
    shape: dict[str, int],
    architecture: Architecture,
    params: Params,
    tokenizer: Tokenizer,
    alone: list[list[int]],
) -> None:
    mesh = sharding.make_mesh(sharding.MeshConfig(**shape))
    engine = Engine(architecture, params, tokenizer, mesh=mesh, slots=3)
    assert engine.slots % sharding.shards_on(mesh, "batch") == 0
    assert generate(engine) == alone


@pytest.mark.parametrize(
    "shape", slow_but([{"fsdp": 2, "tensor": 4}], [{"fsdp": 4, "tensor": 2}, {"fsdp": 2, "tensor": 4}])
)
def test_heads_and_a_vocabulary_that_do_not_divide_give_the_tokens_of_one_device(
    shape: dict[str, int], architecture: Architecture, tokenizer: Tokenizer
) -> None:
    config = dataclasses.replace(
        architecture.config,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=architecture.config.vocab_size + 1,
    )
    uneven = Architecture(config, architecture.compute)
    params = uneven.init(3, sharding.single_device_mesh())
    mesh = sharding.make_mesh(sharding.MeshConfig(**shape))
    found = generate(Engine(uneven, params, tokenizer, mesh=mesh, slots=3))
    assert found == generate(Engine(uneven, params, tokenizer, slots=3))


def test_parameters_already_on_the_mesh_are_taken_as_they_are(
    architecture: Architecture, tokenizer: Tokenizer, params: Params, alone: list[list[int]]
) -> None:
    mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=2, tensor=2), jax.devices()[:4])
    placed = jax.device_put(params, architecture.shardings(mesh))
    assert generate(Engine(architecture, placed, tokenizer, mesh=mesh, slots=2)) == alone


def test_a_mesh_that_does_not_fit_is_refused(
    architecture: Architecture, params: Params, tokenizer: Tokenizer
) -> None:
    for shape, named in (({"fsdp": 1, "tensor": 8}, "heads"), ({"fsdp": 4, "context": 2}, "context")):
        mesh = sharding.make_mesh(sharding.MeshConfig(**shape))
        with pytest.raises(ShardingError, match=r".") as caught:
            Engine(architecture, params, tokenizer, mesh=mesh)
        assert named in str(caught.value)
