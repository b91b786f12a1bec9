"""Flags that set configuration keys: ``--target 100`` is short for ``target=100``."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from datagen.errors import UserError

_TEXTS = ("FILE", "MODEL", "NAME", "URL")
"""Metavars of flags whose value is text: taken as typed, not read as YAML."""


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag that sets configuration keys.

    Attributes:
        keys: Dotted configuration keys, separated by spaces; each gets the value.
        help: Text for ``--help``; a flag without help is listed by ``--help-all`` only.
        metavar: Placeholder of the value in the help; "" for a flag without a value, which sets true.
        many: Whether it may be repeated, for a key with a list.
    """

    keys: str
    help: str = ""
    metavar: str = "VALUE"
    many: bool = False

    @property
    def default(self) -> bool | None:
        """Value for a verb if the flag is not given."""
        return None if self.metavar else False

    def option(self, name: str) -> Any:
        """Return the annotation of a verb's parameter for this flag."""
        kind: Any = list[str] | None if self.many else str | None if self.metavar else bool
        text = self.help or f"Sets {' and '.join(self.keys.split())}."
        return Annotated[
            kind, typer.Option(name, metavar=self.metavar or None, help=text, hidden=not self.help)
        ]

    def overrides(self, value: Any) -> list[str]:
        """Return ``key=value`` words for a given value; an empty list if the flag was not given.

        Example:
            >>> Flag("a.b c").overrides("3"), Flag("files", many=True).overrides(["x", "y"]), Flag("c").overrides(None)
            (['a.b=3', 'c=3'], ['files=["x", "y"]'], [])
            >>> Flag("seeds", metavar="FILE").overrides("tasks #2.jsonl")
            ['seeds="tasks #2.jsonl"']
        """
        if value is None or value is False or value == []:
            return []
        quoted = self.many or self.metavar in _TEXTS
        text = json.dumps(value, ensure_ascii=False) if quoted else value if self.metavar else "true"
        return [f"{key}={text}" for key in self.keys.split()]


def name_options(error: UserError, options: Mapping[str, Any], flags: Mapping[str, Flag]) -> None:
    """Rewrite an error of the library with the options of a verb.

    An argument in backticks becomes the verb's option; for configuration keys, the flags that set them are added.

    Args:
        error: The error.
        options: The verb's options and their values.
        flags: The verb's flags.

    Example:
        >>> error = UserError("the file exists", where="out", remedy="choose another `out`, or set `overwrite`")
        >>> name_options(error, {"out": "a", "overwrite": False}, {})
        >>> print(error)
        the file exists
          where:    --out
          remedy:   choose another --out, or set --overwrite
    """
    known = {name: f"--{name.replace('_', '-')}" for name in options}
    if isinstance(error.where, str) and options.get(error.where) is not None:
        error.where = known[error.where]
    known |= {key: name for name, flag in flags.items() for key in flag.keys.split()}
    for name in ("what", "found", "expected", "remedy"):
        if isinstance(text := getattr(error, name), str):
            setattr(error, name, re.sub(r"`([\w.]+)`", lambda word: known.get(word[1], word[0]), text))
    words = f"{error.what}\n{error.where or ''}\n{error.found or ''}"
    keys = set(re.findall(r"(?:^|: )\s*([a-z][\w.]*)", words, re.MULTILINE))
    hints = [f"{known[key]} sets {key}" for key in sorted(keys & known.keys()) if flags]
    if hints:
        error.remedy = "; ".join([*filter(None, [error.remedy]), *hints])


def _rare(group: str, *names: str, prefix: str = "") -> dict[str, Flag]:
    """Return flags without help, named like the keys that they set in the given groups."""
    return {
        f"--{prefix}{name.replace('_', '-')}": Flag(" ".join(f"{each}{name}" for each in group.split(",")))
        for name in names
    }


_LIMITS = ("requests_per_minute", "tokens_per_minute", "timeout_s", "patience_s", "max_tries")
_SAMPLING = ("temperature", "top_p", "presence_penalty", "max_tokens")
_TERMS = {
    "--budget-usd": Flag("budget_usd", "Most that the work folder may ever spend.", "USD"),
    "--mode": Flag("mode", "batch is cheaper and takes up to a day.", "live|batch"),
    "--prices": Flag("prices", metavar="FILE"),
    "--batch-requests": Flag("batch.max_requests"),
    "--batch-tokens": Flag("batch.enqueued_tokens"),
    "--batch-poll-s": Flag("batch.poll_s"),
}

SYNTHESIZE = {
    "--seeds": Flag("seeds", "Seed tasks, JSONL or a JSON list; the project's own by default.", "FILE"),
    "--target": Flag("target", "Accepted tasks to reach; may be raised later.", "N"),
    "--base-url": Flag(
        "teacher.base_url", "OpenAI-compatible API that writes the tasks, ending in /v1.", "URL"
    ),
    "--model": Flag("teacher.model", "Model that writes the tasks.", "NAME"),
    "--api-key-env": Flag("teacher.api_key_env", "Environment variable that holds the API key.", "NAME"),
    "--answer-base-url": Flag("answerer.base_url", metavar="URL"),
    "--answer-model": Flag("answerer.model", "Model that answers, if another.", "NAME"),
    "--answer-api-key-env": Flag("answerer.api_key_env", metavar="NAME"),
    "--concurrency": Flag("teacher.concurrency answerer.concurrency", "Requests in flight at once.", "N"),
    **_TERMS,
    **_rare("", "tasks_per_request", "examples", "sampling", "seed", "similarity", "privacy"),
    "--privacy-model": Flag("privacy_model", metavar="MODEL"),
    "--evaluation": Flag("evaluation_files", metavar="FILE[:FIELD,...]", many=True),
    **_rare("", "max_requests"),
    **_rare("teacher.,answerer.", *_LIMITS),
    "--eager": Flag("eager", metavar=""),
    "--send-seed": Flag("send_seed", metavar=""),
    **_rare("task_sampling.", *_SAMPLING, "format"),
    **_rare("answer_sampling.", *_SAMPLING, prefix="answer-"),
}
"""The flags of ``alpacare synthesize``."""

JUDGE = {
    "--base-url": Flag("judge.base_url", "The judge's OpenAI-compatible API (.../v1).", "URL"),
    "--model": Flag("judge.model", "The judge's model name there.", "NAME"),
    "--api-key-env": Flag("judge.api_key_env", "Environment variable that holds the API key.", "NAME"),
    "--concurrency": Flag("judge.concurrency", "Requests in flight at once.", "N"),
    **_TERMS,
    **_rare("judge.", *_LIMITS),
    **_rare("sampling.", *_SAMPLING, "max_tokens_field"),
    "--temperature": Flag("sampling.temperature", "none leaves the field out.", "NUMBER|none"),
}
"""The flags of ``alpacare judge``."""


def split_list(text: str | None) -> list[str]:
    """Split a comma-separated list and drop the blanks.

    Example:
        >>> split_list("gpt-4-answer, claude-2,")
        ['gpt-4-answer', 'claude-2']
    """
    return [name.strip() for name in (text or "").split(",") if name.strip()]
