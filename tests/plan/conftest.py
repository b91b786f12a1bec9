"""Tests that let the TPU compiler finish run only where they are asked for: ``-m tpu_compile``."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "tpu_compile" in (config.option.markexpr or ""):
        return
    long = [item for item in items if item.get_closest_marker("tpu_compile")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
