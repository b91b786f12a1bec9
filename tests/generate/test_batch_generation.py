"""A prompt file to a response file: in order, resumable, never overwriting."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from jax.sharding import Mesh

from alpacare_jax import sharding
from alpacare_jax.data.examples import encode_prompt
from alpacare_jax.errors import DataError
from alpacare_jax.generate import Engine, Generation, SamplingParams, batch, weight_layout
from alpacare_jax.model import Architecture, Params
from alpacare_jax.model.params import flatten, unflatten
from alpacare_jax.tokenizer import Tokenizer
from datagen.records import Response, read_records

MakeEngine = Callable[..., Engine]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    asked = [f"What is {'very ' * i}wrong?" for i in range(6)]
    rows = [{"id": f"q{i}", "instruction": text, "input": "A cough."} for i, text in enumerate(asked)]
    rows[2] |= {"output": "The reference.", "topic": "lungs"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def job(prompts: Path, out: Path, **sampling: object) -> batch.Job:
    options = {"max_tokens": 10, "temperature": 1.0} | sampling
    return batch.Job(batch.read_prompts(prompts), out, "tiny", "alpaca", SamplingParams(**options))  # type: ignore


def test_responses_come_in_the_order_of_the_prompts(
    prompts: Path, tmp_path: Path, make_engine: MakeEngine, tokenizer: Tokenizer
) -> None:
    engine, out = make_engine(), tmp_path / "deep" / "responses.jsonl"
    batch.answer(engine, job(prompts, out))
    responses = read_records(out, Response)
    assert [response.id for response in responses] == [f"q{i}" for i in range(6)]
    assert responses[2].extra == {"output": "The reference.", "topic": "lungs"}
    assert list(out.parent.iterdir()) == [out]
    for response in responses:
        ids = encode_prompt(response.instruction, response.input, tokenizer, "alpaca")
        assert response.prompt_tokens == len(ids)
        assert response.model == "tiny"
        assert (response.finish_reason == "length") == (response.response_tokens == 10)
    # The prompt put before the model is that of training.
    import zlib

    seed = zlib.crc32(b"0:q4")
    ids = encode_prompt(responses[4].instruction, responses[4].input, tokenizer, "alpaca")
    alone = engine.submit(Generation(ids, SamplingParams(max_tokens=10, temperature=1.0, seed=seed)))
    engine.run()
    assert responses[4].response == alone.text


def test_an_interrupted_run_goes_on_and_ends_the_same(
    prompts: Path, tmp_path: Path, make_engine: MakeEngine
) -> None:
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    engine = make_engine(slots=2)
    batch.answer(engine, job(prompts, whole))

    def interrupt(finished: int, total: int, tokens: int) -> None:
        if finished >= 3:
            raise KeyboardInterrupt

    fresh = make_engine(slots=2, max_len=500)
    with pytest.raises(KeyboardInterrupt):
        batch.answer(fresh, job(prompts, broken), progress=interrupt)
    assert not broken.exists()
    part = tmp_path / "broken.jsonl.part"
    with part.open("a", encoding="utf-8") as file:
        file.write('{"id": "q5", "instr')  # the machine went down in the middle of a line
    before = engine.drawn_tokens
    batch.answer(engine, job(prompts, broken))
    assert broken.read_bytes() == whole.read_bytes()
    assert not part.exists()
    drawn = engine.drawn_tokens - before
    assert 0 < drawn <= 3 * 10


def test_existing_output_stays(prompts: Path, tmp_path: Path, make_engine: MakeEngine) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("precious\n")
    with pytest.raises(DataError, match="the output exists"):
        batch.answer(make_engine(), job(prompts, out))
    assert out.read_text() == "precious\n"
    batch.answer(make_engine(), job(prompts, out), overwrite=True)
    assert len(read_records(out, Response)) == 6


def test_unfinished_work_of_other_settings_is_not_mixed_in(
    prompts: Path, tmp_path: Path, make_engine: MakeEngine
) -> None:
    out, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    settings = job(prompts, out, temperature=0.5).settings()
    part.write_text(json.dumps({"settings": settings}) + "\n")
    with pytest.raises(DataError, match="other settings") as caught:
        batch.answer(make_engine(), job(prompts, out))
    assert "temperature" in str(caught.value)
    assert part.exists()
    batch.answer(make_engine(), job(prompts, out), overwrite=True)
    assert len(read_records(out, Response)) == 6


def test_a_prompt_that_is_too_long_is_named(tmp_path: Path, make_engine: MakeEngine) -> None:
    path = tmp_path / "prompts.jsonl"
    rows = [{"id": "fine", "instruction": "Hello?"}, {"id": "long", "instruction": "Why? " * 600}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="longer than the context") as caught:
        batch.answer(make_engine(), job(path, tmp_path / "out.jsonl"))
    assert "prompt long" in str(caught.value)
    assert not make_engine().busy
    assert list(tmp_path.iterdir()) == [path]


def test_rows_without_id_are_named_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"instruction": "One?"}\n\n{"instruction": "Two?", "output": "yes"}\n')
    assert [prompt.id for prompt in batch.read_prompts(path)] == ["1", "3"]
    path.write_text('{"instruction": "One?"}\n{"instruction": "Two?", "id": 1}\n')
    with pytest.raises(DataError, match="same id") as caught:
        batch.read_prompts(path)
    assert caught.value.where == f"{path}:2"
    path.write_text('{"instruction": " "}\n')
    with pytest.raises(DataError, match="empty"):
        batch.read_prompts(path)


def other_weights(architecture: Architecture, params: Params, path: str, index: tuple[int, ...]) -> Params:
    """The same weights, but for one number that is a little larger."""
    leaves = flatten(params)
    return unflatten(leaves | {path: leaves[path].at[index].multiply(1 + 2**-20)})


def test_unfinished_work_is_bound_to_its_weights(
    prompts: Path, tmp_path: Path, architecture: Architecture, params: Params, tokenizer: Tokenizer
) -> None:
    out = tmp_path / "out.jsonl"

    def interrupt(finished: int, total: int, tokens: int) -> None:
        if finished:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch.answer(Engine(architecture, params, tokenizer, slots=1), job(prompts, out), progress=interrupt)
    kept = job(prompts, out).part.read_bytes()
    # The last number of a matrix in the last layer: what a step of training changes, in a folder of the same name.
    changed = other_weights(architecture, params, "layers.mlp.down", (-1, -1, -1))
    later = Engine(architecture, changed, tokenizer, slots=1)
    with pytest.raises(DataError, match="other settings") as caught:
        batch.answer(later, job(prompts, out))
    assert caught.value.found == "other weights"
    assert "overwrite" in str(caught.value)
    assert job(prompts, out).part.read_bytes() == kept
    batch.answer(later, job(prompts, out), overwrite=True)
    assert len(read_records(out, Response)) == 6


@pytest.mark.parametrize("changed", ["weights", "config", "tokenizer", "end_tokens", "prompts", "top_p"])
def test_unfinished_work_is_bound_to_all_it_depends_on(
    prompts: Path, tmp_path: Path, make_engine: MakeEngine, changed: str
) -> None:
    out, engine = tmp_path / "out.jsonl", make_engine()
    settings = job(prompts, out).settings() | batch.describe_model(engine)
    for theirs in (settings | {changed: "another"}, {k: v for k, v in settings.items() if k != changed}):
        job(prompts, out).part.write_text(json.dumps({"settings": theirs}) + "\n")
        with pytest.raises(DataError) as caught:
            batch.answer(engine, job(prompts, out))
        assert caught.value.found == f"other {changed}"


@pytest.mark.parametrize("first", ['{"settings": null}', '{"settings": "alpaca"}', '{"id": "1"}'])
def test_unfinished_work_that_does_not_name_its_settings_is_refused(
    prompts: Path, tmp_path: Path, make_engine: MakeEngine, first: str
) -> None:
    unfinished = job(prompts, tmp_path / "out.jsonl")
    unfinished.part.write_text(first + "\n")
    with pytest.raises(DataError, match="other settings"):
        batch.answer(make_engine(), unfinished)


def test_the_fingerprint_of_weights_sees_places_and_not_meshes(
    architecture: Architecture, params: Params
) -> None:
    def fingerprint(params: Params, mesh: Mesh) -> str:
        return weight_layout.fingerprint(weight_layout.place(architecture, params, mesh), mesh)

    one, leaves = sharding.single_device_mesh(), flatten(params)
    found = fingerprint(params, one)
    assert fingerprint(params, sharding.make_mesh(sharding.MeshConfig(data=2, fsdp=2, tensor=2))) == found
    for path in ("embed", "layers.mlp.down"):
        assert fingerprint(unflatten(leaves | {path: leaves[path][..., ::-1, :]}), one) != found


@pytest.mark.parametrize(
    "line", ["{broken", "5", '{"id": NaN}', '{"id": "unknown", "instruction": "", "response": ""}']
)
def test_a_broken_line_of_unfinished_work_is_named(
    prompts: Path, tmp_path: Path, make_engine: MakeEngine, line: str
) -> None:
    out, part, engine = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part", make_engine()
    settings = job(prompts, out).settings() | batch.describe_model(engine)
    part.write_text(json.dumps({"settings": settings}) + f"\n{line}\n")
    with pytest.raises(DataError) as caught:
        batch.answer(engine, job(prompts, out))
    assert str(caught.value.where) == f"{part}:2"
    assert not engine.busy
