"""Keys are looked for before the first request is sent: none is to be missed after a night of tasks."""

from collections.abc import Iterable, Iterator

from datagen.errors import ServiceError
from datagen.ledger import Ledger
from datagen.service.chat import ChatRequest
from datagen.settings import Settings


def require_keys(settings: Settings) -> None:
    """See that both services have the key that they need.

    Raises:
        ServiceError: A key is missing; the option that names it is in the remedy.
    """
    settings.teacher.api_key()
    try:
        settings.answerer.api_key()
    except ServiceError as error:
        error.remedy = (error.remedy or "").replace("--api-key-env", "--answer-api-key-env")
        raise


def with_keys(
    requests: Iterable[ChatRequest], settings: Settings, ledger: Ledger, stage: str
) -> Iterator[ChatRequest]:
    """Yield requests, and look for the keys before the first one that is to be sent: a ledger alone needs none.

    Raises:
        ServiceError: A key is missing.
    """
    looked_for = False
    for request in requests:
        entry = None if looked_for else ledger.get(stage, request.id)
        if not looked_for and (entry is None or entry.state == "sent"):
            require_keys(settings)
            looked_for = True
        yield request
