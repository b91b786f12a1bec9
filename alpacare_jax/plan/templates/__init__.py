"""The tables of plans and the description of a GPU, as jinja2 templates."""

from pathlib import Path
from typing import Any

from datagen.templates import environment


def render(name: str, **values: Any) -> str:
    """Return a template of this folder with its values filled in, without a newline at the end."""
    return environment(Path(__file__).parent).get_template(name).render(values).removesuffix("\n")
