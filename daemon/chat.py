"""One chat: who is asked, how often, and who else when that fails.

Until the answer has begun a failure may be mended by another try (retry) or by another runner (fallback); both are told
as chunks. All tries share the request's time. From `start` on the stream is the one runner's own.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

import structlog

from daemon.breaker import STATED, Admission
from daemon.gate import Gate
from daemon.registry import Route
from daemon.supervisor import Supervisor
from daemon.tally import RunnerTally
from daemon.turn import answer
from runners.errors import RunnerError
from runners.messages import ChatRequest, Usage
from runners.stream import ChatChunk, Done, Failed, Retrying, Start, UsageReport, Warn
from runners.wire.deadlines import within

_NOBODY_MENDS = ("invalid_request", "model_not_found", "cancelled")
"""All else another runner may do: it has a login, a window and a program of its own."""

_log = structlog.get_logger()


class Chat:
    """A request on its way. `client` names who sent it: nobody gets more than the others. `tally` has, by the
    runner's name, who is told its end."""

    def __init__(
        self,
        request: ChatRequest,
        supervisor: Supervisor,
        client: str,
        *,
        tally: Callable[[str], RunnerTally],
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._request = request
        self._supervisor = supervisor
        self._client = client
        self._tally = tally
        self._jitter = jitter
        self._said: set[str] = set()
        self._ends_s = 0.0
        self._has_begun = False

    async def answer(self, routes: Iterator[Route]) -> AsyncGenerator[ChatChunk, None]:
        """The chunks of the answer of the first of `routes` that gives one; raises the last failure when none does."""
        began_s, outcome, usage = time.monotonic(), "cancelled", Usage()
        route: Route | None = next(routes)
        assert route is not None
        self._ends_s = began_s + route.runner.timeouts(self._request).turn_s
        try:
            while route is not None:
                following = next(routes, None)
                try:
                    async with aclosing(self._asked(route, is_last=following is None)) as chunks:
                        async for chunk in chunks:
                            if isinstance(chunk, (Done, Failed)):
                                outcome = chunk.stop_reason if isinstance(chunk, Done) else chunk.error.kind
                            elif isinstance(chunk, UsageReport):
                                usage = chunk.usage
                            yield chunk
                except RunnerError as error:
                    outcome = error.kind
                    error.runner = error.runner or route.runner.name
                    if following is None or self._has_begun or error.kind in _NOBODY_MENDS or self._left_s <= 0:
                        raise
                    # How it ends is from now on told of who is asked next.
                    self._tally(route.runner.name).ended(outcome, time.monotonic() - began_s, usage)
                    began_s, outcome = time.monotonic(), "cancelled"
                    yield Warn(f"{route.runner.name} cannot answer ({error.message}): {following.runner.name} is asked")
                    route = following
                else:
                    return
        finally:
            duration_s = round(time.monotonic() - began_s, 3)
            model = route.model or route.runner.default_model
            self._tally(route.runner.name).ended(outcome, duration_s, usage)
            _log.info("chat.ended", runner=route.runner.name, model=model, outcome=outcome, duration_s=duration_s)

    @property
    def _left_s(self) -> float:
        return self._ends_s - time.monotonic()

    async def _asked(self, route: Route, *, is_last: bool) -> AsyncGenerator[ChatChunk, None]:
        retry = route.runner.settings.retry
        for attempt in range(1, retry.attempts + 1):
            # Each time: while this one waits, its runner may have been replaced, and have no chat any more.
            gate = self._supervisor.gate(route.runner)
            was_admitted = False
            try:
                async with gate.place(self._client, limit_s=self._left_s) as place:
                    was_admitted = True
                    async with aclosing(self._tried(route, place.admission)) as chunks:
                        async for chunk in chunks:
                            with place.client_reads:
                                yield chunk
            except RunnerError as error:
                # Whom its vendor makes wait may find that others were told to come later still.
                is_worth_it = was_admitted or (attempt > 1 and error.kind in STATED)
                delay_s = self._delay_s(error, attempt, gate, is_last=is_last) if is_worth_it else None
                if delay_s is None:
                    raise
                _log.info("chat.retrying", runner=route.runner.name, error=error.kind, delay_s=round(delay_s, 3))
                retrying = Retrying(attempt, retry.attempts, round(delay_s, 3), error.kind)
            else:
                return
            yield retrying
            await asyncio.sleep(delay_s)

    def _delay_s(self, error: RunnerError, attempt: int, gate: Gate, *, is_last: bool) -> float | None:
        """How long to wait for the next try; None when there is to be none."""
        retry = gate.runner.settings.retry
        # A deadline is as long as somebody wanted to wait.
        if attempt == retry.attempts or self._has_begun or not error.retryable or error.kind == "timeout":
            return None
        delay_s = self._jitter(0, min(retry.cap_s, retry.base_s * 2 ** (attempt - 1))) + (error.retry_after_s or 0)
        refusal = gate.breaker.refusal()
        is_refused = refusal is not None and (refusal.retry_after_s or 0) > delay_s
        # Who has another to ask does not wait for long.
        if is_refused or delay_s >= self._left_s or (delay_s > retry.cap_s and not is_last):
            return None
        return delay_s

    async def _tried(self, route: Route, admission: Admission) -> AsyncGenerator[ChatChunk, None]:
        runner = route.runner
        request = self._request.model_copy(update={"model": route.model})
        turn_s = min(self._left_s, runner.timeouts(request).turn_s)
        rest = request.timeouts.model_copy(update={"turn_s": turn_s})
        request = request.model_copy(update={"timeouts": rest})
        try:
            async with aclosing(answer(self._supervisor.pool(runner), request)) as stream:
                while (chunk := await self._next(stream)) is not None:
                    if isinstance(chunk, Start):
                        self._has_begun = True
                        admission.begun()
                    elif isinstance(chunk, Done):
                        self._supervisor.succeeded(runner, admission)
                    elif isinstance(chunk, Failed):
                        self._supervisor.failed(runner, admission, chunk.error)
                    if self._is_news(chunk):
                        yield chunk
        except RunnerError as error:
            self._supervisor.failed(runner, admission, error)
            raise

    async def _next(self, stream: AsyncGenerator[ChatChunk, None]) -> ChatChunk | None:
        """The next chunk, None behind the last. Until the answer begins, the request's time ends whatever is done."""
        try:
            if self._has_begun:
                return await anext(stream)
            return await within(anext(stream), self._left_s, deadline="turn_s", doing="beginning the answer")
        except StopAsyncIteration:
            return None

    def _is_news(self, chunk: ChatChunk) -> bool:
        """Not a warning that another try gave already."""
        if not isinstance(chunk, Warn):
            return True
        is_new = chunk.message not in self._said
        self._said.add(chunk.message)
        return is_new
