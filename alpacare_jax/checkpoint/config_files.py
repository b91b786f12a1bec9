"""A model's tokenizer, config, chat template and licence files: copied from import to export, byte for byte."""

import logging
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)

CONFIG_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "tokenizer*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.j*",
    "additional_chat_templates/*.jinja",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""Patterns of tokenizer, config and chat template files, and of the licence, which binds copies of the weights."""


def is_inside(file: Path, folder: Path) -> bool:
    """Return whether a path names something of a model's own folder, links followed to their end.

    A snapshot in the hub's cache is made of links to the blobs beside it; all of that cache of one model is its own.

    Args:
        file: The path.
        folder: The model's folder, or one in it.
    """
    root = folder.resolve()
    cache = root.parent.parent
    if root.parent.name == "snapshots" and cache.name.startswith("models--"):
        root = cache
    try:
        return file.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a link that leads round in a circle
        return False


def copy_config_files(source: Path, target: Path) -> None:
    """Copy a model's tokenizer and config files, byte for byte; links out of its folder are skipped with a warning.

    Args:
        source: A Hugging Face folder or the ``hf`` folder of a model or run; its weights are left.
        target: Gets the files; made if missing.
    """
    target.mkdir(parents=True, exist_ok=True)
    for pattern in CONFIG_FILES:
        for file in sorted(source.glob(pattern)):
            if not is_inside(file, source):
                logger.warning("left out %s: it is a link that leads out of the model's folder", file)
            elif file.is_file() and not file.name.endswith(".index.json"):
                place = target / file.relative_to(source)
                place.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, place)
