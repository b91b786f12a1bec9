"""The examples in the docstrings of alpacare_jax, run on a tiny model that stands for the models they name.

An example that shows no output is run all the same; what it returns is not compared.
"""

import doctest
import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from scripted_server import ScriptedServer

import alpacare_jax as alpacare
from datagen.client import Service

FOLLOW = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
ROOT = Path(alpacare.__path__[0])
MODULES = [
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in path.read_text()
]


class RunAlways(doctest.OutputChecker):
    """Compares the output of an example that shows one."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


@pytest.fixture(scope="module")
def judge() -> Any:
    """A judge at a loopback address, who finds both answers equally good."""
    with ScriptedServer(lambda *_: "Tie") as server:
        yield server


@pytest.fixture(scope="module")
def documented(tiny: Path, tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples name."""
    folder = tmp_path_factory.mktemp("documented")
    for name in ("HuggingFaceTB/SmolLM2-135M-Instruct", "org/model"):
        shutil.copytree(tiny, folder / name)
    for name in ("tasks", "prompts", "heldout"):
        shutil.copyfile(tasks, folder / f"{name}.jsonl")
    for name in ("responses", "gpt-4"):
        row = {
            "id": "1",
            "instruction": "Name a sign of fever.",
            "response": f"Chills, says {name}.",
            "model": name,
        }
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "run.yaml").write_text(
        "out: runs/a\ninit: org/model\ntrain_data: data/tasks\ntrain: {batch_rows: 8}\n"
    )
    alpacare.import_model(tiny, folder / "model", progress=False)
    model = alpacare.load(folder / "model", dtype="float32")
    config = alpacare.TrainConfig(steps=1, batch_size=2, lora=alpacare.LoRA(rank=2))
    alpacare.Trainer(
        model, alpacare.pack(tasks, tiny, seq_len=256), config, out=folder / "runs" / "a"
    ).train()
    return folder


@pytest.fixture(scope="module")
def names(documented: Path) -> dict[str, Any]:
    """What the examples have at hand: the public names, a loaded model, tokens and packed data."""
    model = alpacare.load(documented / "model", dtype="float32")
    data = alpacare.pack(documented / "tasks.jsonl", model.tokenizer, seq_len=256)
    config = alpacare.TrainConfig(steps=2, batch_size=2, optim=alpacare.Optim(learning_rate=1e-3))
    own = {
        "model": model,
        "data": data,
        "config": config,
        "tokens_BT": jnp.array([[1, 5, 9]]),
        "jnp": jnp,
        "Service": Service,
    }
    return own | {name: getattr(alpacare, name) for name in alpacare.__all__}


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_are_true(
    module: str,
    documented: Path,
    names: dict[str, Any],
    judge: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    there = importlib.import_module(module)
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = [test for test in finder.find(there, globs=names | vars(there)) if test.examples]
    shutil.copytree(documented, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPACARE_CACHE", str(documented / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    for test in tests:
        for example in test.examples:
            example.source = example.source.replace("http://127.0.0.1:8000/v1", judge.base_url)
        told: list[str] = []
        runner = doctest.DocTestRunner(RunAlways(), verbose=False, optionflags=FOLLOW)
        assert runner.run(test, out=told.append).failed == 0, "".join(told)


def test_there_are_examples_to_run() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) > 100
