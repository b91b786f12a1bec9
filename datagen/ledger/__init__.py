"""The ledger: one SQLite file that records every request to a model and its outcome.

A request is recorded before it is sent, and settled when its reply or final failure is known, each in one
transaction. A run that is killed at any moment finds every settled request again and repeats at most those that
were in flight. One process writes; others may read at the same time (``read_only``), because the journal is a
write-ahead log.
"""

from datagen.ledger.requests import Requests
from datagen.ledger.rows import Entry, Outcome, Settled, StageSpending, State, Try, utc_now
from datagen.ledger.tries import Tries

__all__ = ["Entry", "Ledger", "Outcome", "Settled", "StageSpending", "State", "Try", "utc_now"]


class Ledger(Requests, Tries):
    """A context manager around the ledger file, with its tables of requests, tries and notes.

    Args:
        path: The SQLite file; made, with its folder, if it is not there (unless ``read_only``).
        read_only: Read beside a running writer, changing nothing.

    Raises:
        DataError: Another process writes to it, it is not a ledger, or it is of a newer version.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Ledger(f"{folder}/ledger.sqlite") as ledger:
        ...     ledger.record_sent("tasks", "00000", prompt_hash="ab12", request={"model": "m"})
        ...     ledger.record_reply("tasks", "00000", text="hello", finish_reason="stop", model="m")
        ...     ledger.get("tasks", "00000").reply
        'hello'
    """
