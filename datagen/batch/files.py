"""The files of a batch: requests written as JSON Lines within a provider's limits, replies read back by their ids.

Replies are matched to requests by ``custom_id``, in any order. Invalid lines (truncated, not JSON, with an unknown
or a repeated id) are reported and skipped.
"""

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated, Any

from datagen.configuration import Range, check
from datagen.errors import ConfigError, DataError

ENDPOINT = "/v1/chat/completions"
#: JSON of English text has about four characters a token; counted with three, so as to stay below a queue's limit.
_BYTES_PER_TOKEN = 3
_SHOWN_CHARACTERS = 80


@dataclasses.dataclass(frozen=True)
class BatchLimits:
    """Limits on the size, the retries and the polling of batches.

    Attributes:
        max_requests: Requests in one batch at most; the provider's limit or less.
        max_megabytes: Size of one input file at most, in millions of bytes.
        enqueued_tokens: Prompt tokens in all batches under way at most, estimated; None knows no limit.
        max_rounds: How often one request is sent at most.
        surplus: Part by which a later round of tasks exceeds what the target is estimated to need, so that it is the
            last one; every round may take a day.
        poll_s: Longest wait between two looks at a batch, in seconds.
    """

    max_requests: Annotated[int, Range(1, 1_000_000)] = 50_000
    max_megabytes: Annotated[float, Range(0.001, 100_000)] = 200.0
    enqueued_tokens: Annotated[int | None, Range(1, 10**12)] = None
    max_rounds: Annotated[int, Range(1, 1000)] = 3
    surplus: Annotated[float, Range(0, 10)] = 0.05
    poll_s: Annotated[float, Range(0.01, 3600)] = 60.0

    def __post_init__(self) -> None:
        check(self, "batch")


@dataclasses.dataclass(frozen=True)
class Question:
    """One request that is to go into a batch: its id, its body, and how many bytes its line has."""

    id: str
    body: dict[str, Any]
    size: int

    @property
    def prompt_tokens(self) -> int:
        """Roughly how many prompt tokens a provider will count, rather too many than too few."""
        return -(-self.size // _BYTES_PER_TOKEN)


@contextlib.contextmanager
def scratch_file(folder: Path) -> Iterator[IO[bytes]]:
    """Give a file for a batch's content, which is gone when it is closed, however the process ends.

    Raises:
        DataError: The disk refuses.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            yield file
    except OSError as error:
        raise DataError(
            "a batch's file cannot be written or read",
            where=folder,
            found=error.strerror or str(error),
            remedy="free some disk space and run the same command again; nothing is lost",
        ) from error


def custom_id(stage: str, id: str) -> str:
    """Return the ``custom_id`` of a request in a batch: letters, digits and hyphens, which all providers accept.

    Examples:
        >>> custom_id("tasks", "000012")
        'tasks-000012'
    """
    return f"{stage}-{id}"


def input_line(stage: str, id: str, body: dict[str, Any]) -> bytes:
    """Return the line of a batch's input file that asks one request; always the same bytes for the same request.

    Examples:
        >>> input_line("tasks", "0", {"model": "m"})
        b'{"custom_id": "tasks-0", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m"}}\\n'
    """
    line = {"custom_id": custom_id(stage, id), "method": "POST", "url": ENDPOINT, "body": body}
    # Pure ASCII: some readers take U+2028 and its like for the end of a line.
    return json.dumps(line).encode("ascii") + b"\n"


def as_question(stage: str, id: str, body: dict[str, Any]) -> Question:
    """Measure a request's line."""
    return Question(id, body, len(input_line(stage, id, body)))


def next_part(questions: Sequence[Question], limits: BatchLimits, tokens_left: float) -> list[Question]:
    """Return the first questions that one batch may hold.

    Args:
        questions: All that are to be sent, in order.
        limits: The provider's.
        tokens_left: Prompt tokens that may still be enqueued; the first question goes in any case.

    Returns:
        At least one question, if there is any.

    Raises:
        ConfigError: The first question is larger than a file may be.

    Examples:
        >>> questions = [Question(str(number), {}, 300) for number in range(9)]
        >>> len(next_part(questions, BatchLimits(max_requests=4), 1e9)), len(next_part(questions, BatchLimits(), 250))
        (4, 2)
    """
    part: list[Question] = []
    bytes_left = limits.max_megabytes * 1e6
    for question in questions[: limits.max_requests]:
        if question.size > bytes_left or (part and question.prompt_tokens > tokens_left):
            break
        bytes_left -= question.size
        tokens_left -= question.prompt_tokens
        part.append(question)
    if questions and not part:
        raise ConfigError(
            "a request is larger than a batch's file may be",
            where=questions[0].id,
            found=f"{questions[0].size:,} bytes",
            expected=f"at most batch.max_megabytes, {limits.max_megabytes:g}",
        )
    return part


@dataclasses.dataclass(frozen=True)
class Line:
    """The provider's result for one request.

    Attributes:
        id: The request's id in its stage.
        status: HTTP status of the reply; 0 where there was none.
        body: Body of the reply, whatever it is.
        error: The batch's own error: why the request got no reply.
    """

    id: str
    status: int
    body: Any
    error: dict[str, Any] | None


class Replies:
    """Reads one batch's output and error files.

    Args:
        stage: The stage of the requests.
        ids: The requests that the batch holds.
    """

    def __init__(self, stage: str, ids: Iterable[str]) -> None:
        self._ids = {custom_id(stage, id): id for id in ids}
        self.seen: set[str] = set()
        #: A description of each invalid line.
        self.problems: list[str] = []

    def read(self, file: IO[bytes], name: str) -> Iterator[Line]:
        """Yield the lines of a file that answer a request for the first time."""
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            line = self._parse(text)
            if isinstance(line, Line):
                self.seen.add(line.id)
                yield line
            else:
                self.problems.append(f"{name}, line {number}: {line}")

    def _parse(self, text: bytes) -> Line | str:
        """Return the line, or what is wrong with it."""
        try:
            data = json.loads(text)
            custom = data["custom_id"]
            response = data.get("response") or {}
            status, body = response.get("status_code"), response.get("body")
            error = data.get("error") or None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return f"not the reply to a request: {_shown(text)}"
        if not isinstance(custom, str) or custom not in self._ids:
            return f"custom_id {str(custom)[:_SHOWN_CHARACTERS]!r} was not asked for"
        id = self._ids[custom]
        if id in self.seen:
            return f"custom_id {custom!r} for the second time"
        if body is None and "choices" in response:
            body = response  # without an envelope
        if isinstance(body, str) and body.lstrip().startswith("{"):
            with contextlib.suppress(ValueError, RecursionError):
                body = json.loads(body)  # the HTTP body as it was, in quotation marks
        status = _status(status, body)
        if error is not None and not isinstance(error, dict):
            error = {"message": str(error)}
        return Line(id, status, body, error)


def _status(value: object, body: Any) -> int:
    """Return the HTTP status of a reply; of one that lacks it, 200 where it is a completion and 0 where it is not."""
    if isinstance(value, bool) or (isinstance(value, str) and body is None):
        return 0
    text = str(value)
    if text.isascii() and text.isdigit() and 100 <= int(text[:4]) <= 599:
        return int(text[:4])
    return 200 if value is None and isinstance(body, dict) and "choices" in body else 0


def _shown(text: bytes) -> str:
    return repr(text[:_SHOWN_CHARACTERS].decode("utf-8", "replace"))
