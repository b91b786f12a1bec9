"""Text and HTML from jinja2 templates."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


def environment(folder: Path, *, escape: bool = False) -> "jinja2.Environment":
    """Return the jinja2 environment of a folder of templates; a name without a value is an error.

    Args:
        folder: Folder of the templates.
        escape: Escape values for HTML.
    """
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
