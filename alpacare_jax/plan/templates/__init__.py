"""The text files of this room, filled in by jinja2."""

from pathlib import Path
from typing import Any


def render(name: str, **values: Any) -> str:
    """Return a template of this folder with its values filled in."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(values)
