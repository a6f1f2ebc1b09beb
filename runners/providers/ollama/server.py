"""Where the Ollama server is: the user's own where one answers, else `ollama serve` as a child of ours."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from runners.errors import (
    NetworkError,
    ProcessExitedError,
    ProtocolError,
    RequestCancelledError,
    RunnerError,
)
from runners.process_session import json_object
from runners.provider import ProcessRef
from runners.providers.ollama.events import failure
from runners.providers.ollama.settings import ollama_url
from runners.translator import Event
from runners.wire.deadlines import within
from runners.wire.framing import dump_json
from runners.wire.process import CliProcess
from runners.wire.restarts import Restarts

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ANSWERS_WITHIN_S = 2.0
_TRIES_EVERY_S = 0.05
_LISTENING = re.compile(r"Listening on 127\.0\.0\.1:(\d+) ")


Command = tuple[Sequence[str], Mapping[str, str], Path]


async def ask(url: str, method: str, path: str, body: Event | None = None, *, limit_s: float) -> Event:
    """A whole answer of the server at `url`; NetworkError when none comes, the server's own error when it refuses."""
    limit = aiohttp.ClientTimeout(total=limit_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit) as http,
            http.request(method, url + path, data=body and dump_json(body)) as response,
        ):
            answer = json_object(await response.read())
    except (aiohttp.ClientError, TimeoutError, UnicodeError) as error:  # the last from a host that is no name
        raise NetworkError(f"no Ollama answers at {url}: {str(error) or f'not within {limit_s:g} s'}") from error
    if answer is None:
        raise NetworkError(f"what answers at {url} is no Ollama")
    if response.status != 200:
        raise failure(response.status, answer)
    return answer


async def version(url: str, *, limit_s: float = _ANSWERS_WITHIN_S) -> str:
    """The version of the Ollama at `url`; NetworkError when none answers there, or something else does."""
    try:
        said = (await ask(url, "GET", "/api/version", limit_s=limit_s)).get("version")
    except NetworkError:
        raise
    except RunnerError as error:
        raise NetworkError(f"what answers at {url} is no Ollama: {error.message}") from error
    if not isinstance(said, str):
        raise NetworkError(f"what answers at {url} is no Ollama")
    return said


@dataclass(frozen=True, slots=True)
class Found:
    """A server that answers: its address, its version, and the server itself when it is ours."""

    url: str
    version: str
    ours: "OllamaServe | None"


class Servers:
    """Finds the server for each request.

    `command` gives argv, environment and directory for `ollama serve`, when that is needed.
    """

    def __init__(self, host: str, command: Callable[[], Command], *, spawn_s: float) -> None:
        self._host = host
        self._command = command
        self._spawn_s = spawn_s
        self._starting: asyncio.Task[OllamaServe] | None = None
        self._restarts = Restarts()
        self._has_failed = False

    @property
    def ours(self) -> "OllamaServe | None":
        """The server that we started, once it has answered."""
        started = self._starting
        if started is None or not started.done() or started.cancelled() or started.exception():
            return None
        return started.result()

    async def find(self, *, ours_is_used: Callable[[], bool]) -> Found:
        """A server that answers.

        The user's own comes first, also when it was started after ours, which then ends unless it is used. A server
        on another machine that does not answer is a NetworkError: its models are not here.
        """
        url = ollama_url(self._host)
        try:
            told = await version(url)
        except NetworkError as error:
            if urlsplit(url).hostname not in _LOOPBACK:
                error.hint = "start Ollama there, or change `host`"
                raise
        else:
            if self.ours is not None and not ours_is_used():
                await self.aclose()
            return Found(url, told, None)
        serve = await self._own()
        try:
            told = await version(serve.url)
        except NetworkError:
            # Stuck: with nobody in it, another takes its place.
            if ours_is_used():
                raise
            if self.ours is serve:
                await self.aclose()
            serve = await self._own()
            told = await version(serve.url)
        return Found(serve.url, told, serve)

    async def _own(self) -> "OllamaServe":
        started = self._starting
        if started is None or (started.done() and (self.ours is None or not self.ours.is_running)):
            started = self._starting = asyncio.create_task(self._spawned(self.ours), name="ollama-start")
            # Everybody who waited may have given up: then its failure is nobody's, and no bug.
            started.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            # Who waits may give up, as a probe does after 10 s: the start goes on, for whoever comes next.
            return await asyncio.shield(started)
        except asyncio.CancelledError:
            if not started.cancelled():
                raise
            raise RequestCancelledError("ollama was closed while its server was starting") from None

    async def _spawned(self, old: "OllamaServe | None") -> "OllamaServe":
        if old is not None:
            await old.aclose()
        argv, env, cwd = self._command()
        await asyncio.sleep(self._restarts.wait_s(has_died=self._has_failed or old is not None))
        serve = await OllamaServe.spawn(argv, env=env, cwd=cwd)
        try:
            doing = "waiting for `ollama serve` to answer"
            await within(serve.answers(), self._spawn_s, deadline="spawn_s", doing=doing)
        except BaseException as error:
            self._has_failed = isinstance(error, RunnerError)
            await asyncio.shield(serve.aclose())
            raise
        self._has_failed = False
        return serve

    async def aclose(self) -> None:
        """Ends our server, when there is one. Never another's."""
        started, self._starting = self._starting, None
        if started is None:
            return
        started.cancel()
        await asyncio.wait([started])
        if not started.cancelled() and not started.exception():
            await asyncio.shield(started.result().aclose())


class OllamaServe:
    """A server on a loopback port of the system's choice. It ends with its provider.

    `when_exited` holds who wants to know that its process has ended.
    """

    def __init__(self, cli: CliProcess) -> None:
        self.url = ""
        self.when_exited: set[Callable[[], None]] = set()
        self.process = ProcessRef(cli.pid, cli.start_time)
        self._cli = cli
        # It writes a line for each request; a pipe that nobody reads would stop it.
        self._draining = asyncio.create_task(self._drain(), name=f"ollama-drain-{cli.pid}")
        cli.when_exited(self._exited)

    @classmethod
    async def spawn(cls, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> "OllamaServe":
        """Starts it; that it answers is another matter, and may take a minute."""
        # Port 0: one that we chose could be another's by the time it listens. Without NOPRUNE each start deletes
        # the user's unfinished downloads.
        env = {**env, "OLLAMA_HOST": "127.0.0.1:0", "OLLAMA_NOPRUNE": "1"}
        return cls(await CliProcess.spawn(argv, env=env, cwd=cwd))

    async def answers(self) -> None:
        """Waits until it answers: it listens long before, while it looks at the machine's GPUs."""
        while True:
            if not self.url and (said := _LISTENING.search(self._cli.stderr_tail)):
                self.url = f"http://127.0.0.1:{said[1]}"
            try:
                if self.url:
                    await version(self.url)
                    return
            except NetworkError:
                pass
            if not self.is_running:
                raise await self.exited() or ProtocolError("ollama serve ended")
            await asyncio.sleep(_TRIES_EVERY_S)

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._cli.returncode is None

    def _exited(self) -> None:
        for told in list(self.when_exited):
            told()

    async def exited(self) -> ProcessExitedError | None:
        """Why it is gone, with its last words; None when, a moment later, it still runs."""
        error = await self._cli.exited_early("its server is gone")
        return None if self.is_running else error

    async def _drain(self) -> None:
        try:
            while await self._cli.read_line() is not None:
                pass
        except RunnerError:
            self._cli.kill()  # a line over the cap: that is no `ollama`
        await self._cli.wait()
        # However it ended: the models that it ran would stay, with the memory that they hold.
        await self._cli.aclose(ask=False)

    async def aclose(self) -> None:
        """Ends it and the models that it runs."""
        await self._cli.aclose(ask=False)
        await self._draining
