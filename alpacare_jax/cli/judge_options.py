"""The options of ``alpacare judge``, and the settings that each of them sets."""

from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Option

from alpacare_jax.cli import synthesis_options as options

#: The settings that an option sets, by their dotted names; a config file holds the same.
SETTINGS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("budget_usd", "prices", "mode")},
    **{f"batch_{name}": (f"batch.{key}",) for name, key in options.BATCH_KEYS.items()},
    **{name: (f"judge.{name}",) for name in ("base_url", "model", "api_key_env", *options.SHARED_LIMITS)},
    **{
        name: (f"sampling.{name}",)
        for name in ("temperature", "top_p", "presence_penalty", "max_tokens", "max_tokens_field")
    },
}
_drawn = partial(Option, hidden=True)
_sampled = partial(_drawn, parser=options.number_or_none, metavar="NUMBER|none")

Responses = Annotated[
    Path,
    Option(help="The model's responses, JSON Lines or a JSON list; AlpaCare's own files as they are."),
]
References = Annotated[
    list[str],
    Option(
        help="Files of the reference answers (response or output); comma-separated, may be repeated. Rows "
        "without ids are joined by instruction and input."
    ),
]
Work = Annotated[Path, Option(help="Folder of the ledger; an interrupted run resumes from it.")]
Out = Annotated[Path, Option(help="Verdict file to write (JSON Lines).")]
Config = Annotated[
    Path | None, Option(help="YAML file of settings: judge, sampling, budget_usd, prices, mode, batch.")
]
BaseUrl = Annotated[
    str | None, Option(help="Address of the judge's OpenAI-compatible API, usually ending in /v1.")
]
Model = Annotated[str | None, Option(help="The judge's model name at that API.")]
Name = Annotated[
    str | None, Option(help="What to call the judged model.", show_default="as in the file, or its name")
]
ReferenceFields = Annotated[
    str | None,
    Option(
        help="Comma-separated answer fields, where one reference file holds several answers a row: "
        "gpt-4-answer,claude-2."
    ),
]
AllowMissing = Annotated[
    bool,
    Option("--allow-missing", help="Leave out and count responses without a reference answer."),
]
Limit = Annotated[int | None, Option(min=1, help="Judge only the first N responses.")]
Temperature = Annotated[float | None, _sampled(help="none leaves the field out.", show_default="0")]
TopP = Annotated[float | None, _sampled(help="none leaves the field out.", show_default="1.0")]
PresencePenalty = Annotated[float | None, _sampled(help="none leaves the field out.", show_default="0.0")]
MaxTokens = Annotated[
    int | None,
    _drawn(min=1, help="Longest reply, in tokens, thoughts included.", show_default="512"),
]
MaxTokensField = Annotated[
    str | None,
    _drawn(help="max_tokens, or max_completion_tokens for reasoning models.", show_default="max_tokens"),
]
DryRun = Annotated[
    bool,
    Option("--dry-run", help="Print what would be asked, a sample and the cost; send and write nothing."),
]
RetryFailed = Annotated[
    bool,
    Option(
        "--retry-failed",
        help="Ask again what failed, came back empty, or was cut off before its verdict.",
    ),
]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace an existing verdict file.")]


def split_fields(text: str | None) -> list[str]:
    """Split a comma-separated list and drop the blanks.

    Example:
        >>> split_fields("gpt-4-answer, claude-2,")
        ['gpt-4-answer', 'claude-2']
    """
    return [name.strip() for name in (text or "").split(",") if name.strip()]
