"""The options of ``alpacare synthesize``, in the panels of its help, and the settings that each of them sets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from typer import Option

_TASKS = "Tasks"
_SERVICES = "Services"
_LIMITS = "Limits and money"
_BATCHES = "Batches"
_REPLIES = "How replies are drawn"
_RUN = "What to do"

# The work folder and the file of settings.
Work = Annotated[Path, Option(help="Work folder: ledger and results; made if missing, resumed if not.")]
Config = Annotated[
    Path | None, Option(help="YAML file of settings; without it a work folder's own settings hold.")
]

# What is asked for.
Seeds = Annotated[
    Path | None,
    Option(help="Seed tasks, JSONL or JSON list.", show_default="the project's own", rich_help_panel=_TASKS),
]
Target = Annotated[
    int | None,
    Option(
        help="Accepted tasks to reach, of which instructions are a few fewer; may be raised later.",
        show_default="100",
        rich_help_panel=_TASKS,
    ),
]
TasksPerRequest = Annotated[
    int | None,
    Option(help="New tasks asked for in one request.", show_default="12", rich_help_panel=_TASKS),
]
Examples = Annotated[
    int | None, Option(help="Seed tasks shown in one request.", show_default="3", rich_help_panel=_TASKS)
]
Seed = Annotated[
    int | None,
    Option(help="Number that all prompts are drawn from.", show_default="0", rich_help_panel=_TASKS),
]
Similarity = Annotated[
    float | None,
    Option(
        help="ROUGE-L F1, 0 to 1, above which a task is a near-duplicate.",
        show_default="0.7",
        rich_help_panel=_TASKS,
    ),
]

Sampling = Annotated[
    str | None,
    Option(
        help="How examples are drawn: even (types, views, topics, difficulties alike) or uniform.",
        show_default="even",
        rich_help_panel=_TASKS,
    ),
]
Privacy = Annotated[
    str | None,
    Option(
        help="Personal identifiers: off, report, drop (what holds one) or mask.",
        show_default="report",
        rich_help_panel=_TASKS,
    ),
]
PrivacyModel = Annotated[
    str | None,
    Option(
        metavar="MODEL",
        help="spaCy model that looks for names and places as well, such as en_core_web_lg; needs the extra 'privacy'.",
        show_default="patterns alone",
        rich_help_panel=_TASKS,
    ),
]
EvaluationFiles = Annotated[
    list[str] | None,
    Option(
        "--evaluation",
        metavar="FILE[:FIELD,...]",
        help="Evaluation set that must not leak into tasks and answers; may be given again. Unusual names of fields "
        "stand behind the file, the question first.",
        show_default="none",
        rich_help_panel=_TASKS,
    ),
]

# Who is asked.
BaseUrl = Annotated[
    str | None,
    Option(
        help="Address of the OpenAI-compatible API that writes the tasks, usually ending in /v1.",
        rich_help_panel=_SERVICES,
    ),
]
Model = Annotated[str | None, Option(help="Model that writes the tasks.", rich_help_panel=_SERVICES)]
ApiKeyEnv = Annotated[
    str | None,
    Option(
        help="Environment variable that holds the key.",
        show_default="OPENAI_API_KEY",
        rich_help_panel=_SERVICES,
    ),
]
AnswerBaseUrl = Annotated[
    str | None,
    Option(help="Address of the API that answers.", show_default="as --base-url", rich_help_panel=_SERVICES),
]
AnswerModel = Annotated[
    str | None, Option(help="Model that answers.", show_default="as --model", rich_help_panel=_SERVICES)
]
AnswerApiKeyEnv = Annotated[
    str | None,
    Option(
        help="Environment variable that holds the key of the API that answers.",
        show_default="as --api-key-env",
        rich_help_panel=_SERVICES,
    ),
]

# How much, how fast.
BudgetUsd = Annotated[
    float | None,
    Option(
        help="Most that the work folder may ever spend, in US dollars; inf lifts the cap.",
        show_default="the folder's own, or none",
        rich_help_panel=_LIMITS,
    ),
]
PricesFile = Annotated[
    Path | None,
    Option(
        help="YAML file of prices, US dollars per million tokens, for models that the list lacks.",
        rich_help_panel=_LIMITS,
    ),
]
MaxRequests = Annotated[
    int | None,
    Option(
        help="Task requests at most.", show_default="ten times what the target needs", rich_help_panel=_LIMITS
    ),
]
Concurrency = Annotated[
    int | None, Option(help="Requests in flight at once.", show_default="8", rich_help_panel=_LIMITS)
]
RequestsPerMinute = Annotated[
    int | None,
    Option(
        help="Requests a minute at most, to each service.",
        show_default="as the service says",
        rich_help_panel=_LIMITS,
    ),
]
TokensPerMinute = Annotated[
    int | None,
    Option(
        help="Tokens a minute at most, to each service.",
        show_default="as the service says",
        rich_help_panel=_LIMITS,
    ),
]
TimeoutS = Annotated[
    float | None,
    Option(help="Longest wait for one reply, in seconds.", show_default="120", rich_help_panel=_LIMITS),
]
PatienceS = Annotated[
    float | None,
    Option(
        help="Longest pause that a service may ask for, in seconds; a longer one ends the run.",
        show_default="3600",
        rich_help_panel=_LIMITS,
    ),
]
MaxTries = Annotated[int | None, Option(help="Tries per request.", show_default="5", rich_help_panel=_LIMITS)]
Eager = Annotated[
    bool | None,
    Option(
        "--eager",
        help="Keep all requests in flight, though the last may be in vain.",
        show_default="no",
        rich_help_panel=_LIMITS,
    ),
]

# Batches.
Mode = Annotated[
    str | None,
    Option(
        help="live asks one by one; batch through the service's batch interface, within a day at lower prices.",
        show_default="live",
        rich_help_panel=_BATCHES,
    ),
]
BatchRequests = Annotated[
    int | None,
    Option(help="Requests in one batch at most.", show_default="50000", rich_help_panel=_BATCHES),
]
BatchTokens = Annotated[
    int | None,
    Option(
        help="Prompt tokens in all batches under way at most; providers limit them by account.",
        show_default="none",
        rich_help_panel=_BATCHES,
    ),
]
BatchPollS = Annotated[
    float | None,
    Option(help="Longest wait between two looks, in seconds.", show_default="60", rich_help_panel=_BATCHES),
]
NoWait = Annotated[
    bool,
    Option(
        "--no-wait",
        help="Bring in what has ended, send what can be sent and leave; the same command later goes on.",
        rich_help_panel=_BATCHES,
    ),
]
CancelBatches = Annotated[
    bool,
    Option(
        "--cancel-batches",
        help="End the batches that are under way, bring in what they have done, and send nothing.",
        rich_help_panel=_BATCHES,
    ),
]

# How replies are drawn.
Temperature = Annotated[
    float | None, Option(help="Of the tasks.", show_default="1.0", rich_help_panel=_REPLIES)
]
TopP = Annotated[float | None, Option(help="Of the tasks.", show_default="1.0", rich_help_panel=_REPLIES)]
PresencePenalty = Annotated[
    float | None, Option(help="Of the tasks.", show_default="1.5", rich_help_panel=_REPLIES)
]
MaxTokens = Annotated[
    int | None,
    Option(help="Longest reply with tasks, in tokens.", show_default="3072", rich_help_panel=_REPLIES),
]
Format = Annotated[
    str | None,
    Option(
        help="Replies with tasks: text, or json_schema (structured output) where the service has it.",
        show_default="text",
        rich_help_panel=_REPLIES,
    ),
]
AnswerTemperature = Annotated[
    float | None, Option(help="Of the answers.", show_default="1.0", rich_help_panel=_REPLIES)
]
AnswerTopP = Annotated[
    float | None, Option(help="Of the answers.", show_default="1.0", rich_help_panel=_REPLIES)
]
AnswerPresencePenalty = Annotated[
    float | None, Option(help="Of the answers.", show_default="1.5", rich_help_panel=_REPLIES)
]
AnswerMaxTokens = Annotated[
    int | None, Option(help="Longest answer, in tokens.", show_default="1024", rich_help_panel=_REPLIES)
]
SendSeed = Annotated[
    bool | None,
    Option(
        "--send-seed",
        help="Send a sampling seed with each request, if the service takes one.",
        show_default="no",
        rich_help_panel=_REPLIES,
    ),
]

# What to do, where it is not simply to run.
DryRun = Annotated[
    bool,
    Option(
        "--dry-run",
        help="Print the plan, sample prompts and the estimated cost; send and write nothing.",
        rich_help_panel=_RUN,
    ),
]
Status = Annotated[
    bool,
    Option(
        "--status",
        help="Print how far the work folder is, also beside a running job; send nothing.",
        rich_help_panel=_RUN,
    ),
]
AsJson = Annotated[
    bool,
    Option("--json", help="With --status: print one JSON object, for scripts.", rich_help_panel=_RUN),
]
RetryFailed = Annotated[
    bool,
    Option("--retry-failed", help="Ask again what an earlier run gave up on.", rich_help_panel=_RUN),
]
Fork = Annotated[
    Path | None,
    Option(
        help="Go on in this new folder, under changed settings, with every reply that still applies.",
        rich_help_panel=_RUN,
    ),
]

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
    "batch_requests": ("batch.max_requests",),
    "batch_tokens": ("batch.enqueued_tokens",),
    "batch_poll_s": ("batch.poll_s",),
    **{name: (f"teacher.{name}",) for name in ("base_url", "model", "api_key_env")},
    **{f"answer_{name}": (f"answerer.{name}",) for name in ("base_url", "model", "api_key_env")},
    **{
        name: (f"teacher.{name}", f"answerer.{name}")
        for name in (
            "concurrency",
            "requests_per_minute",
            "tokens_per_minute",
            "timeout_s",
            "patience_s",
            "max_tries",
        )
    },
    **{
        f"{prefix}{name}": (f"{group}.{name}",)
        for prefix, group in (("", "task_sampling"), ("answer_", "answer_sampling"))
        for name in ("temperature", "top_p", "presence_penalty", "max_tokens")
    },
    "format": ("task_sampling.format",),
}

# What an option holds that was not given: a list option of the command line holds an empty tuple then.
_NOT_GIVEN: tuple[object, ...] = (None, [], ())


def to_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the given options name, as a nested mapping.

    Example:
        >>> to_settings({"model": "m", "target": None, "timeout_s": 9.0, "status": True})
        {'teacher': {'model': 'm', 'timeout_s': 9.0}, 'answerer': {'timeout_s': 9.0}}
    """
    mapping: dict[str, Any] = {}
    for option, value in options.items():
        for name in SETTINGS.get(option, ()) if value not in _NOT_GIVEN else ():
            group, _, key = name.rpartition(".")
            (mapping.setdefault(group, {}) if group else mapping)[key] = value
    if mapping.get("budget_usd") == float("inf"):
        mapping["budget_usd"] = None
    return mapping
