"""The tiled loss against the plain one: value, gradient, memory, and what a mesh exchanges."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from marking import slow_but

from alpacare_jax import sharding
from alpacare_jax.loss import CHUNK_BYTES, cross_entropy_sum, shift_targets
from alpacare_jax.loss.projection import project_here
from alpacare_jax.loss.tiling import choose_chunk, choose_tiling
from alpacare_jax.sharding import MeshConfig

BY = ("tokens", "vocabulary")
B, T, D, V = 8, 24, 16, 1000


def plain(hidden, head, targets, weights):
    logits = jnp.einsum("BTD,DV->BTV", hidden, head)
    return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, targets) * weights)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(B, T, D)), jnp.float32)
    head = jnp.asarray(rng.normal(size=(D, V)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, V, (B, T)))
    weights = jnp.asarray(rng.integers(0, 2, (B, T)), jnp.float32)
    return hidden, head, targets, weights


def tiled(problem, **options):
    hidden, head, targets, weights = problem
    head = head.T if options.get("tied") else head

    def loss(hidden, head):
        return 1.0 * cross_entropy_sum(hidden, head, targets, weights, **options)

    value, (d_hidden, d_head) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(hidden, head)
    return value, d_hidden, d_head.T if options.get("tied") else d_head


def assert_close(found, expected, rtol):
    for name, a, b in zip(("value", "d_hidden", "d_head"), found, expected, strict=True):
        error = np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)
        assert error <= rtol, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("chunk_bytes", [1, 150_000, 10**9])
def test_value_and_gradients_equal_those_of_the_full_logits(problem, by, tied, chunk_bytes):
    # 1 byte: single tokens or 128 columns, the last tile overlapping; 150,000: 37 tokens, which do not divide 192.
    found = tiled(problem, tiling=by, tied=tied, chunk_bytes=chunk_bytes)
    value, grads = jax.value_and_grad(plain, argnums=(0, 1))(*problem)
    assert_close(found, (value, *grads), rtol=1e-6)
    with jax.enable_x64(True):
        hidden, head, targets, weights = (np.asarray(x) for x in problem)
        doubles = [np.float64(hidden), np.float64(head), targets, np.float64(weights)]
        value, grads = jax.value_and_grad(plain, argnums=(0, 1))(*doubles)
        assert value.dtype == np.float64
    assert_close(found, (value, *grads), rtol=1e-6)


def optimized(function):
    """Compile as a run does: unoptimised sums round more, which is what the test below measures."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 3})


@pytest.mark.parametrize("by", BY)
def test_logits_far_from_zero_neither_overflow_nor_vanish(problem, by):
    hidden, head, targets, weights = problem
    problem = (100 * hidden, head, targets, weights)
    found = optimized(functools.partial(tiled, tiling=by, chunk_bytes=1))(problem)
    with jax.enable_x64(True):
        doubles = [np.asarray(x).astype(np.float64) for x in (100 * hidden, head)]
        value, grads = jax.value_and_grad(plain, argnums=(0, 1))(*doubles, targets, np.float64(weights))
    of_plain = optimized(jax.value_and_grad(plain, argnums=(0, 1)))(*problem)
    for a, b, exact in zip(found, (of_plain[0], *of_plain[1]), (value, *grads), strict=True):
        allowed = 2 * np.linalg.norm(b - exact) + 1e-6 * np.linalg.norm(exact)
        assert np.linalg.norm(a - exact) <= allowed, "worse than what full logits give"


@pytest.mark.parametrize("by", BY)
def test_the_gradient_is_scaled_by_what_follows(problem, by):
    def scaled(*arguments):
        return -3.0 * cross_entropy_sum(*arguments, tiling=by)

    found = jax.value_and_grad(scaled, argnums=(0, 1))(*problem)
    expected = jax.value_and_grad(plain, argnums=(0, 1))(*problem)
    assert_close(jax.tree.leaves(found), [-3.0 * x for x in jax.tree.leaves(expected)], rtol=1e-6)


@pytest.mark.parametrize("by", BY)
def test_rows_without_targets_cost_nothing(problem, by):
    hidden, head, targets, weights = problem
    loss, d_hidden, d_head = tiled((hidden, head, targets, weights * 0), tiling=by)
    assert float(loss) == 0.0
    assert not np.any(np.asarray(d_hidden))
    assert not np.any(np.asarray(d_head))


@pytest.mark.parametrize("by", BY)
def test_columns_of_padding_get_no_probability_and_no_gradient(problem, by):
    hidden, head, targets, weights = problem
    padded = jnp.pad(head, ((0, 0), (0, 24)), constant_values=7.0)
    value, d_hidden, d_head = tiled(
        (hidden, padded, targets, weights), tiling=by, vocabulary=V, chunk_bytes=1
    )
    expected = tiled(problem, tiling=by)
    assert_close((value, d_hidden, d_head[:, :V]), expected, rtol=1e-6)
    assert not np.any(np.asarray(d_head[:, V:]))


MESHES = {
    "fsdp": MeshConfig(fsdp=8),
    "tensor": MeshConfig(fsdp=2, tensor=4),
    "context": MeshConfig(fsdp=1, context=8),
    "all": MeshConfig(data=1, fsdp=2, tensor=2, context=2),
    "data": MeshConfig(data=2, fsdp=2, tensor=2),
}


def on_mesh(mesh, problem, **options):
    """Return the compiled value and gradients of the loss, and its arguments on the mesh."""
    tied = options.get("tied", False)
    hidden, head, targets, weights = problem
    axes = [("batch", "length", "width"), ("vocab", "embed") if tied else ("embed", "vocab")]
    where = [sharding.named(mesh, names) for names in [*axes, ("batch", "length"), ("batch", "length")]]
    placed = jax.device_put((hidden, head.T if tied else head, targets, weights), tuple(where))

    def loss(*arguments):
        return cross_entropy_sum(*arguments, **options)

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), out_shardings=(None, (where[0], where[1])))
    return step.lower(*placed).compile(), placed


# Kept: every mesh, and every pair of tied or not with either tiling.
@pytest.mark.parametrize(
    ("name", "tied", "by"),
    slow_but(
        [
            ("fsdp", False, "tokens"),
            ("tensor", True, "tokens"),
            ("tensor", False, "vocabulary"),
            ("context", True, "vocabulary"),
            ("all", False, "vocabulary"),
            ("all", True, "tokens"),
            ("data", False, "tokens"),
        ],
        itertools.product(MESHES, (False, True), BY),
    ),
)
def test_every_mesh_gives_the_value_and_gradients_of_one_device(problem, name, tied, by):
    mesh = sharding.make_mesh(MESHES[name])
    with sharding.use_mesh(mesh):
        step, placed = on_mesh(mesh, problem, tied=tied, tiling=by, chunk_bytes=1)
        value, (d_hidden, d_head) = step(*placed)
    value_of_one, grads = jax.value_and_grad(plain, argnums=(0, 1))(*problem)
    assert_close((value, d_hidden, d_head.T if tied else d_head), (value_of_one, *grads), rtol=1e-6)


def arrays(program):
    """Return the elements of every array of a compiled program, largest first, with the line that makes it."""
    found = []
    for line in program.splitlines():
        made = re.match(r"\s*(?:ROOT )?%?[\w.-]+ = (.*?) [\w-]+\(", line)
        for shape in re.findall(r"\b[a-z]+\d*\[([\d,]+)\]", made.group(1) if made else ""):
            found.append((int(np.prod([int(size) for size in shape.split(",")])), line.strip()))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("mesh_config", [None, MeshConfig(fsdp=2, tensor=2, context=2)], ids=["one", "mesh"])
def test_no_array_of_the_compiled_program_holds_the_logits(by, mesh_config):
    # Many more tokens than the width, so that the largest array that may exist, the projection, is far smaller.
    rows, length, width, vocabulary = 8, 512, 32, 4096
    problem = (
        jnp.zeros((rows, length, width)),
        jnp.zeros((width, vocabulary)),
        jnp.zeros((rows, length), jnp.int32),
        jnp.zeros((rows, length)),
    )
    tile = rows * length * 128  # no tile has fewer columns
    if mesh_config is None:
        function = jax.jit(
            jax.value_and_grad(
                lambda *a: cross_entropy_sum(*a, tiling=by, chunk_bytes=4 * tile), argnums=(0, 1)
            )
        )
        program = function.lower(*problem).compile().as_text()
    else:
        mesh = sharding.make_mesh(mesh_config)
        with sharding.use_mesh(mesh):
            program = on_mesh(mesh, problem, tiling=by, chunk_bytes=4 * tile)[0].as_text()
    largest, line = arrays(program)[0]
    assert largest >= tile / 4, "the tile itself is not seen: the test reads the program wrongly"
    assert largest <= tile, line


def test_on_a_mesh_no_logits_travel_and_the_projection_once_a_pass(problem):
    mesh = sharding.make_mesh(MeshConfig(fsdp=2, tensor=2, context=2))
    with sharding.use_mesh(mesh):
        program = on_mesh(mesh, problem, tiling="tokens", chunk_bytes=1)[0].as_text()
    gathers = [line for line in program.splitlines() if re.search(r" = .* all-gather(-start)?\(", line)]
    assert gathers, "the projection is split over fsdp and must be gathered"
    for line in gathers:
        assert f"[{D},{V // 2}]" in line, line
        assert "/while/" not in line, "gathered once, not once a chunk"
    tokens_of_a_device = B * T // 4
    reduced = [
        line
        for line in program.splitlines()
        if re.search(r" = .* (all-reduce|reduce-scatter)(-start)?\(", line)
    ]
    assert reduced
    for line in reduced:
        for shape in re.findall(r"\[([\d,]+)\]", line.split(" = ")[1].split("(")[0]):
            sizes = [int(size) for size in shape.split(",") if size]
            assert V // 2 not in sizes or sizes in ([D, V // 2], [D // 2, V // 2]), line
            assert sizes != [tokens_of_a_device, V // 2], line


@pytest.mark.parametrize(("dtype", "share"), [("float32", 0.1)])
def test_extra_memory_at_a_vocabulary_of_128k_is_under_a_tenth_of_the_logits(dtype, share):
    tokens, width, vocabulary = 8192, 4096, 128_256
    arguments = (
        jax.ShapeDtypeStruct((4, tokens // 4, width), dtype),
        jax.ShapeDtypeStruct((width, vocabulary), dtype),
        jax.ShapeDtypeStruct((4, tokens // 4), "int32"),
        jax.ShapeDtypeStruct((4, tokens // 4), "float32"),
    )
    step = jax.jit(jax.value_and_grad(cross_entropy_sum, argnums=(0, 1)))
    used = step.lower(*arguments).compile().memory_analysis().temp_size_in_bytes
    assert used < share * 4 * tokens * vocabulary


def test_targets_are_shifted_by_one():
    targets, weights = shift_targets(jnp.array([[5, 6, 7, 8]]), jnp.array([[0, 0, 1, 1]]))
    assert targets.tolist() == [[6, 7, 8, 0]]
    assert weights.tolist() == [[0.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("platform", "tokens", "width", "columns", "expected"),
    [
        ("cpu", 1024, 64, 4096, "tokens"),  # a small projection
        ("tpu", 65536, 4096, 128256, "vocabulary"),
        ("gpu", 65536, 4096, 128256, "tokens"),
        ("gpu", 8192, 4096, 128256, "vocabulary"),  # the projection alone would be as large as the logits
    ],
)
def test_the_tiling_suits_shapes_and_platform(monkeypatch, platform, tokens, width, columns, expected):
    monkeypatch.setattr(sharding, "platform_here", lambda: platform)
    hidden = jax.ShapeDtypeStruct((8, tokens // 8, width), jnp.bfloat16)
    head = jax.ShapeDtypeStruct((width, columns), jnp.float32)
    projection = project_here(hidden, head, tied=False, vocabulary=None)
    assert choose_tiling(hidden, head, projection) == expected


def test_on_gpus_the_logits_come_in_few_pieces(monkeypatch):
    hidden = jax.ShapeDtypeStruct((8, 1024, 4096), jnp.bfloat16)
    head = jax.ShapeDtypeStruct((4096, 128256), jnp.float32)
    projection = project_here(hidden, head, tied=False, vocabulary=None)
    assert choose_chunk(hidden, head, projection, "tokens") == CHUNK_BYTES
    monkeypatch.setattr(sharding, "platform_here", lambda: "gpu")
    logits = 4 * 8192 * 128256
    assert choose_chunk(hidden, head, projection, "tokens") == pytest.approx(logits / 16, rel=0.01)
    assert choose_chunk(hidden, head, projection, "vocabulary") == pytest.approx(logits / 32, rel=0.01)
