"""The table of verbs, in the order of the workflow."""

import importlib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from alpacare_jax.cli.flags import Flag, name_options
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
        """Options of every verb. ``--debug`` is read before parsing and may appear anywhere."""

    for verb in VERBS:
        module = importlib.import_module(f"alpacare_jax.cli.{verb}_verb")
        register = getattr(module, "register", None)
        if register is not None:
            register(app)
        else:
            app.command(verb)(make_command(module))
    return app


def make_command(module: Any) -> Callable[..., None]:
    """Make the function that typer runs from the module of a verb.

    The module defines ``command``, and may define ``FLAGS``, which set configuration keys: the function gets them as
    ``overrides``, before those that were typed; and ``SETTINGS``, ``module:class`` of its configuration. Where it has
    that, or rare options (declared with ``hidden=True``), there is ``--help-all``. A path that is the
    address of a bucket, a hub or a server is refused first, and errors name the option or flag concerned.
    """
    flags: Mapping[str, Flag] = getattr(module, "FLAGS", {})
    names = {name.lstrip("-").replace("-", "_"): name for name in flags}

    def called(**options: Any) -> None:
        options.pop("help_all", None)
        if flags:
            given = [word for own, name in names.items() for word in flags[name].overrides(options.pop(own))]
            options["overrides"] = [*given, *(options["overrides"] or [])]
        for name, value in options.items():
            for path in value if isinstance(value, list | tuple) else [value]:
                if isinstance(path, Path):
                    refuse_remote(path, name.replace("_", "-"))
        try:
            module.command(**options)
        except UserError as error:
            name_options(error, dict.fromkeys(names) | options, flags)
            raise

    signature = inspect.signature(module.command)
    options = [_keyword(name, each.annotation, each.default) for name, each in signature.parameters.items()]
    if flags:
        at = list(signature.parameters).index("config") + 1
        options[at:at] = [
            _keyword(own, flags[name].option(name), flags[name].default) for own, name in names.items()
        ]
    settings = getattr(module, "SETTINGS", None)
    known = [each for option in options for each in getattr(option.annotation, "__metadata__", ())]
    if settings or any(getattr(each, "hidden", False) for each in known):
        options.append(_keyword("help_all", _help_all(settings), False))
    called.__doc__ = module.command.__doc__
    called.__signature__ = signature.replace(parameters=options)  # type: ignore[attr-defined]
    return called


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _help_all(settings: str | None) -> Any:
    """Return the annotation of ``--help-all``, which prints hidden options and the keys of settings, and exits."""

    def show(context: typer.Context, wanted: bool) -> None:
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
    return Annotated[bool, typer.Option("--help-all", is_eager=True, callback=show, help=text)]


def list_keys(settings: str) -> str:
    """List the keys of a configuration, ``module:class``, with defaults and descriptions."""
    from datagen.configuration import describe

    module, _, name = settings.partition(":")
    lines = ["", "Configuration keys and defaults, for the YAML file and KEY=VALUE:", ""]
    for key, text in describe(getattr(importlib.import_module(module), name)):
        lines += [f"  {key}", *textwrap.wrap(text, 96, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    return "\n".join(lines)
