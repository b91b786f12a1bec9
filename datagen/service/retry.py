"""Asking single requests of one service: bounded tries, limits kept, money set aside, every outcome in the ledger.

A refusal because of a limit costs a request none of its tries where the service as a whole is meant. Where it is
meant alone, it may be refused three times as often as it may fail. A request that is told to wait longer than
the patience is recorded as failed, with the time that it was given: asking earlier would be asking in vain.
"""

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from datagen.ledger import Entry, Ledger
from datagen.money.bounds import most_completion_tokens
from datagen.service.chat import prompt_hash
from datagen.service.circuit import Circuit, backoff_s
from datagen.service.estimator import TokenEstimator
from datagen.service.limiter import Limiter, Ticket
from datagen.service.limits import in_words, utc_in
from datagen.service.stop import AT_ONCE, Stop, stop_for
from datagen.service.trouble_report import FailureLog
from datagen.service.wire import Answer, RequestError, Service, Wire

if TYPE_CHECKING:
    from datagen.money.account import Bill, Reservation
    from datagen.money.budget import Budget

#: This many requests in a row that are refused for what they say mean that all of them are wrong.
REFUSED_IN_A_ROW = 5
#: Once the service has answered, so many refusals of the key or the model in a row, without an answer in between, mean
#: it; fewer are a proxy's whim. So many web pages in a row, before the first answer, mean a wrong address.
STRAYS_IN_A_ROW = 3
#: So many replies that are billed and cannot be used are taken for one request.
PAID_TWICE = 2
#: A request that is told so often that a quota of a day is used up need not be asked again today.
TOLD_DAILY = 3
#: A request may be told "later" so many times as often as it may fail.
REFUSALS_PER_TRY = 3


@dataclasses.dataclass
class Job:
    """One request on its way: its place, its body, and what it went through."""

    order: int
    id: str
    body: dict[str, Any]
    fingerprint: str
    prompt_bytes: int
    tries: int = 0
    faults: int = 0
    refusals: int = 0
    troubles: int = 0
    paid: int = 0
    told_daily: int = 0
    #: How many answers had come when it was first refused.
    answers_before: int | None = None


class Sender:
    """Asks single requests of one service and settles each in the ledger; an asynchronous context manager.

    Args:
        service: Where to ask.
        ledger: Where every try and outcome is written down.
        stage: The ledger's stage.
        budget: Sets the worst case of every try aside, if there is a cap or costs are to be known.
        changed: Called whenever a try has ended.
    """

    def __init__(
        self,
        service: Service,
        ledger: Ledger,
        stage: str,
        budget: "Budget | None" = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.service, self.ledger, self.stage, self.budget = service, ledger, stage, budget
        self._changed = changed
        self._wire = Wire(service)
        clock = asyncio.get_running_loop().time
        self._breaker = Circuit(
            patience_s=service.patience_s,
            first_wait_s=service.first_wait_s,
            max_tries=service.max_tries,
            clock=clock,
            woken=self._wake,
            address=service.base_url,
        )
        self._pace = Limiter(service, self._breaker, clock)
        self._appetite = TokenEstimator()
        self._suspects: list[str] = []
        self._refused_in_a_row = self._strays_in_a_row = 0
        self._answers = 0
        self._undecided: list[asyncio.Future[None]] = []
        self._report = FailureLog(stage)
        self._open = contextlib.ExitStack()
        #: How many requests wait before their next try.
        self.resting = 0

    async def __aenter__(self) -> "Sender":
        self._open.enter_context(self.ledger.checkpoints_in_background())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pace.close()
        self._report.flush()
        await self._wire.__aexit__()
        self._open.close()

    @property
    def in_flight(self) -> int:
        """How many tries are under way."""
        return self._pace.in_flight

    @property
    def undecided(self) -> int:
        """How many requests wait to learn whether a refusal concerned them alone."""
        return len(self._undecided)

    def nobody_else(self) -> None:
        """Say that all requests that are left are undecided."""
        self._breaker.nobody_else()

    def close(self) -> None:
        """Send nothing any more."""
        self._pace.close()

    async def ask(self, order: int, id: str, body: dict[str, Any]) -> Entry:
        """Return the ledger's settled row, or ask until there is one.

        Args:
            order: Place of the request; lower ones go first.
            id: Its id in the stage.
            body: Of the HTTP request.
        """
        fingerprint = prompt_hash(body)
        entry = self.ledger.get(self.stage, id, prompt_hash=fingerprint)
        if entry is None or entry.state == "sent":
            await self._wire.open()
            job = Job(order, id, body, fingerprint, len(json.dumps(body, ensure_ascii=False).encode()))
            while (wait_s := await self._try_once(job)) is not None:
                await self._rest(asyncio.sleep(wait_s))
            entry = self.ledger.get(self.stage, id)
            assert entry is not None
        return entry

    async def _try_once(self, job: Job) -> float | None:
        """Send a request once; return the seconds to wait before the next try, None when it is settled."""
        ticket, reservation = await self._enter(job)
        bill: Bill | None = "none"
        try:
            job.tries += 1
            self.ledger.record_sent(self.stage, job.id, prompt_hash=job.fingerprint, request=job.body)
            bill = "unknown"
            try:
                answer = await self._wire.post(job.body)
            except RequestError as trouble:
                bill = None
                self._pay(reservation, trouble.bill, *trouble.usage)
                wait_s = self._judge(job, ticket, trouble)
            else:
                bill = None
                cost = self._pay(reservation, "counted", answer.prompt_tokens, answer.completion_tokens)
                self._take(job, ticket, answer, cost)
                return None
        finally:
            if bill is not None:
                self._pay(reservation, bill)
            self._breaker.withdrawn(ticket.number)
            self._pace.leave(ticket)
            self._changed()
        if wait_s is not None and self._breaker.undecided and self._asks_too_much(wait_s):
            await self._outlast(job, wait_s)
            return None
        return wait_s

    async def _enter(self, job: Job) -> "tuple[Ticket, Reservation | None]":
        """Wait for the limits, and set money aside at the last moment before sending."""
        tokens = self._appetite.of(job.prompt_bytes, most_completion_tokens(job.body) or 0)
        ticket = await self._pace.admit(job.order, tokens)
        if self.budget is None:
            return ticket, None
        model, stage = self.service.model, self.stage
        try:
            reservation = self.budget.try_reserve(model, job.body, stage=stage, id=job.id)
        except BaseException:
            self._pace.take_back(ticket)
            raise
        if reservation is None:
            self._pace.take_back(ticket)
            reservation = await self.budget.reserve(model, job.body, stage=stage, id=job.id)
            try:
                ticket = await self._pace.admit(job.order, tokens)
            except BaseException:
                self.budget.release(reservation)
                raise
        return ticket, reservation

    def _pay(
        self,
        reservation: "Reservation | None",
        bill: "Bill",
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
    ) -> float | None:
        """Close a reservation by what is known of the bill; return the cost in US dollars where it is counted."""
        if self.budget is None or reservation is None:
            return None
        return self.budget.pay(reservation, bill, prompt_tokens, completion_tokens)

    def _take(self, job: Job, ticket: Ticket, answer: Answer, cost_usd: float | None) -> None:
        """Write a reply down and learn from it."""
        self._suspects.clear()
        self._refused_in_a_row = self._strays_in_a_row = 0
        self._answers += 1
        self._pace.hear(answer.limits)
        used = answer.prompt_tokens + answer.completion_tokens
        if used:
            self._pace.counted(ticket, used)
            self._appetite.learn(job.prompt_bytes, answer.prompt_tokens, answer.completion_tokens)
        self._pace.answered(ticket)
        self._breaker.answered(ticket.number)
        self.ledger.record_reply(self.stage, job.id, **answer.row(), cost_usd=cost_usd)

    def _judge(self, job: Job, ticket: Ticket, trouble: RequestError) -> float | None:
        """Decide what follows from a trouble: a wait in seconds, None for a failure for good, or the end."""
        job.troubles += 1
        self._pace.hear(trouble.limits)
        if trouble.bill == "none":
            self._pace.counted(ticket, 0)
        if self._concerns_all(trouble):
            raise self._stop(trouble.what or "the address does not answer as an API", trouble)
        # As long as nobody is answered: a sentence that lists all limits may speak of those of a minute.
        job.told_daily += trouble.daily and job.answers_before in (None, self._answers)
        if job.told_daily >= TOLD_DAILY:
            raise self._stop("the service's quota of the day (or a longer time) is used up", trouble)
        if trouble.kind == "final":
            self._refuse(job, ticket, trouble)
            return None
        wait_s = trouble.limits.wait_s
        if trouble.kind == "refusal":
            whole = self._breaker.refused(ticket.number, trouble.limits, ticket.tokens, str(trouble))
            if job.answers_before is None:
                job.answers_before = self._answers
            # Where others were answered meanwhile, the request itself may be what is refused.
            job.refusals += not whole or self._answers > job.answers_before
            hopeless = job.refusals >= REFUSALS_PER_TRY * self.service.max_tries
            exhausted = trouble.limits.exhausted(ticket.tokens)
            if wait_s is None and exhausted:
                wait_s = 0.0
        else:
            unreachable = trouble.code == "unreachable"
            whole = self._breaker.failed(ticket.number, job.id, unreachable=unreachable, words=str(trouble))
            job.faults += not whole
            job.paid += trouble.paid
            hopeless = job.faults >= self.service.max_tries or job.paid >= PAID_TWICE
        if trouble.busy:
            unexplained = trouble.kind == "refusal" and not trouble.limits.said
            self._pace.overloaded(ticket, whole=whole, unexplained=unexplained)
        if self._breaker.ended:
            raise self._stop(self._breaker.ended, trouble)
        if hopeless or (self._asks_too_much(wait_s) and not self._breaker.undecided):
            self._give_up(job, trouble)
            return None
        self._report.add(job.id, trouble)
        if wait_s is not None:
            # Never earlier than asked, and a little later each time.
            return wait_s + backoff_s(self.service.first_wait_s / 4, job.troubles)
        return backoff_s(self.service.first_wait_s, job.troubles)

    def _concerns_all(self, trouble: RequestError) -> bool:
        """Tell whether no request will be answered: a lone refusal after answers may be a proxy's, and passes."""
        # A field that all requests share, unless others were taken with it: several services may share one address.
        if trouble.kind == "final" and trouble.what and not self._answers:
            return True
        no_api = trouble.page and not self._answers and trouble.code in ("bad-reply", "bad-request")
        if trouble.kind != "fatal" and not no_api:
            return False
        self._strays_in_a_row += 1
        if trouble.kind == "fatal" and (not self._answers or trouble.code not in AT_ONCE):
            return True
        return self._strays_in_a_row >= STRAYS_IN_A_ROW

    def _asks_too_much(self, wait_s: float | None) -> bool:
        return wait_s is not None and wait_s > self.service.patience_s

    async def _outlast(self, job: Job, wait_s: float) -> None:
        """Wait until it is clear whether a very long wait was meant for this request alone."""
        decision: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._undecided.append(decision)
        try:
            await self._rest(decision)
        finally:
            self._undecided.remove(decision)
        trouble = RequestError("rate-limited", f"told to wait {in_words(wait_s)}", "refusal")
        if self._breaker.ended:
            raise self._stop(self._breaker.ended, trouble)
        self._give_up(job, trouble, wait_s)

    async def _rest(self, until: Awaitable[None]) -> None:
        """Wait, and let another request be taken up meanwhile."""
        self.resting += 1
        self._changed()
        try:
            await until
        finally:
            self.resting -= 1

    def _wake(self) -> None:
        for decision in self._undecided:
            if not decision.done() and (self._breaker.ended or not self._breaker.undecided):
                decision.set_result(None)
        asyncio.get_running_loop().call_soon(self._pace.pump)

    def _refuse(self, job: Job, ticket: Ticket, trouble: RequestError) -> None:
        """Record that the service will not take a request, whenever it is sent."""
        self._breaker.answered(ticket.number)
        # What is filtered concerns one text alone, however many there are in a row.
        self._refused_in_a_row += trouble.code == "bad-request"
        self._give_up(job, trouble)
        if self._refused_in_a_row >= REFUSED_IN_A_ROW:
            raise self._stop(f"{REFUSED_IN_A_ROW} requests in a row failed", trouble)

    def _give_up(self, job: Job, trouble: RequestError, wait_s: float | None = None) -> None:
        """Record that a request failed for good."""
        wait_s = trouble.limits.wait_s if wait_s is None else wait_s
        words = str(trouble)
        if self._asks_too_much(wait_s):
            assert wait_s is not None
            patience = in_words(self.service.patience_s)
            words += f"; not before {utc_in(wait_s)}, which is beyond the patience of {patience}"
        if job.tries > 1:
            words += f" (after {job.tries} tries)"
        self.ledger.record_failure(self.stage, job.id, error=words)
        self._report.give_up(job.id, trouble.code, words)
        if trouble.kind != "final" or trouble.page:
            self._suspects.append(job.id)

    def _stop(self, what: str, trouble: RequestError) -> Stop:
        """Make the error that ends the run; requests that failed with nothing but faults since are not to blame."""
        for id in self._suspects:
            self.ledger.reopen(self.stage, id)
        self._suspects.clear()
        self._pace.close()
        return stop_for(self.service, self.stage, what, trouble)
