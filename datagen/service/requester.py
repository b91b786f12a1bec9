"""Sends single requests to one service: bounded retries, rate limits, budget, and every outcome in the ledger.

An account-wide rate limit costs a request none of its tries. A request that is refused on its own may be refused
three times as often as it may fail. A request that is to wait longer than ``patience_s`` is recorded as failed, with
the time at which it may be sent again.
"""

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from datagen.ledger import Entry, Ledger, Try
from datagen.money.bounds import most_completion_tokens
from datagen.service.chat import prompt_hash
from datagen.service.circuit import Circuit
from datagen.service.endpoint import Service
from datagen.service.limiter import Limiter, Ticket, TokenEstimator
from datagen.service.limits import in_words, utc_in
from datagen.service.retry import (
    PAID_TWICE,
    REFUSALS_PER_TRY,
    REFUSED_IN_A_ROW,
    TOLD_DAILY,
    FailureLog,
    RetryPolicy,
)  # fmt: skip
from datagen.service.stop import Stop
from datagen.service.wire import Answer, RequestError, Wire

if TYPE_CHECKING:
    from datagen.money.account import Bill
    from datagen.money.budget import Budget


@dataclasses.dataclass
class Job:
    """A request with its position, body and counts of tries and errors."""

    order: int
    id: str
    body: dict[str, Any]
    fingerprint: str
    prompt_bytes: int
    tries: int = 0
    faults: int = 0
    refusals: int = 0
    errors: int = 0
    paid: int = 0
    told_daily: int = 0
    #: What the last try cost, in US dollars, where that is known.
    cost_usd: float | None = None
    #: How many answers had come when it was first refused.
    answers_before: int | None = None


class Requester:
    """Sends single requests to one service and records each outcome in the ledger; an asynchronous context manager.

    Args:
        service: The service.
        ledger: Records every try and outcome.
        stage: The ledger's stage.
        budget: Reserves the worst case of every try, if there is a cap or costs are tracked.
    """

    def __init__(
        self,
        service: Service,
        ledger: Ledger,
        stage: str,
        budget: "Budget | None" = None,
    ) -> None:
        self.service, self.ledger, self.stage, self.budget = service, ledger, stage, budget
        #: Set whenever a try has ended.
        self.changed = asyncio.Event()
        self._wire = Wire(service)
        self._policy = RetryPolicy(service, stage)
        clock = time.monotonic
        self._circuit = Circuit(
            patience_s=service.patience_s,
            first_wait_s=service.first_wait_s,
            max_tries=service.max_tries,
            clock=clock,
            woken=self._wake,
            address=service.base_url,
        )
        self._limiter = Limiter(service, self._circuit, clock)
        self._estimator = TokenEstimator()
        self._log = FailureLog(stage)
        # Requests that failed with transient errors only since the last answer: the service may be to blame.
        self._suspects: list[str] = []
        self._refused_in_a_row = 0
        self._woken = asyncio.Event()
        self._open = contextlib.ExitStack()
        #: How many requests wait before their next try.
        self.resting = 0
        #: How many of them wait to learn whether a refusal concerned them alone.
        self.undecided = 0

    async def __aenter__(self) -> "Requester":
        self._open.enter_context(self.ledger.checkpoints_in_background())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        self._log.flush()
        await self._wire.__aexit__()
        self._open.close()

    @property
    def in_flight(self) -> int:
        """How many tries are under way."""
        return self._limiter.in_flight

    def nobody_else(self) -> None:
        """Say that all requests that are left are undecided."""
        self._circuit.nobody_else()

    def close(self) -> None:
        """Send nothing any more."""
        self._limiter.close()

    async def ask(self, order: int, id: str, body: dict[str, Any]) -> Entry:
        """Return the ledger's settled row, or ask until there is one.

        Args:
            order: Place of the request; lower ones go first.
            id: Its id in the stage.
            body: Of the HTTP request.
        """
        fingerprint = prompt_hash(body)
        entry = self.ledger.settled(self.stage, id, prompt_hash=fingerprint)
        if entry is None:
            await self._wire.open()
            job = Job(order, id, body, fingerprint, len(json.dumps(body, ensure_ascii=False).encode()))
            while (wait_s := await self._try_once(job)) is not None:
                with self._resting():
                    await asyncio.sleep(wait_s)
            entry = self.ledger.get(self.stage, id)
            assert entry is not None
        return entry

    async def _try_once(self, job: Job) -> float | None:
        """Send a request once; return the seconds to wait before the next try, None when it is settled."""
        ticket, held = await self._enter(job)
        try:
            outcome = await self._send(job, held)
            if isinstance(outcome, Answer):
                self._take(job, ticket, outcome)
                return None
            wait_s = self._judge(job, ticket, outcome)
        finally:
            self._circuit.withdrawn(ticket.number)
            self._limiter.leave(ticket)
            self.changed.set()
        if self._circuit.undecided and wait_s is not None and self._policy.asks_too_much(wait_s):
            await self._outlast(job, wait_s)
            return None
        return wait_s

    async def _enter(self, job: Job) -> tuple[Ticket, Try | None]:
        """Wait for the rate limits, and reserve the worst case right before sending."""
        tokens = self._estimator.of(job.prompt_bytes, most_completion_tokens(job.body) or 0)
        ticket = await self._limiter.admit(job.order, tokens)
        if self.budget is None:
            return ticket, None
        held = None
        try:
            held = self.budget.try_reserve(self.service.model, job.body, stage=self.stage, id=job.id)
        finally:
            if held is None:
                self._limiter.take_back(ticket)
        if held is None:
            held = await self.budget.reserve(self.service.model, job.body, stage=self.stage, id=job.id)
            try:
                ticket = await self._limiter.admit(job.order, tokens)
            except BaseException:
                self.budget.release(held)
                raise
        return ticket, held

    async def _send(self, job: Job, held: Try | None) -> Answer | RequestError:
        """Send a request once, and close its reservation by the known or unknown bill, however the try ends."""
        bill: Bill = "none"
        usage = (0, 0)
        try:
            job.tries += 1
            self.ledger.record_sent(self.stage, job.id, prompt_hash=job.fingerprint, request=job.body)
            bill = "unknown"
            answer = await self._wire.post(job.body)
            bill, usage = "counted", (answer.prompt_tokens, answer.completion_tokens)
            return answer
        except RequestError as error:
            bill, usage = error.bill, error.usage
            return error
        finally:
            if self.budget is not None and held is not None:
                job.cost_usd = self.budget.pay(held, bill, *usage)

    def _take(self, job: Job, ticket: Ticket, answer: Answer) -> None:
        """Record a reply, and update the rate limits and estimates."""
        self._suspects.clear()
        self._refused_in_a_row = 0
        self._policy.answered()
        self._limiter.observe(answer.limits)
        used = answer.prompt_tokens + answer.completion_tokens
        if used:
            self._limiter.counted(ticket, used)
            self._estimator.learn(job.prompt_bytes, answer.prompt_tokens, answer.completion_tokens)
        self._limiter.answered(ticket)
        self._circuit.answered(ticket.number)
        self.ledger.record_reply(self.stage, job.id, **answer.row(), cost_usd=job.cost_usd)

    def _judge(self, job: Job, ticket: Ticket, error: RequestError) -> float | None:
        """Handle an error: return the wait before a retry in seconds, None if the request failed, or end the run."""
        job.errors += 1
        self._limiter.observe(error.limits)
        if error.bill == "none":
            self._limiter.counted(ticket, 0)
        if self._policy.concerns_all(error):
            raise self._stop(error.what or "the address does not answer as an API", error)
        # As long as nobody is answered: a sentence that lists all limits may speak of those of a minute.
        job.told_daily += error.daily and job.answers_before in (None, self._policy.answers)
        if job.told_daily >= TOLD_DAILY:
            raise self._stop("the service's quota of the day (or a longer time) is used up", error)
        if error.kind == "final":
            self._refuse(job, ticket, error)
            return None
        whole, hopeless = self._blame(job, ticket, error)
        if error.busy:
            unexplained = error.kind == "refusal" and not error.limits.said
            self._limiter.overloaded(ticket, whole=whole, unexplained=unexplained)
        if self._circuit.ended:
            raise self._stop(self._circuit.ended, error)
        wait_s = error.limits.wait_s
        if hopeless or (self._policy.asks_too_much(wait_s) and not self._circuit.undecided):
            self._give_up(job, error)
            return None
        self._log.again(job.id, error)
        if wait_s is None and error.kind == "refusal" and error.limits.exhausted(ticket.tokens):
            wait_s = 0.0
        return self._policy.wait_s(job.errors, wait_s)

    def _blame(self, job: Job, ticket: Ticket, error: RequestError) -> tuple[bool, bool]:
        """Return whether the service as a whole caused an error, and whether the request has used up its tries."""
        if error.kind == "refusal":
            whole = self._circuit.refused(ticket.number, error.limits, ticket.tokens, str(error))
            if job.answers_before is None:
                job.answers_before = self._policy.answers
            # Where others were answered meanwhile, the request itself may be what is refused.
            job.refusals += not whole or self._policy.answers > job.answers_before
            return whole, job.refusals >= REFUSALS_PER_TRY * self.service.max_tries
        unreachable = error.code == "unreachable"
        whole = self._circuit.failed(ticket.number, job.id, unreachable=unreachable, words=str(error))
        job.faults += not whole
        job.paid += error.paid
        return whole, job.faults >= self.service.max_tries or job.paid >= PAID_TWICE

    async def _outlast(self, job: Job, wait_s: float) -> None:
        """Wait until it is clear whether a very long wait applies to this request only."""
        self.undecided += 1
        try:
            with self._resting():
                while self._circuit.undecided and not self._circuit.ended:
                    self._woken.clear()
                    await self._woken.wait()
        finally:
            self.undecided -= 1
        error = RequestError("rate-limited", f"told to wait {in_words(wait_s)}", "refusal")
        if self._circuit.ended:
            raise self._stop(self._circuit.ended, error)
        self._give_up(job, error, wait_s)

    @contextlib.contextmanager
    def _resting(self) -> Iterator[None]:
        """Free the request's slot while it waits."""
        self.resting += 1
        self.changed.set()
        try:
            yield
        finally:
            self.resting -= 1

    def _wake(self) -> None:
        self._woken.set()
        asyncio.get_running_loop().call_soon(self._limiter.pump)

    def _refuse(self, job: Job, ticket: Ticket, error: RequestError) -> None:
        """Record a request that the service rejects however often it is sent."""
        self._circuit.answered(ticket.number)
        # A content filter concerns a single text, however many are filtered in a row.
        self._refused_in_a_row += error.code == "bad-request"
        self._give_up(job, error)
        if self._refused_in_a_row >= REFUSED_IN_A_ROW:
            raise self._stop(f"{REFUSED_IN_A_ROW} requests in a row failed", error)

    def _give_up(self, job: Job, error: RequestError, wait_s: float | None = None) -> None:
        """Record a request as failed."""
        wait_s = error.limits.wait_s if wait_s is None else wait_s
        words = str(error)
        if wait_s is not None and self._policy.asks_too_much(wait_s):
            patience = in_words(self.service.patience_s)
            words += f"; not before {utc_in(wait_s)}, which is beyond the patience of {patience}"
        if job.tries > 1:
            words += f" (after {job.tries} tries)"
        self.ledger.record_failure(self.stage, job.id, error=words)
        self._log.give_up(job.id, error.code, words)
        if error.kind != "final" or error.page:
            self._suspects.append(job.id)

    def _stop(self, what: str, error: RequestError) -> Stop:
        """Return the error that ends the run, and reopen the requests that failed with transient errors since."""
        for id in self._suspects:
            self.ledger.reopen(self.stage, id)
        self._suspects.clear()
        self.close()
        return self._policy.stop(what, error)
