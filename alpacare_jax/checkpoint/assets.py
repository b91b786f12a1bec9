"""The files that travel with a model beside its weights, from import to export, byte for byte."""

import shutil
from pathlib import Path

# Tokenizers, generation defaults, chat templates, and the licence, which binds copies of the weights.
TRAVELLING = (
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


def copy_assets(source: Path, target: Path) -> None:
    """Copy the files that travel with a model, byte for byte.

    Args:
        source: A Hugging Face folder or the ``hf`` folder of a model or run; its weights are left.
        target: Gets the files; made if missing.
    """
    target.mkdir(parents=True, exist_ok=True)
    for pattern in TRAVELLING:
        for file in sorted(source.glob(pattern)):
            if file.is_file() and not file.name.endswith(".index.json"):
                place = target / file.relative_to(source)
                place.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, place)
