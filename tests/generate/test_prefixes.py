"""Beginnings that prompts share are read once, and nothing but the time changes."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import pytest

from alpacare_jax import sharding
from alpacare_jax.generate import Engine, Generation, SamplingParams
from alpacare_jax.generate.prefill import KEPT, Prefix, PrefixCache
from alpacare_jax.model import Architecture, KVCache, Params, RopeConfig
from alpacare_jax.tokenizer import Tokenizer

GREEDY = SamplingParams(max_tokens=12, ignore_eos=True)


def text(length: int, seed: int) -> list[int]:
    return np.random.default_rng([7, length, seed]).integers(3, 300, length).tolist()


def family() -> list[list[int]]:
    """Prompts of one beginning of 200 tokens, with rests of many lengths; two share more, one shares too little."""
    beginning, more = text(200, 0), text(100, 1)
    prompts = [beginning + text(length, 2) for length in (10, 60, 1, 130, 30)]
    prompts += [beginning + more + text(20, 3), beginning + more + text(25, 4), beginning + more + text(5, 5)]
    return [*prompts, beginning[:50] + text(200, 6), beginning, prompts[0]]


def answers(engine: Engine, prompts: list[list[int]]) -> list[list[int]]:
    asked = [engine.submit(Generation(prompt, GREEDY)) for prompt in prompts]
    engine.run()
    return [generation.tokens for generation in asked]


@pytest.mark.parametrize("slots", [1, 4])
def test_replies_are_those_of_an_engine_that_reads_everything(
    make_engine: Callable[..., Engine], slots: int
) -> None:
    plain, sharing = make_engine(slots=slots, reuse_prefixes=False), make_engine(slots=slots)
    assert answers(sharing, family()) == answers(plain, family())
    assert plain._prefill.tokens_reused == 0
    # The second prompt shows the beginning; those after it start from there, where that spares padding too.
    assert sharing._prefill.tokens_reused >= 4 * 200


@pytest.mark.slow
def test_on_a_mesh_too(architecture: Architecture, params: Params, tokenizer: Tokenizer) -> None:
    mesh = sharding.make_mesh(sharding.MeshConfig(data=2, tensor=2), jax.devices()[:4])
    engine = Engine(architecture, params, tokenizer, mesh=mesh, slots=4)
    plain = Engine(architecture, params, tokenizer, slots=4, reuse_prefixes=False)
    assert answers(engine, family()) == answers(plain, family())
    assert engine._prefill.tokens_reused > 0


def test_scored_prompts_are_read_whole(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(slots=4)
    answers(engine, family())
    before = engine._prefill.tokens_reused
    asked = Generation(family()[3], dataclasses.replace(GREEDY, max_tokens=0, logprobs=0), echo=True)
    engine.submit(asked)
    engine.run()
    assert engine._prefill.tokens_reused == before
    assert len(asked.prompt_scores) == len(asked.prompt)


def test_angles_that_depend_on_the_whole_length_are_never_reused(
    architecture: Architecture, params: Params, tokenizer: Tokenizer
) -> None:
    config = dataclasses.replace(
        architecture.config, max_position_embeddings=128, rope=RopeConfig(kind="dynamic", factor=2.0)
    )
    dynamic = dataclasses.replace(architecture, config=config)
    engine = Engine(dynamic, params, tokenizer, slots=2, max_len=512)
    answers(engine, family()[:4])
    assert engine._prefill.tokens_reused == 0


def test_the_least_recently_used_beginning_makes_room() -> None:
    prefixes, cache = PrefixCache(), KVCache((), ())
    for number in range(KEPT):
        prefixes.keep(Prefix(np.full(100, number, np.int32), cache))
    assert prefixes.find([0] * 80 + [9]) == (prefixes._kept[-1], 80)
    prefixes.keep(Prefix(np.full(100, 50, np.int32), cache))
    assert prefixes.find([0] * 80 + [9])[1] == 80
    assert prefixes.find([1] * 80 + [9]) == (None, 0)
    # One token is always left to read, and too short a beginning is none.
    assert prefixes.find([0] * 100)[1] == 99
    assert prefixes.find([0] * 60 + [9] * 60) == (None, 0)
