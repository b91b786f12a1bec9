"""The options of ``alpacare synthesize``, in the panels of its help, and the settings that each of them sets."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from typer import Option

# Everyday options, and the rare ones that --help-all lists.
_service = _run = Option
_task = _limit = _batch = _reply = partial(Option, hidden=True)

# The work folder and the file of settings.
Work = Annotated[Path, Option(help="Work folder: ledger and results; made if missing, resumed if not.")]
Config = Annotated[
    Path | None, Option(help="YAML file of settings; without it a work folder's own settings hold.")
]

# What is asked for.
Seeds = Annotated[
    Path | None, Option(help="Seed tasks, JSONL or JSON list.", show_default="the project's own")
]
Target = Annotated[
    int | None,
    Option(
        help="Accepted tasks to reach, of which instructions are a few fewer; may be raised later.",
        show_default="100",
    ),
]
TasksPerRequest = Annotated[int | None, _task(help="New tasks asked for in one request.", show_default="12")]
Examples = Annotated[int | None, _task(help="Seed tasks shown in one request.", show_default="3")]
Seed = Annotated[int | None, _task(help="Number that all prompts are drawn from.", show_default="0")]
Similarity = Annotated[
    float | None,
    _task(help="ROUGE-L F1, 0 to 1, above which a task is a near-duplicate.", show_default="0.7"),
]
Sampling = Annotated[
    str | None,
    _task(
        help="How examples are drawn: even (types, views, topics, difficulties alike) or uniform.",
        show_default="even",
    ),
]
Privacy = Annotated[
    str | None,
    _task(help="Personal identifiers: off, report, drop (what holds one) or mask.", show_default="report"),
]
PrivacyModel = Annotated[
    str | None,
    _task(
        metavar="MODEL",
        help="spaCy model that looks for names and places as well, such as en_core_web_lg; needs the extra 'privacy'.",
        show_default="patterns alone",
    ),
]
EvaluationFiles = Annotated[
    list[str] | None,
    _task(
        "--evaluation",
        metavar="FILE[:FIELD,...]",
        help="Evaluation set that must not leak into tasks and answers; may be given again. Unusual names of fields "
        "stand behind the file, the question first.",
        show_default="none",
    ),
]

# Who is asked.
BaseUrl = Annotated[
    str | None,
    _service(help="Address of the OpenAI-compatible API that writes the tasks, usually ending in /v1."),
]
Model = Annotated[str | None, _service(help="Model that writes the tasks.")]
ApiKeyEnv = Annotated[
    str | None, _service(help="Environment variable that holds the key.", show_default="OPENAI_API_KEY")
]
AnswerBaseUrl = Annotated[
    str | None, _service(help="Address of the API that answers.", show_default="as --base-url")
]
AnswerModel = Annotated[str | None, _service(help="Model that answers.", show_default="as --model")]
AnswerApiKeyEnv = Annotated[
    str | None,
    _service(
        help="Environment variable that holds the key of the API that answers.",
        show_default="as --api-key-env",
    ),
]

# How much, how fast.
BudgetUsd = Annotated[
    float | None,
    Option(
        help="Most that the work folder may ever spend, in US dollars; inf lifts the cap.",
        show_default="the folder's own, or none",
    ),
]
PricesFile = Annotated[
    Path | None,
    _limit(help="YAML file of prices, US dollars per million tokens, for models that the list lacks."),
]
MaxRequests = Annotated[
    int | None, _limit(help="Task requests at most.", show_default="ten times what the target needs")
]
Concurrency = Annotated[int | None, Option(help="Requests in flight at once.", show_default="8")]
RequestsPerMinute = Annotated[
    int | None, _limit(help="Requests a minute at most, to each service.", show_default="as the service says")
]
TokensPerMinute = Annotated[
    int | None, _limit(help="Tokens a minute at most, to each service.", show_default="as the service says")
]
TimeoutS = Annotated[float | None, _limit(help="Longest wait for one reply, in seconds.", show_default="120")]
PatienceS = Annotated[
    float | None,
    _limit(
        help="Longest pause that a service may ask for, in seconds; a longer one ends the run.",
        show_default="3600",
    ),
]
MaxTries = Annotated[int | None, _limit(help="Tries per request.", show_default="5")]
Eager = Annotated[
    bool | None,
    _limit("--eager", help="Keep all requests in flight, though the last may be in vain.", show_default="no"),
]

# Batches.
Mode = Annotated[
    str | None,
    Option(
        help="live asks one by one; batch through the service's batch interface, within a day at lower prices.",
        show_default="live",
    ),
]
BatchRequests = Annotated[int | None, _batch(help="Requests in one batch at most.", show_default="50000")]
BatchTokens = Annotated[
    int | None,
    _batch(
        help="Prompt tokens in all batches under way at most; providers limit them by account.",
        show_default="none",
    ),
]
BatchPollS = Annotated[
    float | None, _batch(help="Longest wait between two looks, in seconds.", show_default="60")
]
NoWait = Annotated[
    bool,
    Option(
        "--no-wait",
        help="Bring in what has ended, send what can be sent and leave; the same command later goes on.",
    ),
]
CancelBatches = Annotated[
    bool,
    Option(
        "--cancel-batches",
        help="End the batches that are under way, bring in what they have done, and send nothing.",
    ),
]

#: What leaves a field of the request out, for models that refuse it.
LEFT_OUT = "none"


def number_or_none(text: str) -> float | str:
    """Read a number, or the word that leaves the field out.

    Raises:
        ValueError: It is neither.

    Example:
        >>> number_or_none("0.7"), number_or_none("None")
        (0.7, 'none')
    """
    return LEFT_OUT if text.strip().lower() == LEFT_OUT else float(text)


_sampled = partial(_reply, parser=number_or_none, metavar="NUMBER|none")

# How replies are drawn; none leaves a field out.
Temperature = Annotated[float | None, _sampled(help="Of the tasks.", show_default="1.0")]
TopP = Annotated[float | None, _sampled(help="Of the tasks.", show_default="1.0")]
PresencePenalty = Annotated[float | None, _sampled(help="Of the tasks.", show_default="1.5")]
MaxTokens = Annotated[int | None, _reply(help="Longest reply with tasks, in tokens.", show_default="3072")]
Format = Annotated[
    str | None,
    _reply(
        help="Replies with tasks: text, or json_schema (structured output) where the service has it.",
        show_default="text",
    ),
]
AnswerTemperature = Annotated[float | None, _sampled(help="Of the answers.", show_default="1.0")]
AnswerTopP = Annotated[float | None, _sampled(help="Of the answers.", show_default="1.0")]
AnswerPresencePenalty = Annotated[float | None, _sampled(help="Of the answers.", show_default="1.5")]
AnswerMaxTokens = Annotated[int | None, _reply(help="Longest answer, in tokens.", show_default="1024")]
SendSeed = Annotated[
    bool | None,
    _reply(
        "--send-seed",
        help="Send a sampling seed with each request, if the service takes one.",
        show_default="no",
    ),
]

# What to do, where it is not simply to run.
DryRun = Annotated[
    bool,
    _run("--dry-run", help="Print the plan, sample prompts and the estimated cost; send and write nothing."),
]
Status = Annotated[
    bool, _run("--status", help="Print how far the work folder is, also beside a running job; send nothing.")
]
AsJson = Annotated[bool, _run("--json", help="With --status: print one JSON object, for scripts.")]
RetryFailed = Annotated[bool, _run("--retry-failed", help="Ask again what an earlier run gave up on.")]
Derive = Annotated[
    Path | None,
    _run(
        "--derive",
        "--fork",
        help="Go on in this new folder, under changed settings, with every reply that still applies.",
    ),
]

#: The limits of a service that options set.
SHARED_LIMITS = (
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "timeout_s",
    "patience_s",
    "max_tries",
)
#: The settings of batches that options set, by the ends of the options' names.
BATCH_KEYS = {"requests": "max_requests", "tokens": "enqueued_tokens", "poll_s": "poll_s"}
#: The settings that an option sets, by their dotted names. Both services share the limits.
SETTINGS: dict[str, tuple[str, ...]] = {
    **{
        name: (name,)
        for name in (
            "seeds",
            "target",
            "tasks_per_request",
            "examples",
            "seed",
            "sampling",
            "similarity",
            "privacy",
            "privacy_model",
            "evaluation_files",
            "max_requests",
            "eager",
            "send_seed",
            "budget_usd",
            "prices",
            "mode",
        )
    },
    **{f"batch_{name}": (f"batch.{key}",) for name, key in BATCH_KEYS.items()},
    **{name: (f"teacher.{name}",) for name in ("base_url", "model", "api_key_env")},
    **{f"answer_{name}": (f"answerer.{name}",) for name in ("base_url", "model", "api_key_env")},
    **{name: (f"teacher.{name}", f"answerer.{name}") for name in SHARED_LIMITS},
    **{
        f"{prefix}{name}": (f"{group}.{name}",)
        for prefix, group in (("", "task_sampling"), ("answer_", "answer_sampling"))
        for name in ("temperature", "top_p", "presence_penalty", "max_tokens")
    },
    "format": ("task_sampling.format",),
}

# What an option holds that was not given: a list option of the command line holds an empty tuple then.
_NOT_GIVEN: tuple[object, ...] = (None, [], ())


def to_settings(
    options: Mapping[str, Any], known: Mapping[str, tuple[str, ...]] = SETTINGS
) -> dict[str, Any]:
    """Return the settings that the given options name, as a nested mapping.

    Args:
        options: What each option holds.
        known: The settings that each option sets, by their dotted names.

    Example:
        >>> to_settings({"model": "m", "target": None, "timeout_s": 9.0, "status": True})
        {'teacher': {'model': 'm', 'timeout_s': 9.0}, 'answerer': {'timeout_s': 9.0}}
    """
    mapping: dict[str, Any] = {}
    for option, value in options.items():
        for name in known.get(option, ()) if value not in _NOT_GIVEN else ():
            group, _, key = name.rpartition(".")
            (mapping.setdefault(group, {}) if group else mapping)[key] = None if value == LEFT_OUT else value
    if mapping.get("budget_usd") == float("inf"):
        mapping["budget_usd"] = None
    return mapping
