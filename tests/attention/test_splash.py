"""The TPU kernel: its text run on a CPU against plain attention, and its program by the real TPU compiler."""

import functools

import jax
import jax.numpy as jnp
import pytest
from packed_rows import assert_same, packed_segments, plain, random_qkv, values_and_gradients

from alpacare_jax import attention, sharding
from alpacare_jax.attention.splash import attend_splash, block_of
from alpacare_jax.sharding import MeshConfig

interpreted = functools.partial(attend_splash, interpret=True)


@pytest.mark.parametrize(
    ("length", "heads", "kv_heads", "head_dim"), [(256, 4, 2, 64), (300, 4, 1, 128), (256, 3, 3, 16)]
)
def test_it_gives_the_plain_values_and_gradients(length, heads, kv_heads, head_dim):
    qkv = random_qkv(2, length, heads, kv_heads, head_dim)
    for segments, padding in ((1, 0), (2, 9), (7, 30), (64, 0)):
        ids = packed_segments(2, length, segments, padding)
        found, expected = (values_and_gradients(f, qkv, ids) for f in (interpreted, plain))
        assert_same(found, expected)


def test_it_keeps_half_precision_within_its_rounding():
    ids = packed_segments(2, 256, 5, 9)
    qkv = random_qkv(2, 256, 4, 2, 64, jnp.bfloat16)
    exact = [x.astype(jnp.float32) for x in qkv]
    assert_same(values_and_gradients(interpreted, qkv, ids), values_and_gradients(plain, exact, ids), 1e-2)


def test_blocks_divide_every_length_it_is_given():
    for length in range(128, 8192, 128):
        assert length % block_of(length) == 0
        assert block_of(length) % 128 == 0


@pytest.fixture
def topology(for_tpu_compiler):
    """Devices of a TPU that is not here; what is compiled for them cannot be kept, as nothing here can load it."""
    from jax.experimental import topologies
    from jax.experimental.compilation_cache import compilation_cache

    kept = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield lambda name: topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    jax.config.update("jax_enable_compilation_cache", kept)
    compilation_cache.reset_cache()


def compile_for(
    devices, mesh_config, length=1024, heads=8, kv_heads=4, head_dim=128, dtype=jnp.bfloat16, wrap=lambda f: f
):
    """Compile values and gradients of the kernel that "auto" takes, on a mesh of devices that are not here."""
    mesh = sharding.make_mesh(mesh_config, devices)

    def arrays(*axes, shape, dtype=dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.named(mesh, axes))

    def summed(q, k, v, ids):
        return jnp.sin(wrap(attention.attend)(q, k, v, ids).astype(jnp.float32)).sum()

    rows = 2 * sharding.shards_on(mesh, "batch")
    with sharding.use_mesh(mesh):
        q = arrays("batch", "length", "heads", None, shape=(rows, length, heads, head_dim))
        kv = arrays("batch", "length", "kv_heads", None, shape=(rows, length, kv_heads, head_dim))
        ids = arrays("batch", "length", shape=(rows, length), dtype=jnp.int32)
        return jax.jit(jax.grad(summed, argnums=(0, 1, 2))).lower(q, kv, kv, ids).compile()


@pytest.mark.parametrize(
    ("name", "mesh", "shapes"),
    [
        ("v5e:4x4", MeshConfig(fsdp=16), {}),
        pytest.param(
            "v5e:4x4",
            MeshConfig(fsdp=16),
            {"length": 1000, "heads": 9, "kv_heads": 3, "head_dim": 64},
            marks=pytest.mark.slow,
        ),
        pytest.param("v5p:4x4x4", MeshConfig(fsdp=16, tensor=4), {"length": 4096}, marks=pytest.mark.slow),
        pytest.param(
            "v6e:2x4", MeshConfig(fsdp=2, tensor=2, context=2), {"length": 2048}, marks=pytest.mark.slow
        ),
        pytest.param("v6e:2x4", MeshConfig(fsdp=8), {"dtype": jnp.float32}, marks=pytest.mark.slow),
    ],
)
def test_it_compiles_for_every_tpu(name, mesh, shapes, topology):
    program = compile_for(topology(name), mesh, **shapes).as_text()
    assert (
        program.count('custom_call_target="tpu_custom_call"') == 3
    )  # values; gradients of queries, of keys and values


@pytest.mark.parametrize(("policy", "kernels"), [("nothing", 4), ("residuals", 3)])
@pytest.mark.slow
def test_a_policy_can_save_what_it_keeps_for_its_backward_pass(policy, kernels, topology):
    """With that saved, the backward pass need not run the forward kernel again."""
    policies = {
        "nothing": jax.checkpoint_policies.nothing_saveable,
        "residuals": jax.checkpoint_policies.save_only_these_names(attention.RESIDUALS),
    }

    def remembering(function):
        return jax.checkpoint(function, policy=policies[policy])

    program = compile_for(topology("v5e:2x2"), MeshConfig(fsdp=4), wrap=remembering).as_text()
    assert program.count('custom_call_target="tpu_custom_call"') == kernels
