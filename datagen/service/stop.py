"""The end of a run that a service brings about, with what a person can do about it."""

from datagen.errors import ServiceError
from datagen.service.web_page import remedy_for
from datagen.service.wire import Service, Trouble

#: Troubles that no request in flight will escape; others leave those in flight time to end.
AT_ONCE = {"unauthorized", "not-found"}


class Stop(ServiceError):
    """Nothing more is sent; ``at_once`` tells that what is in flight is not worth waiting for."""

    at_once = False


def stop_for(service: Service, what: str, trouble: Trouble) -> Stop:
    """Return the error that ends the run.

    Args:
        service: Which one ended it.
        what: The sentence that the run ends with.
        trouble: What the service did.
    """
    remedies = {
        "unauthorized": f"check the key in the environment variable {service.api_key_env}",
        "bad-request": "read the service's words: a field that it does not take is left out by null in "
        "task_sampling or answer_sampling, structured output by format: text",
        "not-found": "check the model's name and the base URL, which usually ends in /v1",
        "quota": "add credit at the provider, then run the same command again",
        "unreachable": "start the server or mend the base URL, then run the same command again",
        "rate-limited": "run the same command again when the time has passed, or with a larger patience_s; "
        "what was answered is kept",
    }
    remedy = remedies.get(trouble.code, "run the same command again later; what was answered is kept")
    stop = Stop(
        what,
        where=f"{service.base_url}, model {service.model}",
        found=str(trouble),
        remedy=remedy_for(trouble, remedy),
    )
    stop.at_once = trouble.code in AT_ONCE
    return stop
