"""The error that ends a run because of a service, with a remedy."""

from urllib.parse import urlsplit

from datagen.errors import ServiceError
from datagen.providers import table, wording
from datagen.service.endpoint import Service
from datagen.service.wire import RequestError

#: Errors that no request in flight will escape; others leave those in flight time to end.
AT_ONCE = {"unauthorized", "region", "not-found"}
#: The config group with the sampling settings of each stage of a work folder, where they are fixed.
_GROUPS = {"tasks": "task_sampling", "answers": "answer_sampling"}
#: Errors that are transient even if they come as a web page.
_MAY_PASS = ("server-error", "rate-limited")


class Stop(ServiceError):
    """Ends the run; with ``at_once``, requests in flight are not waited for."""

    at_once = False


def stop_for(
    service: Service,
    stage: str,
    what: str,
    error: RequestError | None = None,
    *,
    remedy: str = "",
    batch: bool = False,
) -> Stop:
    """Return the error that ends the run; the same command resumes it.

    Args:
        service: The service that caused it.
        stage: The stage of its requests, whose settings a remedy names.
        what: The headline.
        error: The error of the request.
        remedy: The remedy, if the error's code does not determine it.
        batch: Whether the request was a call of the batch API.
    """
    code = error.code if error else ""
    remedies = table()["remedies"] | (table()["batch remedies"] if batch else {})
    if not remedy and error is not None and code == "bad-request" and not batch:
        remedy = field_remedy(stage, error)
    if not remedy:
        guess = "" if urlsplit(service.base_url).path else f": perhaps {service.address}/v1"
        remedy = remedies.get(code, remedies["other"]).format(api_key_env=service.api_key_env, guess=guess)
    if error is not None and error.page:
        page = remedies["web page"]
        remedy = f"{remedy}; if that does not help, {page}" if code in _MAY_PASS else page
    stop = Stop(
        what,
        where=f"{service.base_url}, model {service.model}",
        found=None if error is None else str(error),
        remedy=remedy,
    )
    stop.at_once = code in AT_ONCE
    return stop


def field_remedy(stage: str, error: RequestError) -> str:
    """Return which config key to change for a request field that the service rejects.

    Args:
        stage: The stage of the request.
        error: The refusal.
    """
    remedies, field = table()["field remedies"], error.field
    known = field in remedies or field in table()["request fields"].split()
    name = field if field in remedies else "other" if field else "no field"
    if field in ("max_tokens", "max_completion_tokens") and wording("too many").search(error.words):
        name = "too many tokens"
    remedy: str = remedies[name].format(group=_GROUPS.get(stage, "sampling"), field=field)
    return remedy + (
        "; then add `derive` NEW_FOLDER" if known and field != "stream" and stage in _GROUPS else ""
    )
