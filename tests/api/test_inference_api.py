"""Files and lists of prompts, and held-out data, as a notebook gives them."""

import asyncio
import json
import os
import signal
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import alpacare_jax as alpacare
import alpacare_jax.evaluate
import alpacare_jax.generate
from alpacare_jax.errors import ConfigError, DataError
from datagen.progress import ProgressDisplay


@pytest.fixture(scope="module")
def model(tiny: Path) -> Any:
    return alpacare.load(tiny, dtype="float32")


def test_a_list_is_answered_as_a_file_is(model: Any, tmp_path: Path) -> None:
    rows = [{"id": "a", "instruction": "Name a sign."}, {"id": "b", "instruction": "And another."}]
    file, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings: dict[str, Any] = {"max_tokens": 4, "slots": 2, "progress": False}
    listed = alpacare.generate(model, rows, **settings)
    assert listed == alpacare.generate(model, file, out, **settings)
    assert len(out.read_text().splitlines()) == 2
    assert not out.with_name("out.jsonl.part").exists()
    told: list[tuple[int, int, int]] = []
    texts = alpacare.generate(
        model, [row["instruction"] for row in rows], **settings | {"progress": lambda *at: told.append(at)}
    )
    assert [(r.id, r.response) for r in texts] == [(n, r.response) for n, r in zip("12", listed, strict=True)]
    assert told[0] == (0, 2, 0)
    assert told[-1][:2] == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "where"),
    [
        ({"template": "vicuna"}, ConfigError, "template"),
        ({"max_len": 100_000}, ConfigError, "max_len"),
        ({"dtype": "bfloat16"}, ConfigError, "dtype"),
        ({"mesh": "fsdp=1"}, ConfigError, "mesh"),
        ({"top_p": 0.0}, DataError, "top_p"),
        ({"topp": 0.5}, ConfigError, "topp"),
        ({"stop": ""}, DataError, "stop"),
        ({"prompts": []}, DataError, "rows"),
        ({"prompts": [7]}, DataError, "row:1"),
    ],
)
def test_a_wrong_argument_is_named(
    model: Any, arguments: dict[str, Any], error: type[Exception], where: str
) -> None:
    with pytest.raises(error) as caught:
        alpacare.generate(model, **{"prompts": ["Hello."], **arguments})
    assert caught.value.where == where  # type: ignore[attr-defined]


def test_a_mesh_that_cannot_be_read_is_refused_by_load(tiny: Path) -> None:
    for mesh in ("rows=2", "fsdp=two"):
        with pytest.raises(ConfigError, match="the mesh cannot be read"):
            alpacare.load(tiny, mesh=mesh)


def test_figures_of_a_list_are_those_of_its_file(model: Any, tasks: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in tasks.read_text().splitlines()]
    settings: dict[str, Any] = {"seq_len": 256, "max_tokens": 3, "progress": False}
    figures = alpacare.evaluate(model, rows, **settings)
    out = tmp_path / "evaluation"
    from_file = alpacare.evaluate(model, tasks, out, **settings)
    assert figures["examples"] == figures["answers"] == len(rows)
    assert figures | {"data": "tasks.jsonl"} == from_file == json.loads((out / "evaluation.json").read_text())
    with pytest.raises(DataError, match="the evaluation exists"):
        alpacare.evaluate(model, tasks, out, **settings)


def test_lines_of_progress_come_now_and_then_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay() as display:
        for done in range(4):
            display.update("writing", done, 3, "fast")
        display.update("writing", 3, 3, "fast")
    assert capsys.readouterr().err == "writing 3/3 | fast\n"
    with ProgressDisplay(enabled=False) as display:
        display.update("writing", 3, 3)
    assert not capsys.readouterr().err


def test_a_model_is_served_where_an_event_loop_runs_as_in_a_notebook(model: Any) -> None:
    found: list[str] = []

    def ask(ready: str) -> None:
        try:
            url = ready.split()[1]
            with urllib.request.urlopen(f"{url}/models", timeout=30) as reply:
                found.append(json.load(reply)["data"][0]["id"])
        finally:
            os.kill(os.getpid(), signal.SIGINT)  # as interrupting the kernel does

    async def cell() -> None:
        told = lambda line: threading.Thread(target=ask, args=(line,)).start()  # noqa: E731
        alpacare.serve(model, port=0, slots=1, max_len=64, name="tiny", say=told)

    asyncio.run(cell())
    assert found == ["tiny"]


def test_the_function_and_the_package_of_one_name_are_both_there() -> None:
    import alpacare_jax.generate as by_name
    from alpacare_jax.generate import Engine

    assert by_name is alpacare.generate
    assert callable(by_name)
    assert Engine.__module__ == "alpacare_jax.generate.engine"
