"""The end of a run that a service brings about, with what a person can do about it."""

import re
from urllib.parse import urlsplit

from datagen.errors import ServiceError
from datagen.service.chat import LENGTH_FIELDS
from datagen.service.refusals import FIELDS
from datagen.service.web_page import remedy_for
from datagen.service.wire import RequestError, Service

#: Troubles that no request in flight will escape; others leave those in flight time to end.
AT_ONCE = {"unauthorized", "region", "not-found"}


class Stop(ServiceError):
    """Nothing more is sent; ``at_once`` tells that what is in flight is not worth waiting for."""

    at_once = False


def stop_for(service: Service, stage: str, what: str, trouble: RequestError) -> Stop:
    """Return the error that ends the run.

    Args:
        service: Which one ended it.
        stage: The stage of its requests, whose settings a remedy names.
        what: The sentence that the run ends with.
        trouble: What the service did.
    """
    remedies = {
        "unauthorized": f"check the key in the environment variable {service.api_key_env}, its rights and "
        "the account's credit",
        "region": "ask from a place that the provider serves, or ask another provider",
        "bad-request": field_remedy(stage, trouble)
        + (_DERIVE if trouble.field in OWN and stage in _DERIVABLE else ""),
        "not-found": "check the model's name and the base URL, which usually ends in /v1"
        + ("" if urlsplit(service.base_url).path else f": perhaps {service.address}/v1"),
        "quota": "add credit at the provider, or raise the limit of the key, then run the same command again",
        "unreachable": "start the server or mend the base URL, then run the same command again",
        "rate-limited": "run the same command again when the time has passed, or with a larger patience_s; "
        "what was answered is kept",
        "streams": _NO_STREAM,
    }
    remedy = remedies.get(trouble.code, "run the same command again later; what was answered is kept")
    stop = Stop(
        what,
        where=f"{service.base_url}, model {service.model}",
        found=str(trouble),
        remedy=remedy_for(trouble.code, remedy) if trouble.page else remedy,
    )
    stop.at_once = trouble.code in AT_ONCE
    return stop


_DERIVE = "; then add --derive NEW_FOLDER"
_NO_STREAM = "turn streaming off at the server or gateway, or choose a model that replies without it"
#: Fields whose values stand in the fixed settings of a work folder.
OWN = frozenset((*FIELDS, "length"))
_GROUPS = {
    "tasks": ("task_sampling", "--"),
    "answers": ("answer_sampling", "--answer-"),
    "judge": ("sampling", "--"),
}
_DERIVABLE = (
    "tasks",
    "answers",
)  # stages of work folders that go on under changed settings in a new folder alone
_TOO_LARGE = re.compile(
    r"too (?:large|high|big)|at most|less than|exceed|maximum|range|smaller|lower", re.IGNORECASE
)


def field_remedy(stage: str, trouble: RequestError) -> str:
    """Return how to change the field of a request that a service does not take: by which option or key of the config.

    Args:
        stage: "tasks", "answers" or "judge"; another one's settings are told by the names of their keys alone.
        trouble: The refusal.
    """
    group, option = _GROUPS.get(stage, ("the sampling settings", "--"))
    field = trouble.field
    if field == "stream":
        return _NO_STREAM
    if field == "length":
        return f"choose a smaller {option}max-tokens, or a model that takes longer requests"
    if field in LENGTH_FIELDS:
        if _TOO_LARGE.search(trouble.words):
            return f"choose a smaller {option}max-tokens"
        other = next(name for name in LENGTH_FIELDS if name != field)
        return f"set max_tokens_field: {other} in {group} of the config (--config FILE)"
    if field == "response_format":
        return (
            f"ask for text with --format text, or set format: text in {group} of the config (--config FILE)"
        )
    if field in ("temperature", "top_p", "presence_penalty"):
        flag = f"{option}{field.replace('_', '-')}"
        return f"give a value that the model takes with {flag}, or leave the field out with {flag} none"
    if field == "seed":
        return f"leave out --send-seed, and seed in {group} of the config"
    if field:
        return f"set {field} as the service asks, or leave it out, in extra_body of {group} in the config"
    return (
        f"read the service's words: a field that it does not take is left out by null in {group} of the config, "
        "structured output by --format text"
    )
