"""Whether a batch has ended, where its provider's words or the lack of a file leave a doubt."""

import logging
from collections.abc import Mapping
from typing import Any

from datagen.batch.states import ENDED, file_id, read_state
from datagen.batch.store import BatchRecord, BatchStore
from datagen.batch.wire import BatchWire
from datagen.service.limits import in_words
from datagen.service.wire import RequestError

log = logging.getLogger(__name__)

#: A batch that is completed is looked at so many times more for the id of its output file.
_LOOKS_FOR_A_FILE = 5
#: Longer than the window of any batch, in seconds.
_LONGEST_UNKNOWN_S = 36 * 3600.0


class Ends:
    """Tells of batches, looked at time and again, whether they have ended.

    Args:
        wire: To the provider that has them.
        book: Where they stand.
    """

    def __init__(self, wire: BatchWire, book: BatchStore) -> None:
        self._wire, self._book = wire, book
        self._unknown: set[tuple[int, str]] = set()

    def has_ended(self, record: BatchRecord, batch: Mapping[str, Any]) -> bool:
        """Say whether a batch has ended and its replies can be fetched.

        Raises:
            ServiceError: It is in an unknown state for longer than any batch takes.
        """
        state, output = read_state(record.status), file_id(batch, "output")
        if state == "unknown":
            if output and record.completed + record.failed >= record.requests:
                return True
            self._tell_unknown(record)
            return False
        if state not in ENDED:
            return False
        if state == "completed" and record.completed and not output:
            # Some providers name the file a little later than they say that the batch is completed.
            if self._book.looked_in_vain(record) <= _LOOKS_FOR_A_FILE:
                return False
            log.warning(
                "%s: batch %s is %s and has no output file; its %d replies count as spent",
                record.stage, record.batch_id, record.status, record.completed,
            )  # fmt: skip
        return True

    def is_lost(self, record: BatchRecord) -> bool:
        """Say whether a batch is in an unknown state for longer than any batch takes."""
        return read_state(record.status) == "unknown" and record.age_s() > _LONGEST_UNKNOWN_S

    def _tell_unknown(self, record: BatchRecord) -> None:
        if self.is_lost(record):
            raise self._wire.stop(
                f"batch {record.batch_id} is in a state that is not known, for {in_words(record.age_s())}",
                RequestError("unknown-state", record.status, "fatal"),
                remedy="look at the batch on the provider's page; run the same command again when it has ended, or "
                "give it up with --cancel-batches (its requests then count as spent)",
            )
        if (record.number, record.status) not in self._unknown:
            self._unknown.add((record.number, record.status))
            log.warning(
                "%s: batch %s is %r, which is not known here; waiting for it to end (--cancel-batches ends it)",
                record.stage, record.batch_id, record.status,
            )  # fmt: skip
