"""The thread that runs the engine, fed from other threads."""

import logging
import queue
import threading
from collections.abc import Callable

from alpacare_jax.errors import ServiceError
from alpacare_jax.generate.engine import Engine
from alpacare_jax.generate.generation import Generation

logger = logging.getLogger(__name__)

Listener = Callable[[str, str], None]
"""Called in the worker's thread with the text so far and the finish reason: "" while the request runs, and "error"
where it will never end."""


class RequestFailed(ServiceError):
    """A request took part in a step of the engine that failed."""


class Worker:
    """Runs an engine in a thread of its own, and tells each request's listener of new text and of its end.

    A step that fails ends the requests that took part in it, and the engine goes on. Where it cannot, ``failure`` is
    set, whoever waits is told, and the thread ends.

    Args:
        engine: The engine; only this thread uses it from now on, but for :meth:`Engine.check`.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.failure: BaseException | None = None
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._listeners: dict[Generation, Listener] = {}
        self._thread = threading.Thread(target=self._run, name="alpacare-engine", daemon=True)
        self._stopping = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def give_up(self) -> None:
        """Take no more requests, end the unfinished ones in error, and let the thread end."""
        self._stopping = True
        self._inbox.put(lambda: None)  # wakes the thread

    def stop(self, timeout_s: float = 30.0) -> None:
        """Give up and wait for the thread to end."""
        self.give_up()
        self._thread.join(timeout_s)

    def submit(self, generation: Generation, listener: Listener) -> None:
        """Queue a request that :meth:`Engine.check` has passed.

        Raises:
            ServiceError: The engine has failed.
        """
        self._listeners[generation] = listener
        self._inbox.put(lambda: self._submit(generation))
        if self._stopping:  # asked last: a thread that ends later has told the listener
            raise self.reason()

    def reason(self) -> ServiceError:
        """Say why requests end in error."""
        if self.failure is not None:
            return ServiceError(
                "the generator has failed; the server's log says why",
                found=f"{type(self.failure).__name__}: {self.failure}"[:300],
                remedy="restart the server",
            )
        if self._stopping:
            return ServiceError("the server is shutting down")
        return RequestFailed("the generator failed while it answered this request; the server's log says why")

    def cancel(self, generation: Generation) -> None:
        """Cancel a request, so that its row becomes free; nothing happens if it has ended."""
        self._listeners.pop(generation, None)
        self._inbox.put(lambda: self.engine.cancel(generation))

    def _run(self) -> None:
        try:
            while not self._stopping:
                if self.engine.busy and self._inbox.empty():
                    self._step()
                else:
                    self._inbox.get()()
        except BaseException as error:
            # Waiting requests are told below; the thread ends here, and the server with it.
            logger.exception("the engine has failed")
            self.failure = error
        finally:
            self._stopping = True
            for listener in list(self._listeners.values()):
                listener("", "error")

    def _step(self) -> None:
        try:
            news = self.engine.step()
        except Exception:  # one request's failure must not end the others
            logger.exception("an engine step failed; its requests are answered with an error")
            self.engine.recover()
            news = [generation for generation in list(self._listeners) if generation.done]
        for generation in news:
            self._tell(generation)

    def _submit(self, generation: Generation) -> None:
        try:
            self.engine.submit(generation)
        except Exception:  # as in a step
            logger.exception("the engine refused a request")
            generation.finish_reason = "error"
            self._tell(generation)

    def _tell(self, generation: Generation) -> None:
        if listener := self._listeners.get(generation):
            listener(generation.text, generation.finish_reason)
        if generation.done:
            self._listeners.pop(generation, None)
