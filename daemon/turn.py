"""One turn of a chat in a session of its runner's pool: found, told what it has not heard, and given back."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

from daemon.choice import Wanted
from daemon.conversation import parted, told
from daemon.pool import Pool
from daemon.worker import Worker
from runners.errors import RunnerError
from runners.messages import ChatRequest, Served
from runners.provider import LlmProvider, Session
from runners.stream import ChatChunk, Done, Failed, ResponseBuilder, Start

_OF_THE_LOGIN = ("not_authenticated", "auth_expired", "permission")


async def answer(pool: Pool, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
    """The chunks of an answer, see LlmProvider.complete_stream; its `start` says how it was served.

    When `done` comes its session is free for the next request. One whose turn was cancelled or failed is kept where
    its conversation is still what it was before, and has else been closed when the stream ends.
    """
    began_s = time.monotonic()
    provider = pool.runner.with_model(request.model) if request.model else pool.runner
    await provider.started_within(request, provider.discover())
    for warning in provider.preflight(request):
        yield warning
    history, new = parted(request.conversation)
    has_only_results = all(message.role == "tool" for message in new) and provider.resumes(new)
    results = frozenset(str(message.tool_call_id) for message in new if has_only_results)
    calls = frozenset(call.id for message in history for call in message.tool_calls)
    root = told(request.conversation[:1])
    wanted = Wanted(provider.default_model, provider.session_options(request), told(history), results, root, calls)
    worker = await pool.taken(provider, wanted)
    done, reply, is_login_wrong = None, ResponseBuilder(), False
    try:
        session = await _ready(worker, provider, request, wanted)
        was_parked = session.state == "parked"
        messages = request.conversation if worker.is_blank else [*new]
        session_s = round(time.monotonic() - began_s, 4)
        async with session.turn(messages, provider.sampling(request)) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Done):
                    done = chunk
                    continue
                if isinstance(chunk, Start):
                    served = _served(worker, session, began_s, was_parked=was_parked)
                    chunk = replace(chunk, served=served, session_s=session_s)  # noqa: PLW2901
                    pool.has_begun(provider, chunk.served, session_s)
                if isinstance(chunk, Failed):
                    is_login_wrong = chunk.error.kind in _OF_THE_LOGIN
                else:
                    reply.add(chunk)
                yield chunk
        if done is not None and done.stop_reason != "cancelled":
            reply.add(done)
            response = reply.response()
            worker.conversation = told([*new, response.as_message()], after=wanted.history)
            worker.awaits, worker.root = session.awaits, wanted.root
    except RunnerError as error:
        is_login_wrong = error.kind in _OF_THE_LOGIN
        raise
    finally:
        closing = pool.give_back(worker)
        if is_login_wrong:
            pool.start_over()
        if closing is not None and done is None:
            # Who tries again must not join a process that is deaf, nor find those in its way that still end.
            await asyncio.shield(closing)
    if done is not None:
        yield done


async def _ready(worker: Worker, provider: LlmProvider, request: ChatRequest, wanted: Wanted) -> Session:
    """The session of a worker, once it is open and prepared."""
    session = await provider.started_within(request, asyncio.shield(worker.opening))
    session.timeouts = provider.timeouts(request)
    if worker.options is None:
        await session.prepare(wanted.options)
        worker.options = wanted.options
    return session


def _served(worker: Worker, session: Session, began_s: float, *, was_parked: bool) -> Served:
    if session.process is not None and session.process.start_time >= began_s:
        return "cold"
    if worker.is_blank or session.resent:
        return "warm"
    return "resumed" if was_parked else "continued"
