"""The table of verbs: which module serves which, in the order of the work."""

import functools
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from datagen.errors import UserError
from datagen.files import refuse_remote

VERBS = (
    "quickstart",
    "synthesize",
    "filter",
    "publish",
    "pack",
    "import",
    "plan",
    "train",
    "export",
    "generate",
    "serve",
    "judge",
    "score",
    "evaluate",
    "launch",
    "report",
    "doctor",
)


def build_app() -> typer.Typer:
    """Build the typer application from ``alpacare_jax/cli/<verb>_verb.py``, each of which defines ``command``."""
    app = typer.Typer(
        name="alpacare",
        help="Medical instruction data and LLaMA fine-tuning on JAX, from seed tasks to judged answers.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )

    @app.callback()
    def options(
        debug: bool = typer.Option(False, "--debug", help="Show the full traceback of an error."),
    ) -> None:
        """Options of every verb. ``--debug`` is read before parsing and may stand anywhere."""

    for verb in VERBS:
        module = importlib.import_module(f"alpacare_jax.cli.{verb}_verb")
        register = getattr(module, "register", None)
        if register is not None:
            register(app)
        else:
            app.command(verb)(with_help_all(with_local_paths(module.command)))
    return app


def with_help_all(command: Callable[..., None]) -> Callable[..., None]:
    """Give a verb with rare options, which are declared with ``hidden=True``, the option ``--help-all``."""
    signature = inspect.signature(command)
    hints = [parameter.annotation for parameter in signature.parameters.values()]
    options = [option for hint in hints for option in getattr(hint, "__metadata__", ())]
    if not any(getattr(option, "hidden", False) for option in options):
        return command

    def without_flag(*, help_all: bool, **options: Any) -> None:
        command(**options)

    flag = inspect.Parameter("help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=HelpAll)
    without_flag.__doc__ = command.__doc__
    without_flag.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), flag]
    )
    return without_flag


def show_all(context: typer.Context, wanted: bool) -> None:
    """Print the help with the rare options and end."""
    if not wanted:
        return
    hidden = [option for option in context.command.params if getattr(option, "hidden", False)]
    for option in hidden:
        option.hidden = False  # type: ignore[attr-defined]
    typer.echo(context.get_help())
    for option in hidden:
        option.hidden = True  # type: ignore[attr-defined]
    raise typer.Exit


HelpAll = Annotated[
    bool,
    typer.Option("--help-all", is_eager=True, callback=show_all, help="Show every option and exit."),
]


def with_local_paths(command: Callable[..., None]) -> Callable[..., None]:
    """Have a verb refuse, before anything else, every path that is the address of a bucket, a hub or a server.

    An error in an argument of the library names the option that gave it.
    """

    @functools.wraps(command)
    def checked(**options: Any) -> None:
        for name, value in options.items():
            for path in value if isinstance(value, list | tuple) else [value]:
                if isinstance(path, Path):
                    refuse_remote(path, name.replace("_", "-"))
        try:
            command(**options)
        except UserError as error:
            if isinstance(error.where, str) and options.get(error.where) is not None:
                error.where = "--" + error.where.replace("_", "-")
            raise

    return checked
