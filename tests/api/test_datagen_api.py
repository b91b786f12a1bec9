"""The public functions of ``import datagen``: a run from Python, its errors, and what importing costs."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_server import ScriptedServer, write_tasks

import datagen
from datagen.errors import ConfigError

SMALL = {"target": 8, "tasks_per_request": 4}


def test_importing_is_cheap_and_loads_no_jax() -> None:
    code = (
        "import sys, time; began = time.perf_counter(); import datagen; took = time.perf_counter() - began\n"
        "datagen.Service('http://localhost/v1', 'm'); datagen.Settings, datagen.filter\n"
        "print(took, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    took, *modules = done.stdout.split()
    assert float(took) < 0.1
    assert not {"jax", "flax", "openai", "transformers", "tensorflow_datasets"} & set(modules)


def test_every_public_name_is_there() -> None:
    for name in datagen.__all__:
        assert getattr(datagen, name).__doc__
    assert {*datagen.__all__} <= {*dir(datagen)}
    with pytest.raises(AttributeError, match="no attribute 'synthesise'"):
        datagen.synthesise  # noqa: B018


def test_a_run_goes_from_seeds_to_published_instructions(tmp_path: Path) -> None:
    work = tmp_path / "work"
    with ScriptedServer(write_tasks) as server:
        teacher = datagen.Service(server.base_url, "scripted", concurrency=2)
        plan = datagen.plan_synthesis(work, teacher=teacher, **SMALL)
        assert plan.settings.answerer == teacher
        assert not work.exists()
        assert not server.bodies
        funnel = datagen.synthesize(work, teacher=teacher, **SMALL, task_sampling={"top_p": 0.9})
        asked = len(server.bodies)
        assert server.bodies[0]["top_p"] == 0.9
        assert server.bodies[0]["presence_penalty"] == 1.5
        assert datagen.synthesize(work, progress=False) == funnel
        assert len(server.bodies) == asked
        assert datagen.status(work).funnel == funnel
        taken = datagen.derive(work, tmp_path / "stricter", similarity=0.5)
    assert taken.tasks == taken.of_tasks
    assert funnel.instructions >= 8
    rows = datagen.read_records(work / "instructions.jsonl", datagen.Instruction)
    found = datagen.filter([{"instruction": row.instruction} for row in rows], progress=False)
    assert len(found.kept) == len(rows)
    assert datagen.publish(work, tmp_path / "published")["rows"] == {"train": len(rows)}


def test_a_run_works_inside_a_notebooks_event_loop(tmp_path: Path) -> None:
    async def cell(base_url: str) -> datagen.Funnel:
        funnel = datagen.synthesize(tmp_path / "work", teacher=datagen.Service(base_url, "scripted"), **SMALL)
        await asyncio.sleep(0)
        return funnel

    with ScriptedServer(write_tasks) as server:
        assert asyncio.run(cell(server.base_url)).tasks_kept == 8


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"taget": 5}, "taget: unknown key; did you mean target?"),
        ({"target": "5"}, "target must be a whole number, not '5'"),
        ({"eager": 1}, "eager must be true or false, not 1"),
        ({"sampling": "evn"}, "sampling: 'evn' is not one of even, uniform; did you mean even?"),
        ({"task_sampling": {"top_p": 2}}, "task_sampling.top_p must be at least 0 and at most 1, not 2"),
        ({"task_sampling": datagen.Sampling, "seed": None}, "2 settings are not valid"),
        ({"teacher": None}, "teacher.base_url is missing"),
        ({"seeds": "none.jsonl"}, "none.jsonl"),
    ],
)
def test_a_wrong_setting_is_a_typed_error_before_anything_is_made(tmp_path, settings, named) -> None:
    given = {"teacher": datagen.Service("http://127.0.0.1:1/v1", "m"), **settings}
    with pytest.raises(datagen.UserError) as caught:
        datagen.synthesize(tmp_path / "work", **given)
    assert named in str(caught.value)
    assert "--" not in str(caught.value)
    assert not (tmp_path / "work").exists()


def test_a_wrong_service_is_the_same_error() -> None:
    with pytest.raises(ConfigError, match=r"concurrency must be a whole number, not 1\.5"):
        datagen.Service("http://localhost/v1", "m", concurrency=1.5)  # type: ignore[arg-type]


def test_progress_is_shown_where_it_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(write_tasks) as server:
        teacher = datagen.Service(server.base_url, "scripted")
        datagen.synthesize(tmp_path / "quiet", teacher=teacher, progress=False, **SMALL)
        assert capsys.readouterr().err == ""
        datagen.synthesize(tmp_path / "shown", teacher=teacher, **SMALL)
    assert "answers 8/8" in capsys.readouterr().err
    assert json.loads((tmp_path / "shown" / "funnel.json").read_text())["tasks_kept"] == 8
