"""The examples in the docstrings of datagen, run."""

import doctest
import importlib
import pkgutil

import pytest

import datagen

MODULES = ["datagen", *(found.name for found in pkgutil.walk_packages(datagen.__path__, "datagen."))]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_are_true(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_there_are_examples_to_run() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) > 40
