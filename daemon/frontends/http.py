"""The HTTP server: the doors of the vendors' APIs, and what monitors ask.

Owns connections and who is being answered; who may come in is `guard`'s business, each API that of its dialect.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from daemon.frontends import chat_completions, messages, probes, responses
from daemon.frontends.exchange import BODY, Dialect, Exchange, body_of, json_response, refusal
from daemon.frontends.guard import Guard, WrongTokenError
from daemon.frontends.model_list import ModelList
from daemon.frontends.strangers import Strangers
from daemon.service import Service
from runners.errors import RequestCancelledError, RunnerError

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = structlog.get_logger()
_server_log = logging.getLogger("daemon.http")


class HttpFrontend:
    """Serves HTTP on sockets that are bound already. `body_cap_bytes` may be changed."""

    def __init__(self, service: Service, guard: Guard, *, body_cap_bytes: int) -> None:
        self.body_cap_bytes = body_cap_bytes
        self._service = service
        self._guard = guard
        self._dialects: dict[str, Dialect] = {
            "/v1/chat/completions": chat_completions.ChatCompletions(),
            "/v1/responses": responses.Responses(),
            "/v1/messages": messages.Messages(),
        }
        self._accepting: list[asyncio.Task[None]] = []
        self._requests: set[asyncio.Task[None]] = set()
        self._answering: set[asyncio.Task[None]] = set()  # of these the ones that are there whole
        self._is_closing = False
        self._last_use_s = time.monotonic()
        self._runner = web.AppRunner(
            self._app(), handler_cancellation=True, access_log=None, logger=_server_log, shutdown_timeout=0.1
        )

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._received])
        for path, dialect in self._dialects.items():
            exchange = Exchange(self._service, dialect, is_closing=lambda: self._is_closing)
            app.router.add_post(path, exchange.answered)
        app.router.add_post("/v1/messages/count_tokens", self._count_tokens)
        ModelList(self._service).add_to(app.router)
        probes.Probes(self._service).add_to(app.router)
        return app

    async def start(self, listening: list[socket.socket]) -> None:
        """Accepts connections."""
        await self._runner.setup()
        assert self._runner.server is not None
        self._strangers = Strangers(self._runner.server)
        for bound in listening:
            if bound.family != socket.AF_UNIX:
                self._accepting.append(asyncio.create_task(self._strangers.accept(bound), name="http-accept"))
                continue
            # As for the other socket: without descriptors asyncio tries, and logs, as often as its backlog is long.
            await web.SockSite(self._runner, bound, backlog=1).start()
            bound.listen(socket.SOMAXCONN)

    @property
    def answering(self) -> list[asyncio.Task[None]]:
        """The requests that are there, and have no answer yet."""
        return list(self._answering)

    @property
    def unused_s(self) -> float:
        """Seconds since the last request for a model was answered; 0 while any request is."""
        return 0.0 if self._answering else time.monotonic() - self._last_use_s

    async def aclose(self) -> None:
        """Accepts no more, and ends every answer that still runs, saying so."""
        self._is_closing = True
        for accepting in self._accepting:
            accepting.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        self._strangers.aclose()
        requests = list(self._requests)
        for request in requests:
            request.cancel()
        if requests:
            await asyncio.wait(requests, timeout=1)
        await self._runner.cleanup()

    async def _count_tokens(self, request: web.Request) -> web.Response:
        return json_response(messages.counted(request[BODY]))

    def _dialect(self, request: web.Request) -> Dialect:
        return next(
            (dialect for path, dialect in self._dialects.items() if path in request.path),
            self._dialects["/v1/chat/completions"],
        )

    def _hint(self, path: str) -> str:
        """What is meant by a path that there is not: its base is wrong then."""
        meant = [one for one in (*self._dialects, "/v1/models") if path.endswith(one.removeprefix("/v1"))]
        return f" (it is {meant[0]})" if meant and meant[0] != path else ""

    @web.middleware
    async def _received(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Every request: who has sent it, and what becomes of its failure."""
        task = asyncio.current_task()
        assert task is not None
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        if request.transport is not None:
            # What is written has left us then: nothing of an answer is lost when the daemon ends behind it.
            request.transport.set_write_buffer_limits(high=0)
        try:
            self._guard.check(request)
            self._strangers.is_known(request.transport)
            if request.method == "POST":
                request[BODY] = await body_of(request, self.body_cap_bytes)
            self._answering.add(task)
            # Then its client has taken its answer, or has gone.
            task.add_done_callback(self._answering.discard)
            if request.path.startswith("/v1/"):
                task.add_done_callback(self._used)
            return await handler(request)
        except WrongTokenError as error:
            response = refusal(self._dialect(request), error)
            response.headers["www-authenticate"] = "Bearer"
            return response
        except RunnerError as error:
            return refusal(self._dialect(request), error)
        except web.HTTPException as error:
            message = f"{request.method} {request.path}: {error.reason}{self._hint(request.path)}"
            body = self._dialect(request).error(error.status, message, None)
            headers = {name: value for name, value in error.headers.items() if name.lower() == "allow"}
            return json_response(body, error.status, headers)
        except asyncio.CancelledError:
            if not self._is_closing:
                raise
            return refusal(self._dialect(request), RequestCancelledError("the daemon ends, and the request was cut"))
        except Exception:  # noqa: BLE001 a bug of ours, whatever it is: its client is told in the form that it reads
            _log.exception("http.bug", method=request.method, path=request.path)
            return json_response(self._dialect(request).error(500, "a bug in runnerd: see its log", None), 500)

    def _used(self, _task: asyncio.Task[None]) -> None:
        """Somebody had a use for the daemon: not a monitor, nor who was refused."""
        self._last_use_s = time.monotonic()


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether it is no client's fault that is logged: such hold what it has sent, its token too."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError)


_server_log.addFilter(_is_ours)
