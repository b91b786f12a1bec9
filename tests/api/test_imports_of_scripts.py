"""Benchmarks and examples import names that exist; most of them are not run by the tests."""

import ast
import importlib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def imported() -> list[tuple[str, str, str]]:
    found = []
    for folder in ("benchmarks", "examples", "launch"):
        for file in sorted((REPOSITORY / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                    ("alpacare_jax", "datagen")
                ):
                    found += [(file.name, str(node.module), alias.name) for alias in node.names]
    return found


def test_what_benchmarks_and_examples_import_exists():
    names = imported()
    assert len(names) > 20
    for file, module, name in names:
        there = importlib.import_module(module)
        if not hasattr(there, name):
            assert importlib.import_module(f"{module}.{name}"), file
