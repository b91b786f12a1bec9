"""The engine against the plain model: same tokens and log-probabilities, whatever else is being answered."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from alpacare_jax.errors import DataError
from alpacare_jax.generate import Engine, Generation, SamplingParams
from alpacare_jax.model import Architecture, Params
from alpacare_jax.tokenizer import Tokenizer

Forward = Callable[[list[int]], np.ndarray]
MakeEngine = Callable[..., Engine]


def some_prompt(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng([length, seed]).integers(3, 300, length).tolist()


def reference(forward: Forward, prompt: list[int], count: int) -> list[int]:
    """Greedy decoding without a cache, one whole forward pass a token."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(forward(tokens)[-1].argmax()))
    return tokens[len(prompt) :]


def answer(engine: Engine, *generations: Generation) -> list[Generation]:
    for generation in generations:
        engine.submit(generation)
    engine.run()
    assert all(generation.done for generation in generations)
    return list(generations)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def test_greedy_tokens_are_those_of_the_plain_model(make_engine: MakeEngine, forward: Forward) -> None:
    # Lengths on both sides of the buckets, more requests than rows, and one that outgrows the first cache.
    lengths = [1, 31, 32, 33, 64, 100, 126, 250]
    sampling = SamplingParams(max_tokens=20, ignore_eos=True)
    asked = answer(make_engine(), *[Generation(some_prompt(length), sampling) for length in lengths])
    for generation in asked:
        assert generation.tokens == reference(forward, generation.prompt, 20)
        assert generation.finish_reason == "length"


def test_the_cache_shrinks_again_for_short_prompts(make_engine: MakeEngine, forward: Forward) -> None:
    engine = make_engine()
    answer(engine, Generation(some_prompt(480), SamplingParams(max_tokens=30, ignore_eos=True)))
    (short,) = answer(engine, Generation(some_prompt(5), SamplingParams(max_tokens=8, ignore_eos=True)))
    assert short.tokens == reference(forward, short.prompt, 8)


def test_neighbours_change_nothing(make_engine: MakeEngine) -> None:
    engine = make_engine()
    wishes = [
        SamplingParams(max_tokens=24, temperature=1.0, seed=5, ignore_eos=True),
        SamplingParams(max_tokens=24, temperature=0.8, top_p=0.9, top_k=40, seed=6, ignore_eos=True),
        SamplingParams(max_tokens=24, frequency_penalty=0.7, presence_penalty=0.3, ignore_eos=True),
        SamplingParams(max_tokens=24, temperature=1.3, presence_penalty=1.5, seed=7, ignore_eos=True),
    ]
    alone = [answer(engine, Generation(some_prompt(12), wish))[0].tokens for wish in wishes]
    crowd = [Generation(some_prompt(9 + i, i), SamplingParams(max_tokens=3 + 5 * i)) for i in range(6)]
    mixed = [Generation(some_prompt(12), wish) for wish in wishes]
    order = [crowd[0], mixed[0], *crowd[1:3], *mixed[1:3], *crowd[3:5], mixed[3], crowd[5]]
    answer(engine, *order)
    assert [generation.tokens for generation in mixed] == alone
    assert len({tuple(tokens) for tokens in alone}) == len(alone)


def test_seeds_decide(make_engine: MakeEngine) -> None:
    def draw(seed: int) -> list[int]:
        sampling = SamplingParams(max_tokens=16, temperature=1.0, seed=seed, ignore_eos=True)
        return answer(make_engine(), Generation(some_prompt(8), sampling))[0].tokens

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_freed_row_is_refilled_at_once(make_engine: MakeEngine) -> None:
    engine = make_engine(slots=2)
    long = engine.submit(Generation(some_prompt(5), SamplingParams(max_tokens=12, ignore_eos=True)))
    short = [
        engine.submit(Generation(some_prompt(5, i), SamplingParams(max_tokens=3, ignore_eos=True)))
        for i in range(1, 5)
    ]
    steps = 0
    while engine.busy:
        engine.step()
        steps += 1
    # Four short ones, three steps each, ran one after the other beside the long one.
    assert steps == 12
    assert long.done
    assert all(len(generation.tokens) == 3 for generation in short)


def test_log_probabilities_are_those_of_the_plain_model(make_engine: MakeEngine, forward: Forward) -> None:
    prompt = some_prompt(23)
    (generation,) = answer(
        make_engine(),
        Generation(
            prompt, SamplingParams(max_tokens=6, logprobs=3, ignore_eos=True), continues=True, echo=True
        ),
    )
    scores = log_softmax(forward(prompt + generation.tokens).astype(np.float64))
    everything = generation.prompt_scores + generation.scores
    assert [score.token for score in everything] == prompt + generation.tokens
    assert everything[0].logprob is None
    for at, score in enumerate(everything[1:]):
        assert score.logprob == pytest.approx(scores[at, score.token], abs=1e-4)
        assert [token for token, _ in score.top] == np.argsort(-scores[at])[:3].tolist()
    # Drawn greedily, so each is the best one, to the last bit.
    assert all(score.logprob == score.top[0][1] for score in generation.scores)


def test_prompts_can_be_scored_without_drawing(make_engine: MakeEngine, forward: Forward) -> None:
    engine = make_engine()
    prompts = [some_prompt(length) for length in (1, 7, 40, 512)]
    sampling = SamplingParams(max_tokens=0, logprobs=1)
    asked = answer(engine, *[Generation(prompt, sampling, echo=True) for prompt in prompts])
    for generation in asked:
        scores = log_softmax(forward(generation.prompt).astype(np.float64))
        expected = sum(scores[at, token] for at, token in enumerate(generation.prompt[1:]))
        found = sum(score.logprob or 0.0 for score in generation.prompt_scores)
        assert found == pytest.approx(expected, abs=1e-3)
        assert generation.tokens == []


def test_an_end_token_ends_the_reply_and_is_not_shown(make_engine: MakeEngine, tokenizer: Tokenizer) -> None:
    # Warm sampling meets the end token sooner or later.
    wishes = [SamplingParams(max_tokens=400, temperature=1.5, seed=seed) for seed in range(12)]
    asked = answer(make_engine(), *[Generation(some_prompt(6), wish) for wish in wishes])
    ended = [generation for generation in asked if generation.finish_reason == "stop"]
    assert ended
    for generation in ended:
        assert generation.tokens[-1] in tokenizer.eos_ids
        assert not set(generation.tokens[:-1]) & set(tokenizer.eos_ids)
        assert generation.text == tokenizer.decode(generation.tokens[:-1])
    for generation in asked:
        assert not any(special in generation.text for special in tokenizer.special_texts)


def test_stop_strings_across_tokens_cut_the_text(make_engine: MakeEngine) -> None:
    engine = make_engine()
    (free,) = answer(engine, Generation(some_prompt(30), SamplingParams(max_tokens=40, ignore_eos=True)))
    at = len(free.text) // 2
    stop = free.text[at : at + 5]
    assert len(stop) == 5
    sampling = SamplingParams(max_tokens=40, stop=(stop, "never seen"), logprobs=0, ignore_eos=True)
    (cut,) = answer(engine, Generation(some_prompt(30), sampling))
    assert cut.text == free.text.partition(stop)[0]
    assert cut.finish_reason == "stop"
    assert cut.tokens == free.tokens[: len(cut.tokens)]
    assert all(offset < len(cut.text) for offset in cut.offsets)
    assert len(cut.scores) == len(cut.offsets) < len(cut.tokens)


def test_the_context_is_a_hard_limit(make_engine: MakeEngine) -> None:
    engine = make_engine(max_len=64)
    (generation,) = answer(
        engine, Generation(some_prompt(60), SamplingParams(max_tokens=50, ignore_eos=True))
    )
    assert len(generation.tokens) == 4
    assert generation.finish_reason == "length"
    with pytest.raises(DataError, match="longer than the context") as caught:
        engine.submit(Generation(some_prompt(64), SamplingParams()))
    assert "64 tokens" in str(caught.value)
    for prompt in ([], [5000], [-1]):
        with pytest.raises(DataError):
            engine.submit(Generation(prompt, SamplingParams()))
    assert not engine.busy


def test_a_cancelled_request_frees_its_row(make_engine: MakeEngine) -> None:
    engine = make_engine(slots=2)
    asked = [Generation(some_prompt(5, i), SamplingParams(max_tokens=50, ignore_eos=True)) for i in range(3)]
    for generation in asked:
        engine.submit(generation)
    engine.step()
    assert engine.active == 2
    engine.cancel(asked[0])
    engine.cancel(asked[2])  # still waiting
    engine.run()
    assert [len(generation.tokens) for generation in asked] == [1, 50, 0]
    assert asked[0].finish_reason == asked[2].finish_reason == "cancelled"


def test_a_tokenizer_of_another_model_is_refused(
    architecture: Architecture, params: Params, tokenizer: Tokenizer
) -> None:
    config = dataclasses.replace(architecture.config, vocab_size=64)
    small = dataclasses.replace(architecture, config=config)
    with pytest.raises(DataError, match="does not match the model"):
        Engine(small, params, tokenizer)


@pytest.mark.parametrize("fault", ["prefill", "_insert_layer", "draw", "decode", "_receive", "next_group"])
def test_a_step_that_fails_ends_its_requests_alone(
    make_engine: MakeEngine, forward: Forward, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    engine = make_engine(slots=2)
    wish = SamplingParams(max_tokens=6, ignore_eos=True)
    running, poison, waiting = (Generation(some_prompt(9, i), wish) for i in range(3))
    engine.submit(running)
    engine.step()
    owner = next(
        each
        for each in (engine, engine._prefill, engine._programs)
        if hasattr(each, fault)  # where the fault comes from
    )
    healthy, calls = getattr(owner, fault), []

    def fail(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(owner, fault, healthy)
        if fault in ("_insert_layer", "decode"):  # the state that was donated is lost
            healthy(*arguments, **options)
        calls.append(fault)
        raise RuntimeError("RESOURCE_EXHAUSTED")

    monkeypatch.setattr(owner, fault, fail)
    engine.submit(poison)
    engine.submit(waiting)
    with pytest.raises(RuntimeError):
        engine.run()
    engine.recover()
    engine.run()
    assert calls == [fault]
    assert poison.finish_reason == "error"
    assert waiting.tokens == reference(forward, waiting.prompt, 6)
    reading = fault in ("prefill", "next_group")  # before anything of the rows was touched
    assert running.finish_reason == ("length" if reading else "error")
    if reading:
        assert running.tokens == reference(forward, running.prompt, 6)


def test_a_stop_text_that_is_a_control_token_ends_the_reply(
    make_engine: MakeEngine, tokenizer: Tokenizer
) -> None:
    engine, spelled = make_engine(), {index: text for text, index in tokenizer.special_texts.items()}
    for seed in range(20):
        sampling = SamplingParams(max_tokens=200, temperature=1.5, seed=seed, ignore_eos=True, logprobs=0)
        (free,) = answer(engine, Generation(some_prompt(6), sampling))
        at = next((at for at, token in enumerate(free.tokens) if token in spelled), None)
        if at is None:
            continue
        stop = (spelled[free.tokens[at]], "never seen")
        (cut,) = answer(engine, Generation(some_prompt(6), dataclasses.replace(sampling, stop=stop)))
        assert cut.tokens == free.tokens[: at + 1]
        assert cut.finish_reason == "stop"
        # Half a character before it is not shown, and so is not scored.
        assert cut.text == tokenizer.decode(free.tokens[:at]).rstrip("\ufffd")
        assert all(offset < len(cut.text) for offset in cut.offsets)
        assert len(cut.scores) == len(cut.offsets) <= at
        return
    raise AssertionError("no control token was drawn")
