"""A tiny model in a Hugging Face folder, for tests of conversion."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_llama import TINY, random_tensors


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a Hugging Face folder: ``make_folder(changes to config, tensors=..., dtype=...)``."""

    def make(
        changes: dict[str, Any] | None = None,
        tensors: dict[str, np.ndarray] | None = None,
        dtype: str = "float32",
        name: str = "hf",
    ) -> Path:
        config = TINY | {"torch_dtype": dtype} | (changes or {})
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config, indent=2))
        save_file(tensors or random_tensors(config, dtype), folder / "model.safetensors")
        return folder

    return make
