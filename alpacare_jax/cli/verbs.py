"""The table of verbs: which module serves which, in the order of the work."""

import functools
import importlib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from alpacare_jax.cli.flags import Flag, name_flags
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
            checked = with_local_paths(module.command)
            flags, settings = getattr(module, "FLAGS", {}), getattr(module, "SETTINGS", None)
            app.command(verb)(with_help_all(with_flags(checked, flags), settings))
    return app


def with_flags(command: Callable[..., None], flags: Mapping[str, Flag]) -> Callable[..., None]:
    """Give a verb flags that set configuration keys: it gets them as ``overrides``, before those that were typed.

    They come after its option ``--config``, and an error about a key names the flag that sets it.
    """
    if not flags:
        return command
    names = {name.lstrip("-").replace("-", "_"): name for name in flags}

    def called(*, overrides: list[str] | None, **options: Any) -> None:
        given = [word for own, name in names.items() for word in flags[name].overrides(options.pop(own))]
        try:
            command(overrides=[*given, *(overrides or [])], **options)
        except UserError as error:
            name_flags(error, flags)
            raise

    parameters = [
        inspect.Parameter(
            own,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if flags[name].metavar else False,
            annotation=flags[name].option(name),
        )
        for own, name in names.items()
    ]
    return _with_parameters(called, command, parameters, after="config")


def with_help_all(command: Callable[..., None], settings: str | None = None) -> Callable[..., None]:
    """Give a verb ``--help-all``, if it has rare options, which are declared with ``hidden=True``, or settings.

    Args:
        command: The verb.
        settings: ``module:class`` of its configuration, whose keys are listed as well.
    """
    hints = [parameter.annotation for parameter in inspect.signature(command).parameters.values()]
    options = [option for hint in hints for option in getattr(hint, "__metadata__", ())]
    if settings is None and not any(getattr(option, "hidden", False) for option in options):
        return command

    def called(*, help_all: bool, **options: Any) -> None:
        command(**options)

    def show_all(context: typer.Context, wanted: bool) -> None:
        if not wanted:
            return
        hidden = [option for option in context.command.params if getattr(option, "hidden", False)]
        for option in hidden:
            option.hidden = False  # type: ignore[attr-defined]
        typer.echo(context.get_help())
        for option in hidden:
            option.hidden = True  # type: ignore[attr-defined]
        if settings is not None:
            typer.echo(list_keys(settings))
        raise typer.Exit

    text = "List every option" + (", and every configuration key with its default." if settings else ".")
    option = typer.Option("--help-all", is_eager=True, callback=show_all, help=text)
    flag = inspect.Parameter(
        "help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option]
    )
    return _with_parameters(called, command, [flag])


def list_keys(settings: str) -> str:
    """List the keys of a configuration, ``module:class``, with defaults and meanings."""
    from datagen.configuration import describe

    module, _, name = settings.partition(":")
    lines = ["", "Configuration keys and defaults, for the YAML file and KEY=VALUE:", ""]
    for key, text in describe(getattr(importlib.import_module(module), name)):
        lines += [f"  {key}", *textwrap.wrap(text, 96, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    return "\n".join(lines)


def _with_parameters(
    called: Callable[..., None],
    command: Callable[..., None],
    parameters: list[inspect.Parameter],
    after: str = "",
) -> Callable[..., None]:
    """Have typer see a function as a command with further parameters, behind a certain one or at the end."""
    signature = inspect.signature(command)
    known = list(signature.parameters.values())
    at = list(signature.parameters).index(after) + 1 if after else len(known)
    called.__doc__ = command.__doc__
    called.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for each in [*known[:at], *parameters, *known[at:]]
        ]
    )
    return called


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
