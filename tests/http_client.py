"""A raw HTTP client: a test may send whatever bytes it likes, and sees what comes back as it comes.

It speaks to the daemon's socket and to its TCP port alike. Every wait is bounded by `END_S`.
"""

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self, cast
from urllib.parse import urlsplit

from tests.programs import ECHO
from tests.world import END_S, Daemon, World, user

Place = Path | tuple[str, int]
"""A socket's path, or the host and port of TCP."""

ON_TCP = 'daemon: {http: {tcp: "127.0.0.1:0"}}\n'
RUNNERS = f"runners:\n{ECHO}"
"""A configuration of a daemon that listens on TCP too, in two parts."""

Headers = Mapping[str, str]
NO_HEADERS: Headers = {}

COMPLETIONS, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
COUNT = "/v1/messages/count_tokens"
CHATS = (COMPLETIONS, RESPONSES, MESSAGES)


class Answer(NamedTuple):
    """A whole answer. The names of its headers are in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> "list[Event]":
        """Of an answer that is a stream."""
        return [Event.read(block) for block in self.body.split(b"\n\n")[:-1]]


class Event(NamedTuple):
    """A server-sent event; `data` is as it came where it is no JSON, and None in a comment."""

    name: str | None
    data: Any

    @classmethod
    def read(cls, block: bytes) -> "Event":
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
        data = fields.get("data")
        with suppress(ValueError, TypeError):
            data = json.loads(data)  # type: ignore[arg-type]
        return cls(fields.get("event"), data)


class Http:
    """A connection. What is asked on it is answered in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, place: Place) -> "Http":
        limit = 256 * 1024 * 1024
        if isinstance(place, Path):
            return cls(*await asyncio.open_unix_connection(place, limit=limit))
        return cls(*await asyncio.open_connection(*place, limit=limit))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    def is_deaf(self, deaf: bool) -> None:
        """Reads nothing from now on, or again. Else asyncio reads ahead."""
        transport = cast("asyncio.Transport", self.writer.transport)
        (transport.pause_reading if deaf else transport.resume_reading)()

    async def write(self, data: bytes) -> None:
        """Sends raw bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def send(self, method: str, path: str, body: Any = None, headers: Headers = NO_HEADERS) -> None:
        """Sends a request. A body that is no bytes is sent as JSON."""
        await self.write(request(method, path, body, headers))

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status and headers of the next answer; ConnectionError when none comes."""
        async with asyncio.timeout(END_S):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                raise ConnectionResetError(f"the daemon closed the connection behind {error.partial!r}") from None
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return int(first.split()[1]), {name.lower(): value for name, value in pairs}

    async def chunk(self) -> bytes:
        """The next piece of a body whose length was not told; nothing at its end. ConnectionError when it is cut."""
        async with asyncio.timeout(END_S):
            try:
                size = int(await self.reader.readuntil(b"\r\n"), 16)
                return (await self.reader.readexactly(size + 2))[:-2]
            except asyncio.IncompleteReadError:
                raise ConnectionResetError("the daemon cut the answer") from None

    async def events(self) -> AsyncIterator[Event]:
        """The events of a stream whose head was read, as they come."""
        rest = b""
        while piece := await self.chunk():
            *blocks, rest = (rest + piece).split(b"\n\n")
            for block in blocks:
                yield Event.read(block)
        assert rest == b""

    async def answer(self) -> Answer:
        """The next answer, whole."""
        status, headers = await self.head()
        if headers.get("transfer-encoding") == "chunked":
            pieces = []
            while piece := await self.chunk():
                pieces.append(piece)
            return Answer(status, headers, b"".join(pieces))
        async with asyncio.timeout(END_S):
            size = int(headers.get("content-length", 0))
            return Answer(status, headers, await self.reader.readexactly(size))

    async def ask(self, method: str, path: str, body: Any = None, headers: Headers = NO_HEADERS) -> Answer:
        """A request and its answer."""
        await self.send(method, path, body, headers)
        return await self.answer()


def request(method: str, path: str, body: Any = None, headers: Headers = NO_HEADERS) -> bytes:
    """The bytes of a request."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    whole = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": str(len(data)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in whole.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + data


async def ask(place: Place, method: str, path: str, body: Any = None, headers: Headers = NO_HEADERS) -> Answer:
    """A request on a connection of its own, and its answer."""
    async with await Http.connect(place) as client:
        return await client.ask(method, path, body, headers)


def http_socket(daemon: Daemon) -> Path:
    """Where a daemon serves HTTP without a token."""
    return daemon.world.socket.with_name("http.sock")


def tcp(daemon: Daemon) -> tuple[str, int]:
    """Where a daemon serves HTTP with one."""
    [url] = [address for address in daemon.wait_for("daemon.ready")["http"] if address.startswith("http://")]
    found = urlsplit(url)
    assert found.hostname is not None
    assert found.port is not None
    return found.hostname, found.port


def token_file(world: World) -> Path:
    """Where the token is, unless another place is named."""
    return world.state / "runnerd" / "token"


def bearer(daemon: Daemon) -> dict[str, str]:
    """The header that opens its TCP door."""
    return {"Authorization": f"Bearer {token_file(daemon.world).read_text().strip()}"}


def mode(path: Path) -> int:
    """Its permissions."""
    return stat.S_IMODE(path.stat().st_mode)


def refused(world: World, config: Path) -> str:
    """What a `serve` that must not start says; it must leave no socket."""
    done = world.runnerd("serve", "--config", str(config))
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert not list(world.root.rglob("*.sock"))
    return done.stderr.decode()


def chat(path: str, text: str = "Hi", model: str = "echo", **fields: Any) -> dict[str, Any]:
    """The body of a chat in the words of the API at `path`."""
    said: dict[str, Any] = {"input": text} if path == RESPONSES else {"messages": user(text)}
    return (
        {"model": model, "max_tokens": 100, **said, **fields}
        if path == MESSAGES
        else {"model": model, **said, **fields}
    )


def text_of(path: str, answer: Any) -> str:
    """The text of an answer of that API."""
    if path == COMPLETIONS:
        return str(answer["choices"][0]["message"]["content"])
    pieces = answer["content"] if path == MESSAGES else [part for item in answer["output"] for part in item["content"]]
    return "".join(piece["text"] for piece in pieces)
