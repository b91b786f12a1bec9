import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpacare_jax import checkpoint
from alpacare_jax.convert import table
from alpacare_jax.model import LlamaConfig

SMALL = LlamaConfig(
    vocab_size=40,
    hidden_size=24,
    intermediate_size=36,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=3,
    head_dim=8,
)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("biases", [False, True])
def test_the_table_covers_the_model_and_agrees_on_every_shape(tied, biases):
    import dataclasses

    config = dataclasses.replace(SMALL, tie_word_embeddings=tied, attention_bias=biases, mlp_bias=biases)
    sizes = table.axis_sizes(config)
    stacked = {
        rule.ours: ((config.num_hidden_layers,) if rule.stacked else ()) + table.shape_of(rule.axes, sizes)
        for rule in table.RULES
        if rule.exists(config)
    }
    declared = checkpoint.flatten(checkpoint.abstract_params(config))
    assert stacked == {name: leaf.shape for name, leaf in declared.items()}


@given(st.sampled_from(table.RULES), st.sampled_from(["hf", "gguf"]), st.integers(0, 2**32 - 1))
def test_every_layout_turns_into_ours_and_back_unchanged(rule, dialect, seed):
    sizes, layout = table.axis_sizes(SMALL), rule.layout(dialect)
    foreign = np.random.default_rng(seed).normal(size=table.shape_of(layout, sizes))
    # H and (2 E) are the same axis under two names, so each rule must use one of them throughout
    ours = table.rearrange(foreign, layout, rule.axes, sizes)
    assert ours.shape == table.shape_of(rule.axes, sizes)
    assert np.array_equal(table.rearrange(ours, rule.axes, layout, sizes), foreign)


def test_a_matrix_is_transposed_and_its_heads_are_split():
    matrix = np.arange(12).reshape(4, 3)  # 2 heads of size 2, width 3
    ours = table.rearrange(matrix, "(N H) D", "D N H", {"N": 2, "H": 2, "D": 3})
    assert ours[1, 0].tolist() == [matrix[0, 1], matrix[1, 1]]
    assert ours[2, 1].tolist() == [matrix[2, 2], matrix[3, 2]]


def test_a_query_row_of_gguf_alternates_between_the_halves_of_a_head():
    # Row i of a head of size 6 in the original order comes to lie where llama.cpp rotates neighbours.
    sizes = {"N": 1, "2": 2, "E": 3, "D": 1}
    assert table.rearrange(np.arange(6)[:, None], "(N 2 E) D", "(N E 2) D", sizes).ravel().tolist() == [
        0,
        3,
        1,
        4,
        2,
        5,
    ]


@pytest.mark.parametrize("dialect", ["hf", "gguf"])
def test_every_expected_name_is_found_again_and_strangers_are_not(dialect):
    expected = table.expected_tensors(SMALL, dialect)
    assert len(expected) == 2 * 9 + 3
    assert all(table.find_rule(name, dialect) == where for name, where in expected.items())
    assert table.find_rule("model.layers.0.self_attn.q_proj.weight_scale", dialect) is None
    assert table.find_rule("modelXlayers.0.self_attn.q_proj.weight", dialect) is None
