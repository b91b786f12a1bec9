"""The text files of this room, filled in by jinja2."""

from pathlib import Path
from typing import Any


def render(name: str, **values: Any) -> str:
    """Return a template of this folder with its values filled in."""
    import jinja2

    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=folder, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(name).render(values)
