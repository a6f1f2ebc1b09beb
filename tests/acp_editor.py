"""An editor for the tests of `runnerd acp`: the client side of the official package, and what it saw."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import acp
import psutil
from acp import RequestError
from acp.client.connection import ClientSideConnection
from acp.schema import (
    AllowedOutcome,
    ClientCapabilities,
    DeniedOutcome,
    FileSystemCapabilities,
    ReadTextFileResponse,
    RequestPermissionResponse,
)

from tests.world import END_S, Daemon, World

T = TypeVar("T")
FILES = FileSystemCapabilities(read_text_file=True, write_text_file=True)


class Editor:
    """A running `runnerd acp` and the editor at its other end.

    `files` is what the editor reads and writes by path, `answer` the id of the option that its user chooses when leave
    is asked for, None for neither, `never` when it has no answer. Every update is in `updates`, as it was on the wire.
    """

    def __init__(self, process: asyncio.subprocess.Process, cwd: Path) -> None:
        self.process = process
        self.cwd = str(cwd)
        self.files: dict[str, str] = {}
        self.answer: str | None = "once"
        self.asked: list[dict[str, Any]] = []
        self.is_asked = asyncio.Event()
        self.updates: list[dict[str, Any]] = []
        self.said = b""
        self.session = ""
        self._changed = asyncio.Condition()
        assert process.stdin is not None
        assert process.stdout is not None
        client = cast("acp.Client", self)
        self.agent: ClientSideConnection = acp.connect_to_agent(client, process.stdin, process.stdout)

    async def session_update(self, update: Any, **_: Any) -> None:
        async with self._changed:
            self.updates.append(update.model_dump(mode="json", by_alias=True, exclude_none=True))
            self._changed.notify_all()

    async def read_text_file(
        self, path: str, line: int | None = None, limit: int | None = None, **_: Any
    ) -> ReadTextFileResponse:
        if path not in self.files:
            raise RequestError.resource_not_found(path)
        lines = self.files[path].splitlines(keepends=True)[(line or 1) - 1 :]
        return ReadTextFileResponse(content="".join(lines if limit is None else lines[:limit]))

    async def write_text_file(self, content: str, path: str, **_: Any) -> None:
        self.files[path] = content

    async def request_permission(self, tool_call: Any, options: list[Any], **_: Any) -> RequestPermissionResponse:
        self.asked.append(tool_call.model_dump(mode="json", by_alias=True, exclude_none=True))
        self.is_asked.set()
        if self.answer == "never":
            await asyncio.Event().wait()
        if self.answer is None:
            return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
        assert self.answer in [option.option_id for option in options]
        return RequestPermissionResponse(outcome=AllowedOutcome(outcome="selected", option_id=self.answer))

    async def new(self, **fields: Any) -> Any:
        """Begins a session in the editor's directory; from now on it is the one."""
        made = await within(self.agent.new_session(cwd=self.cwd, mcp_servers=[], **fields))
        self.session = made.session_id
        return made

    async def choose(self, model: str) -> Any:
        """Chooses a model for the session."""
        return await within(self.agent.set_config_option(config_id="model", session_id=self.session, value=model))

    async def ask(self, *blocks: Any) -> tuple[str, Any]:
        """A whole turn: the text of its answer, and the response. A text is a block."""
        seen = len(self.updates)
        prompt = [acp.text_block(block) if isinstance(block, str) else block for block in blocks]
        response = await within(self.agent.prompt(session_id=self.session, prompt=prompt))
        return self.text(seen), response

    def text(self, start: int = 0) -> str:
        """The texts of the answers since a number of updates."""
        return "".join(
            update["content"]["text"] for update in self.updates[start:] if kind(update) == "agent_message_chunk"
        )

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """The updates of some kinds."""
        return [update for update in self.updates if kind(update) in kinds]

    async def seen(self, text: str) -> None:
        """Waits until the answers have a text in them."""
        async with self._changed:
            await within(self._changed.wait_for(lambda: text in self.text()))

    async def end(self) -> int:
        """Ends its stdin, as an editor does that closes; the exit code. What it said on stderr is `said`."""
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        self.process.stdin.close()
        self.said += await within(self.process.stderr.read())
        return await within(self.process.wait())


@asynccontextmanager
async def editor(world: World, *arguments: str, fs: FileSystemCapabilities | None = None) -> AsyncIterator[Editor]:
    """Starts `runnerd acp` as an editor with these hands does, and ends it; it must end well and say nothing wrong."""
    cwd = world.root / "project"
    cwd.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "runnerd", "acp", *arguments]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, env=world.env, cwd=cwd, limit=2**26, stdin=pipe, stdout=pipe, stderr=pipe
    )
    made = Editor(process, cwd)
    try:
        capabilities = ClientCapabilities(fs=fs or FileSystemCapabilities())
        await within(made.agent.initialize(protocol_version=1, client_capabilities=capabilities))
        yield made
        code = await made.end()
        assert (code, b"Traceback" in made.said) == (0, False), made.said.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await made.agent.close()


def forget(daemon: Daemon) -> None:
    """Takes away what a test has left of its conversations; fails when something still runs beside the daemon."""
    left = [process for process in daemon.world.processes() if process.pid != daemon.process.pid]
    _, left = psutil.wait_procs(left, timeout=END_S)
    assert not left
    shutil.rmtree(daemon.world.state / "runnerd" / "acp", ignore_errors=True)


def kind(update: dict[str, Any]) -> str:
    """What an update is of."""
    return str(update["sessionUpdate"])


def stored(world: World) -> list[list[dict[str, Any]]]:
    """The lines of every conversation that is kept."""
    files = sorted((world.state / "runnerd" / "acp").iterdir())
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


async def within(awaited: Awaitable[T]) -> T:
    """The result of what must not hang."""
    return await asyncio.wait_for(awaited, END_S)
